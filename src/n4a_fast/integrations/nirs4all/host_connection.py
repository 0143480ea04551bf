"""As much of a DuckDB connection as nirs4all's users reach for: SELECTs, answered by the store's public `sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from n4a_fast.store import WorkspaceStore


class Result:
    """Rows to be fetched once, like those of a DuckDB cursor."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._rows = frame.iter_rows()

    @property
    def description(self) -> list[tuple[str, Any]]:
        """Name and type of each column."""
        return list(self._frame.schema.items())

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return list(self._rows)

    def pl(self) -> pl.DataFrame:
        """All rows as a frame."""
        return self._frame


class Connection:
    """What `_ensure_open()` gives."""

    def __init__(self, store: WorkspaceStore) -> None:
        self._store = store

    def execute(self, query: str, parameters: Sequence[Any] | None = None) -> Result:
        """The answer to one SELECT; anything that writes raises InvalidInputError."""
        return Result(self._store.sql(query, parameters or ()))
