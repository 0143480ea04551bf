/* Sums of decision trees over rows of spectra. Promises: nothing is allocated, nothing is written but `total`, no Python.
 * Leaves the GIL to kernels.pyx. */
#ifndef N4A_FOREST_H
#define N4A_FOREST_H

#include <stdint.h>

enum { N4A_ABREAST = 16 };

/* A row goes from a node to `left` if its value of `feature` is at most `threshold`, else to the node behind that one.
 * A leaf has itself as `left` and an infinite threshold, so that a row may take further steps there. */
typedef struct {
  double threshold;
  int32_t feature, left;
} n4a_node;

/* The first node of a tree, the steps to its deepest leaf, and the first column of `total` that its leaves add to. */
typedef struct {
  int32_t root, depth, column;
} n4a_tree;

/* All trees: a leaf adds `width` values, those at its place in `values`. Sums of trees that add in single precision are rounded to it
 * after each tree: of two numbers in single precision that is the sum which single precision itself gives. */
typedef struct {
  const n4a_node *nodes;
  const double *values;
  const n4a_tree *trees;
  int64_t count, width, tree_count;
  int single;
} n4a_forest;

/* Whether every step leads to a node, and everything lies inside `features` columns of spectra and `outputs` of totals. */
int n4a_forest_is_sound(const n4a_forest *forest, int64_t features, int64_t outputs);

/* The same for one tree of scikit-learn: `stride` bytes a node, of which the first are left child, right child and feature (int64).
 * A left child of -1, and no other number, makes a leaf, whose other numbers are not looked at. */
int n4a_tree_is_sound(const char *nodes, int64_t stride, int64_t count, int64_t features);

/* Where a node of a tree that was grown by histograms has what matters of it, in bytes: children and bitset as uint32, marks as uint8,
 * the feature as int64. */
typedef struct {
  int64_t stride, left, right, is_leaf, is_categorical, bitset, feature;
} n4a_grown;

/* How many features such a tree asks for; -1 where a step leads to no later node, or asks for a feature before the first, or one of
 * `bitsets` that is not there. */
int64_t n4a_grown_tree_needs(const char *nodes, const n4a_grown *grown, int64_t count, int64_t bitsets);

/* Adds to each row's totals what the leaves that it comes to hold, tree after tree, so that the sums are those of a loop over trees.
 * Rows of spectra, and of `total`, lie in C order. `turned` has room for N4A_ABREAST rows. */
void n4a_forest_sum_float(const n4a_forest *forest, const float *x, int64_t features, int64_t rows, float *turned, double *total,
                          int64_t outputs);
void n4a_forest_sum_double(const n4a_forest *forest, const double *x, int64_t features, int64_t rows, double *turned, double *total,
                           int64_t outputs);

#endif
