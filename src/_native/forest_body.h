/* The walk for one kind of spectra: included once for each, with VALUE and NAME(). */

/* One step of `count` rows. No branch depends on a value, for none could be foretold. */
static inline __attribute__((always_inline)) void NAME(step)(const n4a_node *nodes, const VALUE *const *row, int32_t *at, const int count) {
#pragma GCC unroll 16
  for (int r = 0; r < count; r++) {
    const n4a_node *node = nodes + at[r];
    at[r] = node->left + ((double)row[r][node->feature] > node->threshold);
  }
}

/* `count` rows from `at` to the leaves below; now and then it is seen whether any of them still moves. */
static inline __attribute__((always_inline)) void NAME(descend)(const n4a_node *nodes, int32_t depth, const VALUE *const *row, int32_t *at,
                                                               const int count) {
  while (depth > 0) {
    int32_t before[ABREAST], moved = 0, steps = depth < STEPS ? depth : STEPS;
    for (int32_t step = 1; step < steps; step++) NAME(step)(nodes, row, at, count);
    memcpy(before, at, sizeof *at * (size_t)count);
    NAME(step)(nodes, row, at, count);
    for (int r = 0; r < count; r++) moved |= before[r] ^ at[r];
    if (!moved) return;
    depth -= steps;
  }
}

static inline __attribute__((always_inline)) void NAME(add)(const n4a_forest *forest, const n4a_tree *tree, const VALUE *x, int64_t features,
                                                           double *total, int64_t outputs, const int count) {
  const VALUE *row[ABREAST];
  int32_t at[ABREAST];
  for (int r = 0; r < count; r++) at[r] = tree->root, row[r] = x + r * features;
  NAME(descend)(forest->nodes, tree->depth, row, at, count);
  for (int r = 0; r < count; r++)
    for (int64_t k = 0; k < forest->width; k++) total[r * outputs + tree->column + k] += forest->values[at[r] * forest->width + k];
}

void NAME(n4a_forest_sum)(const n4a_forest *forest, const VALUE *x, int64_t features, int64_t rows, double *total, int64_t outputs) {
  int64_t block = BLOCK_BYTES / (ABREAST * (int64_t)sizeof(VALUE) * features) * ABREAST;
  if (block < ABREAST) block = ABREAST;
  for (int64_t first = 0; first < rows; first += block) {
    int64_t end = rows - first < block ? rows : first + block;
    for (int64_t tree = 0; tree < forest->tree_count; tree++) {
      int64_t row = first;
      for (; row + ABREAST <= end; row += ABREAST)
        NAME(add)(forest, forest->trees + tree, x + row * features, features, total + row * outputs, outputs, ABREAST);
      for (; row < end; row++) NAME(add)(forest, forest->trees + tree, x + row * features, features, total + row * outputs, outputs, 1);
    }
  }
}

#undef VALUE
#undef NAME
