# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Which globals a pickle names and what it would do with them, told without making anything of it.

Owns: the decoding of their names. Promises: nothing of the pickle is imported, called or made; every byte is read once;
no more memory than the caller allows. Leaves to others: what may be done, and joblib's files, whose arrays lie between
the opcodes.

(a) Python's own unpickler with harmless opcodes takes 20 s for 100 MB of them; this takes 0.5 s, and a few microseconds
    for the pickle of a model, so it can come before every load.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free

import codecs

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
    ctypedef struct n4a_scan:
        n4a_named *globals
        int64_t count, end
        int kind
        int64_t result "global"
    int n4a_scan_run(const uint8_t *data, int64_t length, int64_t limit, n4a_scan *found)
    const char *n4a_scan_error(int code)

__all__ = ["scan"]


def scan(data: bytes | memoryview, limit: int) -> tuple[dict[tuple[str, str], int], tuple[str, str] | None]:
    """The globals of a pickle as module and name, each with its uses, and the one that made the object in it, None for
    plain data.

    Uses are flags: 1 called with arguments, 4 made with arguments by its `__new__`, 8 changed itself (or its result
    called), 16 filled with items by its own methods; 0 for one that is only passed along or made empty and given its
    state. `limit` bounds the memory of the walk in bytes. Raises ValueError, with the reason, for what is no whole
    pickle.
    """
    cdef Py_buffer view
    cdef n4a_scan found
    cdef int failed
    cdef int64_t most = limit, place
    cdef const uint8_t *start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    start = <const uint8_t *>view.buf
    try:
        with nogil:
            failed = n4a_scan_run(start, view.len, most, &found)
        if failed:
            raise ValueError(f"{n4a_scan_error(failed).decode()}, at byte {found.end}")
        uses, listed = {}, []
        for place in range(found.count):
            name = _text(start, &found.globals[place].module), _text(start, &found.globals[place].name)
            uses[name] = uses.get(name, 0) | found.globals[place].uses & (N4A_CALLED | N4A_MADE_WITH | N4A_CHANGED | N4A_FILLED)
            if place == found.result:
                listed.append(name)
        return uses, listed[0] if listed and found.kind == N4A_OBJECT else None
    finally:
        free(found.globals)
        PyBuffer_Release(&view)


cdef str _text(const uint8_t *data, const n4a_text *text):
    cdef bytes found = data[text.start:text.start + text.length]
    if text.form == b"V":
        return found.decode("raw-unicode-escape")
    if text.form == b"S":
        return codecs.escape_decode(found.strip()[1:-1])[0].decode("ascii")
    return found.decode("utf-8")
