# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""The natural key and the id of one prediction: the arithmetic of `n4a_fast.values.ids` on 64-bit integers.

Owns: nothing; it computes what `ids.natural_key`, `ids.prediction_id` and `ids.id_key` compute. Leaves to
`ids`: the hashes of the parts, their order, and what the bits mean.

(a) Python's integers take 2.9 us for a prediction, a fifth of the whole call; this takes 0.3 us.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint64_t

__all__ = ["key_and_id"]

cdef const char *_DIGITS = b"0123456789abcdef"


cdef uint64_t _fold(uint64_t lane, uint64_t part, uint64_t factor) noexcept:
    cdef uint64_t mixed = (lane ^ part) * factor
    return mixed ^ mixed >> 32


cdef object _text(uint64_t high, uint64_t low):
    cdef char text[36]
    cdef int place = 35, digit
    for digit in range(32):
        if place == 23 or place == 18 or place == 13 or place == 8:
            text[place] = b"-"
            place -= 1
        text[place] = _DIGITS[(low if digit < 16 else high) >> 4 * (digit & 15) & 15]
        place -= 1
    return PyUnicode_DecodeASCII(text, 36, NULL)


def key_and_id(prefix: int, chain: tuple[int, int], place: tuple[int, ...], factors: tuple[int, int]) -> tuple[int, str, int, int]:
    """Natural key, prediction id, `nk` and `id_key`: from the time prefix, the two lanes of the chain, and those of
    three more parts.

    Raises OverflowError for numbers beyond 64 bits, IndexError for tuples that are too short.
    """
    cdef uint64_t first = chain[0], second = chain[1], factor = factors[0], other = factors[1]
    cdef uint64_t high, low, id_high
    first = _fold(_fold(_fold(first, place[0], factor), place[2], factor), place[4], factor)
    second = _fold(_fold(_fold(second, place[1], other), place[3], other), place[5], other)
    high = <uint64_t>prefix << 16 | first >> 48
    low = first << 16 | second >> 48
    id_high = (high & <uint64_t>0xFFFFFFFFFFFF0000) | 0x8000 | (high >> 4 & 0xFFF)
    nk = high
    return nk << 64 | low, _text(id_high, (low & <uint64_t>0x3FFFFFFFFFFFFFFF) | <uint64_t>0x8000000000000000), nk, id_high
