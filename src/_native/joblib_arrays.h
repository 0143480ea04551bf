/* How far an array's values reach that joblib has put between the opcodes of a pickle, from what it says before them.
 * Promises: what is not said as joblib says it has no extent; nothing is read. Leaves the opcodes to the walk. */
#ifndef N4A_JOBLIB_ARRAYS_H
#define N4A_JOBLIB_ARRAYS_H

#include "opcode_values.h"

/* What the state of an array says, by the dict that holds it. */
typedef struct {
  int32_t dict, is_unknown;
  n4a_value shape, dtype, alignment;
} n4a_described;

/* A type of values: its letter and the bytes of one; 0 for what numpy does not write. */
int64_t n4a_type_named(const uint8_t *name, int64_t length);

/* The same type once it has this state, whose values are given. */
int64_t n4a_type_with_state(int64_t type, const n4a_value *state, int64_t count);

int n4a_type_is_object(int64_t type);

/* An item that is put into the dict of a description. */
void n4a_describe(n4a_described *described, const uint8_t *data, n4a_value key, n4a_value item);

enum { N4A_TOO_LARGE = -1, N4A_NO_SHAPE = -2 };

/* Bytes of an array, at most `most`; or one of these. */
int64_t n4a_extent(int64_t type, const n4a_value *shape, int64_t count, int64_t most);

#endif
