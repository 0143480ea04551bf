"""Stand-ins for the constructors that a pickle calls with numbers or names which nobody has checked.

Each gives what the original gives for arguments that it can write itself, and refuses others: sizes that its memory
does not have, classes that it would call, codecs that take for ever. What is made is remembered where it can only be
looked at when all is loaded: types of values, and trees.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from n4a_fast.artifacts.trust.names import imported

_LONGEST_RANGE = 10**6
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_CORES = ("numpy.core", "numpy._core")
_REFCOUNT = 1  # of numpy's flags: values are pointers to objects


class Makers:
    """The stand-ins for one load, and what they have made."""

    def __init__(self) -> None:
        self.dtypes: list[Any] = []
        self.trees: list[Any] = []
        self.names: set[str] = set()  # every global that was imported

    def of(self, module: str, name: str) -> Callable[..., Any] | None:
        """The stand-in for a global, None for one that is called as it is."""
        path = f"{module}.{name}"
        self.names.add(path)
        maker = _MAKERS.get(path)
        return None if maker is None else maker.__get__(self)

    def require_dtypes(self) -> None:
        """UnpicklingError unless every type of values made so far is what it says."""
        for dtype in self.dtypes:
            require_dtype(dtype)

    def _dtype(self, kind: Any, align: bool = False, copy: bool = True) -> Any:
        if not isinstance(kind, str | type):
            raise pickle.UnpicklingError(f"a dtype is made from a {type(kind).__name__}")
        made = np.dtype(kind, align=bool(align), copy=True)  # never numpy's own, which everybody shares
        self.dtypes.append(made)
        return made

    def _scalar(self, dtype: Any, value: Any = None) -> Any:
        require_dtype(dtype)
        if dtype.hasobject:
            raise pickle.UnpicklingError("a number is an object")
        return imported("numpy._core.multiarray", "scalar")(dtype, value)

    def _tree(self, n_features: Any, n_classes: Any, n_outputs: Any) -> Any:
        if (
            not isinstance(n_classes, np.ndarray)
            or n_classes.dtype != np.intp
            or n_classes.ndim != 1
            or len(n_classes) != n_outputs
            or not 1 <= n_outputs <= 2**20
            or not 1 <= n_classes.min() <= n_classes.max() <= 2**31
            or not 1 <= n_features <= 2**31
        ):
            raise pickle.UnpicklingError("a tree has sizes that do not fit")
        made = imported("sklearn.tree._tree", "Tree")(n_features, n_classes, n_outputs)
        self.trees.append(made)
        return made

    def _range(self, *numbers: int) -> range:
        made = range(*numbers)
        if not -1 <= made.stop.bit_length() <= 60 or len(made) > _LONGEST_RANGE:
            raise pickle.UnpicklingError("a range is longer than anything that is stored as one")
        return made

    def _bytearray(self, *content: Any) -> bytearray:
        if content and not isinstance(content[0], bytes | str):
            raise pickle.UnpicklingError("bytes are made from no bytes")
        return bytearray(*content)

    def _encode(self, text: str, codec: str = "latin1") -> bytes:
        if codec not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"text is encoded as {codec!r}")
        return text.encode("latin1")

    def _decimal(self, text: str) -> Any:
        if not isinstance(text, str) or len(text) > 1000:
            raise pickle.UnpicklingError("a decimal number is no short text")
        return imported("decimal", "Decimal")(text)

    def _bit_generator(self, name: Any = "MT19937") -> Any:
        if isinstance(name, type) and issubclass(name, np.random.BitGenerator):
            name = name.__name__
        if name not in _BIT_GENERATORS:
            raise pickle.UnpicklingError("a random generator is none of numpy's")
        return getattr(np.random, name)()

    def _generator(self, kind: Any = "MT19937", _maker: Any = None) -> Any:
        return np.random.Generator(kind if isinstance(kind, np.random.BitGenerator) else self._bit_generator(kind))

    def _random_state(self, kind: Any = "MT19937", _maker: Any = None) -> Any:
        return np.random.RandomState(kind if isinstance(kind, np.random.BitGenerator) else self._bit_generator(kind))


_MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": Makers._dtype,
    **{f"{core}.multiarray.scalar": Makers._scalar for core in _CORES},
    "sklearn.tree._tree.Tree": Makers._tree,
    "builtins.range": Makers._range,
    "builtins.bytearray": Makers._bytearray,
    "_codecs.encode": Makers._encode,
    "decimal.Decimal": Makers._decimal,
    "numpy.random._pickle.__bit_generator_ctor": Makers._bit_generator,
    "numpy.random._pickle.__generator_ctor": Makers._generator,
    "numpy.random._pickle.__randomstate_ctor": Makers._random_state,
}


def require_dtype(dtype: Any) -> None:
    """UnpicklingError for a type of values whose state hides objects, or fields that lie outside of it."""
    if not isinstance(dtype, np.dtype):
        raise pickle.UnpicklingError("values have no numpy type")
    objects, needed = _inside(dtype)
    if objects != bool(dtype.flags & _REFCOUNT) or (objects and dtype.kind != "O") or needed > dtype.itemsize:
        raise pickle.UnpicklingError("a dtype hides objects, or fields beyond its end")
    if dtype.kind not in "SUVO" and dtype.itemsize != np.dtype(dtype.char).itemsize:
        raise pickle.UnpicklingError("a dtype has a size that its kind has not")


def _inside(dtype: Any, depth: int = 0) -> tuple[bool, int]:
    """Whether a dtype holds objects, and the bytes that its fields take."""
    if depth > 8:
        raise pickle.UnpicklingError("a dtype lies too deep within itself")
    if dtype.subdtype is not None:
        objects, _ = _inside(dtype.subdtype[0], depth + 1)
        return objects, int(np.prod(dtype.shape, dtype=object)) * dtype.subdtype[0].itemsize
    if dtype.fields is None:
        return dtype.kind == "O", 0 if dtype.kind in "SUV" else np.dtype(dtype.char).itemsize
    objects, needed = False, 0
    for part, offset, *_ in dtype.fields.values():
        inner, size = _inside(part, depth + 1)
        if not isinstance(offset, int) or offset < 0 or size > part.itemsize:
            raise pickle.UnpicklingError("a dtype has a field before its beginning")
        objects, needed = objects or inner, max(needed, offset + part.itemsize)
    return objects, needed
