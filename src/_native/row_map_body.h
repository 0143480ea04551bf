/* The kernels for one instruction set: included once for each, with LANES doubles a vector, TARGET and NAME(). */

typedef double NAME(vec) __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t NAME(mask) __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
#define VEC NAME(vec)
#define MASK NAME(mask)
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE VEC NAME(all)(double value) { return value - (VEC){0}; }

/* The next values of a row, filled up where fewer than LANES are left. */
INLINE VEC NAME(some)(const double *from, int64_t left, double fill) {
  if (left >= LANES) return *(const VEC *)from;
  VEC value = NAME(all)(fill);
  for (int64_t lane = 0; lane < left; lane++) value[lane] = from[lane];
  return value;
}

INLINE double NAME(sum)(VEC value) {
  double total = 0;
  EACH(lane, LANES) total += value[lane];
  return total;
}

INLINE VEC NAME(magnitude)(VEC value) { return (VEC)((MASK)value & INT64_MAX); }

/* NaN wins, so that it is not lost. */
INLINE VEC NAME(larger)(VEC a, VEC b) {
  MASK take = (b > a) | (b != b);
  return (VEC)((take & (MASK)b) | (~take & (MASK)a));
}

INLINE double NAME(largest)(VEC value) {
  double found = 0;
  for (int lane = 0; lane < LANES; lane++) found = value[lane] > found || value[lane] != value[lane] ? value[lane] : found;
  return found;
}

INLINE VEC NAME(step)(VEC total, VEC x, n4a_statistic kind) {
  if (kind == N4A_NORM_1) return total + NAME(magnitude)(x);
  if (kind == N4A_NORM_MAX) return NAME(larger)(total, NAME(magnitude)(x));
  return kind == N4A_PLAIN ? total + x : total + x * x;
}

/* A row less `middle`: its sum (PLAIN), sum of squares, of absolute values, or the largest of these; asks for the row `next` meanwhile. */
INLINE double NAME(reduce)(const double *x, int64_t columns, double middle, n4a_statistic kind, const double *next) {
  VEC t[4] = {{0}, {0}, {0}, {0}};
  int64_t j = 0;
  for (; j + 4 * LANES <= columns; j += 4 * LANES)
    for (int u = 0; u < 4; u++) {
      if (4 * LANES > LINE || u == 0) n4a_ask_for(next + j + u * LANES);
      t[u] = NAME(step)(t[u], *(const VEC *)(x + j + u * LANES) - middle, kind);
    }
  for (; j < columns; j += LANES) t[0] = NAME(step)(t[0], NAME(some)(x + j, columns - j, middle) - middle, kind);
  if (kind == N4A_NORM_MAX) return NAME(largest)(NAME(larger)(NAME(larger)(t[0], t[1]), NAME(larger)(t[2], t[3])));
  return NAME(sum)((t[0] + t[1]) + (t[2] + t[3]));
}

/* One row less its mean, by its deviation, less the centre. */
INLINE void NAME(correct)(const n4a_map *map, int64_t at) {
  const double *x = map->x + at * map->x_stride;
  double *out = map->out + at * map->out_stride, n = (double)map->columns;
  double mean = NAME(reduce)(x, map->columns, 0, N4A_PLAIN, x) / n;
  double scale = n4a_inverse_deviation(NAME(reduce)(x, map->columns, mean, N4A_SNV, x), mean, n - (double)map->ddof);
  for (int64_t j = 0; j < map->columns; j++) out[j] = (x[j] - mean) * scale - (map->center ? map->center[j] : 0);
}

/* The next values of a row as they are multiplied; `left` is what remains of the row. */
INLINE VEC NAME(taken)(const double *x, const double *center, const n4a_row *row, const n4a_way way, int64_t left, VEC *one, VEC *two) {
  VEC value = NAME(some)(x, left, row->pilot);
  if (way == DEVIATING || way == DEVIATING_FIRST) value -= row->pilot;
  if (way == CENTRED) value -= NAME(some)(center, left, 0);
  if (way == DEVIATING_FIRST) *one += value, *two += value * value;
  return value;
}

