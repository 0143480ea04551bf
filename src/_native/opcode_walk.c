#include "opcode_walk.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_GLOBALS = 100000 };
enum { DEEPEST = 200 }; /* of tuples within tuples: Python's hash of one calls itself */
enum { OK, JOBLIB = N4A_JOBLIB, CUT, NO_OPCODE, NO_VALUE, OUTSIDE, TOO_DEEP, TOO_MUCH, NOT_CALLABLE, NO_TARGET, NO_TEXT, NO_FRAME, AGAIN };

static const char *const ERRORS[] = {
    "",
    "joblib's arrays lie between its opcodes",
    "it ends within an opcode",
    "it has an opcode that there is not",
    "an opcode finds nothing to work on",
    "it refers to objects outside the file",
    "its tuples lie too deep within each other",
    "it holds more values than it has room for",
    "it calls what is no global",
    "it changes what cannot be changed",
    "it names a global by what is no text",
    "its frames do not end where its opcodes do",
    "it gives state to an object that has its state",
};

/* What an opcode leaves on the stack: a kind, and what matters of it. */
typedef struct {
  int64_t a; /* global or object: its place among the globals; string: where it begins */
  int32_t b; /* string: its length; tuple: how many it holds; object: its number */
  uint8_t kind, form, depth; /* form: how a string is written; whether an object comes from a call */
} value;

typedef struct {
  const uint8_t *data;
  int64_t length, at, limit, used;
  value *stack, *memo;
  int64_t *marks;
  int64_t top, stack_room, memo_room, memo_count, marked, marks_room, globals_room, builds_room;
  int64_t frame_end, objects, has_state_room;
  uint8_t *has_state; /* by the number of an object */
  n4a_scan *found;
} walk;

const char *n4a_scan_error(int code) { return ERRORS[code]; }

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

static int push(walk *w, value v) {
  int failed = grow(w, (void **)&w->stack, &w->stack_room, w->top + 1, sizeof(value));
  if (!failed) w->stack[w->top++] = v;
  return failed;
}

static int push_kind(walk *w, int kind) { return push(w, (value){-1, 0, (uint8_t)kind, 0, 0}); }

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

