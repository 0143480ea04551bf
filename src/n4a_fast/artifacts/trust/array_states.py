"""States of numpy's arrays and types of values, looked at before numpy takes them on faith.

An array of objects is filled from a list whose length numpy does not look at, any array gives up its memory for a new
one although others may still look at it, and a type of values becomes what its state says: with flags that turn bytes
into pointers, and fields that lie beyond its end. Here an array is filled once, from as much as it holds, and a type is
made anew by numpy's constructor, which checks; it then gets the state that numpy itself writes of that.
"""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np

_NO_STATE_YET = np.dtype(np.int8)  # of an empty array
_LARGEST = 2**48  # bytes
_HOLDS_OBJECTS, _ALIGNED = 1, 128  # of numpy's flags: values are pointers; fields lie as C would lay them
_OLDEST = 3  # version of a type's state: those before hold no flags
_KINDS = (np.ndarray, np.matrix)
_made: Any = np.dtype  # the stubs know fewer ways than there are


def require_array_state(array: Any, state: Any) -> None:
    """UnpicklingError unless an array may be given this state."""
    if type(array) not in _KINDS and not isinstance(array, np.ma.MaskedArray):
        return  # a class that the user has named, whose state is its own
    if type(state) is not tuple or len(state) not in (4, 5, 7):
        raise pickle.UnpicklingError("an array has no state that numpy writes")
    shape, dtype, _, values = state[-4:] if len(state) < 7 else state[1:5]
    if array.size or array.dtype != _NO_STATE_YET:
        raise pickle.UnpicklingError("an array is given its values twice")
    length = require_shape(shape, dtype)
    if dtype.hasobject and (type(values) is not list or len(values) != length):
        raise pickle.UnpicklingError("an array of objects has another length than its list")


def require_shape(shape: Any, dtype: Any) -> int:
    """How many values an array of this shape and type holds; UnpicklingError for what numpy would not write."""
    if not isinstance(dtype, np.dtype):
        raise pickle.UnpicklingError("an array has no numpy type")
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise pickle.UnpicklingError(f"an array has the shape {shape!r}")
    if math.prod(length or 1 for length in shape) * max(dtype.itemsize, 1) > _LARGEST:
        raise pickle.UnpicklingError("an array is larger than any memory")
    return math.prod(shape)


def type_state(made: Any, state: Any) -> Any:
    """The state that numpy itself writes of what `state` means for a type that was made of its name."""
    if type(state) is not tuple or len(state) not in (8, 9) or state[0] not in (_OLDEST, _OLDEST + 1):
        raise pickle.UnpicklingError("a dtype has no state that numpy writes")
    order, part, names, fields, size, _, flags = state[1:8]
    meant = _plain(made, order, state[8] if len(state) == 9 else None)
    if part is not None:
        meant = _nested(part)
    elif fields is not None:
        meant = _record(names, fields, size, bool(flags & _ALIGNED))
    if size not in (-1, made.itemsize) or meant.itemsize != made.itemsize or meant.type is not made.type:
        raise pickle.UnpicklingError("a dtype has a size that its kind has not")
    if bool(flags & _HOLDS_OBJECTS) != meant.hasobject or not is_honest(meant):
        raise pickle.UnpicklingError("a dtype hides objects")
    return meant.__reduce__()[2]


def is_honest(dtype: Any) -> bool:
    """Whether values are objects as a whole or not at all: no estimator needs records that hold some."""
    return isinstance(dtype, np.dtype) and (not dtype.hasobject or dtype.kind == "O")


def _plain(made: Any, order: Any, metadata: Any) -> Any:
    meant = made.newbyteorder(order) if order in ("<", ">") else made
    if made.kind in "mM" and metadata:
        unit, count, *rest = metadata[1]
        unit = unit.decode() if isinstance(unit, bytes) else unit
        if type(unit) is not str or not unit.isalpha() or type(count) is not int or rest != [1, 1]:
            raise pickle.UnpicklingError("a dtype of times has no unit that numpy writes")
        return meant if unit == "generic" else np.dtype(f"{meant.str[:3]}[{count}{unit}]")
    return _made(meant, metadata=metadata) if metadata else meant


def _nested(part: Any) -> Any:
    base, shape = part
    shape = shape if type(shape) is tuple else (shape,)
    require_shape(shape, base)
    return np.dtype((base, shape))


def _record(names: Any, fields: Any, size: int, align: bool) -> Any:
    """A type with fields; numpy refuses those that overlap with objects or lie outside, here any with objects are."""
    if type(names) is not tuple or type(fields) is not dict or not {*names} <= {*fields}:
        raise pickle.UnpicklingError("a dtype has fields without a name")
    parts = [fields[name] for name in names]
    if not all(type(part) is tuple and isinstance(part[0], np.dtype) for part in parts):
        raise pickle.UnpicklingError("a dtype has fields without a type")
    described: dict[str, Any] = {"names": [*names], "formats": [], "offsets": [], "titles": [], "itemsize": size}
    for dtype, offset, *title in parts:
        described["formats"].append(dtype)
        described["offsets"].append(offset)
        described["titles"].append(title[0] if title else None)
    if not any(described["titles"]):
        del described["titles"]
    return _made(described, align=align)