/* D vectors of R rows, times C targets. The fewer ones stay in registers, rows or targets, and the others pass by. */
INLINE void NAME(part)(const double *x, int64_t xs, const double *w, int64_t ws, const double *center, const n4a_row *rows, const int R, const int C,
                       const int D, const n4a_way way, int64_t left, VEC (*total)[8], VEC *one, VEC *two) {
  VEC v[4], value[2][4];
  if (C <= R) {
    EACH(c, C) v[c] = NAME(some)(w + c * ws, left, 0);
    EACH(r, R) {
      value[0][r] = NAME(taken)(x + r * xs, center, rows + r, way, left, one + r, two + r);
      EACH(c, C) total[r][c] += value[0][r] * v[c];
    }
  } else {
    EACH(d, D) EACH(r, R) value[d][r] = NAME(taken)(x + r * xs + d * LANES, center + d * LANES, rows + r, way, left, one + r, two + r);
    EACH(c, C) {
      EACH(d, D) v[d] = NAME(some)(w + c * ws + d * LANES, left, 0);
      EACH(d, D) EACH(r, R) total[r][c] += value[d][r] * v[d];
    }
  }
}

/* Products of R rows with C targets, U independent sums each, so that none waits for itself; S vectors of each row a step. Asks for the
 * rows after the next ones meanwhile, in the order in which they lie in memory where they lie side by side: in that order it comes nearly
 * twice as fast. */
INLINE void NAME(tile)(const n4a_map *map, int64_t at, int64_t target, n4a_row *rows, const n4a_sums *sums, const int R, const int C, const int U,
                       const int S, const n4a_way way) {
  const int64_t xs = map->x_stride, ws = map->weights_stride, n = map->columns, by_row = xs == n ? LANES : xs, by_value = xs == n ? R : 1;
  const double *x = map->x + at * xs, *w = map->weights + target * ws, *ahead = target == 0 && at + 3 * R <= map->rows ? x + 2 * R * xs : x;
  const double *center = way == CENTRED ? map->center : x;
  const int D = S > U ? 2 : 1, lines = R * LANES / LINE, vectors = R * LANES < LINE ? LINE / (R * LANES) : 1;
  VEC total[2][4][8], one[2][4], two[2][4];
  EACH(u, U) EACH(r, R) {
    one[u][r] = two[u][r] = (VEC){0};
    EACH(c, C) total[u][r][c] = (VEC){0};
  }
  int64_t j = 0;
  for (; j + S * LANES <= n; j += S * LANES) {
    EACH(s, S) if (s % vectors == 0) EACH(r, lines > 1 ? R : 1) n4a_ask_for(ahead + (j + s * LANES) * by_value + r * by_row);
    EACH(s, S / D) {
      const int64_t k = j + s * D * LANES;
      NAME(part)(x + k, xs, w + k, ws, center + k, rows, R, C, D, way, LANES, total[s % U], one[s % U], two[s % U]);
    }
  }
  for (; j < n; j += LANES) NAME(part)(x + j, xs, w + j, ws, center + j, rows, R, C, 1, way, n - j, total[0], one[0], two[0]);
  EACH(r, R) {
    EACH(u, U - 1) {
      one[0][r] += one[u + 1][r], two[0][r] += two[u + 1][r];
      EACH(c, C) total[0][r][c] += total[u + 1][r][c];
    }
    if (way == DEVIATING_FIRST) n4a_know_row(map, NAME(sum)(one[0][r]), NAME(sum)(two[0][r]), rows + r);
    EACH(c, C) {
      double product = (NAME(sum)(total[0][r][c]) - rows[r].shift * sums->weight[target + c]) * rows[r].scale;
      map->out[(at + r) * map->out_stride + target + c] = product - sums->center[target + c] + map->intercept[target + c];
    }
  }
}

/* R rows by all targets. A value is summed up in the same order for every R, so that a row gives the same bits in any company. */
INLINE void NAME(tiles)(const n4a_map *map, int64_t at, n4a_row *rows, const n4a_sums *sums, const int R, const n4a_way first, const n4a_way later) {
  const int one_target = LANES == 8 || first == later ? 2 : 1;
  int64_t c = 0, end = map->targets;
#if LANES == 8 || defined(__aarch64__) /* with 32 registers */
#if LANES == 2 /* and loads of two vectors at once */
  for (; R == 4 && first == later && c + 8 <= end; c += 8)
    for (int r = 0; r < R; r += 2) NAME(tile)(map, at + r, c, rows + r, sums, 2, 8, 1, 4, later);
#endif
  if (c) /* the first targets are done */;
  else if (end >= 4) NAME(tile)(map, at, 0, rows, sums, R, 4, 1, 1, first), c = 4;
  else if (end >= 2) NAME(tile)(map, at, 0, rows, sums, R, 2, 1, 1, first), c = 2;
  else NAME(tile)(map, at, 0, rows, sums, R, 1, one_target, one_target, first), c = 1;
  for (; c + 4 <= end; c += 4) NAME(tile)(map, at, c, rows, sums, R, 4, 1, 1, later);
#else /* half as many registers */
  if (first == later && end >= 2) NAME(tile)(map, at, 0, rows, sums, R, 2, 1, 1, first), c = 2;
  else NAME(tile)(map, at, 0, rows, sums, R, 1, one_target, one_target, first), c = 1;
#endif
  for (; c + 2 <= end; c += 2) NAME(tile)(map, at, c, rows, sums, R, 2, 1, 1, later);
  if (c < end) NAME(tile)(map, at, c, rows, sums, R, 1, 2, 2, later);
}

