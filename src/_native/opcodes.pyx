# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Which globals a pickle names and what it would do with them, told without making anything of it.

Owns: the decoding of their names, the places where a pickle is to ask, where joblib has put arrays between the
opcodes, and the making of small arrays. Promises: nothing of the pickle is imported, called or made; every byte is read once, or twice where joblib's
arrays are; no more memory than the caller allows. Leaves to others: what may be done.

(a) Python's own unpickler with harmless opcodes takes 20 s for 100 MB of them; this takes 0.5 s, and a few microseconds
    for the pickle of a model, so it can come before every load.
(b) C's unpickler gives an object its state without asking anybody. `Asking` is the pickle as a file in which it asks its
    `persistent_load` instead, wherever the caller wants that; frames are read at once, as they are from any file, and end
    where they say: C's unpickler of Python 3.14.8 refuses an opcode that reads across the end of its frame.
(c) Boosted trees have hundreds of small arrays, whose making in Python was a tenth of a load: `array_from_bytes`.
(d) Python's own unpickler takes five times as long for joblib's files as C's, which cannot read what lies between
    opcodes. `Asking` leaves that out, and whoever is asked reads it: the walk has told from where to where.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcpy

import codecs

import numpy as np

cdef extern from "opcode_walk.h" nogil:
    enum:
        N4A_CALLED
        N4A_MADE
        N4A_MADE_WITH
        N4A_CHANGED
        N4A_FILLED
        N4A_BUILT
        N4A_OBJECT
    ctypedef struct n4a_text:
        int64_t start, length
        int form
    ctypedef struct n4a_named:
        n4a_text module, name
        int uses
    ctypedef struct n4a_build:
        int64_t at
        int64_t made_by "global"
        int64_t start, end
        int is_objects
    ctypedef struct n4a_scan:
        n4a_named *globals
        n4a_build *builds
        int64_t count, built, end
        int kind
        int64_t result "global"
    int n4a_scan_run(const uint8_t *data, int64_t length, int64_t limit, n4a_scan *found)
    const char *n4a_scan_error(int code)

__all__ = ["Asking", "array_from_bytes", "scan"]

cdef object _ndarray = np.ndarray, _dtype = np.dtype

cdef tuple _JOBLIB_ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")
cdef Py_ssize_t _JOBLIB_ARRAY_LENGTH = sum(map(len, _JOBLIB_ARRAY))


def scan(data: bytes | memoryview, limit: int) -> tuple[dict[tuple[str, str], int], tuple[str, str] | None, dict[tuple[str, str], list[int]], dict[int, tuple[int, int, bool]]]:
    """The globals of a pickle as module and name, each with its uses; the one that made the object in it, None for
    plain data; where state is given to what was made by a call of each, or in two parts, or to joblib's arrays; and,
    by these places, from where to where the values of joblib's arrays lie and whether they are a pickle of objects.

    Uses are flags: 1 called with arguments, 4 made with arguments by its `__new__`, 8 changed itself (or its result
    called), 16 filled with items by its own methods; 0 for one that is only passed along or made empty and given its
    state. `limit` bounds the memory of the walk in bytes. Raises ValueError, with the reason, for what is no whole
    pickle.
    """
    cdef Py_buffer view
    cdef n4a_scan found
    cdef n4a_build *build
    cdef int failed
    cdef int64_t most = limit, place, made_by = -1
    cdef list places = None
    cdef const uint8_t *start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    start = <const uint8_t *>view.buf
    try:
        with nogil:
            failed = n4a_scan_run(start, view.len, most, &found)
        if failed:
            raise ValueError(f"{n4a_scan_error(failed).decode()}, at byte {found.end}")
        names = [_name(start, &found.globals[place]) for place in range(found.count)]
        uses, builds, arrays = {}, {}, {}
        for place in range(found.count):
            name = names[place]
            uses[name] = uses.get(name, 0) | found.globals[place].uses & (N4A_CALLED | N4A_MADE_WITH | N4A_CHANGED | N4A_FILLED)
        for place in range(found.built):
            build = &found.builds[place]
            if build.made_by != made_by:
                made_by = build.made_by
                places = builds.setdefault(names[made_by], [])
            places.append(build.at)
            if build.end:
                arrays[build.at] = build.start, build.end, build.is_objects != 0
        return uses, names[found.result] if found.kind == N4A_OBJECT else None, builds, arrays
    finally:
        free(found.globals)
        free(found.builds)
        PyBuffer_Release(&view)


