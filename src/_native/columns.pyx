# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Ragged numpy arrays to Arrow list columns, without a Python object per value.

Owns: dtype conversion, the growing buffers, and their hand-over as Arrow capsules. Promises: a call
that raises leaves the column as it was; a column may be snapshotted, appended to and snapshotted
again. Leaves to others: what the columns mean, and when they are flushed.

(a) Values live in one reference-counted block. A snapshot shares it, for appending only writes
    behind what a snapshot sees; growing moves the block in place while nobody shares it, else copies.
    Offsets and validity, a few bytes a row, are copied into each snapshot.
(b) Arrays are read through the buffer protocol, so that no numpy headers are needed to build and one
    abi3 module serves every numpy. The four common dtypes are converted here; the others by numpy.
(c) The GIL is given up from 32,768 values on: a smaller copy takes less time than a hand-over.
"""

from cpython.buffer cimport Py_buffer, PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport INT32_MAX, int64_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

import numpy as np

cdef extern from "Python.h":
    # Without `except`: a try block in `append` costs a stable-ABI module more than the copy of a short array.
    int PyObject_GetBuffer(object array, Py_buffer *view, int flags) noexcept
    int get_buffer "PyObject_GetBuffer"(object array, Py_buffer *view, int flags) except -1
    void PyErr_Clear() noexcept

cdef extern from "arrow_abi.h":
    cdef struct ArrowSchema:
        void (*release)(ArrowSchema*) noexcept
    cdef struct ArrowArray:
        void (*release)(ArrowArray*) noexcept
    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream*) noexcept

cdef extern from "list_column.h" nogil:
    ctypedef struct n4a_block
    ctypedef struct n4a_list
    ctypedef enum n4a_kind:
        N4A_FLOAT64, N4A_FLOAT32, N4A_INT64, N4A_INT32
    int64_t n4a_live()
    void *n4a_allocate(int64_t size)
    void n4a_free(void *memory)
    int n4a_block_reserve(n4a_block **block, int64_t used, int64_t needed)
    n4a_block *n4a_block_of_owner(const void *data, int64_t size, object owner)
    void n4a_block_release(n4a_block *block)
    char *n4a_block_data(const n4a_block *block)
    int64_t n4a_convert(void *to, n4a_kind to_kind, const void *source, n4a_kind from_kind, int64_t count)
    void n4a_set_bit(char *bits, int64_t index, int on)
    n4a_list *n4a_list_new(const char *name, n4a_kind kind, int large, int64_t rows, int64_t nulls, n4a_block *values,
                           const int64_t *ends, int64_t width, const char *validity)
    void n4a_list_release(n4a_list *list)
    int n4a_list_schema(n4a_list *list, ArrowSchema *out)
    int n4a_list_array(n4a_list *list, ArrowArray *out)
    int n4a_list_stream(n4a_list *list, ArrowArrayStream *out)

cdef enum:
    NOGIL_FROM = 32768
    FIRST_VALUES = 1024
    FIRST_ROWS = 64

__all__ = ["ListArray", "ListColumn", "append_known", "list_column_from_matrix", "live_blocks"]

cdef type _ndarray = np.ndarray
_NATIVE = {("f", 8): np.float64, ("f", 4): np.float32, ("i", 8): np.int64, ("i", 4): np.int32}


def live_blocks() -> int:
    """Allocations of this module that are not freed yet; 0 when no column and no consumer holds any."""
    return n4a_live()


cdef class ListArray:
    """A finished list column, to be handed over once as an Arrow stream or array."""

    cdef n4a_list *_list
    cdef readonly str name
    cdef Py_ssize_t _rows
    cdef bint _consumed
    cdef readonly Py_ssize_t nbytes

    def __init__(self):
        raise TypeError("a ListArray comes from ListColumn.snapshot(), ListColumn.finish() or list_column_from_matrix()")

    def __dealloc__(self):
        n4a_list_release(self._list)

    def __len__(self):
        return self._rows

    def __arrow_c_schema__(self) -> object:
        """Capsule of the field: a nullable list of doubles or 64-bit integers. May be asked for at any time."""
        if self._list == NULL:  # from ListArray.__new__
            self.__init__()
        cdef object capsule = _schema_capsule()
        if n4a_list_schema(self._list, <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")):
            raise MemoryError()
        return capsule

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Capsules of the field and of the column; a second hand-over raises RuntimeError. No cast to
        `requested_schema`.
        """
        self._check_unconsumed()
        cdef object schema = self.__arrow_c_schema__()
        cdef object capsule = _array_capsule()
        if n4a_list_array(self._list, <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")):
            raise MemoryError()
        self._consumed = True
        return schema, capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Capsule of a stream of one chunk; a second hand-over raises RuntimeError. No cast to `requested_schema`."""
        self._check_unconsumed()
        cdef object capsule = _stream_capsule()
        if n4a_list_stream(self._list, <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")):
            raise MemoryError()
        self._consumed = True
        return capsule

    cdef int _check_unconsumed(self) except -1:
        if self._list == NULL:
            self.__init__()
        if self._consumed:
            raise RuntimeError(f"list column {self.name!r} was already handed over; take another snapshot() for another consumer")


cdef class ListColumn:
    """ListColumn(name, dtype, capacity=0, large=False)
--

    A growing column of lists of numbers; one `append` a row.

    `dtype` is "float64" or "int64", `capacity` the number of values to make room for at first.
    `large` gives the Arrow lists 64-bit offsets (`large_list`); without it a column holds at most 2**31 - 1
    values at a time. Not for several threads at once: a call during another's append raises RuntimeError.
    """

    cdef readonly str name
    cdef readonly str dtype
    cdef readonly bint large
    cdef n4a_kind _kind
    cdef bytes _text
    cdef n4a_block *_values
    cdef n4a_block *_ends
    cdef n4a_block *_validity
    cdef int64_t _capacity, _used, _rows, _nulls
    cdef bint _busy
    cdef dict _known  # by the mark of its values: a row and its label

    def __init__(self, name: str, dtype: str, capacity: int = 0, large: bool = False):
        if self._rows or self._busy:
            raise RuntimeError(f"list column {self.name!r} cannot be initialised again")
        if dtype not in ("float64", "int64"):
            raise ValueError(f"a list column holds float64 or int64, not {dtype!r}")
        if not 0 <= capacity < 1 << 48:
            raise ValueError(f"capacity must be from 0 to 2**48 - 1 values, got {capacity}")
        self._text = _c_text(name)
        self.name, self.dtype, self.large, self._capacity = name, dtype, large, capacity
        self._kind = N4A_FLOAT64 if dtype == "float64" else N4A_INT64
        self._known = {}

    def __dealloc__(self):
        self._reset()

    def __len__(self):
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes that the pending rows take."""
        return 8 * (self._used + self._rows)

    def append(self, values: object) -> None:
        """Copy one row: a 1-D or 2-D array or sequence of numbers, flattened row by row; None is a NULL row.

        Any real numeric dtype is converted; integers beyond 2**53 round in a float64 column. Raises TypeError
        for dtypes that are not real numbers and for masked arrays, ValueError for other shapes and, in an
        int64 column, for what is no 64-bit whole number, OverflowError when 32-bit offsets run out.
        """
        if self._busy or self._text is None:
            self._raise_unusable()
        if values is None:
            if not self._has_room(0):
                self._raise_refused(0, -1)
            self._close_row(0, False)
        elif (type(values) is not _ndarray or not self._append_buffer(values)) and not self._append_buffer(_native(values, self.name, self.dtype)):
            raise AssertionError("numpy made an array that cannot be read")

    def values(self, index: int) -> object:
        """Copy of the pending row `index` as a flat numpy array, None for NULL."""
        if self._busy or self._text is None:
            self._raise_unusable()
        if not 0 <= index < self._rows:
            raise IndexError(f"list column {self.name!r} has {self._rows} pending rows, no row {index}")
        cdef int64_t row = index, count
        cdef const char *values = self._row(row, &count)
        if not n4a_block_data(self._validity)[row // 8] >> (row % 8) & 1:
            return None
        return np.frombuffer(PyBytes_FromStringAndSize(values, 8 * count), self.dtype)

    def remember(self, label: object) -> None:
        """The last row goes by this label from now on, see `known`; IndexError without a row."""
        if not self._rows:
            raise IndexError(f"list column {self.name!r} has no row")
        cdef int64_t count
        cdef const char *values = self._row(self._rows - 1, &count)
        self._known[_mark(values, count)] = (self._rows - 1, label)

    def known(self, values: object) -> object:
        """The label of a row that has the bytes of this array, if one goes by it; None for what is no contiguous 1-D
        array of the column's dtype.
        """
        cdef Py_buffer view
        if not self._known or not self._take(values, &view):
            return None
        label = self._label(&view)
        PyBuffer_Release(&view)
        return label

    def tail(self, start: int) -> tuple[bytes, bytes]:
        """Copies of the pending rows from `start` on: their lengths (int64, -1 for NULL) and their values, both in
        native byte order.
        """
        if self._busy or self._text is None:
            self._raise_unusable()
        if not 0 <= start <= self._rows:
            raise IndexError(f"list column {self.name!r} has {self._rows} pending rows, no row {start}")
        if start == self._rows:  # perhaps nothing was ever allocated
            return b"", b""
        cdef const int64_t *ends = <const int64_t *>n4a_block_data(self._ends)
        cdef int64_t first = ends[start - 1] if start else 0, row, before = first, count = self._rows - start
        cdef const char *validity = n4a_block_data(self._validity)
        cdef bytes lengths = PyBytes_FromStringAndSize(NULL, 8 * count)
        cdef int64_t *out = <int64_t *>PyBytes_AsString(lengths)
        for row in range(start, self._rows):
            out[row - start] = ends[row] - before if validity[row // 8] >> (row % 8) & 1 else -1
            before = ends[row]
        if before == first:
            return lengths, b""
        return lengths, PyBytes_FromStringAndSize(n4a_block_data(self._values) + 8 * first, 8 * (before - first))

    def snapshot(self) -> ListArray:
        """The rows so far, sharing their values; the column keeps them and may go on growing."""
        if self._busy or self._text is None:
            self._raise_unusable()
        if not self._has_room(0):
            self._raise_refused(0, -1)
        cdef n4a_list *made = n4a_list_new(
            self._text, self._kind, self.large, self._rows, self._nulls, self._values,
            <const int64_t *>n4a_block_data(self._ends), 0, n4a_block_data(self._validity))
        return _list_array(made, self.name, self._rows, self.nbytes)

    def finish(self) -> ListArray:
        """The rows so far, their values handed over; the column is empty afterwards."""
        cdef ListArray done = self.snapshot()
        self._reset()
        self._known.clear()
        return done

    cdef bint _take(self, object values, Py_buffer *view) noexcept:
        """Whether this is a contiguous 1-D array of the column's dtype, whose buffer is taken then."""
        cdef n4a_kind kind
        if type(values) is not _ndarray:
            return False
        if PyObject_GetBuffer(values, view, PyBUF_FORMAT | PyBUF_STRIDES):
            PyErr_Clear()
            return False
        if view.ndim == 1 and _plain_kind(view, &kind) and kind == self._kind:
            return True
        PyBuffer_Release(view)
        return False

    cdef object _label(self, const Py_buffer *view):
        cdef int64_t count
        found = self._known.get(_mark(<const char *>view.buf, view.shape[0]))
        if found is None:
            return None
        cdef const char *row = self._row(found[0], &count)
        return found[1] if count == view.shape[0] and not memcmp(row, view.buf, 8 * count) else None

    cdef const char *_row(self, int64_t row, int64_t *count) noexcept:
        """The values of a row, and how many these are."""
        cdef const int64_t *ends = <const int64_t *>n4a_block_data(self._ends)
        cdef int64_t start = ends[row - 1] if row else 0
        count[0] = ends[row] - start
        return n4a_block_data(self._values) + 8 * start

    cdef int _raise_unusable(self) except -1:
        if self._text is None:
            raise RuntimeError("this ListColumn was never initialised")
        raise RuntimeError(f"list column {self.name!r} is being appended to by another thread")

    cdef bint _append_buffer(self, object array) except -1:
        """Append a buffer; False when it is not contiguous, aligned and of one of the four dtypes."""
        cdef Py_buffer view
        cdef n4a_kind kind
        cdef int64_t converted = -1, count
        if PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_STRIDES):
            PyErr_Clear()  # numpy has no buffer format for this dtype; the caller names it
            return False
        count = view.len // view.itemsize
        if not _plain_kind(&view, &kind) or view.ndim != 1 and view.ndim != 2:
            PyBuffer_Release(&view)
            return False
        if self._has_room(count):
            converted = self._convert(view.buf, kind, count)
        PyBuffer_Release(&view)
        if converted != count:
            self._raise_refused(count, converted)
        self._close_row(count, True)
        return True

    cdef int64_t _convert(self, const void *source, n4a_kind kind, int64_t count) noexcept:
        cdef void *target = n4a_block_data(self._values) + 8 * self._used
        cdef int64_t converted
        if count < NOGIL_FROM:
            return n4a_convert(target, self._kind, source, kind, count)
        self._busy = True
        with nogil:
            converted = n4a_convert(target, self._kind, source, kind, count)
        self._busy = False
        return converted

    cdef bint _has_room(self, int64_t count) noexcept:
        """Make room for one more row of `count` values; False without memory or offsets for them."""
        if not self.large and count > INT32_MAX - self._used:
            return False
        cdef int64_t values = max(self._used + count, self._capacity if self._capacity else FIRST_VALUES)
        return not (n4a_block_reserve(&self._values, 8 * self._used, 8 * values)
                    or n4a_block_reserve(&self._ends, 8 * self._rows, 8 * max(self._rows + 1, FIRST_ROWS))
                    or n4a_block_reserve(&self._validity, (self._rows + 7) // 8, max(self._rows // 8 + 1, FIRST_ROWS)))

    cdef int _raise_refused(self, int64_t count, int64_t converted) except -1:
        """Why a row of `count` values was not taken; `converted` is -1 when there was no room."""
        if converted >= 0:
            raise ValueError(f"list column {self.name!r} holds whole numbers of 64 bits; value {converted} is not one")
        if not self.large and count > INT32_MAX - self._used:
            raise OverflowError(f"list column {self.name!r} would pass 2**31 - 1 pending values; flush first, or make it large")
        raise MemoryError(f"no memory for {count} more values in list column {self.name!r}")

    cdef void _close_row(self, int64_t count, bint valid) noexcept:
        self._used += count
        (<int64_t *>n4a_block_data(self._ends))[self._rows] = self._used
        n4a_set_bit(n4a_block_data(self._validity), self._rows, valid)
        self._rows += 1
        self._nulls += not valid

    cdef void _reset(self) noexcept:
        n4a_block_release(self._values)
        n4a_block_release(self._ends)
        n4a_block_release(self._validity)
        self._values = self._ends = self._validity = NULL
        self._used = self._rows = self._nulls = 0


def append_known(y_true: object, y_pred: object, sample_indices: object, shared: ListColumn, indices: ListColumn, predicted: ListColumn, probable: ListColumn) -> tuple[object, object] | None:
    """Append `y_pred` to `predicted`, and a NULL row to `probable`: the labels by which `shared` knows `y_true` and
    `indices` knows `sample_indices`, None for None.

    None, and nothing done, where these are not known, or `y_pred` is no contiguous 1-D array of the column's dtype, or
    the lengths differ.
    """
    cdef Py_buffer view
    cdef int64_t count
    label, other = shared.known(y_true), None if sample_indices is None else indices.known(sample_indices)
    if label is None or (other is None) != (sample_indices is None) or not predicted._take(y_pred, &view):
        return None
    count = view.shape[0]
    PyBuffer_Release(&view)
    if len(y_true) != count or other is not None and len(sample_indices) != count:
        return None
    predicted.append(y_pred)
    probable.append(None)
    return label, other


def list_column_from_matrix(name: str, matrix: object, large: bool = False) -> ListArray:
    """A list column over the rows of a C-contiguous float64 or int64 matrix, without copying it.

    It keeps the matrix alive, which must not be changed until the last consumer is done. Raises TypeError,
    ValueError or OverflowError for a matrix that would need a copy or 64-bit offsets (`large`).
    """
    cdef Py_buffer view
    cdef n4a_kind kind
    cdef bytes text = _c_text(name)
    _check_matrix(name, matrix, large)
    get_buffer(matrix, &view, PyBUF_FORMAT | PyBUF_STRIDES)
    cdef n4a_block *values = NULL
    cdef n4a_list *made = NULL
    cdef int64_t rows = view.shape[0], width = view.shape[1]
    if not _plain_kind(&view, &kind):
        PyBuffer_Release(&view)
        raise ValueError(f"matrix {name!r} must be aligned to 8 bytes; append its rows to a ListColumn instead")
    values = n4a_block_of_owner(view.buf, view.len, matrix)
    PyBuffer_Release(&view)
    if values != NULL:
        made = n4a_list_new(text, kind, large, rows, 0, values, NULL, width, NULL)
        n4a_block_release(values)
    return _list_array(made, name, rows, 8 * (rows * width + rows))


def _check_matrix(name, matrix, large):
    if not isinstance(matrix, np.ndarray) or isinstance(matrix, np.ma.MaskedArray):
        raise TypeError(f"matrix {name!r} must be a plain numpy array, got {type(matrix).__name__}")
    if matrix.dtype != np.float64 and matrix.dtype != np.int64 or not matrix.dtype.isnative:
        raise TypeError(f"matrix {name!r} must be float64 or int64, got {matrix.dtype}; append its rows to a ListColumn instead")
    if matrix.ndim != 2 or not matrix.flags.c_contiguous:
        raise ValueError(f"matrix {name!r} must be 2-D and C-contiguous, got shape {matrix.shape} and strides {matrix.strides}")
    if matrix.size > INT32_MAX and not large:
        raise OverflowError(f"matrix {name!r} has more than 2**31 - 1 values; pass large=True, or split it")


def _native(values, name, dtype):
    """A contiguous copy of any real numeric input, in one of the four dtypes that are read directly."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"list column {name!r} takes no masked arrays; fill the masked values first")
    found = np.asarray(values)
    kind, size = found.dtype.kind, found.dtype.itemsize
    if kind not in "fiub":
        raise TypeError(f"list column {name!r} takes real numbers, got dtype {found.dtype}")
    if not 1 <= found.ndim <= 2:
        raise ValueError(f"list column {name!r} takes 1-D or 2-D arrays, got {found.ndim} dimensions")
    if (kind, size) in _NATIVE:
        return found.astype(_NATIVE[kind, size], order="C")
    if dtype == "float64" or size < 4 and kind == "f":
        return found.astype(np.float64, order="C")
    return _whole(found, name)


def _whole(found, name):
    """Integers of other sizes, and extended floats, as int64."""
    with np.errstate(invalid="ignore", over="ignore"):
        whole = found.astype(np.int64, order="C")
        # back in its own dtype, and with the sign it had: a large unsigned value wraps both ways
        same = (whole.astype(found.dtype) == found) & ((whole < 0) == (found < 0))
    if not same.all():
        raise ValueError(f"list column {name!r} holds whole numbers of 64 bits; value {int(np.argmin(same.ravel()))} is not one")
    return whole


cdef uint64_t _mark(const char *values, int64_t count) noexcept:
    """A number for some of the values, where they may be known by."""
    cdef uint64_t mark = count, word
    cdef int64_t place
    for place in range(0, count, 1 + count // 8):
        memcpy(&word, values + 8 * place, 8)
        mark = (mark ^ word) * <uint64_t>0x9E3779B97F4A7C15
        mark ^= mark >> 32
    return mark


cdef bint _plain_kind(const Py_buffer *view, n4a_kind *kind) noexcept:
    """Whether the buffer is contiguous, aligned and native of one of the four dtypes; which it is, in `kind`."""
    cdef char code = view.format[0]
    if view.format[1] != 0 or <uintptr_t>view.buf % view.itemsize or not PyBuffer_IsContiguous(view, b"C"):
        return False
    if code == b"d" and view.itemsize == 8:
        kind[0] = N4A_FLOAT64
    elif code == b"f" and view.itemsize == 4:
        kind[0] = N4A_FLOAT32
    elif (code == b"l" or code == b"q" or code == b"i") and view.itemsize == 8:
        kind[0] = N4A_INT64
    elif (code == b"l" or code == b"i") and view.itemsize == 4:
        kind[0] = N4A_INT32
    else:
        return False
    return True


cdef bytes _c_text(str name):
    cdef bytes text = name.encode()
    if b"\0" in text:
        raise ValueError(f"a column name holds no NUL character, got {name!r}")
    return text


cdef ListArray _list_array(n4a_list *made, str name, Py_ssize_t rows, Py_ssize_t nbytes):
    """Wrap a list, which then belongs to the wrapper."""
    if made == NULL:
        raise MemoryError(f"no memory for the offsets of list column {name!r}")
    cdef ListArray wrapper
    try:
        wrapper = ListArray.__new__(ListArray)
    except BaseException:
        n4a_list_release(made)
        raise
    wrapper._list, wrapper.name, wrapper._rows, wrapper.nbytes = made, name, rows, nbytes
    return wrapper


# A capsule owns its structure from the first moment: empty, hence harmless, until an export fills it.

cdef object _schema_capsule():
    cdef ArrowSchema *schema = <ArrowSchema *>_empty(sizeof(ArrowSchema))
    schema.release = NULL
    return _capsule(schema, "arrow_schema", _drop_schema)


cdef object _array_capsule():
    cdef ArrowArray *array = <ArrowArray *>_empty(sizeof(ArrowArray))
    array.release = NULL
    return _capsule(array, "arrow_array", _drop_array)


cdef object _stream_capsule():
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>_empty(sizeof(ArrowArrayStream))
    stream.release = NULL
    return _capsule(stream, "arrow_array_stream", _drop_stream)


cdef void *_empty(int64_t size) except NULL:
    cdef void *memory = n4a_allocate(size)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef object _capsule(void *structure, const char *name, void (*drop)(object) noexcept):
    try:
        return PyCapsule_New(structure, name, drop)
    except BaseException:
        n4a_free(structure)
        raise


cdef void _drop_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    n4a_free(schema)


cdef void _drop_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    n4a_free(array)


cdef void _drop_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    n4a_free(stream)