/* R rows, from their statistics to their products. */
INLINE void NAME(project)(const n4a_map *map, int64_t at, int64_t to, const n4a_sums *sums, const int R) {
  n4a_row rows[4];
  for (int r = 0; r < R; r++) {
    const double *x = map->x + (at + r) * map->x_stride, *next = at + r + R < to ? x + R * map->x_stride : x;
    rows[r] = (n4a_row){0, 0, 1, 1};
    if (map->statistic == N4A_SNV) rows[r].pilot = n4a_pilot(x, map->columns);
    else if (map->statistic == N4A_NORM_1) rows[r].scale = n4a_inverse_norm(NAME(reduce)(x, map->columns, 0, N4A_NORM_1, next));
    else if (map->statistic == N4A_NORM_2) rows[r].scale = n4a_inverse_norm(sqrt(NAME(reduce)(x, map->columns, 0, N4A_NORM_2, next)));
    else if (map->statistic == N4A_NORM_MAX) rows[r].scale = n4a_inverse_norm(NAME(reduce)(x, map->columns, 0, N4A_NORM_MAX, next));
  }
  if (map->statistic == N4A_SNV) {
    NAME(tiles)(map, at, rows, sums, R, DEVIATING_FIRST, DEVIATING);
    if (n4a_better_pilots(rows, R)) NAME(tiles)(map, at, rows, sums, R, DEVIATING_FIRST, DEVIATING);
  } else if (map->statistic == N4A_PLAIN && map->center) NAME(tiles)(map, at, rows, sums, R, CENTRED, CENTRED);
  else NAME(tiles)(map, at, rows, sums, R, PLAIN, PLAIN);
}

/* What the products of corrected rows need of the weights: their sums, and their products with the centre. */
INLINE void NAME(take_sums)(const n4a_map *map, n4a_sums *sums) {
  for (int64_t c = 0; c < map->targets; c++) {
    const double *w = map->weights + c * map->weights_stride;
    VEC weight = {0}, center = {0};
    for (int64_t j = 0; j < map->columns; j += LANES) {
      VEC v = NAME(some)(w + j, map->columns - j, 0);
      weight += v;
      if (map->center) center += v * NAME(some)(map->center + j, map->columns - j, 0);
    }
    sums->weight[c] = map->statistic == N4A_SNV ? NAME(sum)(weight) : 0;
    sums->center[c] = map->statistic == N4A_PLAIN ? 0 : NAME(sum)(center);
  }
}

TARGET static void NAME(run)(const n4a_map *map, int64_t from, int64_t to) {
  if (!map->weights) {
    for (int64_t row = from; row < to; row++) NAME(correct)(map, row);
    return;
  }
  n4a_map panel = *map;
  n4a_sums sums = {{0}, {0}};
  for (int64_t done = 0; done < map->targets; done += panel.targets) {
    panel.targets = map->targets - done < MOST_TARGETS ? map->targets - done : MOST_TARGETS;
    panel.weights = map->weights + done * map->weights_stride, panel.intercept = map->intercept + done, panel.out = map->out + done;
    if (map->statistic != N4A_PLAIN) NAME(take_sums)(&panel, &sums);
    int64_t row = from;
    for (; row + 4 <= to; row += 4) NAME(project)(&panel, row, to, &sums, 4);
    for (; row < to; row++) NAME(project)(&panel, row, to, &sums, 1);
  }
}

#undef INLINE
#undef VEC
#undef MASK
#undef LANES
#undef TARGET
#undef NAME
