# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""What can be reached from an object, without calling anything of it.

Owns: the search. Promises: each object is looked at once; memory is 16 to 32 bytes an object. Leaves to others: which
classes are wanted, and what must hold of their objects.

(a) Objects are found by what they tell Python's collector, and in numpy's arrays of objects, which tell it nothing.
(b) A boosted model of 100 trees is 4,000 objects, most of them numbers and texts: the search over them took half of
    the time of a guarded load in Python.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

import gc

import numpy as np

cdef enum:
    ENTERED = 1
    WANTED = 2
    MAY_HOLD_OBJECTS = 4

__all__ = ["reachable"]

cdef object _referents = gc.get_referents


cdef class _Seen:
    """Addresses of objects that live as long as this does."""

    cdef uintptr_t *places
    cdef size_t room, count

    def __cinit__(self):
        self.room = 1024
        self.places = _cleared(self.room)

    def __dealloc__(self):
        free(self.places)

    cdef bint is_new(self, PyObject *one) except -1:
        if 2 * self.count >= self.room:
            self._grow()
        if not self._put(<uintptr_t>one):
            return False
        self.count += 1
        return True

    cdef bint _put(self, uintptr_t address) noexcept:
        cdef size_t at = (address >> 4) * <uint64_t>0x9E3779B97F4A7C15 >> 20 & (self.room - 1)
        while self.places[at] and self.places[at] != address:
            at = (at + 1) & (self.room - 1)
        if self.places[at]:
            return False
        self.places[at] = address
        return True

    cdef int _grow(self) except -1:
        cdef uintptr_t *before = self.places
        cdef size_t room = self.room, at
        self.places = _cleared(2 * room)
        self.room = 2 * room
        for at in range(room):
            if before[at]:
                self._put(before[at])
        free(before)
        return 0


cdef uintptr_t *_cleared(size_t room) except NULL:
    cdef uintptr_t *places = <uintptr_t *>calloc(room, sizeof(uintptr_t))
    if places == NULL:
        raise MemoryError()
    return places


def reachable(root: object, kind_of: object) -> list[object]:
    """Every object of a wanted class that can be reached from `root`, once.

    `kind_of` says by flags what is done with objects of a class: 0 passed by, 1 looked into, 2 wanted, 4 a numpy array
    that may hold objects. It is asked once for each class.
    """
    cdef _Seen seen = _Seen()
    cdef dict kinds = {}
    cdef list found = [], waiting = [], inside = [root]
    while inside:
        waiting = _entered(inside, seen, kinds, kind_of, found)
        inside = _referents(*waiting)
        for one in waiting:
            if <int>kinds[type(one)] & MAY_HOLD_OBJECTS and one.dtype.hasobject:
                inside += np.asarray(one).ravel().tolist()
    return found


cdef list _entered(list inside, _Seen seen, dict kinds, object kind_of, list found):
    """Those that were not seen before and are looked into; the wanted ones are found."""
    cdef list entered = []
    cdef int kind
    for one in inside:
        if one is None or type(one) is str or type(one) is float or type(one) is int or type(one) is bool:
            continue
        if not seen.is_new(<PyObject *>one):
            continue
        known = kinds.get(type(one))
        if known is None:
            known = kinds[type(one)] = kind_of(type(one))
        kind = known
        if kind & WANTED:
            found.append(one)
        if kind & ENTERED:
            entered.append(one)
    return entered
