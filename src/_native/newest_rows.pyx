# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Rows in memory, of which the newest one of each id counts; those that came after the last flush are *fresh*.

Owns: the values, and which row of an id is its newest. Promises: each call is done whole or, where it raises, not at
all, an interrupt included. Leaves to others: what the columns mean, and when rows are flushed.

(a) The values of all rows lie behind each other in one list, so that a column is a slice of it. A tuple for each row,
    and an iterator over each to turn them into columns, would be objects that Python's garbage collector looks at
    again and again.
(b) The fresh rows of a pipeline are written as msgpack here: slices, counts and dicts of 33 columns for a library that
    encodes them took 60 us of Python, five times as long as this.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_SetSlice
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object number) except? 0xFFFFFFFFFFFFFFFF
    double PyFloat_AsDouble(object number) except? -1.0

__all__ = ["NewestRows"]


cdef class NewestRows:
    """NewestRows(width)
--

    Rows of so many values; the first of them is the id, and no value is a container.
    """

    cdef Py_ssize_t _width, _rows, _kept  # rows that were put, and how many of them are not fresh
    cdef list _cells  # of all rows that were put, those that others have replaced included
    cdef readonly dict places

    def __init__(self, width: int):
        if width < 1 or self._cells is not None:
            raise ValueError(f"rows have at least one value and are initialised once, got {width}")
        self._width, self._cells, self.places = width, [], {}

    def __len__(self):
        return 0 if self.places is None else len(self.places)

    def __contains__(self, identifier: object) -> bool:
        """Whether there is a row of this id."""
        return identifier in self.places

    @property
    def fresh(self) -> int:
        """How many fresh rows were put; some may have replaced others of them."""
        return self._rows - self._kept

    @property
    def is_plain(self) -> bool:
        """Whether no row was replaced or forgotten: the newest rows are all, one after the other."""
        return len(self.places) == self._rows

    def put(self, row: object) -> None:
        """Keep a row, in place of the one with its id; ValueError for one of another length."""
        cdef str identifier = row[0]
        self.places[identifier] = self._append(row)

    def put_new(self, row: object, key: int, id_of_key: dict[int, str], key_of_id: dict[str, int]) -> bool:
        """Keep a row, and note its id and its key with each other; False, and nothing done, where either is known."""
        cdef str identifier = row[0]
        if key in id_of_key or identifier in key_of_id:
            return False
        self.places[identifier] = self._append(row)
        id_of_key[key], key_of_id[identifier] = identifier, key
        return True

    def fill(self, row: object, place: int) -> None:
        """Whether an interrupt came before or after a row was kept, let there be so many rows with this one."""
        if place == self._rows:
            self._append(row)

    def drop(self, identifier: str) -> None:
        """Forget the row of an id, if there is one."""
        self.places.pop(identifier, None)

    def get(self, identifier: str) -> list[object] | None:
        """The newest row of an id."""
        place = self.places.get(identifier)
        return None if place is None else self._cells[self._width * <Py_ssize_t>place : self._width * (<Py_ssize_t>place + 1)]

    def columns(self) -> list[list[object]]:
        """The columns of the newest rows, in the order of first sight of their ids."""
        cdef Py_ssize_t column
        columns = [self._cells[column :: self._width] for column in range(self._width)]
        if len(self.places) == self._rows:
            return columns
        return [[column_cells[place] for place in self.places.values()] for column_cells in columns]

    def mark_logged(self) -> None:
        """What is fresh is not any more."""
        self._kept = self._rows

    def fresh_places(self) -> list[int]:
        """Where the fresh rows are that others have not replaced, counted from the first of them, in the order in
        which they were put.
        """
        cdef Py_ssize_t row
        if len(self.places) == self._rows:
            return list(range(self._rows - self._kept))
        return [row - self._kept for row in range(self._kept, self._rows) if self.places.get(self._cells[self._width * row]) == row]

    def fresh_column(self, places: list[int], column: int) -> list[object]:
        """One column of these fresh rows."""
        if not 0 <= column < self._width:
            raise IndexError(f"rows have {self._width} values, no value {column}")
        return self._column(places, column)

    def packed(self, names: tuple[str, ...], places: list[int], with_places: bool = False) -> bytes:
        """These fresh rows for a log record, in msgpack: how many, and each column under its name; `with_places` these
        under the first name.

        A value that all rows have stands for its column, unless it is a number with a fraction. Raises TypeError for
        what is no text, number or None, OverflowError for whole numbers beyond 64 bits.
        """
        cdef Py_ssize_t column, count = len(places), first = 1 if with_places else 0
        if not count or len(names) != self._width + first:
            raise ValueError(f"{count} rows of {self._width} values, and {len(names)} names")
        cdef _Text text = _Text()
        text.head(0x90, 0xdc, 2)
        text.whole(count)
        text.head(0x80, 0xde, len(names))
        if with_places:
            text.value(names[0])
            text.column(places)
        for column in range(self._width):
            text.value(names[column + first])
            text.column(self._column(places, column))
        return PyBytes_FromStringAndSize(text.data, text.used)

    cdef list _column(self, list places, Py_ssize_t column):
        cdef Py_ssize_t first = self._width * self._kept + column, place
        if len(places) == self._rows - self._kept:
            return self._cells[first :: self._width]
        return [self._cells[first + self._width * place] for place in places]

    cdef Py_ssize_t _append(self, object row) except -1:
        """Where the row is now."""
        if len(row) != self._width:
            raise ValueError(f"rows of {self._width} values, got one of {len(row)}")
        PyList_SetSlice(self._cells, self._width * self._rows, self._width * self._rows, row)
        self._rows += 1
        return self._rows - 1


