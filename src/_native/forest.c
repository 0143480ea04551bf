#include "forest.h"

#include <math.h>
#include <string.h>

/* Rows that go down a tree side by side: the next step of one does not wait for the memory of another. Their values of a feature are
 * laid side by side before, for near the root all rows ask for the same. */
enum { ABREAST = N4A_ABREAST, STEPS = 4 };

int n4a_forest_is_sound(const n4a_forest *forest, int64_t features, int64_t outputs) {
  int sound = forest->width >= 1;
  for (int64_t at = 0; at < forest->tree_count; at++) {
    const n4a_tree *tree = forest->trees + at;
    sound &= 0 <= tree->root && tree->root < forest->count && 0 <= tree->column && tree->column + forest->width <= outputs;
  }
  for (int64_t at = 0; at < forest->count; at++) {
    const n4a_node *node = forest->nodes + at;
    int leaf = node->left == at && node->threshold == INFINITY;
    sound &= 0 <= node->feature && node->feature < features && (leaf || (0 <= node->left && node->left < forest->count - 1));
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

static int64_t short_at(const char *place) {
  uint32_t found;
  memcpy(&found, place, sizeof found);
  return found;
}

int64_t n4a_grown_tree_needs(const char *nodes, const n4a_grown *grown, int64_t count, int64_t bitsets) {
  int64_t most = 0, feature;
  int sound = count >= 1;
  for (int64_t at = 0; at < count; at++, nodes += grown->stride) {
    if (nodes[grown->is_leaf]) continue;
    int64_t left = short_at(nodes + grown->left), right = short_at(nodes + grown->right);
    memcpy(&feature, nodes + grown->feature, sizeof feature);
    sound &= at < left && left < count && at < right && right < count && 0 <= feature && feature < INT64_MAX;
    sound &= !nodes[grown->is_categorical] || short_at(nodes + grown->bitset) < bitsets;
    if (feature >= most && feature < INT64_MAX) most = feature + 1;
  }
  return sound ? most : -1;
}

#define VALUE float
#define NAME(name) name##_float
#include "forest_body.h"

#define VALUE double
#define NAME(name) name##_double
#include "forest_body.h"
