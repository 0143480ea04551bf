#include "forest.h"

#include <string.h>

/* Rows that go down a tree side by side: the next step of one does not wait for the memory of another. */
enum { ABREAST = 16 };

int n4a_forest_is_sound(const n4a_node *nodes, int64_t count, const int32_t *roots, int64_t trees, int64_t features) {
  int sound = 1;
  for (int64_t tree = 0; tree < trees; tree++) sound &= 0 <= roots[tree] && roots[tree] < count;
  for (int64_t at = 0; at < count; at++) {
    const n4a_node *node = nodes + at;
    sound &= 0 <= node->feature && node->feature < features;
    for (int way = 0; way < 2; way++) sound &= at <= node->children[way] && node->children[way] < count;
  }
  return sound;
}

int n4a_tree_is_sound(const char *nodes, int64_t stride, int64_t count, int64_t features) {
  int sound = count >= 1;
  for (int64_t at = 0; at < count; at++, nodes += stride) {
    int64_t link[3];
    memcpy(link, nodes, sizeof link);
    int inside = at < link[0] && link[0] < count && at < link[1] && link[1] < count;
    sound &= link[0] == -1 || (inside && 0 <= link[2] && link[2] < features);
  }
  return sound;
}

/* One step of every row; whether any of them moved. No branch depends on a value, for none could be foretold. */
static inline int step(const n4a_node *nodes, const float *x, int64_t x_stride, int32_t *at, int count) {
  int moved = 0;
  for (int r = 0; r < count; r++) {
    const n4a_node *node = nodes + at[r];
    int32_t next = node->children[!((double)x[r * x_stride + node->feature] <= node->threshold)];
    moved |= next != at[r];
    at[r] = next;
  }
  return moved;
}

void n4a_forest_sum(const n4a_node *nodes, const int32_t *roots, int64_t trees, const float *x, int64_t x_stride, int64_t rows, double *total) {
  for (int64_t first = 0; first < rows; first += ABREAST) {
    int count = rows - first < ABREAST ? (int)(rows - first) : ABREAST;
    for (int64_t tree = 0; tree < trees; tree++) {
      int32_t at[ABREAST];
      for (int r = 0; r < count; r++) at[r] = roots[tree];
      while (step(nodes, x + first * x_stride, x_stride, at, count)) {
      }
      for (int r = 0; r < count; r++) total[first + r] += nodes[at[r]].value;
    }
  }
}
