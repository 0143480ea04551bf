#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* madvise */
#endif
#include "list_column.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

struct n4a_block {
    atomic_llong references;
    int64_t size;
    char *data;
    PyObject *owner;
};

struct n4a_list {
    atomic_llong references;
    int64_t rows, nulls;
    n4a_kind kind;
    int large;
    n4a_block *values;
    char *offsets, *validity; /* validity is NULL when no row is */
    char name[];
};

static atomic_llong live;

int64_t n4a_live(void) { return atomic_load(&live); }

void *n4a_allocate(int64_t size) {
    void *memory = size < 0 ? NULL : malloc(size ? (size_t)size : 1);
    if (memory != NULL) atomic_fetch_add(&live, 1);
    return memory;
}

void n4a_free(void *memory) {
    if (memory == NULL) return;
    atomic_fetch_sub(&live, 1);
    free(memory);
}

/* ---- blocks */

/* From 16 MB on a block lies on huge pages: clearing fresh memory page by page is most of what filling it costs
 * (64 MB: 4,200 -> 2,850 ns per row of 2,000 values). It grows by copying then, for a mapping that is moved loses
 * its alignment. Smaller blocks stay with malloc, which often has warm memory of the flush before. */
#define HUGE_FROM (16 << 20)
#define HUGE_PAGE (2 << 20)

static char *allocate_data(int64_t size) {
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_FROM && size <= INT64_MAX - HUGE_PAGE) {
        size_t whole = ((size_t)size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        char *data = aligned_alloc(HUGE_PAGE, whole);
        if (data == NULL) return NULL;
        atomic_fetch_add(&live, 1);
        madvise(data, whole, MADV_HUGEPAGE); /* a wish: refused, it is merely slower */
        return data;
    }
#endif
    return n4a_allocate(size);
}

static n4a_block *block_new(int64_t size) {
    n4a_block *block = n4a_allocate(sizeof *block);
    if (block == NULL) return NULL;
    char *data = allocate_data(size);
    if (data == NULL) {
        n4a_free(block);
        return NULL;
    }
    *block = (n4a_block){.size = size, .data = data};
    atomic_init(&block->references, 1);
    return block;
}

n4a_block *n4a_block_of_owner(const void *data, int64_t size, PyObject *owner) {
    n4a_block *block = n4a_allocate(sizeof *block);
    if (block == NULL) return NULL;
    *block = (n4a_block){.size = size, .data = (char *)data, .owner = owner};
    atomic_init(&block->references, 1);
    Py_INCREF(owner);
    return block;
}

static void drop_owner(PyObject *owner) {
    if (!Py_IsInitialized()) return; /* a consumer outlived the interpreter, and the owner went with it */
    PyGILState_STATE state = PyGILState_Ensure();
    Py_DECREF(owner);
    PyGILState_Release(state);
}

void n4a_block_release(n4a_block *block) {
    if (block == NULL || atomic_fetch_sub(&block->references, 1) != 1) return;
    if (block->owner != NULL)
        drop_owner(block->owner);
    else
        n4a_free(block->data);
    n4a_free(block);
}

static n4a_block *block_retain(n4a_block *block) {
    atomic_fetch_add(&block->references, 1);
    return block;
}

char *n4a_block_data(const n4a_block *block) { return block->data; }

int n4a_block_reserve(n4a_block **block, int64_t used, int64_t needed) {
    n4a_block *old = *block;
    if (old != NULL && needed <= old->size) return 0;
    int64_t doubled = old == NULL || old->size > INT64_MAX / 2 ? needed : 2 * old->size;
    int64_t size = doubled > needed ? doubled : needed;
    if (old != NULL && size < HUGE_FROM && atomic_load(&old->references) == 1) { /* nobody else reads it: it may move */
        char *data = realloc(old->data, (size_t)size);
        if (data == NULL) return -1;
        old->data = data;
        old->size = size;
        return 0;
    }
    n4a_block *grown = block_new(size);
    if (grown == NULL) return -1;
    if (used) memcpy(grown->data, old->data, (size_t)used);
    n4a_block_release(old);
    *block = grown;
    return 0;
}

