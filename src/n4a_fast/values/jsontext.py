"""JSON text in and out of the store.

Numbers stay numbers: numpy scalars and arrays are written as JSON numbers, and NaN and the
infinities as the literals `NaN`, `Infinity`, `-Infinity`, which DuckDB and Python read back.
orjson does the usual case; it turns NaN into null, so a text that contains `null` is read
again, and unless it says what it was made of, the standard library writes it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import date, datetime, time
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import orjson

from n4a_fast.errors import InvalidInputError

# what `encode` gives, as bytes, where it neither raises nor writes a null
dumps = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)
# integers past 64 bits, which orjson reads as floats: so many digits after what comes before a number. A regular
# expression takes five times as long
_SHAPES = bytes(
    b"0"[0] if code in b"0123456789" else b" "[0] if code in b"[:, \t\r\n-" else b"x"[0] for code in range(256)
)
_LONG_NUMBER = b" " + 19 * b"0"


def encode(value: Any, name: str) -> str | None:
    """JSON text of `value`, or None for None; `name` is the argument that a refusal names."""
    if value is None:
        return None
    try:
        text = dumps(value)
        if b"null" not in text or _says(text, value):
            return text.decode()
    except (TypeError, ValueError, RecursionError):
        pass  # integers past 64 bits, keys that are no strings, objects: the plain way below knows them
    try:
        plain = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
        plain.encode()  # half a surrogate pair would fail at the flush, where nobody can correct it any more
        return plain
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{name} cannot be stored as JSON ({error}); give plain Python or numpy values"
        ) from error


def _says(text: bytes, value: Any) -> bool:
    """Whether a text is read as the value that it was made of, which NaN is not; TypeError for one with numpy in it,
    which compares by element.
    """
    return orjson.dumps(value) == text and bool(orjson.loads(text) == value)


def decode(text: str | None) -> Any:
    """The value that `encode` wrote, or None for NULL; InvalidInputError for a text that is no JSON, or none that any
    program should read: too deep, or a number of thousands of digits.
    """
    if text is None:
        return None
    try:
        is_for_python = text[:1].isdigit() or _LONG_NUMBER in text.encode(errors="replace").translate(_SHAPES)
        return json.loads(text) if is_for_python else _loaded(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"what is stored is no JSON ({error})") from error


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # NaN and the infinities
        return json.loads(text)


def _plain(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return _plain_object(value)


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Keys as text; where two become one, neither is to be lost."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        text = _key(key)
        if text in found:
            raise TypeError(f"two of its keys are {text!r} as text")
        found[text] = _plain(item)
    return found


def _plain_object(value: Any) -> Any:
    """Objects that a configuration may hold: named by class, with parameters where they have some."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, PurePath | UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes are not text")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else _class_name(value)
    if hasattr(value, "get_params"):  # a scikit-learn estimator: what re-creates it
        return {"class": _class_name(value), "params": _plain(value.get_params(deep=False))}
    raise TypeError(f"{_class_name(value)} is not JSON")


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _key(key: Any) -> str:
    """A key as text; numpy integers like Python's."""
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    raise TypeError(f"a key of type {type(key).__name__} is not JSON")