cdef class _Text:
    """A growing text in msgpack."""

    cdef char *data
    cdef Py_ssize_t used, room

    def __dealloc__(self):
        free(self.data)

    cdef char *place(self, Py_ssize_t size) except NULL:
        """Room for so many more bytes, which are written next."""
        cdef char *grown
        if self.used + size > self.room:
            room = 2 * (self.used + size) + 4096
            grown = <char *>realloc(self.data, room)
            if grown == NULL:
                raise MemoryError()
            self.data, self.room = grown, room
        self.used += size
        return self.data + self.used - size

    cdef int number(self, uint8_t mark, uint64_t value, int size) except -1:
        """A mark and a number in so many bytes, the highest first."""
        cdef char *out = self.place(1 + size)
        cdef int byte
        out[0] = <char>mark
        for byte in range(size):
            out[1 + byte] = <char>(value >> 8 * (size - 1 - byte) & 0xff)
        return 0

    cdef int head(self, uint8_t short, uint8_t mark, Py_ssize_t length) except -1:
        """The begin of an array or a map of so many members."""
        if length < 16:
            return self.number(<uint8_t>(short | length), 0, 0)
        return self.number(mark, length, 2) if length < 1 << 16 else self.number(mark + 1, length, 4)

    cdef int whole(self, int64_t value) except -1:
        if value >= 0:
            return self.natural(value)
        if value >= -32:
            return self.number(<uint8_t>(value & 0xff), 0, 0)
        if value >= -128:
            return self.number(0xd0, value, 1)
        if value >= -32768:
            return self.number(0xd1, value, 2)
        return self.number(0xd2, value, 4) if value >= -2147483648 else self.number(0xd3, value, 8)

    cdef int natural(self, uint64_t value) except -1:
        if value < 128:
            return self.number(<uint8_t>value, 0, 0)
        if value < 1 << 8:
            return self.number(0xcc, value, 1)
        if value < 1 << 16:
            return self.number(0xcd, value, 2)
        return self.number(0xce, value, 4) if value < <uint64_t>1 << 32 else self.number(0xcf, value, 8)

    cdef int text(self, str value) except -1:
        cdef Py_ssize_t size = 0
        cdef const char *letters = PyUnicode_AsUTF8AndSize(value, &size)
        if size < 32:
            self.number(<uint8_t>(0xa0 | size), 0, 0)
        elif size < 1 << 8:
            self.number(0xd9, size, 1)
        else:
            self.number(0xda, size, 2) if size < 1 << 16 else self.number(0xdb, size, 4)
        memcpy(self.place(size), letters, size)
        return 0

    cdef int value(self, object value) except -1:
        cdef int overflow = 0
        cdef int64_t number
        cdef double real
        if value is None:
            return self.number(0xc0, 0, 0)
        if type(value) is str:
            return self.text(value)
        if type(value) is int:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            return self.natural(PyLong_AsUnsignedLongLong(value)) if overflow > 0 else self.negative(number, overflow)
        if type(value) is float:
            real = PyFloat_AsDouble(value)
            return self.number(0xcb, (<uint64_t *>&real)[0], 8)
        raise TypeError(f"a row holds text, numbers and None, got {type(value).__name__}")

    cdef int negative(self, int64_t number, int overflow) except -1:
        if overflow:
            raise OverflowError("a whole number below 64 bits")
        return self.whole(number)

    cdef int column(self, list values) except -1:
        """The values of all rows; once where it is the same one."""
        if _is_shared(values):
            return self.value(values[0])
        self.head(0x90, 0xdc, len(values))
        for value in values:
            self.value(value)
        return 0


cdef bint _is_shared(list values) except -1:
    """Whether all values are equal; 0.0 equals -0.0, and is another number."""
    first = values[0]
    kind = type(first)
    if kind is float:
        return False
    for value in values:
        if value is not first and (type(value) is not kind or value != first):
            return False
    return True
