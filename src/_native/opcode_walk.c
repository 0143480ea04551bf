#include "opcode_reading.h"

enum { MOST_GLOBALS = 100000 };
enum { DEEPEST = 200 }; /* of tuples within tuples: Python's hash of one calls itself */

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
    "it describes an array as joblib does not",
    "an array lies between the opcodes of another one's objects",
};

const char *n4a_scan_error(int code) { return ERRORS[code]; }

static int says(const walk *w, n4a_text text, const char *wanted) {
  return text.length == (int64_t)strlen(wanted) && !memcmp(w->data + text.start, wanted, (size_t)text.length);
}

static int is_named(const walk *w, int64_t global, const char *module, const char *name) {
  const n4a_named *one = &w->found->globals[global];
  return says(w, one->name, name) && says(w, one->module, module);
}

static int is_array(const walk *w, int64_t global) { return is_named(w, global, "joblib.numpy_pickle", "NumpyArrayWrapper"); }

static int named(walk *w, n4a_text module, n4a_text name) {
  n4a_scan *found = w->found;
  if (found->count >= MOST_GLOBALS) return TOO_MUCH;
  int failed = grow(w, (void **)&found->globals, &w->globals_room, found->count + 1, sizeof(n4a_named));
  if (failed) return failed;
  found->globals[found->count] = (n4a_named){module, name, 0};
  if (is_array(w, found->count) && !w->with_arrays) return w->within ? WITHIN : JOBLIB;
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

/* What was above the top stays known, for what becomes of it. */
static int kept(walk *w, int64_t count, int64_t *place) {
  int failed = grow(w, (void **)&w->held, &w->held_room, w->held_count + count, sizeof(value));
  if (failed) return failed;
  if (count) memcpy(w->held + w->held_count, w->stack + w->top, (size_t)count * sizeof(value));
  *place = w->held_count;
  w->held_count += count;
  return OK;
}

/* Values become one that holds them. */
static int gathered(walk *w, int kind, int64_t count) {
  int depth = deepest(w, count) + 1;
  if (depth > DEEPEST) return TOO_DEEP;
  w->top -= count;
  int64_t place = -1;
  if (w->with_arrays && kind == N4A_TUPLE) {
    int failed = kept(w, count, &place);
    if (failed) return failed;
  }
  return push(w, (value){place, count < INT32_MAX ? (int32_t)count : INT32_MAX, (uint8_t)kind, 0, (uint8_t)depth});
}

/* A dict of its own number, empty or not, in a file with joblib's arrays. */
static int dict(walk *w, int64_t count) {
  int failed = count ? gathered(w, N4A_DICT, count) : push_kind(w, N4A_DICT);
  if (failed || !w->with_arrays) return failed;
  if (w->objects >= INT32_MAX) return TOO_MUCH;
  if ((failed = grow(w, (void **)&w->has_state, &w->has_state_room, w->objects + 1, 1))) return failed;
  w->has_state[w->objects] = count > 0;
  w->stack[w->top - 1].b = (int32_t)w->objects++;
  return OK;
}

static int dict_marked(walk *w) {
  int64_t count;
  int failed = marked(w, &count);
  return failed ? failed : dict(w, count);
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

/* What the first argument of a call tells: the type of values that it makes, or that it makes an array of joblib's. */
static int told(walk *w, int64_t global, value first) {
  value *made = &w->stack[w->top - 1];
  int is_maker = is_named(w, global, "copyreg", "_reconstructor") || is_named(w, global, "copy_reg", "_reconstructor");
  if (first.kind == N4A_GLOBAL && is_array(w, first.a) && is_maker) made->a = first.a;
  if (first.kind != N4A_STRING || !is_named(w, global, "numpy", "dtype")) return OK;
  int failed = grow(w, (void **)&w->types, &w->types_room, (int64_t)made->b + 1, sizeof(int64_t));
  if (!failed) w->types[made->b] = n4a_type_named(w->data + first.a, first.b);
  return failed;
}

static int reduced(walk *w) {
  if (!has(w, 2) || w->stack[w->top - 1].kind != N4A_TUPLE) return NO_VALUE;
  value kind = w->stack[w->top - 2], arguments = w->stack[w->top - 1];
  int failed = called(w, 1, N4A_CALLED);
  return failed || !w->with_arrays || kind.kind != N4A_GLOBAL || !arguments.b ? failed : told(w, kind.a, w->held[arguments.a]);
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

/* Items go into a dict, which may be the state of an array: what is said of it in two dicts in turns is not known. */
static int described(walk *w, value target, int64_t count) {
  if (w->described.dict != target.b) {
    if (w->has_state[target.b]) return OK;
    w->described = (n4a_described){target.b, 0, {.kind = N4A_NOTHING}, {.kind = N4A_NOTHING}, {.kind = N4A_NOTHING}};
    w->has_state[target.b] = 1;
  }
  for (int64_t i = w->top; i < w->top + count; i += 2) n4a_describe(&w->described, w->data, w->stack[i], w->stack[i + 1]);
  return OK;
}

/* Items go into what lies below them. */
static int filled(walk *w, int64_t count, int own) {
  w->top -= count;
  if (!has(w, 1)) return NO_VALUE;
  value target = w->stack[w->top - 1];
  if (target.kind == own) return own == N4A_DICT && w->with_arrays ? described(w, target, count) : OK;
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
  if (!failed) found->builds[found->built++] = (n4a_build){w->at - 1, target.a, 0, 0, 0};
  return failed;
}

static int walked(walk *w);

static void left(const walk *w) {
  free(w->stack);
  free(w->memo);
  free(w->marks);
  free(w->has_state);
  free(w->held);
  free(w->types);
}

/* Joblib's objects: a pickle of its own. */
static int passed_objects(walk *w) {
  walk inner = {.data = w->data, .length = w->length, .at = w->at, .limit = w->limit - w->used, .found = w->found, .within = 1};
  inner.globals_room = w->globals_room, inner.builds_room = w->builds_room;
  int failed = walked(&inner);
  w->used += (inner.globals_room - w->globals_room) * (int64_t)sizeof(n4a_named) + (inner.builds_room - w->builds_room) * (int64_t)sizeof(n4a_build);
  w->globals_room = inner.globals_room, w->builds_room = inner.builds_room, w->at = inner.at;
  left(&inner);
  return failed;
}

/* Joblib's raw values, behind as many bytes as the first of them says where they are aligned; they begin there. */
static int passed_values(walk *w, int64_t type, value shape, int64_t *start) {
  uint64_t padding = 0;
  int failed = OK;
  if (w->described.alignment.kind != N4A_NOTHING) failed = number(w, 1, &padding);
  if (!failed) failed = skip(w, padding);
  if (failed) return failed;
  int64_t extent = n4a_extent(type, w->held + shape.a, shape.b, w->length - w->at);
  *start = w->at;
  if (extent == N4A_NO_SHAPE) return NO_ARRAY;
  return extent < 0 ? CUT : skip(w, (uint64_t)extent);
}

/* The state of an array of joblib's; behind it, outside of any frame, are its values. */
static int array(walk *w, value target, value state) {
  value shape = w->described.shape, dtype = w->described.dtype;
  if (state.kind != N4A_DICT || state.b != w->described.dict || w->described.is_unknown) return NO_ARRAY;
  if (shape.kind != N4A_TUPLE || dtype.kind != N4A_OBJECT || dtype.b >= w->types_room || !w->types[dtype.b]) return NO_ARRAY;
  if (w->at < w->frame_end) return NO_FRAME;
  int64_t place = w->found->built, start = w->at, type = w->types[dtype.b];
  int failed = noted(w, target), is_objects = n4a_type_is_object(type);
  if (!failed) failed = is_objects ? passed_objects(w) : passed_values(w, type, shape, &start);
  if (failed) return failed;
  n4a_build *build = &w->found->builds[place];
  build->start = start, build->end = w->at, build->is_objects = is_objects;
  w->frame_end = w->at;
  return OK;
}

static void typed(walk *w, value target, value state) {
  if (!w->with_arrays || target.b >= w->types_room || !w->types[target.b]) return;
  int is_whole = state.kind == N4A_TUPLE && state.b;
  w->types[target.b] = is_whole ? n4a_type_with_state(w->types[target.b], w->held + state.a, state.b) : 0;
}

static int built_once(walk *w, value target, value state) {
  int failed = grow(w, (void **)&w->has_state, &w->has_state_room, (int64_t)target.b + 1, 1);
  if (failed) return failed;
  if (w->has_state[target.b]) return AGAIN;
  w->has_state[target.b] = 1;
  used(w, target, N4A_BUILT);
  typed(w, target, state);
  if (is_array(w, target.a)) return array(w, target, state);
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

/* Little-endian in two's complement, in as many bytes as are read. */
static int64_t signed_of(uint64_t found, int bytes) {
  uint64_t sign = bytes ? (uint64_t)1 << (8 * bytes - 1) : 0;
  return found & sign ? -(int64_t)(~found & (sign - 1)) - 1 : (int64_t)found;
}

static int passed_number(walk *w, int bytes, int is_signed) {
  uint64_t found;
  int failed = number(w, bytes, &found);
  return failed ? failed : push_number(w, is_signed ? signed_of(found, bytes) : (int64_t)found);
}

static int passed_counted(walk *w, int bytes) {
  uint64_t length;
  int failed = number(w, bytes, &length);
  if (!failed && length <= 8) return passed_number(w, (int)length, 1);
  if (!failed) failed = skip(w, length);
  return failed ? failed : push_kind(w, N4A_PLAIN);
}

static int passed_float(walk *w) {
  int failed = skip(w, 8);
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
  case '}': return dict(w, 0);
  case 'd': return dict_marked(w);
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
  case 'N': return push_kind(w, N4A_NOTHING);
  case 0x88: case 0x89: return push_kind(w, N4A_PLAIN);
  case 'F': case 'I': case 'L': return written_number(w);
  case 'K': return passed_number(w, 1, 0);
  case 'M': return passed_number(w, 2, 0);
  case 'J': return passed_number(w, 4, 1);
  case 'G': return passed_float(w);
  case 0x8a: return passed_counted(w, 1);
  case 0x8b: return passed_counted(w, 4);
  case 'S': case 'V': return written(w, op);
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

/* From where it is to the end of the pickle. */
static int walked(walk *w) {
  int failed = CUT;
  while (w->at < w->length) {
    int op = w->data[w->at++];
    if (op == '.') return has(w, 1) && !w->marked ? OK : NO_VALUE;
    int framed = w->at <= w->frame_end;
    if ((failed = step(w, op))) return failed;
    if (framed && w->at > w->frame_end) return NO_FRAME;
    failed = CUT;
  }
  return failed;
}

static int scanned(walk *w) {
  n4a_scan *found = w->found;
  found->count = found->built = 0;
  w->globals_room = w->builds_room = 0;
  w->described.dict = -1;
  int failed = walked(w);
  found->end = w->at;
  if (!failed) {
    value last = w->stack[w->top - 1];
    found->kind = last.kind;
    if (last.kind == N4A_OBJECT || last.kind == N4A_GLOBAL) found->global = last.a;
  }
  left(w);
  return failed;
}

int n4a_scan_run(const uint8_t *data, int64_t length, int64_t limit, n4a_scan *found) {
  walk plain = {.data = data, .length = length, .limit = limit, .found = found};
  memset(found, 0, sizeof(*found));
  found->global = -1;
  int failed = scanned(&plain);
  if (failed != JOBLIB) return failed;
  free(found->globals);
  free(found->builds);
  memset(found, 0, sizeof(*found));
  found->global = -1;
  walk with_arrays = {.data = data, .length = length, .limit = limit, .found = found, .with_arrays = 1};
  return scanned(&with_arrays);
}
