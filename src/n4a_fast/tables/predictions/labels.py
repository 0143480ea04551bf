"""Targets that are labels: each is its place among the classes, a number like any other target; the classes are JSON
text beside the arrays.

Classes are those that the caller names, in that order, else the sorted labels of all targets of the call. A missing
label (None, NaN) is NaN. Promises text as it was given: bytes are read as UTF-8, a number among texts is refused, and
so is a label that is not among the classes named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.values import checks, jsontext

TARGETS = ("y_true", "y_pred")
_NUMBERS, _TEXTS = "fiub", "UST"


def are_labels(value: Any) -> bool:
    """Whether these are texts, some of which may be missing."""
    if not isinstance(value, np.ndarray):
        if value is None or np.ndim(np.asarray(value, dtype=object)) == 0:
            return isinstance(value, str | bytes)
        value = np.asarray(value, dtype=object)  # numpy would make texts of numbers beside texts
    if value.dtype.kind in _NUMBERS:
        return False
    return value.dtype.kind in _TEXTS or any(isinstance(item, str | bytes) for item in value.flat)


def coded(targets: Mapping[str, Any], classes: Sequence[str] | None) -> tuple[dict[str, Any], str | None]:
    """Targets (arrays by name) as numbers, and their classes as they are stored; None for targets of numbers."""
    rows, stored = coded_rows({name: [value] for name, value in targets.items() if value is not None}, classes)
    return {name: rows[name][0] if name in rows else None for name in targets}, stored


def coded_rows(
    targets: Mapping[str, Sequence[Any]], classes: Sequence[str] | None
) -> tuple[dict[str, list[Any]], str | None]:
    """The same for many predictions, a list of arrays by name; all have the same classes."""
    found = {name: [_column(row, name) if are_labels(row) else row for row in rows] for name, rows in targets.items()}
    texts = [row for rows in found.values() for row in rows if isinstance(row, _Labels)]
    if classes is None:
        if not texts:
            return {name: list(rows) for name, rows in targets.items()}, None
        classes = sorted({label for one in texts for label in one.labels})
        found = {name: [_as_missing(row) for row in rows] for name, rows in found.items()}
        if any(row is not None and not isinstance(row, _Labels) for rows in found.values() for row in rows):
            raise InvalidInputError(
                "y_true and y_pred are labels and numbers; give both as labels, or name the classes= of these numbers"
            )
    listed = _named(classes)
    place = {label: number for number, label in enumerate(listed)}
    numbers = {name: [_numbers(row, place, name) for row in rows] for name, rows in found.items()}
    return numbers, jsontext.encode(listed, "classes")


def coded_arguments(given: dict[str, Any], classes: Sequence[str] | None) -> tuple[dict[str, Any], str | None]:
    """The arrays of a bulk call with labels as places among their classes, and the classes."""
    values = {name: given[name] for name in TARGETS if name in given}
    in_question = (_listed(value) for value in values.values() if not _are_arrow_numbers(value))
    if classes is None and not any(are_labels(row) for rows in in_question for row in rows):
        return given, None
    found, stored = coded_rows({name: _listed(value) for name, value in values.items()}, classes)
    whole = {name: isinstance(value, np.ndarray) and len(found[name]) == 1 for name, value in values.items()}
    return given | {name: rows[0] if whole[name] else rows for name, rows in found.items()}, stored


def _are_arrow_numbers(value: Any) -> bool:
    kind = getattr(getattr(value, "type", None), "value_type", None)
    return isinstance(kind, pa.DataType) and (pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _listed(value: Any) -> Sequence[Any]:
    """An array argument as a list of arrays: a matrix, or one for all, as the only one."""
    if isinstance(value, pa.Array | pa.ChunkedArray):
        value = value.to_numpy(zero_copy_only=False) if isinstance(value, pa.Array) else value.to_numpy()
    is_one = isinstance(value, np.ndarray) and (value.dtype != object or value.ndim > 1 or are_labels(value))
    return [value] if is_one else list(value)


class _Labels:
    """Distinct labels of one array, and which of them each item is; -1 for none."""

    __slots__ = ("labels", "places", "shape")

    def __init__(self, labels: list[str], places: NDArray[np.int64], shape: tuple[int, ...]) -> None:
        self.labels, self.places, self.shape = labels, places, shape


def _column(value: Any, name: str) -> _Labels:
    checks.no_text(value, name)
    if np.ma.is_masked(value):
        raise InvalidInputError(f"{name} has masked labels; put None in their place")
    flat = np.asarray(value, dtype=object).ravel()
    try:
        column = pa.array(flat, pa.string(), from_pandas=True).dictionary_encode()
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeError) as error:
        raise InvalidInputError(
            f"{name} holds labels and what is none ({error}); give text, None if missing"
        ) from error
    places = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return _Labels(column.dictionary.to_pylist(), places, np.shape(value))


def _as_missing(row: Any) -> Any:
    """An array without a single value as labels that are missing, any other as it is."""
    if row is None or isinstance(row, _Labels):
        return row
    flat = np.asarray(row, dtype=object)
    return _column(row, "") if all(item is None or item != item for item in flat.flat) else row


def _named(classes: Sequence[str]) -> list[str]:
    several = isinstance(classes, Iterable) and not isinstance(classes, str | bytes)
    listed = [one.decode() if isinstance(one, bytes) else one for one in classes] if several else [None]
    if not all(isinstance(one, str) for one in listed):
        raise InvalidInputError("classes must be a sequence of texts, the labels in the order of their numbers")
    if len(set(listed)) < len(listed):
        raise InvalidInputError(f"classes names a label twice: {listed}")
    return [str(one) for one in listed]


def _numbers(row: Any, place: Mapping[str, int], name: str) -> Any:
    """One array as places among the classes."""
    if row is None:
        return None
    if isinstance(row, _Labels):
        unknown = [label for label in row.labels if label not in place]
        if unknown:
            raise InvalidInputError(
                f"{name} holds the label {unknown[0]!r}, which is not one of the classes {[*place]}"
            )
        table = np.array([*(place[label] for label in row.labels), np.nan], np.float64)
        return table[row.places].reshape(row.shape)
    values = np.asarray(row)
    if values.dtype.kind in _NUMBERS:
        given = values.astype(np.float64)
        wrong = ~(np.isnan(given) | ((given == np.floor(given)) & (given >= 0) & (given < len(place))))
        if wrong.any():
            raise InvalidInputError(
                f"{name} holds {given[wrong][0]:g}, and there are {len(place)} classes; give labels, or their numbers"
                " from 0"
            )
    return row


@lru_cache(maxsize=256)
def classes_of(stored: str) -> NDArray[Any]:
    """The classes as they are stored, and None for a missing label in the last place."""
    classes = jsontext.decode(stored)
    if not isinstance(classes, list):
        raise InvalidInputError(f"what is stored as classes is {classes!r}, no list")
    return np.array([*classes, None], dtype=object)


def texts_of(values: NDArray[Any] | None, stored: str | None) -> NDArray[Any] | None:
    """Labels of numbers, in their shape, None for a missing one; what has no classes stays as it is."""
    if values is None or stored is None:
        return values
    with np.errstate(invalid="ignore"):
        places = np.where(np.isnan(values), -1, values).astype(np.int64)
    found: NDArray[Any] = classes_of(stored)[places]
    return found
