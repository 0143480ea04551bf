# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Natural keys and ids of predictions: the arithmetic of `n4a_fast.values.ids` on 64-bit integers.

Owns: nothing; it computes what `ids.natural_key`, `ids.prediction_id` and `ids.id_key` compute. Leaves to
`ids`: the hashes of the parts, their order, and what the bits mean.

(a) Python's integers take 2.9 us for a prediction, a fifth of the whole call; this takes 0.3 us.
(b) The ids of a bulk call are text of one length, written where Arrow reads it: 30 ns each, by numpy 120.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint64_t

__all__ = ["ids_of_keys", "key_and_id"]

cdef enum:
    ID_LENGTH = 36

cdef const char *_DIGITS = b"0123456789abcdef"


cdef uint64_t _fold(uint64_t lane, uint64_t part, uint64_t factor) noexcept:
    cdef uint64_t mixed = (lane ^ part) * factor
    return mixed ^ mixed >> 32


cdef uint64_t _id_high(uint64_t high) noexcept:
    return (high & <uint64_t>0xFFFFFFFFFFFF0000) | 0x8000 | (high >> 4 & 0xFFF)


cdef void _write_id(char *text, uint64_t key_high, uint64_t key_low) noexcept:
    cdef uint64_t high = _id_high(key_high), low = (key_low & <uint64_t>0x3FFFFFFFFFFFFFFF) | <uint64_t>0x8000000000000000
    cdef int place = ID_LENGTH - 1, digit
    for digit in range(32):
        if place == 23 or place == 18 or place == 13 or place == 8:
            text[place] = b"-"
            place -= 1
        text[place] = _DIGITS[(low if digit < 16 else high) >> 4 * (digit & 15) & 15]
        place -= 1


def ids_of_keys(high: object, low: object) -> bytes:
    """The ids of natural keys, one after the other; these are given by their halves, buffers of 64-bit integers in
    native byte order.

    Raises ValueError for buffers of different lengths.
    """
    cdef Py_buffer highs, lows
    cdef bytes text
    cdef char *out
    cdef Py_ssize_t row, rows
    PyObject_GetBuffer(high, &highs, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(low, &lows, PyBUF_SIMPLE)
        try:
            if highs.len != lows.len or highs.len % 8:
                raise ValueError(f"halves of keys of {highs.len} and {lows.len} bytes")
            rows = highs.len // 8
            text = PyBytes_FromStringAndSize(NULL, ID_LENGTH * rows)
            out = PyBytes_AsString(text)
            for row in range(rows):
                _write_id(out + ID_LENGTH * row, (<const uint64_t *>highs.buf)[row], (<const uint64_t *>lows.buf)[row])
            return text
        finally:
            PyBuffer_Release(&lows)
    finally:
        PyBuffer_Release(&highs)


def key_and_id(prefix: int, chain: tuple[int, int], place: tuple[int, ...], factors: tuple[int, int]) -> tuple[int, str, int, int]:
    """Natural key, prediction id, `nk` and `id_key`: from the time prefix, the two lanes of the chain, and those of
    three more parts.

    Raises OverflowError for numbers beyond 64 bits, IndexError for tuples that are too short.
    """
    cdef uint64_t first = chain[0], second = chain[1], factor = factors[0], other = factors[1]
    cdef uint64_t high, low
    cdef char text[ID_LENGTH]
    first = _fold(_fold(_fold(first, place[0], factor), place[2], factor), place[4], factor)
    second = _fold(_fold(_fold(second, place[1], other), place[3], other), place[5], other)
    high = <uint64_t>prefix << 16 | first >> 48
    low = first << 16 | second >> 48
    _write_id(text, high, low)
    nk = high
    return nk << 64 | low, PyUnicode_DecodeASCII(text, ID_LENGTH, NULL), nk, _id_high(high)
