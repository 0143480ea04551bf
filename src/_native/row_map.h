/* Row statistics and affine maps of spectra, one pass over memory, compiled for several instruction sets.
 *
 * Promises: nothing is allocated, nothing is written but `out`, no Python. Each row is read from memory
 * once and stays in the first cache for the passes over it. Leaves to kernels.pyx: shapes, errors, the GIL.
 */
#ifndef N4A_ROW_MAP_H
#define N4A_ROW_MAP_H

#include <stdint.h>

/* What is done to a row first: nothing, (x - mean) / standard deviation, x / (a norm of x). */
typedef enum { N4A_PLAIN, N4A_SNV, N4A_NORM_1, N4A_NORM_2, N4A_NORM_MAX } n4a_statistic;

/* out[r, c] = sum_j (s(x)[r, j] - center[j]) * weights[c, j] + intercept[c]
 * Without `weights` the corrected rows themselves go to `out`, `columns` wide. Strides count doubles. */
typedef struct {
  const double *x;
  int64_t x_stride, rows, columns;
  n4a_statistic statistic;
  int64_t ddof;
  const double *center; /* NULL for none */
  const double *weights;
  int64_t weights_stride, targets;
  const double *intercept;
  double *out;
  int64_t out_stride;
} n4a_map;

/* Runs `map` in at most `threads` threads (the caller's is one) with instruction set `level`. */
void n4a_map_run(const n4a_map *map, int threads, int level);

/* Instruction sets from the portable one (0) up: how many this machine has, and their names. */
int n4a_levels(void);
/* The one that is best here for so many targets. */
int n4a_best_level(int64_t targets);
const char *n4a_level_name(int level);

#endif
