/* Memory of a list column, and its way out as Arrow structures.
 *
 * Owns: every allocation of the extension, each counted. Promises: reference counts are atomic, so
 * a consumer may release from any thread without the GIL; a structure gets its `release` only when
 * it is complete. Leaves to columns.pyx: dtypes, errors, the GIL.
 */
#ifndef N4A_LIST_COLUMN_H
#define N4A_LIST_COLUMN_H

#include <Python.h>
#include <stdint.h>

#include "arrow_abi.h"

/* Bytes shared by a builder and the lists made from it; `owner` is the Python object that they belong to, if any. */
typedef struct n4a_block n4a_block;

/* A finished column: never changed again, freed with its last reference. */
typedef struct n4a_list n4a_list;

typedef enum { N4A_FLOAT64, N4A_FLOAT32, N4A_INT64, N4A_INT32 } n4a_kind;

/* Allocations not freed yet. */
int64_t n4a_live(void);
void *n4a_allocate(int64_t size);
void n4a_free(void *memory);

/* Make room for `needed` bytes and keep the first `used`; 0, or -1 with everything as it was. `*block` may be NULL. */
int n4a_block_reserve(n4a_block **block, int64_t used, int64_t needed);
/* A block over memory of `owner`, which it keeps alive; NULL without memory. Needs the GIL. */
n4a_block *n4a_block_of_owner(const void *data, int64_t size, PyObject *owner);
void n4a_block_release(n4a_block *block);
char *n4a_block_data(const n4a_block *block);

/* Convert `count` values to float64 or int64; the index of the first that is no 64-bit integer, or `count`. */
int64_t n4a_convert(void *to, n4a_kind to_kind, const void *from, n4a_kind from_kind, int64_t count);
void n4a_set_bit(char *bits, int64_t index, int on);

/* A list over `values`. `ends` is where each row ends, or NULL when all are `width` long; `validity` may be NULL.
 * It retains `values` and copies the rest; NULL without memory. */
n4a_list *n4a_list_new(const char *name, n4a_kind kind, int large, int64_t rows, int64_t nulls, n4a_block *values, const int64_t *ends, int64_t width,
                       const char *validity);
void n4a_list_release(n4a_list *list);

/* Fill a structure that takes its own reference to `list`; 0, or -1 without memory, then `release` is NULL. */
int n4a_list_schema(n4a_list *list, struct ArrowSchema *out);
int n4a_list_array(n4a_list *list, struct ArrowArray *out);
int n4a_list_stream(n4a_list *list, struct ArrowArrayStream *out);

#endif
