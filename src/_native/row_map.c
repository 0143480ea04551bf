#include "row_map.h"

#include <math.h>
#include <pthread.h>

/* Squares of 2^-48: sums of a few thousand values keep their mean to some 2^-50. */
#define ROUNDING_ALONE 0x1p-96

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
