"""Rows for a log record, by the names of their columns: what all of them share is written once.

The rows of a flush are those of one pipeline, alike in most of their columns, so their part of a record
takes a quarter of the bytes, and reading many records makes a value for each of them instead of one for each row.
A column that a record does not name is empty in its rows. Records of format 1 had positions in place of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pyarrow as pa

Packed = tuple[int, dict[str, Any]]  # the number of rows, and each column: a list, or the value of all


def unpacked(part: Sequence[Any], names: Sequence[str]) -> Packed:
    """What `NewestRows.packed` gave, out of a record; in format 1 the columns had the order of these names.

    ValueError for a number of rows that no column has: each has an id, or a place, of its own.
    """
    rows, columns = part
    found = columns if isinstance(columns, dict) else dict(zip(names, columns, strict=False))
    lengths = {len(column) for column in found.values() if type(column) is list}
    if type(rows) is not int or lengths - {rows} or not (lengths or 0 <= rows <= 1):
        raise ValueError(f"{rows} rows, and columns of {sorted(lengths)}")
    return rows, found


def rows_of(part: Packed, names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """The rows again."""
    return zip(*(_values(part, name) for name in names), strict=True)


def values_of(parts: Iterable[Packed], name: str) -> list[Any]:
    """The values of one column in the rows of all parts."""
    return list(chain.from_iterable(_values(part, name) for part in parts))


def array_of(parts: Sequence[Packed], name: str, kind: pa.DataType) -> pa.Array:
    """`values_of` as Arrow."""
    if any(isinstance(columns.get(name), list) for _, columns in parts):
        return pa.array(values_of(parts, name), kind)
    of_parts = pa.array([columns.get(name) for _, columns in parts], kind)
    return of_parts.take(pa.array(np.repeat(np.arange(len(parts)), [rows for rows, _ in parts])))


def _values(part: Packed, name: str) -> Iterable[Any]:
    rows, columns = part
    column = columns.get(name)
    return column if isinstance(column, list) else repeat(column, rows)
