"""Rows and arrays on their way from one kind of workspace to another.

A source gives its tables as Arrow batches of whatever columns it has. `fitted` brings them to
our columns; `leftovers` keeps what has no column here as JSON, so that nothing is lost and a
workspace can be written back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, NotAStoreError, StoreError
from n4a_fast.integrations.workspaces.sqlite_schema import SUMMARY
from n4a_fast.schema import columns
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values import ids, jsontext

BATCH_ROWS = 8192
ARRAYS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")

# tables of nirs4all workspaces that have one here, by their name there, parents first
TABLES: Mapping[str, tuple[str, pa.Schema]] = {
    "projects": ("projects", columns.PROJECTS),
    "runs": ("runs", columns.RUNS),
    "pipelines": ("pipelines", columns.PIPELINES),
    "chains": ("chains", columns.CHAINS),
    "artifacts": ("stored_artifacts", columns.STORED_ARTIFACTS),
    "logs": ("logs", columns.LOGS),
    "predictions": ("predictions", columns.PREDICTIONS),
}
# tables of newer ones that are carried along whole
CARRIED_TABLES: Mapping[str, str] = {
    "conformal_results": "conformal_id",
    "tuning_results": "tuning_id",
    "robustness_results": "robustness_id",
}

# columns that follow from other rows and are computed here
_DERIVED: Mapping[str, frozenset[str]] = {
    "chains": frozenset(SUMMARY),
    "artifacts": frozenset({"ref_count"}),
}


@dataclass(frozen=True, slots=True)
class ArrayBatch:
    """Arrays of some predictions, in shape, and what else came with them."""

    ids: list[str]
    arrays: Mapping[str, list[np.ndarray[Any, Any] | None]]
    sample_metadata: list[str | None]  # JSON
    carried: list[dict[str, Any]]


class Source(Protocol):
    """A workspace that is read and never written."""

    root: Path
    kind: str

    def names(self) -> frozenset[str]:
        """Its tables."""

    def count(self, table: str) -> int:
        """Rows of a table; 0 when there is none."""

    def rows(self, table: str) -> Iterator[pa.Table]:
        """A table in batches, oldest rows first; JSON as text."""

    def array_count(self) -> int:
        """How many predictions have arrays."""

    def arrays(self) -> Iterator[ArrayBatch]:
        """All arrays, each prediction once."""

    def state(self) -> object:
        """Something that differs once the workspace has changed."""

    def close(self) -> None:
        """Let go of its files."""


def pieces(database: Database, query: str, table: str, step: int) -> Iterator[pa.Table]:
    """What a query with the two ends of a range of row ids gives, range by range of a table, in the order it was
    filled.
    """
    ((last,),) = database.rows(f"SELECT max(rowid) FROM {table}")
    for start in range(0, 0 if last is None else last + 1, step):
        piece = database.arrow(query, (start, start + step))
        if piece.num_rows:
            yield piece


def quoted_name(name: str) -> str:
    """The name of a table or column as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """What a source holds that no nirs4all wrote becomes NotAStoreError, in whatever form it comes to light."""
    try:
        yield
    except StoreError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise NotAStoreError(root, f"its content has no form that nirs4all writes ({error})") from error
    except (pa.ArrowException, sqlite3.Error, MemoryError) as error:
        raise NotAStoreError(root, f"its content cannot be read ({error})") from error


def fitted(batch: pa.Table, schema: pa.Schema) -> pa.Table:
    """The batch with the columns and types of `schema`; missing ones are NULL."""
    arrays = [_column(batch, field) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def leftovers(table: str, batch: pa.Table, schema: pa.Schema) -> list[dict[str, Any]]:
    """For each row, the values that `schema` has no column for and that do not follow from other rows."""
    names = [name for name in batch.column_names if name not in schema.names and name not in _DERIVED.get(table, ())]
    return [
        {name: value for name, value in row.items() if value is not None} for row in batch.select(names).to_pylist()
    ] or [{}] * batch.num_rows


def natural_keys(predictions: pa.Table) -> list[int]:
    """The natural key of each row: a re-save of one replaces the row that has it."""
    return [ids.natural_key(*key) for key in zip(*(predictions[name].to_pylist() for name in KEY), strict=True)]


def carried_rows(table: str, row_ids: list[str], contents: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Rows for the table `carried`, without the empty ones."""
    return [
        (table, row_id, jsontext.encode(content, table))
        for row_id, content in zip(row_ids, contents, strict=True)
        if content
    ]


def reshaped(flat: np.ndarray[Any, Any] | None, rows: int | None) -> np.ndarray[Any, Any] | None:
    """A flattened array as (rows, columns) where it has several columns; `rows` None when that is not known."""
    return flat.reshape(rows, -1) if flat is not None and rows and len(flat) > rows and len(flat) % rows == 0 else flat


def views(column: pa.ChunkedArray, dtype: type[np.generic]) -> list[np.ndarray[Any, Any] | None]:
    """The lists of a column as numpy views on its buffers; a missing item in a list becomes NaN."""
    found: list[np.ndarray[Any, Any] | None] = []
    for chunk in column.chunks:
        offsets, values = (
            chunk.offsets.to_numpy(),
            chunk.values.to_numpy(zero_copy_only=False).astype(dtype, copy=False),
        )
        pairs = zip(offsets[:-1], offsets[1:], chunk.is_valid().to_pylist(), strict=True)
        found += [values[start:stop] if valid else None for start, stop, valid in pairs]
    return found


def moment(value: Any) -> datetime | None:
    """A time as the store keeps it: UTC without a zone."""
    if value is None or (isinstance(value, datetime) and value.tzinfo is None):
        return value
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InvalidInputError(f"{value!r} is no time ({error}); correct it in the source workspace") from error
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _column(batch: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in batch.column_names:
        return pa.nulls(batch.num_rows, field.type)
    column = batch[field.name]
    if pa.types.is_timestamp(field.type) and not pa.types.is_timestamp(column.type):
        return pa.array([moment(value) for value in column.to_pylist()], field.type)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInputError(
            f"column {field.name} of the source cannot be stored as {field.type}: {error}"
        ) from error
