"""Objects to bytes and back, in the documented formats.

All are uncompressed pickle protocol 5, written by C: joblib's own pickler is four times slower, zlib
cost two thirds of a save and gained 4 %. A large buffer is copied once, into the chunk that is written.
`joblib` and `pickle` files open with `joblib.load` and `pickle.load` anywhere, `cloudpickle` files (lambdas
and local classes too) where cloudpickle is installed. Equal objects give equal bytes in every process:
sets are written in a fixed order, and local classes without the random mark that cloudpickle gives them.
Loading runs code that the file names: callers verify the content first.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import cloudpickle
import joblib

from n4a_fast.errors import InvalidInputError

EXTENSIONS = {"joblib": "joblib", "cloudpickle": "pkl", "pickle": "pkl"}
_PROTOCOL = 5
_SETS = frozenset({set, frozenset})
_PACKED = (
    b"\x78",
    b"\x1f\x8b",
    b"BZ",
    b"\xfd7zXZ",
    b"\x5d\x00",
    b"\x04\x22M\x18",
    b"ZF",
)  # how compressed joblib files begin
_JOBLIB_ARRAY = re.compile(rb"joblib\.numpy_pickle")  # what a file holds whose arrays lie between the opcodes


class _Chunks(list[bytes | memoryview]):
    """A file that keeps what is written, buffers of more than 64 kB as they are."""

    def write(self, chunk: bytes | pickle.PickleBuffer) -> None:
        self.append(chunk.raw() if isinstance(chunk, pickle.PickleBuffer) else chunk)


class _Plain(pickle.Pickler):
    """C's pickler with attributes: from Python 3.13 on, its own `persistent_id` cannot be set."""


class _Cloud(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        return _without_mark(obj, super().reducer_override(obj))


def check_format(name: str) -> None:
    """InvalidInputError unless `name` is a format that can be loaded."""
    if name not in EXTENSIONS:
        raise InvalidInputError(f"format {name!r} is unknown; use one of {', '.join(EXTENSIONS)}")


def dumps(obj: Any, format_name: str) -> bytes:
    """The bytes of `obj`; InvalidInputError when it cannot be pickled."""
    return b"".join(chunks(obj, format_name))


def chunks(obj: Any, format_name: str) -> list[bytes | memoryview]:
    """Like `dumps`, in pieces; they may share memory with `obj`."""
    check_format(format_name)
    is_cloud = format_name == "cloudpickle"
    try:
        written = _dumped_by_c(_Cloud if is_cloud else _Plain, obj)
        return _dumped(_ordered_cloud() if is_cloud else _Ordered, obj) if written is None else written
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        cure = "" if is_cloud else "; format='cloudpickle' also takes lambdas and local classes"
        raise InvalidInputError(f"{type(obj).__name__} cannot be saved as {format_name} ({error}){cure}") from error


def loads(data: bytes | memoryview, format_name: str, *, plain: bool = False) -> Any:
    """The object that `dumps` (then `plain`), nirs4all or joblib wrote as `data`; this runs the code that the pickle
    names.
    """
    if format_name == "joblib" and not plain and not is_plain(data):
        return joblib.load(io.BytesIO(data))
    return pickle.loads(data)


def is_plain(data: bytes | memoryview) -> bool:
    """Whether `data` is one pickle from its first to its last byte, neither compressed nor with joblib's arrays between
    the opcodes.
    """
    return not bytes(data[:6]).startswith(_PACKED) and _JOBLIB_ARRAY.search(data) is None


def _dumped_by_c(pickler: Callable[..., Any], obj: Any) -> list[bytes | memoryview] | None:
    """The pickle; None when it holds a set, which these picklers cannot write in a fixed order."""
    written, met = _Chunks(), list[Any]()
    writing = pickler(written, _PROTOCOL)
    writing.persistent_id = met.append  # given every object; a method of ours would take a third of the time
    writing.dump(obj)
    return (
        written
        if _SETS.isdisjoint(map(type, met)) or all(len(found) < 2 for found in met if type(found) in _SETS)
        else None
    )


def _dumped(pickler: Callable[..., Any], obj: Any) -> list[bytes | memoryview]:
    written = _Chunks()
    pickler(written, _PROTOCOL).dump(obj)
    return written


class _Ordered(pickle._Pickler):
    """Python's own pickler, sets in the order of their elements' bytes."""

    def save_ordered(self, obj: Any) -> None:
        elements = sorted(obj, key=lambda element: b"".join(_dumped(type(self), element)))
        self.save_reduce(type(obj), (elements,), obj=obj)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, **dict.fromkeys(_SETS, save_ordered)}


def _ordered_cloud() -> type[pickle._Pickler]:
    """`_Ordered` with cloudpickle's way to reduce functions and classes, which is plain Python."""
    ways = {
        name: value
        for name, value in vars(cloudpickle.Pickler).items()
        if name not in ("__init__", "__dict__", "__weakref__", "dump", "dispatch")
    }

    class OrderedCloud(type("Ways", (), ways), _Ordered):  # type: ignore[misc]
        def __init__(self, file: Any, protocol: int) -> None:
            _Ordered.__init__(self, file, protocol)
            self.globals_ref: dict[int, Any] = {}

        def reducer_override(self, obj: Any) -> Any:
            return _without_mark(obj, super().reducer_override(obj))

    return OrderedCloud


def _without_mark(obj: Any, reduced: Any) -> Any:
    """A local class reduced without the random id by which cloudpickle knows it again within one process."""
    if not isinstance(obj, type) or not isinstance(reduced, tuple):
        return reduced
    mark = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)
    return (reduced[0], tuple(None if mark is not None and item is mark else item for item in reduced[1]), *reduced[2:])


@lru_cache(maxsize=64)
def libraries(package: str) -> str:
    """Versions of numpy and of an object's own package, as JSON."""
    modules = {name: sys.modules.get(name) for name in sorted({"numpy", package})}
    versions = {name: getattr(module, "__version__", None) for name, module in modules.items()}
    return json.dumps({name: version for name, version in versions.items() if isinstance(version, str)})
