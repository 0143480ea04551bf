#include "joblib_arrays.h"

#include <string.h>

enum { LETTER_BITS = 8, MOST_DIGITS = 9, OLDEST_STATE = 8, NEWEST_STATE = 9, PART = 2, SIZE = 5, FLAGS = 7, HOLDS_OBJECTS = 1 };

static int letter_of(int64_t type) { return (int)(type & ((1 << LETTER_BITS) - 1)); }

static int64_t type_of(int letter, int64_t size) { return size << LETTER_BITS | letter; }

int n4a_type_is_object(int64_t type) { return letter_of(type) == 'O'; }

int64_t n4a_type_named(const uint8_t *name, int64_t length) {
  int64_t size = 0;
  if (length < 2 || length > MOST_DIGITS + 1 || !memchr("biufcmMSUVO", name[0], 11)) return 0;
  for (int64_t i = 1; i < length; i++) {
    if (name[i] < '0' || name[i] > '9') return 0;
    size = size * 10 + (name[i] - '0');
  }
  return type_of(name[0], name[0] == 'U' ? 4 * size : size);
}

/* No part: that of an array within each value; no objects that the type hides, or does not hide where it is one. */
int64_t n4a_type_with_state(int64_t type, const n4a_value *state, int64_t count) {
  int letter = letter_of(type);
  if (count < OLDEST_STATE || count > NEWEST_STATE || state[PART].kind != N4A_NOTHING) return 0;
  if (state[SIZE].kind != N4A_NUMBER || state[FLAGS].kind != N4A_NUMBER) return 0;
  if ((state[FLAGS].a & HOLDS_OBJECTS) != (letter == 'O')) return 0;
  int has_own = state[SIZE].a >= 0 && state[SIZE].a <= INT32_MAX && memchr("SUV", letter, 3);
  return has_own ? type_of(letter, state[SIZE].a) : type;
}

static int says(const uint8_t *data, n4a_value text, const char *wanted) {
  return text.b == (int64_t)strlen(wanted) && !memcmp(data + text.a, wanted, (size_t)text.b);
}

/* A key that Python may read otherwise than it is written could say again what is known already. */
static int is_plain(const uint8_t *data, n4a_value key) {
  return key.kind == N4A_STRING && key.form != 'S' && (key.form != 'V' || !memchr(data + key.a, '\\', (size_t)key.b));
}

void n4a_describe(n4a_described *described, const uint8_t *data, n4a_value key, n4a_value item) {
  if (!is_plain(data, key)) described->is_unknown = 1;
  if (described->is_unknown) return;
  if (says(data, key, "shape")) described->shape = item;
  if (says(data, key, "dtype")) described->dtype = item;
  if (says(data, key, "numpy_array_alignment_bytes")) described->alignment = item;
}

int64_t n4a_extent(int64_t type, const n4a_value *shape, int64_t count, int64_t most) {
  int64_t bytes = type >> LETTER_BITS, is_empty = 0;
  for (int64_t i = 0; i < count; i++) {
    if (shape[i].kind != N4A_NUMBER || shape[i].a < 0) return N4A_NO_SHAPE;
    is_empty |= !shape[i].a;
  }
  if (is_empty || !bytes) return 0;
  for (int64_t i = 0; i < count; i++) {
    if (bytes > most / shape[i].a) return N4A_TOO_LARGE;
    bytes *= shape[i].a;
  }
  return bytes <= most ? bytes : N4A_TOO_LARGE;
}
