"""What the machine and DuckDB can do at most, to take turns with a benchmark in the same run.

Each is the same work with everything left out but the moving of bytes: DuckDB inserting Arrow data
into a bare table, a file written and synced, memory copied, matrices multiplied.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from n4a_fast.durable.sync import start_sync


def prediction_batch(matrix: np.ndarray[Any, Any]) -> pa.Table:
    """Arrow table of ids and one list column over the rows of a float64 matrix, which is not copied."""
    rows, samples = matrix.shape
    values = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * samples), pa.array(matrix.reshape(-1))
    )
    return pa.table({"prediction_id": [str(row) for row in range(rows)], "y_pred": values})


def _in_row_groups(table: pa.Table) -> pa.Table:
    """Record batches of a row group each, which is how DuckDB inserts with all its threads."""
    return pa.Table.from_batches(table.to_batches(2048), table.schema)


class BareTable:
    """A DuckDB file with one table without keys, filled from one Arrow table again and again."""

    def __init__(self, path: Path, batch: pa.Table, *, threads: int | None = None, row_group: int = 2048) -> None:
        self._connection = duckdb.connect(":memory:", config={} if threads is None else {"threads": threads})
        self._connection.execute("SET wal_autocheckpoint = '256MB'")
        self._connection.execute(f"ATTACH '{path}' AS bare (ROW_GROUP_SIZE {row_group})")
        self._connection.execute("USE bare")
        self._connection.register("batch", _in_row_groups(batch))
        self._connection.execute("CREATE TABLE bare AS SELECT * FROM batch LIMIT 0")

    def insert(self) -> None:
        """Insert the whole batch in one transaction, durable on return."""
        self._connection.execute("INSERT INTO bare SELECT * FROM batch")

    def rows(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM bare").fetchall()[0][0])

    def sql(self, query: str) -> pa.Table:
        """Result of bare SQL over `bare` and `batch`."""
        table: pa.Table = self._connection.sql(query).to_arrow_table()
        return table

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class BareTables:
    """A DuckDB file with bare tables, filled again and again with the Arrow tables that the store made of a bulk
    call.
    """

    def __init__(self, path: Path, slices: Sequence[Mapping[str, pa.Table]]) -> None:
        self._connection, self._slices = duckdb.connect(":memory:"), slices
        for statement in (
            "SET wal_autocheckpoint = '256MB'",
            f"ATTACH '{path}' AS bare (ROW_GROUP_SIZE 2048)",
            "USE bare",
        ):
            self._connection.execute(statement)
        for name, table in slices[0].items():
            self._insert(f"CREATE TABLE {name} AS SELECT * FROM batch LIMIT 0", table)

    def insert(self) -> None:
        """Insert everything in one transaction, durable on return."""
        self._connection.execute("BEGIN")
        for tables in self._slices:
            for name, table in tables.items():
                self._insert(f"INSERT INTO {name} SELECT * FROM batch", table)
        self._connection.execute("COMMIT")

    def rows(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM predictions").fetchall()[0][0])

    def _insert(self, sql: str, batch: pa.Table) -> None:
        self._connection.register("batch", _in_row_groups(batch))
        self._connection.execute(sql).fetchall()
        self._connection.unregister("batch")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class BareFile:
    """Plain DuckDB on a copy of a store's file: the same tables, the same SQL, nothing of this package."""

    def __init__(self, workspace: Path, copy: Path) -> None:
        shutil.copyfile(workspace / "store.duckdb", copy)
        self._connection = duckdb.connect(str(copy), config={"max_vacuum_tasks": 0})

    def sql(self, query: str) -> pa.Table:
        """Result of a query as Arrow."""
        table: pa.Table = self._connection.sql(query).to_arrow_table()
        return table

    def execute(self, *statements: str) -> None:
        """Statements in one transaction."""
        for statement in ("BEGIN", *statements, "COMMIT"):
            self._connection.execute(statement)

    def rewrite(self, path: Path) -> None:
        """Everything into a new file, as a vacuum must at least."""
        self._connection.execute(f"ATTACH '{path}' AS fresh")
        self._connection.execute(f"COPY FROM DATABASE {self._name} TO fresh")
        self._connection.execute("DETACH fresh")

    @property
    def _name(self) -> str:
        return str(self._connection.execute("SELECT current_database()").fetchall()[0][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def write_and_sync(path: Path, content: bytes | memoryview) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class BareFiles:
    """Objects pickled into new files of one folder, unnamed, unhashed and unchecked, durable by one call for all; and
    read back.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._numbers = folder, count()
        self._descriptor = os.open(folder, os.O_RDONLY)

    def save(self, objects: Iterable[Any]) -> list[Path]:
        """The new files; the disk has them on return."""
        paths = []
        for obj, number in zip(objects, self._numbers, strict=False):
            paths.append(self._folder / str(number))
            with paths[-1].open("xb", buffering=0) as file:
                file.write(pickle.dumps(obj, 5))
                start_sync(file.fileno())
        if ctypes.CDLL(None).syncfs(self._descriptor):
            raise OSError("syncfs failed")
        return paths

    def load(self, paths: Iterable[Path]) -> list[Any]:
        return [pickle.loads(path.read_bytes()) for path in paths]


class MemoryCopy:
    """One copy of `size` bytes from memory to memory."""

    def __init__(self, size: int) -> None:
        self._source, self._target = np.ones(size // 8), np.empty(size // 8)
        self.size = self._source.nbytes

    def __call__(self) -> None:
        np.copyto(self._target, self._source)


class MatrixProduct:
    """One dgemm of (rows, inner) by (inner, columns) in whatever threads BLAS has: the peak for fused replay."""

    def __init__(self, rows: int, inner: int, columns: int, seed: int = 0) -> None:
        numbers = np.random.default_rng(seed)
        self._left, self._right, self._out = (
            numbers.random((rows, inner)),
            numbers.random((inner, columns)),
            np.empty((rows, columns)),
        )
        self.operations = 2 * rows * inner * columns

    def __call__(self) -> None:
        np.matmul(self._left, self._right, out=self._out)
