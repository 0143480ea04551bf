/* The state of a walk over opcodes, and how it reads the bytes and keeps values: the lower half of opcode_walk.c, which
 * alone includes it. Nothing is read beyond the end of the data, nothing is kept beyond the limit. */
#ifndef N4A_OPCODE_READING_H
#define N4A_OPCODE_READING_H

#include "joblib_arrays.h"
#include "opcode_walk.h"

#include <stdlib.h>
#include <string.h>

enum { OK, JOBLIB, CUT, NO_OPCODE, NO_VALUE, OUTSIDE, TOO_DEEP, TOO_MUCH, NOT_CALLABLE, NO_TARGET, NO_TEXT, NO_FRAME, AGAIN, NO_ARRAY, WITHIN };

typedef n4a_value value;

typedef struct {
  const uint8_t *data;
  int64_t length, at, limit, used;
  value *stack, *memo;
  int64_t *marks;
  int64_t top, stack_room, memo_room, memo_count, marked, marks_room, globals_room, builds_room;
  int64_t frame_end, objects, has_state_room;
  uint8_t *has_state; /* by the number of an object, or dict */
  /* in a file with joblib's arrays: values of tuples, types of values by the number of an object, the dict filled last */
  value *held;
  int64_t *types;
  int64_t held_count, held_room, types_room;
  n4a_described described;
  int with_arrays, within;
  n4a_scan *found;
} walk;

static int grow(walk *w, void **place, int64_t *room, int64_t needed, int64_t size) {
  if (needed <= *room) return OK;
  int64_t wanted = *room ? *room * 2 : 64;
  if (wanted < needed) wanted = needed;
  if (w->used + (wanted - *room) * size > w->limit) return TOO_MUCH;
  void *grown = realloc(*place, (size_t)(wanted * size));
  if (!grown) return TOO_MUCH;
  memset((char *)grown + *room * size, 0, (size_t)((wanted - *room) * size));
  w->used += (wanted - *room) * size;
  *place = grown;
  *room = wanted;
  return OK;
}

/* Nearly every opcode comes here. */
static inline int push(walk *w, value v) {
  int failed = w->top < w->stack_room ? OK : grow(w, (void **)&w->stack, &w->stack_room, w->top + 1, sizeof(value));
  if (!failed) w->stack[w->top++] = v;
  return failed;
}

static int push_kind(walk *w, int kind) { return push(w, (value){-1, 0, (uint8_t)kind, 0, 0}); }

static int push_number(walk *w, int64_t number) { return push(w, (value){number, 0, N4A_NUMBER, 0, 0}); }

/* The lowest place that opcodes may take from: what lies below the last mark is not theirs. */
static int64_t floor_of(const walk *w) { return w->marked ? w->marks[w->marked - 1] : 0; }

static int has(const walk *w, int64_t count) { return w->top - floor_of(w) >= count; }

static int number(walk *w, int bytes, uint64_t *found) {
  if (w->length - w->at < bytes) return CUT;
  *found = 0;
  for (int i = 0; i < bytes; i++) *found |= (uint64_t)w->data[w->at + i] << (8 * i);
  w->at += bytes;
  return OK;
}

static int skip(walk *w, uint64_t bytes) {
  if (bytes > (uint64_t)(w->length - w->at)) return CUT;
  w->at += (int64_t)bytes;
  return OK;
}

/* Passes a line; where it begins and its length without the end. */
static int line(walk *w, int64_t *start, int64_t *length) {
  const uint8_t *end = w->at < w->length ? memchr(w->data + w->at, '\n', (size_t)(w->length - w->at)) : NULL;
  if (!end) return CUT;
  *start = w->at;
  *length = end - (w->data + w->at);
  w->at += *length + 1;
  return OK;
}

static int text(walk *w, int form, int64_t start, int64_t length) {
  if (length > INT32_MAX) return push_kind(w, N4A_PLAIN); /* no name of anything */
  return push(w, (value){start, (int32_t)length, N4A_STRING, (uint8_t)form, 0});
}

/* A string or bytes behind its length. */
static int counted(walk *w, int form, int bytes, int is_text) {
  uint64_t length;
  int failed = number(w, bytes, &length);
  if (failed) return failed;
  int64_t start = w->at;
  if ((failed = skip(w, length))) return failed;
  return is_text ? text(w, form, start, (int64_t)length) : push_kind(w, N4A_PLAIN);
}

static int written(walk *w, int form) {
  int64_t start, length;
  int failed = line(w, &start, &length);
  return failed ? failed : text(w, form, start, length);
}

static int decimal(const walk *w, int64_t start, int64_t length, uint64_t *found) {
  *found = 0;
  if (!length || length > 18) return NO_VALUE;
  for (int64_t i = start; i < start + length; i++) {
    if (w->data[i] < '0' || w->data[i] > '9') return NO_VALUE;
    *found = *found * 10 + (uint64_t)(w->data[i] - '0');
  }
  return OK;
}

/* A number in decimal digits; I00 and I01 are none. */
static int written_number(walk *w) {
  int64_t start, length;
  uint64_t found;
  int failed = line(w, &start, &length);
  if (failed) return failed;
  int sign = length && w->data[start] == '-' ? 1 : 0;
  if (length && w->data[start + length - 1] == 'L') length--;
  if ((length > 1 && w->data[start] == '0') || decimal(w, start + sign, length - sign, &found)) return push_kind(w, N4A_PLAIN);
  return push_number(w, sign ? -(int64_t)found : (int64_t)found);
}

/* The number of a place in the memo, as text or in bytes. */
static int place(walk *w, int bytes, uint64_t *found) {
  int64_t start, length;
  if (bytes) return number(w, bytes, found);
  int failed = line(w, &start, &length);
  return failed ? failed : decimal(w, start, length, found);
}

static int get(walk *w, int bytes) {
  uint64_t at;
  int failed = place(w, bytes, &at);
  if (failed) return failed;
  if (at >= (uint64_t)w->memo_room || !w->memo[at].form) return NO_VALUE;
  value found = w->memo[at];
  found.form--;
  return push(w, found);
}

static int put_at(walk *w, uint64_t at) {
  if (!has(w, 1)) return NO_VALUE;
  if (at > (uint64_t)w->length) return TOO_MUCH; /* Python would make room for all places below it */
  int failed = (int64_t)at < w->memo_room ? OK : grow(w, (void **)&w->memo, &w->memo_room, (int64_t)at + 1, sizeof(value));
  if (failed) return failed;
  if (!w->memo[at].form) w->memo_count++;
  w->memo[at] = w->stack[w->top - 1];
  w->memo[at].form++; /* zero: nothing is there */
  return OK;
}

static int put(walk *w, int bytes) {
  uint64_t at;
  int failed = place(w, bytes, &at);
  return failed ? failed : put_at(w, at);
}

#endif