/* ---- values */

#define WIDEN(to_type, from_type) \
    for (int64_t i = 0; i < count; i++) ((to_type *)to)[i] = (to_type)((const from_type *)from)[i]; \
    return count

/* The range test comes first: converting a double that does not fit is undefined. */
#define NARROW(from_type) \
    for (int64_t i = 0; i < count; i++) { \
        double value = (double)((const from_type *)from)[i]; \
        if (!(value >= -9223372036854775808.0 && value < 9223372036854775808.0)) return i; \
        int64_t whole = (int64_t)value; \
        if ((double)whole != value) return i; \
        ((int64_t *)to)[i] = whole; \
    } \
    return count

int64_t n4a_convert(void *to, n4a_kind to_kind, const void *from, n4a_kind from_kind, int64_t count) {
    if (count == 0) return 0;
    if (from_kind == to_kind) {
        memcpy(to, from, (size_t)count * 8);
        return count;
    }
    if (to_kind == N4A_FLOAT64) {
        if (from_kind == N4A_FLOAT32) { WIDEN(double, float); }
        if (from_kind == N4A_INT64) { WIDEN(double, int64_t); }
        WIDEN(double, int32_t);
    }
    if (from_kind == N4A_INT32) { WIDEN(int64_t, int32_t); }
    if (from_kind == N4A_FLOAT32) { NARROW(float); }
    NARROW(double);
}

void n4a_set_bit(char *bits, int64_t index, int on) {
    unsigned char mask = (unsigned char)(1u << (index % 8)), *byte = (unsigned char *)bits + index / 8;
    *byte = (unsigned char)(on ? *byte | mask : *byte & ~mask);
}

/* ---- lists */

static void fill_offsets(n4a_list *list, const int64_t *ends, int64_t width) {
    int32_t *narrow = (int32_t *)list->offsets;
    int64_t *wide = (int64_t *)list->offsets;
    for (int64_t i = 0; i <= list->rows; i++) {
        int64_t offset = i == 0 ? 0 : ends != NULL ? ends[i - 1] : i * width;
        if (list->large)
            wide[i] = offset;
        else
            narrow[i] = (int32_t)offset;
    }
}

n4a_list *n4a_list_new(const char *name, n4a_kind kind, int large, int64_t rows, int64_t nulls, n4a_block *values, const int64_t *ends, int64_t width,
                       const char *validity) {
    size_t name_size = strlen(name) + 1;
    n4a_list *list = n4a_allocate((int64_t)(sizeof *list + name_size));
    if (list == NULL) return NULL;
    *list = (n4a_list){.rows = rows, .nulls = nulls, .kind = kind, .large = large};
    atomic_init(&list->references, 1);
    memcpy(list->name, name, name_size);
    list->values = block_retain(values);
    list->offsets = n4a_allocate((rows + 1) * (large ? 8 : 4));
    int64_t bitmap = (rows + 7) / 8;
    if (nulls) list->validity = n4a_allocate(bitmap);
    if (list->offsets == NULL || (nulls && list->validity == NULL)) {
        n4a_list_release(list);
        return NULL;
    }
    fill_offsets(list, ends, width);
    if (nulls) memcpy(list->validity, validity, (size_t)bitmap);
    return list;
}

void n4a_list_release(n4a_list *list) {
    if (list == NULL || atomic_fetch_sub(&list->references, 1) != 1) return;
    n4a_block_release(list->values);
    n4a_free(list->offsets);
    n4a_free(list->validity);
    n4a_free(list);
}

static n4a_list *list_retain(n4a_list *list) {
    atomic_fetch_add(&list->references, 1);
    return list;
}

/* ---- schema */

typedef struct {
    n4a_list *list; /* holds the name */
    struct ArrowSchema item, *children[1];
} schema_private;

static void release_item_schema(struct ArrowSchema *schema) { schema->release = NULL; }

static void release_schema(struct ArrowSchema *schema) {
    schema_private *held = schema->private_data;
    if (held->item.release != NULL) held->item.release(&held->item);
    n4a_list_release(held->list);
    n4a_free(held);
    schema->release = NULL;
}

