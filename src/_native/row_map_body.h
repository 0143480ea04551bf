/* The kernels for one instruction set: included once for each, with LANES doubles a vector, TARGET and NAME(). */

typedef double NAME(vec) __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t NAME(mask) __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
#define VEC NAME(vec)
#define MASK NAME(mask)
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE VEC NAME(all)(double value) { return value - (VEC){0}; }

/* The last `count` < LANES values of a row, the vector filled up. */
INLINE VEC NAME(tail)(const double *from, int64_t count, double fill) {
  VEC value = NAME(all)(fill);
  for (int64_t lane = 0; lane < count; lane++) value[lane] = from[lane];
  return value;
}

INLINE double NAME(sum)(VEC value) {
  double total = 0;
  for (int lane = 0; lane < LANES; lane++) total += value[lane];
  return total;
}

INLINE VEC NAME(magnitude)(VEC value) { return (VEC)((MASK)value & INT64_MAX); }

/* NaN wins, so that it is not lost. */
INLINE VEC NAME(larger)(VEC a, VEC b) {
  MASK take = (b > a) | (b != b);
  return (VEC)((take & (MASK)b) | (~take & (MASK)a));
}

INLINE VEC NAME(step)(VEC total, VEC x, double mean, n4a_statistic kind) {
  if (kind == N4A_PLAIN) return total + x;
  if (kind == N4A_NORM_1) return total + NAME(magnitude)(x);
  if (kind == N4A_NORM_MAX) return NAME(larger)(total, NAME(magnitude)(x));
  VEC d = x - mean;
  return total + d * d;
}

/* A row's sum (PLAIN), sum of absolute values, largest absolute value, or sum of squares around `mean`; asks for `next` meanwhile. */
INLINE double NAME(reduce)(const double *x, int64_t columns, double mean, n4a_statistic kind, const double *next) {
  VEC t[4] = {{0}, {0}, {0}, {0}};
  int64_t j = 0;
  for (; j + 4 * LANES <= columns; j += 4 * LANES)
    for (int u = 0; u < 4; u++) {
      if (next) __builtin_prefetch(next + j + u * LANES);
      t[u] = NAME(step)(t[u], *(const VEC *)(x + j + u * LANES), mean, kind);
    }
  for (; j + LANES <= columns; j += LANES) t[0] = NAME(step)(t[0], *(const VEC *)(x + j), mean, kind);
  if (j < columns) t[1] = NAME(step)(t[1], NAME(tail)(x + j, columns - j, kind == N4A_SNV ? mean : 0), mean, kind);
  if (kind != N4A_NORM_MAX) return NAME(sum)((t[0] + t[1]) + (t[2] + t[3]));
  VEC most = NAME(larger)(NAME(larger)(t[0], t[1]), NAME(larger)(t[2], t[3]));
  double found = 0;
  for (int lane = 0; lane < LANES; lane++) found = most[lane] > found || most[lane] != most[lane] ? most[lane] : found;
  return found;
}

/* What a row is shifted and scaled by; `next` is the row to ask memory for meanwhile. */
INLINE void NAME(statistic)(const n4a_map *map, const double *x, const double *next, double *shift, double *scale) {
  int64_t n = map->columns;
  *shift = 0;
  switch (map->statistic) {
    case N4A_PLAIN: *scale = 1; break;
    case N4A_NORM_1: *scale = 1 / NAME(reduce)(x, n, 0, N4A_NORM_1, next); break;
    case N4A_NORM_2: *scale = 1 / sqrt(NAME(reduce)(x, n, 0, N4A_NORM_2, next)); break;
    case N4A_NORM_MAX: *scale = 1 / NAME(reduce)(x, n, 0, N4A_NORM_MAX, next); break;
    case N4A_SNV: {
      double mean = NAME(reduce)(x, n, 0, N4A_PLAIN, NULL) / (double)n;
      double square = NAME(reduce)(x, n, mean, N4A_SNV, next) / (double)(n - map->ddof);
      /* A deviation that is nothing but rounding of the mean says nothing: NaN, as for a constant row. */
      *shift = mean, *scale = square > mean * mean * ROUNDING_ALONE ? 1 / sqrt(square) : NAN;
    }
  }
}

