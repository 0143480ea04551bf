"""nirs4all workspaces of late 0.8 and newer releases: `store.sqlite` read in one snapshot, arrays in Parquet files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from n4a_fast.errors import InvalidInputError, NotAStoreError, StoreUnavailableError
from n4a_fast.integrations.workspaces.batches import BATCH_ROWS, ArrayBatch, quoted_name
from n4a_fast.integrations.workspaces.parquet_arrays import ParquetArrays

# virtual tables run the code of a module when they are read
_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
_COLUMNS = "SELECT name, hidden FROM pragma_table_xinfo(?)"


class SQLiteSource:
    """A workspace with a `store.sqlite`."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "store.sqlite"
        # without a log the file alone is read: SQLite's own way would leave a log and its index beside it
        self._immutable = not _has_log(self.path)
        self._connection = _opened(self.path, self._immutable)
        try:
            self._begin()
            self._parquet = ParquetArrays(root / "arrays")
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """One snapshot for all that follows, of a workspace of nirs4all."""
        try:
            self._connection.execute("BEGIN")
            self._names = frozenset(name for (name,) in self._connection.execute(_NAMES))
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise NotAStoreError(self.path, str(error)) from error
        if not {"runs", "pipelines", "chains", "predictions"} <= self._names or "prediction_arrays" in self._names:
            raise NotAStoreError(self.path, "not a nirs4all workspace with its arrays in Parquet files")
        self.kind = f"nirs4all SQLite workspace, schema {version}"

    def names(self) -> frozenset[str]:
        return self._names

    def count(self, table: str) -> int:
        return (
            int(self._connection.execute(f"SELECT count(*) FROM main.{quoted_name(table)}").fetchone()[0])
            if table in self._names
            else 0
        )

    def rows(self, table: str) -> Iterator[pa.Table]:
        described = self._connection.execute(_COLUMNS, (table,)).fetchall()
        if computed := next((name for name, hidden in described if hidden), None):
            raise NotAStoreError(self.path, f"the column {computed} of {table} is computed, which no nirs4all wrote")
        names = [name for name, _ in described]
        selected = ", ".join(map(quoted_name, names))
        cursor = self._connection.execute(f"SELECT {selected} FROM main.{quoted_name(table)} ORDER BY rowid")
        while rows := cursor.fetchmany(BATCH_ROWS):
            yield pa.table(
                [_column(name, list(values)) for name, values in zip(names, zip(*rows, strict=True), strict=True)],
                names=names,
            )

    def array_count(self) -> int:
        return len(self._parquet)

    def arrays(self) -> Iterator[ArrayBatch]:
        return self._parquet.batches()

    def state(self) -> object:
        found = self.path.stat()
        return ((found.st_ino, found.st_size, found.st_mtime_ns) if self._immutable else None, self._parquet.state())

    def close(self) -> None:
        self._connection.close()


def _has_log(path: Path) -> bool:
    """Whether a write-ahead log holds rows that are not in the file yet."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _opened(path: Path, immutable: bool) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}", uri=True, isolation_level=None
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        if not isinstance(error, sqlite3.DatabaseError):
            raise
        unavailable = isinstance(error, sqlite3.OperationalError)
        raise (StoreUnavailableError if unavailable else NotAStoreError)(path, str(error)) from error


def _column(name: str, values: list[Any]) -> pa.Array:
    """Values of one column; SQLite may mix whole and other numbers."""
    try:
        return pa.array(values, pa.float64() if any(isinstance(value, float) for value in values) else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InvalidInputError(
            f"column {name} of the source mixes kinds of values ({error}); correct it there"
        ) from error
