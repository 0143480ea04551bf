# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""The arguments of one row: those that need nothing are told from those that must be converted or refused.

Owns: what "needs nothing" means for each kind, and the row that becomes of them. Leaves to the caller: every
conversion and every refusal, each a plain function that gives the same value for what is passed over here.

(a) A row of 22 values took 26 calls of Python, a quarter of saving it; the ids that follow from it, and lists and tuples
    that were made of one another, as long again.
(b) Text is asked for its UTF-8, which text that is ASCII is already, and which Arrow asks for later anyway.
(c) Arrays are asked for their buffers: four attributes of each are as many objects, and 1.0 us a call instead of 0.3.
"""

from cpython.buffer cimport Py_buffer, PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release

from libc.stdint cimport int64_t
from libc.string cimport strstr

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) noexcept
    long PyLong_AsLongAndOverflow(object number, int *overflow) except? -1
    const char *PyBytes_AsString(object text) except NULL
    void PyErr_Clear() noexcept
    int PyObject_GetBuffer(object array, Py_buffer *view, int flags) noexcept

import time

import numpy as np

__all__ = ["RowMaker", "are_plain"]

cdef object _time_ns = time.time_ns
cdef type _ndarray = np.ndarray


cdef bint _is_text(object value) noexcept:
    if type(value) is not str:
        return False
    if PyUnicode_AsUTF8AndSize(value, NULL) == NULL:  # half a surrogate pair
        PyErr_Clear()
        return False
    return True


cdef bint _is_int32(object value) except -1:
    cdef int overflow = 0
    if type(value) is not int:
        return False
    cdef int64_t number = PyLong_AsLongAndOverflow(value, &overflow)
    return not overflow and -2147483648 <= number <= 2147483647


cdef bint _is_plain(object value, char kind) except -1:
    if kind == c"t":
        return _is_text(value)
    if kind == c"T":
        return value is None or _is_text(value)
    if kind == c"r":
        return value is None or type(value) is float
    if kind == c"i":
        return value is None or _is_int32(value)
    return False


cdef Py_ssize_t _plain_length(object array, char first, char second) except -2:
    """How many values a 1-D array has that lie one behind the other and have one of two formats of eight bytes; -1 for
    what is none.
    """
    cdef Py_buffer view
    cdef Py_ssize_t length = -1
    if type(array) is not _ndarray:
        return -1
    if PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_ND):
        PyErr_Clear()  # in another order, or numpy has no format for it
        return -1
    if view.ndim == 1 and view.itemsize == 8 and view.format[1] == 0 and (view.format[0] == first or view.format[0] == second):
        length = view.shape[0]
    PyBuffer_Release(&view)
    return length


def are_plain(reals: tuple[object, ...], integers: object) -> bool:
    """Whether each of `reals` is a contiguous 1-D array of float64 or None, `integers` one of int64 or None, and all
    that are not None have one length.
    """
    cdef Py_ssize_t length = -1, found, place, count = len(reals)
    for place in range(count + 1):
        array = reals[place] if place < count else integers
        if array is None:
            continue
        found = _plain_length(array, c"d", c"d") if place < count else _plain_length(array, c"l", c"q")
        if found < 0 or length >= 0 and found != length:
            return False
        length = found
    return True


cdef class RowMaker:
    """RowMaker(kinds, converters, names, dumps, key_places, derived)
--

    Makes rows of fields that `converter(value, name)` gives, each unless its kind says that it needs no conversion.

    A letter a field: `t` text, `T` text or None, `r` a float or None, `i` an integer of 32 bits or None, `j` a dict,
    whose text is `{}` or what `dumps` gives, unless that raises or holds a null; every other value is converted.
    `derived` gives key, id, `nk` and `id_key` for the fields at `key_places`. Raises ValueError where fields, kinds,
    converters and names differ in number.
    """

    cdef bytes _kinds
    cdef tuple _converters, _names, _key_places
    cdef object _dumps, _derived

    def __init__(self, kinds: bytes, converters: tuple[object, ...], names: tuple[str, ...], dumps: object, key_places: tuple[int, ...], derived: object):
        if not len(kinds) == len(converters) == len(names):
            raise ValueError("a kind, a converter and a name for each field")
        self._kinds, self._converters, self._names = kinds, converters, names
        self._dumps, self._key_places, self._derived = dumps, key_places, derived

    def row(self, fields: tuple[object, ...]) -> tuple[int, list[object]]:
        """The natural key of a row, and the row: id, the fields, the time in microseconds, `nk` and `id_key`.

        Raises what a converter raises.
        """
        cdef list row = self._converted(fields)
        cdef tuple derived = self._derived(*[row[place] for place in self._key_places])
        row.insert(0, derived[1])
        row.append(<int64_t>_time_ns() // 1000)
        row.append(derived[2])
        row.append(derived[3])
        return derived[0], row

    cdef list _converted(self, tuple fields):
        cdef Py_ssize_t place, count = len(self._names)
        if len(fields) != count:
            raise ValueError(f"{count} fields, got {len(fields)}")
        cdef const char *kind = PyBytes_AsString(self._kinds)
        cdef list found = list(fields)
        for place in range(count):
            value = found[place]
            if _is_plain(value, kind[place]):
                continue
            text = self._json(value) if kind[place] == c"j" and type(value) is dict else None
            found[place] = self._converters[place](value, self._names[place]) if text is None else text
        return found

    cdef str _json(self, dict value):
        """The text of a dict, or None: what cannot be written so, or not so that it is read as what it was."""
        if not value:
            return "{}"
        try:
            text = <bytes?>self._dumps(value)
        except (TypeError, ValueError, RecursionError):
            return None
        return None if strstr(PyBytes_AsString(text), "null") != NULL else (<bytes>text).decode()