cdef class Asking:
    """A pickle as a file for C's unpickler, with the BUILDs at some places turned into a question.

    `places` are those of BUILD opcodes that `scan` has told, in order, each with the place where the opcodes go on:
    behind it, or behind the array there. At each the unpickler calls its `persistent_load` with the object and its
    state, and goes on with what that returns. A question is two bytes in the place of one, and frames are told to be
    longer by that. The pickle is read in place and kept alive.
    """

    cdef Py_buffer view
    cdef Py_ssize_t at
    cdef list places
    cdef Py_ssize_t asked
    cdef bint half_asked  # the second byte of a question is next
    cdef bint begins_frame  # the opcode was FRAME, its length is next

    def __cinit__(self, data, list places):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.places = places

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef bytes _plain(self, Py_ssize_t end):
        found = (<const char *>self.view.buf)[self.at:end]
        self.at = end
        return found

    cdef Py_ssize_t _next_place(self):
        return self.places[self.asked][0] if self.asked < len(self.places) else self.view.len

    def read(self, size: int) -> bytes:
        """The next `size` bytes, questions among them; fewer at the end."""
        cdef Py_ssize_t end
        if self.begins_frame and size == 8:
            return self._frame_length()
        end = min(self.at + <Py_ssize_t>size, self.view.len)
        if self.half_asked or self._next_place() < end:
            return self._with_questions(size)
        found = self._plain(end)
        # no argument of one byte is followed by one of eight: this can only be an opcode
        self.begins_frame = size == 1 and found == b"\x95"
        return found

    cdef bytes _frame_length(self):
        """As the pickle has it, and a byte for each question in the frame."""
        cdef Py_ssize_t length = int.from_bytes(self._plain(self.at + 8), "little"), asked = self.asked
        cdef Py_ssize_t end = self.at + length
        while asked < len(self.places) and self.places[asked][0] < end:
            asked += 1
        self.begins_frame = False
        return (length + asked - self.asked).to_bytes(8, "little")

    cdef bytes _with_questions(self, Py_ssize_t size):
        cdef Py_ssize_t place
        cdef list parts = []
        while size and (self.half_asked or self.at < self.view.len):
            place = self._next_place()
            if self.half_asked:
                parts.append(b"Q")
                self.half_asked = False
                size -= 1
            elif self.at < place:
                place = min(place, self.at + size)
                size -= place - self.at
                parts.append(self._plain(place))
            else:
                parts.append(b"\x86")
                self.half_asked = True
                self.at = self.places[self.asked][1]
                self.asked += 1
                size -= 1
        return b"".join(parts)

    def readinto(self, target) -> int:
        """Bytes of a large value, straight to where they belong."""
        cdef Py_buffer wanted
        cdef Py_ssize_t length
        PyObject_GetBuffer(target, &wanted, PyBUF_SIMPLE | PyBUF_WRITABLE)
        length = min(wanted.len, self.view.len - self.at)
        memcpy(wanted.buf, <const char *>self.view.buf + self.at, length)
        self.at += length
        PyBuffer_Release(&wanted)
        return length

    def readline(self) -> bytes:
        """The rest of a line: an argument, in which nothing is asked."""
        cdef const char *start = <const char *>self.view.buf + self.at
        cdef const char *end = <const char *>memchr(start, 10, self.view.len - self.at)
        return self._plain(self.view.len if end == NULL else self.at + (end - start) + 1)


def array_from_bytes(values: object, dtype: object, shape: object, order: object, axes: object = None) -> object:
    """What numpy's `_frombuffer` gives: an array of this type and shape on `values`, whose memory it shares; by one
    call of numpy's in the place of three. With `order` "K" its axes are those of one in C order, in the order `axes`.

    Raises ValueError for a type that holds objects, another order or another length; TypeError for what is no type or
    too short.
    """
    if order == "K" and axes is not None:
        return array_from_bytes(values, dtype, shape, "C").transpose(axes)
    if (order != "C" and order != "F") or axes is not None:
        raise ValueError("an array has no order that numpy writes")
    if not isinstance(dtype, _dtype) or dtype.hasobject:
        raise ValueError("an array of objects is made from bytes")
    found = _ndarray(shape, dtype, values, 0, None, order)
    if found.nbytes != len(values):
        raise ValueError("an array has another length than its bytes")
    return found


cdef tuple _name(const uint8_t *data, const n4a_named *text):
    """Module and name; ValueError for joblib's array by a name that the walk does not know."""
    found = _text(data, &text.module), _text(data, &text.name)
    if found == _JOBLIB_ARRAY and text.module.length + text.name.length != _JOBLIB_ARRAY_LENGTH:
        raise ValueError("it names joblib's arrays as joblib does not")
    return found


cdef str _text(const uint8_t *data, const n4a_text *text):
    cdef bytes found = data[text.start:text.start + text.length]
    if text.form == b"V":
        return found.decode("raw-unicode-escape")
    if text.form == b"S":
        return codecs.escape_decode(found.strip()[1:-1])[0].decode("ascii")
    return found.decode("utf-8")