/* R rows by C targets, U independent sums each, so that none waits for itself. Without a centre the scale waits for the end. */
INLINE void NAME(tile)(const n4a_map *map, int64_t row, int64_t target, const double *shift, const double *scale, const int R, const int C,
                       const int U, const int corrected, const int centred) {
  const double *x = map->x + row * map->x_stride, *w = map->weights + target * map->weights_stride, *center = map->center;
  const int asks = !corrected && target == 0; /* for the next rows, which no statistic has asked for */
  const double *next = row + 2 * R <= map->rows ? x + R * map->x_stride : x;
  VEC total[4][4][4];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++)
      for (int u = 0; u < U; u++) total[r][c][u] = (VEC){0};
  int64_t j = 0, n = map->columns;
  for (; j + U * LANES <= n; j += U * LANES)
    for (int u = 0; u < U; u++) {
      VEC v[4], middle = centred ? *(const VEC *)(center + j + u * LANES) : (VEC){0};
      for (int c = 0; c < C; c++) v[c] = *(const VEC *)(w + c * map->weights_stride + j + u * LANES);
      for (int r = 0; r < R; r++) {
        VEC value = *(const VEC *)(x + r * map->x_stride + j + u * LANES);
        if (asks) __builtin_prefetch(next + r * map->x_stride + j + u * LANES);
        if (corrected) value -= shift[r];
        if (centred) value = corrected ? value * scale[r] - middle : value - middle;
        for (int c = 0; c < C; c++) total[r][c][u] += value * v[c];
      }
    }
  for (int64_t left; j < n; j += LANES) {
    left = n - j < LANES ? n - j : LANES;
    VEC v[4], middle = centred ? NAME(tail)(center + j, left, 0) : (VEC){0};
    for (int c = 0; c < C; c++) v[c] = NAME(tail)(w + c * map->weights_stride + j, left, 0);
    for (int r = 0; r < R; r++) {
      VEC value = NAME(tail)(x + r * map->x_stride + j, left, 0);
      if (corrected) value -= shift[r];
      if (centred) value = corrected ? value * scale[r] - middle : value - middle;
      for (int c = 0; c < C; c++) total[r][c][0] += value * v[c];
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) {
      VEC t = total[r][c][0];
      for (int u = 1; u < U; u++) t += total[r][c][u];
      double product = NAME(sum)(t);
      map->out[(row + r) * map->out_stride + target + c] = (corrected && !centred ? product * scale[r] : product) + map->intercept[target + c];
    }
}

#define TILE(R, C, U, CORRECTED) \
  (map->center ? NAME(tile)(map, row, c, shift, scale, R, C, U, CORRECTED, 1) : NAME(tile)(map, row, c, shift, scale, R, C, U, CORRECTED, 0))

/* R rows by all targets. A value is summed up in the same order for every R, so that a row gives the same bits in any company. */
INLINE void NAME(project)(const n4a_map *map, int64_t row, const double *shift, const double *scale, const int R, const int corrected) {
  int64_t c = 0;
#if LANES == 8
  for (; c + 4 <= map->targets; c += 4) TILE(R, 4, 1, corrected);
#endif
  for (; c + 2 <= map->targets; c += 2) TILE(R, 2, 1, corrected);
  if (c < map->targets) TILE(R, 1, 2, corrected);
}

/* One corrected row into `out`. */
INLINE void NAME(correct)(const n4a_map *map, int64_t row, double shift, double scale) {
  const double *x = map->x + row * map->x_stride;
  double *out = map->out + row * map->out_stride;
  for (int64_t j = 0; j < map->columns; j++) out[j] = (x[j] - shift) * scale - (map->center ? map->center[j] : 0);
}

TARGET static void NAME(run)(const n4a_map *map, int64_t from, int64_t to) {
  double shift[4], scale[4];
  for (int64_t row = from; row < to;) {
    int count = map->weights && row + 4 <= to ? 4 : 1;
    for (int r = 0; r < count; r++) {
      const double *x = map->x + (row + r) * map->x_stride;
      NAME(statistic)(map, x, row + r + count < to ? x + count * map->x_stride : NULL, shift + r, scale + r);
    }
    if (!map->weights) NAME(correct)(map, row, *shift, *scale);
    else if (map->statistic == N4A_PLAIN) count == 4 ? NAME(project)(map, row, shift, scale, 4, 0) : NAME(project)(map, row, shift, scale, 1, 0);
    else count == 4 ? NAME(project)(map, row, shift, scale, 4, 1) : NAME(project)(map, row, shift, scale, 1, 1);
    row += count;
  }
}

#undef TILE
#undef INLINE
#undef VEC
#undef MASK
#undef LANES
#undef TARGET
#undef NAME
