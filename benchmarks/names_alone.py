"""A guard that asks for names and looks at nothing else, as the package had first: what loading is held against.

Plain pickles are read by C's unpickler and joblib's files by Python's, each with a `find_class` that asks whether the
module is below one that is known.
"""

from __future__ import annotations

import importlib
import io
import math
import pickle
import re
from functools import reduce
from typing import Any, ClassVar

import numpy as np

_KNOWN = ("builtins", "copyreg", "joblib", "numpy", "scipy.sparse", "scipy.spatial", "sklearn")
_JOBLIB = re.compile(rb"joblib\.numpy_pickle")


def loads(data: bytes) -> Any:
    """The object in `data`; UnpicklingError for a name that is not below a known module."""
    unpickler = _Names if _JOBLIB.search(data) is None else _JoblibNames
    return unpickler(io.BytesIO(data)).load()


def _imported(module: str, name: str) -> Any:
    if not any(module == known or module.startswith(f"{known}.") for known in _KNOWN):
        raise pickle.UnpicklingError(f"{module}.{name} is not known")
    return reduce(getattr, name.split("."), importlib.import_module(module))


class _Names(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _imported(module, name)


class _Array:
    shape: tuple[int, ...]
    dtype: Any
    order: str
    numpy_array_alignment_bytes: int | None = None


class _JoblibNames(pickle._Unpickler):
    stack: list[Any]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        return _Array if name == "NumpyArrayWrapper" else _imported(module, name)

    def _build(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        if isinstance(self.stack[-1], _Array):
            self.stack[-1] = self._read(self.stack[-1])

    def _read(self, array: _Array) -> Any:
        if array.dtype.hasobject:
            return _Names(self._file).load()
        if array.numpy_array_alignment_bytes is not None:
            self._file.seek(self._file.read(1)[0], io.SEEK_CUR)
        values = bytearray(self._file.read(math.prod(array.shape) * array.dtype.itemsize))
        return np.frombuffer(values, array.dtype).reshape(array.shape, order="F" if array.order == "F" else "C")

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}
