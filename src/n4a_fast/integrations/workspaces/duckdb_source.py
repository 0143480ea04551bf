"""nirs4all's DuckDB workspaces, 0.7 and early 0.8: read-only, held for as long as they are read.

0.7 keeps arrays in the table `prediction_arrays`, flattened; 0.8 has Parquet files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import NotAStoreError
from n4a_fast.integrations.workspaces.batches import (
    ARRAYS,
    BATCH_ROWS,
    ArrayBatch,
    pieces,
    quoted_name,
    reshaped,
    views,
)
from n4a_fast.integrations.workspaces.parquet_arrays import ParquetArrays

_TABLES = """SELECT table_name FROM information_schema.tables
WHERE table_catalog = 'store' AND table_schema = 'main' AND table_type = 'BASE TABLE'"""
_COLUMNS = """SELECT column_name, data_type, coalesce(is_generated, 'NEVER') FROM information_schema.columns
WHERE table_catalog = 'store' AND table_schema = 'main' AND table_name = ? ORDER BY ordinal_position"""
_MACROS = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE database_name = 'store'"
_ROWS = "SELECT {columns} FROM {table} WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
_ARRAYS = """SELECT a.prediction_id, a.y_true, a.y_pred, a.y_proba,
    CAST(a.sample_indices AS BIGINT[]) AS sample_indices, a.weights, p.n_samples
FROM (FROM store.main.prediction_arrays WHERE rowid >= ? AND rowid < ? ORDER BY rowid) a
LEFT JOIN store.main.predictions p ON p.prediction_id = a.prediction_id"""
_ARRAY_ROWS = 2048


class DuckDBSource:
    """A workspace with a `store.duckdb` that nirs4all wrote."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "store.duckdb"
        self._database = Database(self.path, read_only=True, lock_timeout=1.0)
        self._held = self._database.lock
        self._held.acquire()  # otherwise an idle moment would let the file go, and somebody could write to it
        try:
            if macros := self._database.rows(_MACROS):  # they would be called in place of DuckDB's own functions
                raise NotAStoreError(self.path, f"it holds the macro {macros[0][0]}, which no nirs4all wrote")
            self._names = frozenset(name for (name,) in self._database.rows(_TABLES))
            has_table = "prediction_arrays" in self._names
            self._parquet = None if has_table else ParquetArrays(root / "arrays")
        except BaseException:
            self.close()
            raise
        self.kind = f"nirs4all DuckDB workspace, arrays in {'the database' if has_table else 'Parquet'}"

    def names(self) -> frozenset[str]:
        return self._names

    def count(self, table: str) -> int:
        return int(self._database.rows(f"SELECT count(*) FROM {_table(table)}")[0][0]) if table in self._names else 0

    def rows(self, table: str) -> Iterator[pa.Table]:
        described = self._database.rows(_COLUMNS, (table,))
        if computed := next((name for name, _, generated in described if generated == "ALWAYS"), None):
            raise NotAStoreError(self.path, f"the column {computed} of {table} is computed, which no nirs4all wrote")
        quoted = [(quoted_name(name), kind) for name, kind, _ in described]
        selected = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" if kind == "JSON" else name for name, kind in quoted)
        return pieces(self._database, _ROWS.format(columns=selected, table=_table(table)), _table(table), BATCH_ROWS)

    def array_count(self) -> int:
        return self.count("prediction_arrays") if self._parquet is None else len(self._parquet)

    def arrays(self) -> Iterator[ArrayBatch]:
        if self._parquet is not None:
            yield from self._parquet.batches()
            return
        yield from map(_batch, pieces(self._database, _ARRAYS, _table("prediction_arrays"), _ARRAY_ROWS))

    def state(self) -> object:
        found = self.path.stat()
        return (found.st_ino, found.st_size, found.st_mtime_ns, self._parquet and self._parquet.state())

    def close(self) -> None:
        self._database.close()
        self._held.release()


def _table(name: str) -> str:
    """A table of the source in SQL, whatever its name is and whatever else has that name."""
    return f"store.main.{quoted_name(name)}"


def _batch(table: pa.Table) -> ArrayBatch:
    arrays = {name: views(table[name], np.int64 if name == "sample_indices" else np.float64) for name in ARRAYS}
    samples = zip(arrays["sample_indices"], table["n_samples"].to_pylist(), strict=True)
    rows = [known if indices is None else len(indices) for indices, known in samples]
    for name in ("y_true", "y_pred", "y_proba"):  # 0.7 flattens them
        arrays[name] = [reshaped(flat, count) for flat, count in zip(arrays[name], rows, strict=True)]
    return ArrayBatch(table["prediction_id"].to_pylist(), arrays, [None] * table.num_rows, [{}] * table.num_rows)
