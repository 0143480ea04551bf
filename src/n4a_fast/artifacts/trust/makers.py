"""Stand-ins for the constructors that a pickle calls with numbers or names which nobody has checked.

Each gives what the original gives for arguments that it can write itself, and refuses others: sizes that its memory
does not have, classes that it would call, codecs that take for ever. What is made by a call gets its state here, too.
Trees are remembered, since they can only be looked at when all is loaded.
"""

from __future__ import annotations

import collections
import pickle
import types
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from n4a_fast._native.kernels import tree_sizes_fit
from n4a_fast._native.opcodes import array_from_bytes
from n4a_fast.artifacts.trust import array_states, generators
from n4a_fast.artifacts.trust.names import imported

_LONGEST_RANGE = 10**6
_CORES = ("numpy.core", "numpy._core")
_PLAIN_BASES = (object, dict, list, tuple, set, frozenset, int, float, complex, str, bytes)
_COLLECTED = (list, tuple, dict, set, frozenset, range)
_BITS = np.dtype(np.int8)


# compiled methods that read the places of a tuple without asking how many it has; an object that has a whole state
_TREE = ("sklearn.neighbors._kd_tree", "KDTree", ((0.0,),))
_DISTANCE = ("sklearn.metrics._dist_metrics", "EuclideanDistance64")
_UNCHECKED: dict[str, tuple[Any, ...]] = {
    f"{name}{bits}.__setstate__": sample
    for name, sample in (("BinaryTree", _TREE), ("DistanceMetric", _DISTANCE))
    for bits in ("", 32, 64)
}


class Makers:
    """The stand-ins for one load, and what they have made."""

    def __init__(self) -> None:
        self.trees: list[Any] = []
        self.generators: set[Any] = set()  # of bits, with a state that was looked at
        self.names: set[str] = set()  # every global that was imported
        self.kinds: list[Any] = []  # those without a stand-in
        self._of_numbers: Any = None  # the type of values that was looked at last

    def of(self, module: str, name: str) -> Callable[..., Any] | None:
        """The stand-in for a global, None for one that is called as it is."""
        path = f"{module}.{name}"
        self.names.add(path)
        maker = _MAKERS.get(path)
        return None if maker is None else maker.__get__(self)

    def give(self, one: Any, state: Any) -> None:
        """An object gets its state as a pickle gives it, once that is looked at; UnpicklingError for what it may not
        have.
        """
        own: Any = getattr(type(one), "__setstate__", None)
        if isinstance(one, np.dtype):
            state = array_states.type_state(one, state)
        elif isinstance(one, np.ndarray):
            array_states.require_array_state(one, state)
        elif type(one) in generators.KINDS:
            generators.require_state(one, state)
            self.generators.add(one)
        elif type(one) in generators.USERS:
            generators.require_state(one, state)
        if own is not None:  # what stands among its attributes by this name is no method
            if (sample := _UNCHECKED.get(getattr(own, "__qualname__", ""))) and not _is_like(state, *sample):
                raise pickle.UnpicklingError(f"a {type(one).__name__} gets no whole state")
            own(one, state)
            return
        values, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
        if values:
            vars(one).update(values)
        for name, value in (slots or {}).items():
            if not isinstance(getattr(type(one), name, None), types.MemberDescriptorType):
                raise pickle.UnpicklingError(f"a {type(one).__name__} has no slot {name!r}")
            setattr(one, name, value)

    def _dtype(self, kind: Any, align: bool = False, copy: bool = True) -> Any:
        if not isinstance(kind, str | type):
            raise pickle.UnpicklingError(f"a dtype is made from a {type(kind).__name__}")
        made = np.dtype(kind, align=bool(align), copy=True)  # never numpy's own, which everybody shares
        if not array_states.is_honest(made):
            raise pickle.UnpicklingError("a dtype holds objects in its fields")
        return made

    def _array(self, kind: Any, shape: Any, dtype: Any) -> Any:
        if not isinstance(kind, type) or not issubclass(kind, np.ndarray) or shape != (0,) or dtype not in (b"b", "b"):
            raise pickle.UnpicklingError("an array is not made empty")
        return _reconstruct(kind, (0,), _BITS)

    def _masked(self, kind: Any, base: Any, shape: Any, dtype: Any) -> Any:
        if kind is not np.ma.MaskedArray or base is not np.ndarray or shape != (0,) or dtype not in (b"b", "b"):
            raise pickle.UnpicklingError("a masked array is not made empty")
        return np.ma.MaskedArray(np.empty(0, _BITS), mask=np.empty(0, bool), dtype=_BITS)

    def _scalar(self, dtype: Any, value: Any = None) -> Any:
        if dtype is not self._of_numbers:  # a type that holds no objects never comes to hold some: see `type_state`
            if not array_states.is_honest(dtype) or dtype.hasobject:
                raise pickle.UnpicklingError("a number is an object")
            self._of_numbers = dtype
        return _scalar(dtype, value)

    def _tree(self, n_features: Any, n_classes: Any, n_outputs: Any) -> Any:
        if type(n_classes) is not np.ndarray or not tree_sizes_fit(n_features, n_classes, n_outputs):
            raise pickle.UnpicklingError("a tree has sizes that do not fit")
        made = _tree_class()(n_features, n_classes, n_outputs)
        self.trees.append(made)
        return made

    def _reconstructor(self, kind: Any, base: Any, state: Any) -> Any:
        if base not in _PLAIN_BASES:
            raise pickle.UnpicklingError("an object begins as another than a plain one")
        return _original("copyreg", "_reconstructor")(kind, base, state)

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
        return _original("decimal", "Decimal")(text)

    def _bit_generator(self, kind: Any = "MT19937") -> Any:
        return generators.made(kind)

    def _generator(self, kind: Any = "MT19937", _maker: Any = None) -> Any:
        return np.random.Generator(kind if isinstance(kind, np.random.BitGenerator) else self._bit_generator(kind))

    def _random_state(self, kind: Any = "MT19937", _maker: Any = None) -> Any:
        return np.random.RandomState(kind if isinstance(kind, np.random.BitGenerator) else self._bit_generator(kind))


def _collecting(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a collection of what the file holds, not of an object of its own that is asked for one after the other."""

    def make(_: Makers, *given: Any) -> Any:
        if any(type(one) not in _COLLECTED for one in given[:1]):
            raise pickle.UnpicklingError("a collection is made from another object")
        return kind(*given)

    return make


def _is_like(state: Any, module: str, name: str, *arguments: Any) -> bool:
    """Whether it has as many places as the state of such an object."""
    return type(state) is tuple and len(state) == _places(module, name, *arguments)


@lru_cache
def _places(module: str, name: str, *arguments: Any) -> int:
    return len(_original(module, name)(*arguments).__getstate__())


_original = lru_cache(maxsize=64)(imported)


@cache
def _tree_class() -> Any:
    return _original("sklearn.tree._tree", "Tree")


_reconstruct: Any = np.empty(0).__reduce__()[0]
_scalar: Any = np.float64().__reduce__()[0]

_MAKERS: dict[str, Any] = {
    "numpy.dtype": Makers._dtype,
    **{f"{core}.multiarray._reconstruct": Makers._array for core in _CORES},
    **{f"{core}.numeric._frombuffer": staticmethod(array_from_bytes) for core in _CORES},
    "numpy.ma.core._mareconstruct": Makers._masked,
    "copyreg._reconstructor": Makers._reconstructor,
    "builtins.set": _collecting(set),
    "builtins.frozenset": _collecting(frozenset),
    "collections.Counter": _collecting(collections.Counter),
    "collections.deque": _collecting(collections.deque),
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
