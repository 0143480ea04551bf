#include "row_map.h"

#include <math.h>
#include <pthread.h>

/* Targets that one pass over the rows serves. */
enum { MOST_TARGETS = 128 };

/* How a tile takes its values: as they are, less the centre, less the row's pilot, and the first time with the sums for its deviation. */
typedef enum { PLAIN, CENTRED, DEVIATING, DEVIATING_FIRST } n4a_way;

/* What is done to the products of one row: it was taken less `pilot`, its mean is `shift` away from that. */
typedef struct {
  double pilot, shift, scale;
  int good;
} n4a_row;

/* Of the weights of each target: their sum, and their product with the centre. */
typedef struct {
  double weight[MOST_TARGETS], center[MOST_TARGETS];
} n4a_sums;

/* Into the second cache: four rows and the next four do not fit into the first. */
static inline void n4a_ask_for(const double *values) { __builtin_prefetch(values, 0, 2); }

/* A deviation below 2^-48 of the mean is nothing but rounding and says nothing: NaN, as for a constant row. */
static inline double n4a_inverse_deviation(double squares, double mean, double degrees) {
  return squares / degrees > mean * mean * 0x1p-96 ? 1 / sqrt(squares / degrees) : NAN;
}

/* A value near the mean of a row: squares around it keep the digits that squares around zero would lose. */
static inline double n4a_pilot(const double *x, int64_t columns) {
  double total = 0;
  for (int64_t part = 1; part < 16; part += 2) total += x[part * columns / 16];
  return total / 8;
}

/* Mean and deviation from sums around the pilot; not good when the pilot was some four deviations away, which costs four bits. */
static inline void n4a_know_row(const n4a_map *map, double sum, double squares, n4a_row *row) {
  double n = (double)map->columns, around_mean = squares - sum * (sum / n);
  row->shift = sum / n;
  row->scale = n4a_inverse_deviation(around_mean, row->pilot + row->shift, n - (double)map->ddof);
  row->good = !(around_mean * 16 < squares);
}

/* The mean as pilot where the first one was not good; whether there was any such row. */
static inline int n4a_better_pilots(n4a_row *rows, int count) {
  int better = 0;
  for (int r = 0; r < count; r++)
    if (!rows[r].good) rows[r].pilot += rows[r].shift, better = 1;
  return better;
}

/* Every compiler for Unix has vectors of any length; without wider registers it splits them. */
#define LANES 2
#define TARGET
#define NAME(name) name##_portable
#include "row_map_body.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_LEVELS 1

#define LANES 4
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(name) name##_avx2
#include "row_map_body.h"

#define LANES 8
#define TARGET __attribute__((target("avx512f,avx512dq,avx2,fma,prefer-vector-width=512")))
#define NAME(name) name##_avx512
#include "row_map_body.h"
#endif

typedef void (*runner)(const n4a_map *, int64_t, int64_t);

static const struct {
  const char *name;
  runner run;
} LEVELS[] = {
    {"portable", run_portable},
#ifdef HAS_LEVELS
    {"avx2", run_avx2},
    {"avx512", run_avx512},
#endif
};

int n4a_levels(void) {
#ifdef HAS_LEVELS
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? 3 : 2;
#else
  return 1;
#endif
}

/* A single target waits for memory, not for arithmetic, and wide loads from rows that begin anywhere cross more lines of the cache. */
int n4a_best_level(int64_t targets) {
  int best = n4a_levels() - 1;
  return targets == 1 && best > 1 ? 1 : best;
}

const char *n4a_level_name(int level) { return LEVELS[level].name; }

enum { MOST_THREADS = 64 };

typedef struct {
  const n4a_map *map;
  runner run;
  int64_t from, to;
} share;

static void *run_share(void *argument) {
  const share *part = argument;
  part->run(part->map, part->from, part->to);
  return NULL;
}

void n4a_map_run(const n4a_map *map, int threads, int level) {
  runner run = LEVELS[level].run;
  pthread_t started[MOST_THREADS];
  share parts[MOST_THREADS];
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  if (threads > map->rows) threads = (int)map->rows;
  int running = 0;
  int64_t done = 0;
  for (; running < threads - 1; running++) {
    parts[running] = (share){map, run, done, done + map->rows / threads};
    if (pthread_create(started + running, NULL, run_share, parts + running)) break; /* then this thread does the rest */
    done = parts[running].to;
  }
  run(map, done, map->rows);
  while (running) pthread_join(started[--running], NULL);
}
