#include "row_map.h"

#include <math.h>
#include <pthread.h>

/* Targets that one pass over the rows serves; doubles in a line of the cache. */
enum { MOST_TARGETS = 128, LINE = 8 };

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

/* Operators take 1 for a norm that is next to nothing, each from a bound of its own: NaN, as for a row of zeros. */
static inline double n4a_inverse_norm(double norm) { return norm >= 1e-9 ? 1 / norm : NAN; }

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

/* Loops of a few rounds, whose number is known, are unrolled before all else: what they index lies in registers then. */
#ifdef __clang__
#define EACH(index, count) _Pragma("clang loop unroll(full)") for (int index = 0; index < (count); index++)
#else
#define EACH(index, count) for (int index = 0; index < (count); index++)
#endif

/* Every compiler for Unix has vectors of any length; without wider registers it splits them. */
#define LANES 2
#define TARGET
#define NAME(name) name##_portable
#include "row_map_body.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_LEVELS 1
#include <cpuid.h>

#define LANES 4
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(name) name##_avx2
#include "row_map_body.h"

/* Without the preference, vectors of 512 bits are split in two. clang has an attribute of its own for it, and ignores a
 * whole target that names something unknown: the level would be compiled for the oldest processor. */
#ifdef __clang__
#define WIDE __attribute__((target("avx512f,avx512dq,avx2,fma"), min_vector_width(512)))
#else
#define WIDE __attribute__((target("avx512f,avx512dq,avx2,fma,prefer-vector-width=512")))
#endif

#define LANES 8
#define TARGET WIDE
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

#ifdef HAS_LEVELS
/* Which registers the system saves when threads change: bit 2 for AVX, bits 5 to 7 for AVX-512. */
static unsigned saved_registers(void) {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

/* The processor is asked itself: the compiler's own question is answered by its runtime, which says no to all where zig links it. */
static int asked_levels(void) {
  const unsigned avx = 0x06, avx512 = 0xe6;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return 1;
  unsigned saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2) || (saved & avx) != avx) return 1;
  return (b & bit_AVX512F) && (b & bit_AVX512DQ) && (saved & avx512) == avx512 ? 3 : 2;
}

/* Asked once: in a virtual machine the question goes to its host and back, which takes longer than the map of one spectrum. */
int n4a_levels(void) {
  static int known;
  int levels = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (!levels) __atomic_store_n(&known, levels = asked_levels(), __ATOMIC_RELAXED);
  return levels;
}
#else
int n4a_levels(void) { return 1; }
#endif

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
