/* What an opcode leaves on the stack of the walk, as far as it matters there. */
#ifndef N4A_OPCODE_VALUES_H
#define N4A_OPCODE_VALUES_H

#include <stdint.h>

enum { N4A_PLAIN, N4A_STRING, N4A_GLOBAL, N4A_OBJECT, N4A_TUPLE, N4A_LIST, N4A_DICT, N4A_SET, N4A_NUMBER, N4A_NOTHING };

typedef struct {
  int64_t a; /* global or object: its place among the globals; string: where it begins; number: itself; tuple: where its
                values are, in a file with joblib's arrays */
  int32_t b; /* string: its length; tuple: how many it holds; object, dict: its number */
  uint8_t kind, form, depth; /* form: how a string is written; whether an object comes from a call */
} n4a_value;

#endif
