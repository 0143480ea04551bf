"""Spectra that memory does not hold, block by block: a mapped file, an iterator of blocks, a Parquet file.

Promises blocks of a number of rows that the reader chooses, the last one shorter, each in memory of its own: the pages
of a mapped file are let go as they have been read. Column names are told once, of the first block; blocks with other
names or another width are refused.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from n4a_fast import platform
from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plain.inputs import column_names, real_numbers
from n4a_fast.values import checks

Array: TypeAlias = NDArray[Any]

_PAGE_BUFFER = 2**16  # bytes of each column that a Parquet file is read ahead


class SpectraBlocks(Protocol):
    """Spectra as they come."""

    @property
    def names(self) -> list[str] | None:
        """Names of the columns; None for none."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def count(self) -> int | None:
        """Rows; None where only the end will tell."""

    def head(self, rows: int) -> Array:
        """The first rows, which come again in the blocks."""

    def blocks(self, rows: int) -> Iterator[Array]:
        """Arrays of so many rows, once."""


def is_stream(X: Any, max_bytes: int) -> bool:
    """Whether these spectra are to be read block by block."""
    if isinstance(X, np.memmap):
        return X.nbytes > max_bytes
    return isinstance(X, (str, os.PathLike, pa.RecordBatchReader, Iterator))


def spectra_blocks(X: Any) -> SpectraBlocks:
    """What X is, to be read block by block."""
    if isinstance(X, str | os.PathLike):
        return _ParquetBlocks(checks.path(X, "X"))
    if isinstance(X, pa.RecordBatchReader | Iterator):
        return _IteratorBlocks(X)
    return _ArrayBlocks(X)


class _ArrayBlocks:
    """Rows of an array or a table."""

    def __init__(self, X: Any) -> None:
        if len(np.shape(X)) != 2 or 0 in np.shape(X):
            raise InvalidInputError(f"X has shape {np.shape(X)}; give samples in rows and wavelengths in columns")
        self._X, self.names = X, column_names(X)
        self.count, self.width = np.shape(X)

    def head(self, rows: int) -> Array:
        return next(self.blocks(rows))

    def blocks(self, rows: int) -> Iterator[Array]:
        X = self._X.iloc if hasattr(self._X, "iloc") else self._X
        for first in range(0, self.count, rows):
            part = X.slice(first, rows) if isinstance(X, pa.Table) else X[first : first + rows]
            yield np.array(real_numbers(part, "X"))
            _let_go(self._X, first, rows)


def _let_go(X: Any, first: int, rows: int) -> None:
    """Tell the system that these rows of a mapped file will not be read again soon: else they stay in memory."""
    shared = isinstance(X, np.memmap) and X.flags.c_contiguous and X.mode in ("r", "r+")
    mapped = getattr(X, "_mmap", None) if shared else None
    if mapped is None:
        return
    begin = X.__array_interface__["data"][0] - np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    row, page = X.strides[0], mmap.PAGESIZE
    start = -(-(begin + first * row) // page) * page
    length = (begin + min(first + rows, len(X)) * row) // page * page - start
    if length > 0:
        platform.forget_pages(mapped, start, length)


@dataclass(slots=True)
class _ParquetBlocks:
    """Rows of a Parquet file: a column for each wavelength, or one of lists."""

    path: Path

    def _file(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, buffer_size=_PAGE_BUFFER, pre_buffer=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidInputError(f"{self.path} cannot be read as a Parquet file of spectra: {error}") from error

    def _columns(self) -> tuple[str | None, list[str]]:
        """The column of lists, or the columns of numbers."""
        schema = self._file().schema_arrow
        lists = [field.name for field in schema if _is_list(field.type)]
        if len(lists) == 1:
            return lists[0], []
        numbers = [
            field.name for field in schema if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        ]
        if len(lists) > 1 or len(numbers) < len(schema):
            raise InvalidInputError(
                f"{self.path} has columns {schema.names[:6]}...; give one column of lists, or a column of numbers for"
                " each wavelength"
            )
        return None, numbers

    @property
    def names(self) -> list[str] | None:
        return self._columns()[1] or None

    @property
    def width(self) -> int:
        lists, numbers = self._columns()
        if lists is None:
            return len(numbers)
        first = next(self._file().iter_batches(1, columns=[lists]), None)
        return 0 if first is None else int(pa.compute.list_value_length(first.column(0))[0].as_py())

    @property
    def count(self) -> int:
        return int(self._file().metadata.num_rows)

    def head(self, rows: int) -> Array:
        found = next(self.blocks(rows), None)
        if found is None:
            raise InvalidInputError(f"{self.path} has no row; a prediction needs at least one")
        return found

    def blocks(self, rows: int) -> Iterator[Array]:
        lists, numbers = self._columns()
        width = self.width
        for batch in self._file().iter_batches(rows, columns=[lists] if lists else numbers):
            if any(column.null_count for column in batch.columns):
                raise InvalidInputError(f"{self.path} has rows without a value; fill or drop them")
            yield _of_lists(batch.column(0), width) if lists else batch.to_tensor(row_major=True).to_numpy()


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _of_lists(column: pa.Array, width: int) -> Array:
    lengths = pa.compute.list_value_length(column).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        raise InvalidInputError(f"spectra of {lengths[lengths != width][0]} values lie among those of {width}")
    found: Array = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return found


class _IteratorBlocks:
    """Blocks of any size, as someone makes them."""

    count = None

    def __init__(self, given: Iterable[Any]) -> None:
        self._given = iter(given)
        first = next(self._given, None)
        if first is None:
            raise InvalidInputError("X gave no block of spectra; a prediction needs at least one row")
        self.names = column_names(_named(first))
        self._waiting = [self._read(first, None)]
        self.width = self._waiting[0].shape[1]

    def _read(self, block: Any, width: int | None) -> Array:
        if column_names(_named(block)) != self.names:
            raise InvalidInputError("the blocks of X have columns of different names; give all the same")
        found = real_numbers(_named(block), "X")
        if found.ndim != 2 or (width is not None and found.shape[1] != width):
            raise InvalidInputError(f"a block of X has shape {found.shape}; give (rows, {width or 'columns'}) in each")
        return found

    def head(self, rows: int) -> Array:
        self._fetch(rows)
        return np.concatenate(self._waiting)[:rows]

    def blocks(self, rows: int) -> Iterator[Array]:
        while held := self._fetch(rows):
            yield _cut(self._waiting, min(rows, held))

    def _fetch(self, rows: int) -> int:
        """Read on until so many rows wait, or none come; how many wait."""
        while (held := sum(map(len, self._waiting))) < rows and (block := next(self._given, None)) is not None:
            self._waiting.append(self._read(block, self.width))
        return held


def _named(block: Any) -> Any:
    return pa.Table.from_batches([block]) if isinstance(block, pa.RecordBatch) else block


def _cut(waiting: list[Array], rows: int) -> Array:
    """The first rows, taken from these blocks."""
    taken: list[Array] = []
    while rows > 0:
        block = waiting.pop(0)
        taken.append(block[:rows])
        if len(block) > rows:
            waiting.insert(0, block[rows:])
        rows -= len(taken[-1])
    return np.concatenate(taken)
