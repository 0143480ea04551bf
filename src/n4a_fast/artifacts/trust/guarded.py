"""Unpickling of what came from outside: asked about before it is imported, looked at before it is given away.

The native scanner reads a pickle first, so that nothing of a refused file runs; then C's unpickler makes it, and asks
where an object that a call has made gets its state. Joblib's files with arrays between the opcodes are read the same
way and not by joblib: C's unpickler is given the opcodes alone, and asks for each array, too.
"""

from __future__ import annotations

import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from n4a_fast._native import opcodes
from n4a_fast.artifacts.pickles import JOBLIB_ARRAY, room_for, unpacked
from n4a_fast.artifacts.trust.array_states import require_shape
from n4a_fast.artifacts.trust.makers import Makers
from n4a_fast.artifacts.trust.soundness import require_sound
from n4a_fast.errors import StoreError

_CHECKS_ITS_STATE = frozenset({("sklearn.tree._tree", "Tree")})  # as far as nobody walks it before it is looked at

Builds = Mapping[tuple[str, str], list[int]]
Arrays = Mapping[int, tuple[int, int, bool]]  # from where to where, and whether they are a pickle of objects


class Rules(Protocol):
    """Who is asked."""

    def require_all(self, data: bytes | memoryview) -> tuple[Builds, Arrays]: ...

    def imported(self, module: str, name: str) -> Any: ...

    def unreadable(self, error: BaseException) -> StoreError: ...


def loads(data: bytes | memoryview, rules: Rules) -> Any:
    """The object in `data`; UntrustedArtifactError for what may not be in it, ArtifactUnreadableError for what is not
    whole or not sound.
    """
    makers = Makers()
    try:
        raw = unpacked(data, room_for(len(data)))
        builds, arrays = rules.require_all(raw)
        asked = sorted(at for name, places in builds.items() if name not in _CHECKS_ITS_STATE for at in places)
        if arrays:
            found = _GuardedJoblib(memoryview(raw), asked, arrays, rules, makers).load()
        else:
            found = _Guarded(opcodes.Asking(raw, [(at, at + 1) for at in asked]), rules, makers).load()
        require_sound(found, makers)
        return found
    except StoreError:
        raise
    except Exception as error:  # a state that its class did not write can fail there in any way
        raise rules.unreadable(error) from error


class _Guarded(pickle.Unpickler):
    """For what the scanner has read."""

    def __init__(self, file: opcodes.Asking, rules: Rules, makers: Makers) -> None:
        super().__init__(file)
        self._rules, self._makers = rules, makers

    def find_class(self, module: str, name: str) -> Any:
        if (maker := self._makers.of(module, name)) is not None:
            return maker
        found = self._rules.imported(module, name)
        self._makers.kinds.append(found)
        return found

    def persistent_load(self, asked: tuple[Any, Any]) -> Any:
        """Where the file gives an object its state; the scanner passes none that refers to objects outside."""
        self._makers.give(*asked)
        return asked[0]


class _Array:
    """What joblib's file says about an array before its raw values."""

    shape: tuple[int, ...]
    dtype: Any
    order: str
    subclass: Any
    numpy_array_alignment_bytes: int | None = None


class _GuardedJoblib(_Guarded):
    """For a file with joblib's arrays between its opcodes: each is read where its description gets its state."""

    def __init__(self, raw: memoryview, asked: list[int], arrays: Arrays, rules: Rules, makers: Makers) -> None:
        places: list[tuple[int, int]] = []
        for at in asked:  # those among the objects of an array are for the unpickler of that
            if not places or at >= places[-1][1]:
                places.append((at, arrays[at][1] if at in arrays else at + 1))
        super().__init__(opcodes.Asking(raw, places), rules, makers)
        self._raw, self._asked, self._places, self._arrays = raw, asked, iter(places), arrays

    def find_class(self, module: str, name: str) -> Any:
        return _Array if (module, name) == JOBLIB_ARRAY else super().find_class(module, name)

    def persistent_load(self, asked: tuple[Any, Any]) -> Any:
        found, array = super().persistent_load(asked), self._arrays.get(next(self._places)[0])
        if isinstance(found, _Array) != (array is not None):
            raise pickle.UnpicklingError("an array is not where its description is")
        return found if array is None else self._read(found, *array)

    def _read(self, array: _Array, begin: int, end: int, is_objects: bool) -> Any:
        dtype, shape = array.dtype, array.shape
        length = require_shape(shape, dtype)
        if array.subclass not in (np.ndarray, np.memmap, np.matrix):
            raise pickle.UnpicklingError("an array has no numpy type")
        if dtype.hasobject != is_objects or (not is_objects and length * dtype.itemsize != end - begin):
            raise pickle.UnpicklingError("an array does not end where its description says")
        if is_objects:
            return self._read_objects(begin, end)
        values = bytearray(self._raw[begin:end])
        found = np.ndarray(shape, dtype, values, 0, None, "F" if array.order == "F" else "C")
        return found if array.subclass in (np.ndarray, np.memmap) else found.view(array.subclass)

    def _read_objects(self, begin: int, end: int) -> Any:
        """An array of objects is a pickle of its own, in which joblib puts no arrays between the opcodes."""
        inside = self._asked[bisect_right(self._asked, begin) : bisect_left(self._asked, end)]
        asking = opcodes.Asking(self._raw[begin:end], [(at - begin, at - begin + 1) for at in inside])
        return _Guarded(asking, self._rules, self._makers).load()