static int written(walk *w, int form, int is_text) {
  int64_t start, length;
  int failed = line(w, &start, &length);
  if (failed) return failed;
  return is_text ? text(w, form, start, length) : push_kind(w, N4A_PLAIN);
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
  int failed = grow(w, (void **)&w->memo, &w->memo_room, (int64_t)at + 1, sizeof(value));
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

static int says(const walk *w, n4a_text text, const char *wanted) {
  return text.length == (int64_t)strlen(wanted) && !memcmp(w->data + text.start, wanted, (size_t)text.length);
}

static int named(walk *w, n4a_text module, n4a_text name) {
  n4a_scan *found = w->found;
  if (says(w, name, "NumpyArrayWrapper") && says(w, module, "joblib.numpy_pickle")) return JOBLIB;
  if (found->count >= MOST_GLOBALS) return TOO_MUCH;
  int failed = grow(w, (void **)&found->globals, &w->globals_room, found->count + 1, sizeof(n4a_named));
  if (failed) return failed;
  found->globals[found->count] = (n4a_named){module, name, 0};
  return push(w, (value){found->count++, 0, N4A_GLOBAL, 0, 0});
}

static int global_in_lines(walk *w) {
  n4a_text module = {0, 0, 'c'}, name = {0, 0, 'c'};
  int failed = line(w, &module.start, &module.length);
  if (!failed) failed = line(w, &name.start, &name.length);
  return failed ? failed : named(w, module, name);
}

static int global_on_stack(walk *w) {
  if (!has(w, 2)) return NO_VALUE;
  value name = w->stack[--w->top], module = w->stack[--w->top];
  if (name.kind != N4A_STRING || module.kind != N4A_STRING) return NO_TEXT;
  return named(w, (n4a_text){module.a, module.b, module.form}, (n4a_text){name.a, name.b, name.form});
}

static int mark(walk *w) {
  int failed = grow(w, (void **)&w->marks, &w->marks_room, w->marked + 1, sizeof(int64_t));
  if (!failed) w->marks[w->marked++] = w->top;
  return failed;
}

/* Takes the last mark away; how many values lie above it. */
static int marked(walk *w, int64_t *count) {
  if (!w->marked) return NO_VALUE;
  *count = w->top - w->marks[--w->marked];
  return OK;
}

static int deepest(const walk *w, int64_t count) {
  int depth = 0;
  for (int64_t i = w->top - count; i < w->top; i++)
    if (w->stack[i].depth > depth) depth = w->stack[i].depth;
  return depth;
}

/* Values become one that holds them. */
static int gathered(walk *w, int kind, int64_t count) {
  int depth = deepest(w, count) + 1;
  if (depth > DEEPEST) return TOO_DEEP;
  w->top -= count;
  return push(w, (value){-1, count < INT32_MAX ? (int32_t)count : INT32_MAX, (uint8_t)kind, 0, (uint8_t)depth});
}

static int gathered_marked(walk *w, int kind) {
  int64_t count;
  int failed = marked(w, &count);
  return failed ? failed : gathered(w, kind, count);
}

static int gathered_few(walk *w, int count) { return has(w, count) ? gathered(w, N4A_TUPLE, count) : NO_VALUE; }

static void used(walk *w, value v, int how) { w->found->globals[v.a].uses |= how; }

/* Something is called: `count` values are its arguments, the one below them is what is called. */
static int called(walk *w, int64_t count, int how) {
  value kind = w->stack[w->top - count - 1];
  int depth = deepest(w, count);
  w->top -= count + 1;
  if (kind.kind == N4A_OBJECT) how = N4A_CHANGED;
  else if (kind.kind != N4A_GLOBAL) return NOT_CALLABLE;
  used(w, kind, how);
  if (w->objects >= INT32_MAX) return TOO_MUCH;
  return push(w, (value){kind.a, (int32_t)w->objects++, N4A_OBJECT, how != N4A_MADE, (uint8_t)depth});
}

static int reduced(walk *w) {
  if (!has(w, 2) || w->stack[w->top - 1].kind != N4A_TUPLE) return NO_VALUE;
  return called(w, 1, N4A_CALLED);
}

static int made(walk *w) {
  if (!has(w, 2) || w->stack[w->top - 1].kind != N4A_TUPLE) return NO_VALUE;
  return called(w, 1, w->stack[w->top - 1].b ? N4A_MADE_WITH : N4A_MADE);
}

static int made_with_keywords(walk *w) { return has(w, 3) ? called(w, 2, N4A_MADE_WITH) : NO_VALUE; }

static int called_marked(walk *w) {
  int64_t count;
  int failed = marked(w, &count);
  if (failed) return failed;
  return count ? called(w, count - 1, N4A_CALLED) : NO_VALUE;
}

static int called_in_lines(walk *w) {
  int64_t count;
  int failed = marked(w, &count);
  if (failed) return failed;
  w->top -= count;
  if ((failed = global_in_lines(w))) return failed;
  return called(w, 0, N4A_CALLED);
}

/* Items go into what lies below them. */
static int filled(walk *w, int64_t count, int own) {
  w->top -= count;
  if (!has(w, 1)) return NO_VALUE;
  value target = w->stack[w->top - 1];
  if (target.kind == own) return OK;
  if (target.kind == N4A_GLOBAL) used(w, target, N4A_CHANGED);
  else if (target.kind == N4A_OBJECT) used(w, target, N4A_FILLED);
  else return NO_TARGET;
  return OK;
}

static int filled_marked(walk *w, int own, int pairs) {
  int64_t count;
  int failed = marked(w, &count);
  if (failed) return failed;
  return pairs && count % 2 ? NO_VALUE : filled(w, count, own);
}

static int noted(walk *w, value target) {
  n4a_scan *found = w->found;
  int failed = grow(w, (void **)&found->builds, &w->builds_room, found->built + 1, sizeof(n4a_build));
  if (!failed) found->builds[found->built++] = (n4a_build){w->at - 1, target.a};
  return failed;
}

static int built_once(walk *w, value target, value state) {
  int failed = grow(w, (void **)&w->has_state, &w->has_state_room, (int64_t)target.b + 1, 1);
  if (failed) return failed;
  if (w->has_state[target.b]) return AGAIN;
  w->has_state[target.b] = 1;
  used(w, target, N4A_BUILT);
  return target.form || (state.kind == N4A_TUPLE && state.b == 2) ? noted(w, target) : OK;
}

static int built(walk *w) {
  if (!has(w, 2)) return NO_VALUE;
  value state = w->stack[--w->top], target = w->stack[w->top - 1];
  if (target.kind == N4A_OBJECT) return built_once(w, target, state);
  if (target.kind != N4A_GLOBAL) return NO_TARGET;
  used(w, target, N4A_CHANGED);
  return OK;
}

static int popped(walk *w) {
  if (has(w, 1)) w->top--;
  else if (w->marked) w->marked--;
  else return NO_VALUE;
  return OK;
}

static int popped_to_mark(walk *w) {
  int64_t count;
  int failed = marked(w, &count);
  if (!failed) w->top -= count;
  return failed;
}

static int passed(walk *w, int bytes) {
  int failed = skip(w, (uint64_t)bytes);
  return failed ? failed : push_kind(w, N4A_PLAIN);
}

static int passed_counted(walk *w, int bytes) {
  uint64_t length;
  int failed = number(w, bytes, &length);
  if (!failed) failed = skip(w, length);
  return failed ? failed : push_kind(w, N4A_PLAIN);
}

static int frame(walk *w) {
  uint64_t length;
  if (w->at - 1 < w->frame_end) return NO_FRAME;
  int failed = number(w, 8, &length);
  if (failed) return failed;
  if (length > (uint64_t)(w->length - w->at)) return CUT;
  w->frame_end = w->at + (int64_t)length;
  return OK;
}

static int containers(walk *w, int op) {
  switch (op) {
  case ')': return push(w, (value){-1, 0, N4A_TUPLE, 0, 1});
  case 't': return gathered_marked(w, N4A_TUPLE);
  case 0x85: return gathered_few(w, 1);
  case 0x86: return gathered_few(w, 2);
  case 0x87: return gathered_few(w, 3);
  case ']': return push_kind(w, N4A_LIST);
  case 'l': return gathered_marked(w, N4A_LIST);
  case 'a': return has(w, 2) ? filled(w, 1, N4A_LIST) : NO_VALUE;
  case 'e': return filled_marked(w, N4A_LIST, 0);
  case '}': return push_kind(w, N4A_DICT);
  case 'd': return gathered_marked(w, N4A_DICT);
  case 's': return has(w, 3) ? filled(w, 2, N4A_DICT) : NO_VALUE;
  case 'u': return filled_marked(w, N4A_DICT, 1);
  case 0x8f: return push_kind(w, N4A_SET);
  case 0x90: return filled_marked(w, N4A_SET, 0);
  case 0x91: return gathered_marked(w, N4A_TUPLE);
  default: return NO_OPCODE;
  }
}

static int values(walk *w, int op) {
  switch (op) {
  case 'N': case 0x88: case 0x89: return push_kind(w, N4A_PLAIN);
  case 'F': case 'I': case 'L': return written(w, op, 0);
  case 'K': return passed(w, 1);
  case 'M': return passed(w, 2);
  case 'J': return passed(w, 4);
  case 'G': return passed(w, 8);
  case 0x8a: return passed_counted(w, 1);
  case 0x8b: return passed_counted(w, 4);
  case 'S': case 'V': return written(w, op, 1);
  case 'U': case 0x8c: return counted(w, op, 1, 1);
  case 'T': case 'X': return counted(w, op, 4, 1);
  case 0x8d: return counted(w, op, 8, 1);
  case 'C': return counted(w, op, 1, 0);
  case 'B': return counted(w, op, 4, 0);
  case 0x8e: case 0x96: return counted(w, op, 8, 0);
  default: return containers(w, op);
  }
}

static int step(walk *w, int op) {
  switch (op) {
  case 0x80: return skip(w, 1);
  case 0x95: return frame(w);
  case '(': return mark(w);
  case '0': return popped(w);
  case '1': return popped_to_mark(w);
  case '2': return has(w, 1) ? push(w, w->stack[w->top - 1]) : NO_VALUE;
  case 'g': return get(w, 0);
  case 'h': return get(w, 1);
  case 'j': return get(w, 4);
  case 'p': return put(w, 0);
  case 'q': return put(w, 1);
  case 'r': return put(w, 4);
  case 0x94: return put_at(w, (uint64_t)w->memo_count);
  case 'c': return global_in_lines(w);
  case 0x93: return global_on_stack(w);
  case 'R': return reduced(w);
  case 0x81: return made(w);
  case 0x92: return made_with_keywords(w);
  case 'o': return called_marked(w);
  case 'i': return called_in_lines(w);
  case 'b': return built(w);
  case 'P': case 'Q': case 0x82: case 0x83: case 0x84: case 0x97: case 0x98: return OUTSIDE;
  default: return values(w, op);
  }
}

int n4a_scan_run(const uint8_t *data, int64_t length, int64_t limit, n4a_scan *found) {
  walk w = {.data = data, .length = length, .limit = limit, .found = found};
  int failed = CUT;
  memset(found, 0, sizeof(*found));
  found->global = -1;
  while (w.at < length) {
    int op = data[w.at++];
    if (op == '.') {
      failed = has(&w, 1) && !w.marked ? OK : NO_VALUE;
      break;
    }
    int framed = w.at <= w.frame_end;
    if ((failed = step(&w, op))) break;
    failed = NO_FRAME;
    if (framed && w.at > w.frame_end) break;
    failed = CUT;
  }
  found->end = w.at;
  if (!failed) {
    value last = w.stack[w.top - 1];
    found->kind = last.kind;
    if (last.kind == N4A_OBJECT || last.kind == N4A_GLOBAL) found->global = last.a;
  }
  free(w.stack);
  free(w.memo);
  free(w.marks);
  free(w.has_state);
  return failed;
}
