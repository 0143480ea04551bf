/* The walk for one kind of spectra: included once for each, with VALUE and NAME(). */

/* One step of `count` rows. No branch depends on a value, for none could be foretold. */
static inline __attribute__((always_inline)) void NAME(step)(const n4a_node *nodes, const VALUE *x, int32_t *at, const int count) {
#pragma GCC unroll 16
  for (int r = 0; r < count; r++) {
    const n4a_node *node = nodes + at[r];
    at[r] = node->left + ((double)x[(int64_t)node->feature * count + r] > node->threshold);
  }
}

/* `count` rows from `at` to the leaves below; now and then it is seen whether any of them still moves. */
static inline __attribute__((always_inline)) void NAME(descend)(const n4a_node *nodes, int32_t depth, const VALUE *x, int32_t *at,
                                                               const int count) {
  while (depth > 0) {
    int32_t before[ABREAST], moved = 0, steps = depth < STEPS ? depth : STEPS;
    for (int32_t step = 1; step < steps; step++) NAME(step)(nodes, x, at, count);
    memcpy(before, at, sizeof *at * (size_t)count);
    NAME(step)(nodes, x, at, count);
    for (int r = 0; r < count; r++) moved |= before[r] ^ at[r];
    if (!moved) return;
    depth -= steps;
  }
}

/* One tree on `count` rows, whose values of a feature lie side by side in x. */
static inline __attribute__((always_inline)) void NAME(add)(const n4a_forest *forest, const n4a_tree *tree, const VALUE *x, double *total,
                                                           int64_t outputs, const int count) {
  int32_t at[ABREAST];
  for (int r = 0; r < count; r++) at[r] = tree->root;
  NAME(descend)(forest->nodes, tree->depth, x, at, count);
  for (int r = 0; r < count; r++)
    for (int64_t k = 0; k < forest->width; k++) {
      double *sum = total + r * outputs + tree->column + k;
      *sum += forest->values[at[r] * forest->width + k];
      if (forest->single) *sum = (float)*sum;
    }
}

void NAME(n4a_forest_sum)(const n4a_forest *forest, const VALUE *x, int64_t features, int64_t rows, VALUE *turned, double *total,
                          int64_t outputs) {
  for (int64_t row = 0; row < rows;) {
    const VALUE *block = x + row * features;
    double *sums = total + row * outputs;
    if (rows - row < ABREAST) {
      for (int64_t tree = 0; tree < forest->tree_count; tree++) NAME(add)(forest, forest->trees + tree, block, sums, outputs, 1);
      row += 1;
      continue;
    }
    for (int64_t feature = 0; feature < features; feature++)
      for (int r = 0; r < ABREAST; r++) turned[feature * ABREAST + r] = block[r * features + feature];
    for (int64_t tree = 0; tree < forest->tree_count; tree++) NAME(add)(forest, forest->trees + tree, turned, sums, outputs, ABREAST);
    row += ABREAST;
  }
}

#undef VALUE
#undef NAME
