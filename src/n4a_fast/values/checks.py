"""Arguments turned into what a column holds, or refused by name before anything is written."""

from __future__ import annotations

import operator
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from n4a_fast.errors import InvalidInputError

INT32 = 2**31 - 1
INT64 = 2**63 - 1
_EPOCH = datetime(1970, 1, 1)
_SIZE = re.compile(r"\s*([0-9.]+)\s*(?:([KMGT])(i)?)?B?\s*", re.IGNORECASE)


def now() -> datetime:
    """The current time in UTC, without a zone, as every `created_at` holds it."""
    return moment(microseconds())  # half the time of now(UTC).replace(tzinfo=None)


def microseconds() -> int:
    """The current time as a number, for rows that are saved by the thousand."""
    return time.time_ns() // 1000


def moment(number: int) -> datetime:
    """The time of `microseconds`."""
    return _EPOCH + timedelta(0, 0, number)


def microseconds_of(text: str) -> int:
    """The number of a time in ISO format, without a zone."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(0, 0, 1)


def text(value: Any, name: str) -> str:
    """`value` as text that UTF-8 can hold; an id or a name, so neither None nor a number."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds a character that is not valid Unicode ({error.reason}); remove it"
        ) from error
    return str.__str__(value)  # of an Enum of texts the text, where str() would give its name


def identifier(value: Any, name: str) -> str:
    """Like `text`, and not empty."""
    found = text(value, name)
    if not found:
        raise InvalidInputError(f"{name} is empty; give an id, or None for one that follows from the prediction")
    return found


def optional_text(value: Any, name: str) -> str | None:
    """Like `text`, None allowed."""
    return None if value is None else text(value, name)


def plain(value: Any) -> Any:
    """What is given as a column or a number of numpy, Polars, pandas or Arrow, as Python's own."""
    if value is None or isinstance(value, str | int | float | list | tuple):
        return value
    for convert in ("to_pylist", "to_list", "tolist"):
        if callable(converted := getattr(value, convert, None)):
            return converted()
    return value


def texts(value: Any, name: str) -> list[str]:
    """A list of ids or names, however it is given."""
    return [text(each, f"each of {name}") for each in items(value, name, "texts")]


def items(value: Any, name: str, what: str = "values") -> list[Any]:
    """A list, however it is given; one text is none: its characters are not meant."""
    listed = plain(value)
    if isinstance(listed, str | bytes | Mapping) or not isinstance(listed, Iterable):
        given = f"the text {listed!r}; write [{listed!r}]" if isinstance(listed, str) else type(value).__name__
        raise InvalidInputError(f"{name} must be a list of {what}, got {given}")
    return list(listed)


def real(value: Any, name: str) -> float | None:
    """`value` as a double; None stays None, NaN and the infinities stay what they are."""
    if value is None or type(value) is float:
        return value
    if isinstance(value, str | bytes | complex):
        raise InvalidInputError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{name} must be a number, got {type(value).__name__}") from error


def integer(value: Any, name: str, limit: int = INT32) -> int:
    """`value` as an integer of the column's width; a float counts when it is whole."""
    if type(value) is int and -limit - 1 <= value <= limit:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        found = operator.index(value)
    except TypeError as error:
        raise InvalidInputError(f"{name} must be a whole number, got {value!r}") from error
    if not -limit - 1 <= found <= limit:
        raise InvalidInputError(f"{name} = {found} does not fit its column (at most {limit})")
    return int(found)  # of True too: 1, which is how a natural key spells it


def optional_integer(value: Any, name: str, limit: int = INT32) -> int | None:
    """Like `integer`, None allowed."""
    return None if value is None else integer(value, name, limit)


def count(value: Any, name: str) -> int:
    """A row count or offset: a whole number that is not negative."""
    found = integer(value, name, INT64)
    if found < 0:
        raise InvalidInputError(f"{name} must not be negative, got {found}")
    return found


def flag(value: Any, name: str) -> bool:
    """A truth value: True or False, no other object that happens to be true."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):  # numpy's too
        return bool(value)
    raise InvalidInputError(f"{name} must be True or False, got {value!r}")


def optional_flag(value: Any, name: str) -> bool | None:
    """Like `flag`, None allowed."""
    return None if value is None else flag(value, name)


def callback(value: Any, name: str) -> None:
    """InvalidInputError for what cannot be called."""
    if not callable(value):
        raise InvalidInputError(f"{name} must be a function, got {type(value).__name__}")


def optional_callback(value: Any, name: str) -> None:
    """Like `callback`, None allowed."""
    if value is not None:
        callback(value, name)


def seconds(value: Any, name: str) -> float:
    """A time to wait: a number that is not negative; at most as many as a lock can be waited for."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidInputError(f"{name} must be a number of seconds, not negative, got {value!r}")
    return float(min(value, threading.TIMEOUT_MAX))


def path(value: Any, name: str) -> Path:
    """`value` as a path: text, or a path of any kind."""
    try:
        found = Path(value)
        os.fsencode(found)
    except TypeError as error:
        raise InvalidInputError(f"{name} must be a path, as text or a Path, got {type(value).__name__}") from error
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name} cannot be the path of a file ({error.reason}): {value!r}") from error
    if "\0" in str(found):
        raise InvalidInputError(f"{name} cannot be the path of a file: it holds a NUL character; remove it")
    return found


def array(value: Any, name: str) -> None:
    """InvalidInputError for what has no rows, and for text or bytes."""
    no_text(value, name)
    if not hasattr(value, "__len__"):
        raise InvalidInputError(f"{name} must be an array, got {type(value).__name__}")


def no_text(value: Any, name: str) -> None:
    """InvalidInputError for text or bytes in the place of an array: their characters are not meant."""
    if isinstance(value, str | bytes | bytearray):
        raise InvalidInputError(f"{name} must be an array, got {type(value).__name__}")


def mapping(value: Any, name: str) -> dict[Any, Any]:
    """`value` as a dict; None is an empty one."""
    return optional_mapping(value, name) or {}


def optional_mapping(value: Any, name: str) -> dict[Any, Any] | None:
    """Like `mapping`, None stays None."""
    if value is not None and not isinstance(value, dict):
        raise InvalidInputError(f"{name} must be a dict, got {type(value).__name__}")
    return value


def nbytes(value: Any, name: str, least: int) -> int:
    """`value` as bytes, given as a number or as text such as "512MB" or "1.5 GiB"; InvalidInputError below `least`."""
    found = int(value) if isinstance(value, int) and not isinstance(value, bool) else _size(value)
    if found is None or found < least:
        from_on = f"from {least // 10**6}MB on"
        raise InvalidInputError(f'{name} must be bytes, or a text like "512MB", {from_on}; got {value!r}')
    return found


def _size(value: Any) -> int | None:
    """Bytes of a text like "512MB", in which M means 10^6 and Mi 2^20; None for anything else."""
    parts = _SIZE.fullmatch(value) if isinstance(value, str) else None
    try:
        number = float(parts[1]) if parts else None
    except ValueError:
        return None
    if parts is None or number is None:
        return None
    power = " KMGT".index(parts[2].upper()) if parts[2] else 0
    return int(number * (1024 if parts[3] else 1000) ** power)
