"""Rows for a journal frame, by column: what all of them share is written once.

The rows of a flush are those of one pipeline, alike in most of their columns, so their part of a frame
takes a quarter of the bytes, and reading many frames makes a value for each of them instead of one for each row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

_OF_FORMAT_1 = 7  # columns: a place, and what is stored but the values and the classes

Packed = Sequence[Any]  # the number of rows, and each column: a list, or the value of all


def packed(rows: Collection[Sequence[Any]]) -> Packed:
    """Rows in what msgpack knows; no value is a list."""
    return len(rows), [_once_if_shared(column) for column in zip(*rows, strict=True)]


def _once_if_shared(column: tuple[Any, ...]) -> Any:
    first = column[0]
    return (
        first if type(first) is not float and column.count(first) == len(column) else list(column)
    )  # 0.0 equals -0.0, and is another number


def rows_of(frame: Packed) -> Iterable[tuple[Any, ...]]:
    """The rows again."""
    return zip(*(_values(frame, place) for place in range(len(frame[1]))), strict=True)


def with_classes(references: Packed) -> Packed:
    """References to arrays with the classes of their targets, which records of format 1 do not have."""
    rows, columns = references
    return references if len(columns) > _OF_FORMAT_1 else (rows, [*columns, None])


def values_of(frames: Iterable[Packed], place: int) -> list[Any]:
    """The values of one column in the rows of all frames."""
    return list(chain.from_iterable(_values(frame, place) for frame in frames))


def array_of(frames: Sequence[Packed], place: int, kind: pa.DataType) -> pa.Array:
    """`values_of` as Arrow."""
    if any(isinstance(columns[place], list) for _, columns in frames):
        return pa.array(values_of(frames, place), kind)
    of_frames = pa.array([columns[place] for _, columns in frames], kind)
    return of_frames.take(pa.array(np.repeat(np.arange(len(frames)), [rows for rows, _ in frames])))


def _values(frame: Packed, place: int) -> Iterable[Any]:
    rows, columns = frame
    column = columns[place]
    return column if isinstance(column, list) else repeat(column, rows)
