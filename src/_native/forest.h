/* Sums of decision trees over rows of spectra. Promises: nothing is allocated, nothing is written but `total`, no Python.
 * Leaves the GIL to kernels.pyx. */
#ifndef N4A_FOREST_H
#define N4A_FOREST_H

#include <stdint.h>

/* All trees in one array. A row goes from a node to children[0] if its value of `feature` is at most `threshold`, else to children[1];
 * a leaf is its own child. */
typedef struct {
  double threshold, value;
  int32_t feature, children[2];
} n4a_node;

/* Whether every index lies inside and every way down ends: children lie behind their node, or are the node itself. */
int n4a_forest_is_sound(const n4a_node *nodes, int64_t count, const int32_t *roots, int64_t trees, int64_t features);

/* The same for one tree of scikit-learn: `stride` bytes a node, of which the first are left child, right child and feature (int64).
 * A left child of -1, and no other number, makes a leaf, whose other numbers are not looked at. */
int n4a_tree_is_sound(const char *nodes, int64_t stride, int64_t count, int64_t features);

/* Adds to each row's total the values of the leaves that it comes to, tree after tree, so that the sums are those of a loop over trees. */
void n4a_forest_sum(const n4a_node *nodes, const int32_t *roots, int64_t trees, const float *x, int64_t x_stride, int64_t rows, double *total);

#endif
