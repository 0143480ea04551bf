"""Unpickling that asks before each import.

Joblib's files, compressed or with arrays between the opcodes, are read here and not by joblib: it would
unpickle arrays of objects without asking anybody.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.pickles import unpacked

ImportGlobal = Callable[[str, str], Any]
_JOBLIB_ARRAY = ("joblib.numpy_pickle", "NumpyArrayWrapper")


def loads(data: bytes | memoryview, import_global: ImportGlobal) -> Any:
    """The object in `data`; `import_global(module, name)` gives each global that it asks for, or raises."""
    unpickler = _Guarded if codec.is_plain(data) else _GuardedJoblib
    return unpickler(io.BytesIO(unpacked(bytes(data))), import_global).load()


class _Guarded(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, import_global: ImportGlobal) -> None:
        super().__init__(file)
        self._import_global = import_global

    def find_class(self, module: str, name: str) -> Any:
        return self._import_global(module, name)


class _Array:
    """What joblib's file says about an array before its raw values."""

    shape: tuple[int, ...]
    dtype: Any
    order: str
    subclass: Any
    numpy_array_alignment_bytes: int | None = None


class _GuardedJoblib(pickle._Unpickler):
    stack: list[Any]  # the stubs do not tell

    def __init__(self, file: io.BytesIO, import_global: ImportGlobal) -> None:
        super().__init__(file)
        self._file, self._import_global = file, import_global

    def find_class(self, module: str, name: str) -> Any:
        return _Array if (module, name) == _JOBLIB_ARRAY else self._import_global(module, name)

    def _build(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], _Array):
            self.stack[-1] = self._read(self.stack[-1])

    def _read(self, array: _Array) -> Any:
        if not isinstance(array.dtype, np.dtype) or not (
            isinstance(array.subclass, type) and issubclass(array.subclass, np.ndarray)
        ):
            raise pickle.UnpicklingError("an array has no numpy type")
        if array.dtype.hasobject:
            return _Guarded(self._file, self._import_global).load()
        if array.numpy_array_alignment_bytes is not None:
            self._file.seek(self._file.read(1)[0], io.SEEK_CUR)
        values = bytearray(self._file.read(math.prod(array.shape) * array.dtype.itemsize))
        found = np.frombuffer(values, array.dtype).reshape(array.shape, order="F" if array.order == "F" else "C")
        return found if array.subclass in (np.ndarray, np.memmap) else found.view(array.subclass)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}