int n4a_list_schema(n4a_list *list, struct ArrowSchema *out) {
    memset(out, 0, sizeof *out);
    schema_private *held = n4a_allocate(sizeof *held);
    if (held == NULL) return -1;
    memset(held, 0, sizeof *held);
    held->list = list_retain(list);
    held->children[0] = &held->item;
    held->item = (struct ArrowSchema){
        .format = list->kind == N4A_FLOAT64 ? "g" : "l", .name = "item", .flags = ARROW_FLAG_NULLABLE, .release = release_item_schema};
    *out = (struct ArrowSchema){.format = list->large ? "+L" : "+l",
                                .name = list->name,
                                .flags = ARROW_FLAG_NULLABLE,
                                .n_children = 1,
                                .children = held->children,
                                .release = release_schema,
                                .private_data = held};
    return 0;
}

/* ---- array: the item keeps a reference of its own, for consumers may move it out of its parent */

typedef struct {
    n4a_list *list;
    const void *buffers[2];
} item_private;

typedef struct {
    n4a_list *list;
    const void *buffers[2];
    struct ArrowArray item, *children[1];
} array_private;

static void release_item(struct ArrowArray *array) {
    item_private *held = array->private_data;
    n4a_list_release(held->list);
    n4a_free(held);
    array->release = NULL;
}

static void release_array(struct ArrowArray *array) {
    array_private *held = array->private_data;
    if (held->item.release != NULL) held->item.release(&held->item);
    n4a_list_release(held->list);
    n4a_free(held);
    array->release = NULL;
}

static int64_t value_count(const n4a_list *list) {
    return list->large ? ((const int64_t *)list->offsets)[list->rows] : ((const int32_t *)list->offsets)[list->rows];
}

int n4a_list_array(n4a_list *list, struct ArrowArray *out) {
    memset(out, 0, sizeof *out);
    array_private *held = n4a_allocate(sizeof *held);
    item_private *item = n4a_allocate(sizeof *item);
    if (held == NULL || item == NULL) {
        n4a_free(held);
        n4a_free(item);
        return -1;
    }
    *item = (item_private){.list = list_retain(list), .buffers = {NULL, list->values->data}};
    *held = (array_private){.list = list_retain(list), .buffers = {list->validity, list->offsets}};
    held->children[0] = &held->item;
    held->item =
        (struct ArrowArray){.length = value_count(list), .n_buffers = 2, .buffers = item->buffers, .release = release_item, .private_data = item};
    *out = (struct ArrowArray){.length = list->rows,
                               .null_count = list->nulls,
                               .n_buffers = 2,
                               .n_children = 1,
                               .buffers = held->buffers,
                               .children = held->children,
                               .release = release_array,
                               .private_data = held};
    return 0;
}

/* ---- stream: one array, then the end */

typedef struct {
    n4a_list *list;
    int served;
    const char *error;
} stream_private;

static int stream_failed(stream_private *held) {
    held->error = "out of memory";
    return ENOMEM;
}

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    stream_private *held = stream->private_data;
    return n4a_list_schema(held->list, out) ? stream_failed(held) : 0;
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    stream_private *held = stream->private_data;
    if (held->served) {
        memset(out, 0, sizeof *out);
        return 0;
    }
    if (n4a_list_array(held->list, out)) return stream_failed(held);
    held->served = 1;
    return 0;
}

static const char *stream_error(struct ArrowArrayStream *stream) { return ((stream_private *)stream->private_data)->error; }

static void release_stream(struct ArrowArrayStream *stream) {
    stream_private *held = stream->private_data;
    n4a_list_release(held->list);
    n4a_free(held);
    stream->release = NULL;
}

int n4a_list_stream(n4a_list *list, struct ArrowArrayStream *out) {
    memset(out, 0, sizeof *out);
    stream_private *held = n4a_allocate(sizeof *held);
    if (held == NULL) return -1;
    *held = (stream_private){.list = list_retain(list)};
    *out = (struct ArrowArrayStream){
        .get_schema = stream_schema, .get_next = stream_next, .get_last_error = stream_error, .release = release_stream, .private_data = held};
    return 0;
}
