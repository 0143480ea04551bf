/* A walk over the opcodes of a pickle that makes nothing of it: which globals it names and what it would do with them, and
 * where joblib has put arrays between them.
 * Promises: every byte is read once and within bounds; memory is bounded by the caller's limit; no Python, no recursion;
 * C's unpickler finds the same opcodes at the same places. Leaves what may be done to the caller.
 *
 * (a) C's unpickler drops what is left of a frame when an opcode reads beyond it, so here nothing may.
 * (b) An object is given state once: what a first state has put in the place of a method, a second one would call.
 * (c) Where an array of joblib's ends follows from its type and shape. What tuples hold is kept for that, so the walk
 *     begins again, and keeps it, in the few files that name joblib's arrays. */
#ifndef N4A_OPCODE_WALK_H
#define N4A_OPCODE_WALK_H

#include "opcode_values.h"

/* What is done with a global, or with what was made from it. */
enum {
  N4A_CALLED = 1,    /* called with arguments of any kind */
  N4A_MADE = 2,      /* an instance made by its __new__ alone, without arguments */
  N4A_MADE_WITH = 4, /* the same, with arguments */
  N4A_CHANGED = 8,   /* the global itself is given state or items, or what was made from it is called */
  N4A_FILLED = 16,   /* items are put into what was made from it, by its own methods */
  N4A_BUILT = 32,    /* state is given to what was made from it */
};

/* A text in the pickle: where it begins, its length, and the opcode that tells how it is written ('c' for a plain line). */
typedef struct {
  int64_t start, length;
  int form;
} n4a_text;

typedef struct {
  n4a_text module, name;
  int uses;
} n4a_named;

/* Where a state is given to what was made by a call, or by a state in two parts: the caller may look at both first. An
 * array of joblib's lies behind its state, from `start` to `end`: raw values, or a pickle of objects; else both are 0. */
typedef struct {
  int64_t at, global, start, end;
  int is_objects;
} n4a_build;

typedef struct {
  n4a_named *globals;
  n4a_build *builds;
  int64_t count, built;
  int64_t end;    /* behind the last opcode, or where it went wrong */
  int kind;       /* of the result */
  int64_t global; /* of an object or a global: its place in `globals`, else -1 */
} n4a_scan;

/* 0, or why the walk ended: see n4a_scan_error. `globals` and `builds` are the caller's to free, in any case. */
int n4a_scan_run(const uint8_t *data, int64_t length, int64_t limit, n4a_scan *found);
const char *n4a_scan_error(int code);

#endif
