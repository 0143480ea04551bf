"""Workspaces of nirs4all for the tests: real ones, and real ones changed."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

ARCHIVES = Path(__file__).parent / "data" / "workspaces"
OLD, BETWEEN, NEW = "nirs4all-0.7.1", "nirs4all-0.8.0", "nirs4all-1.4.10"
NUMBERS_OF_OLD = {
    "runs": 1,
    "pipelines": 4,
    "chains": 4,
    "artifacts": 22,
    "logs": 4,
    "predictions": 47,
    "prediction_arrays": 47,
}


def unpacked(name: str, parent: Path) -> Path:
    """A fresh copy of a real workspace (of the old one's artifacts there is one file)."""
    with tarfile.open(ARCHIVES / f"{name}.tar.gz") as archive:
        archive.extractall(parent, filter="data")
    return parent / name


def change(file: Path, *statements: str) -> None:
    """What another DuckDB program does to a file."""
    with duckdb.connect(str(file)) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows that a plain DuckDB client reads."""
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def move_arrays_to_parquet(root: Path) -> None:
    """The old workspace as early 0.8 releases leave it: arrays in a Parquet file, other columns and no array table."""
    (root / "arrays").mkdir()
    with duckdb.connect(str(root / "store.duckdb")) as connection:
        arrays = connection.sql("""SELECT p.prediction_id, p.dataset_name, p.model_name, p.fold_id, p.partition,
        p.metric, p.val_score, p.task_type,
            a.y_true, a.y_pred, a.y_proba, CAST(NULL AS INTEGER[]) AS y_proba_shape, a.sample_indices, a.weights
            FROM prediction_arrays a JOIN predictions p USING (prediction_id)""").to_arrow_table()
        connection.execute("DROP TABLE prediction_arrays")
        connection.execute("ALTER TABLE runs ADD COLUMN project_id VARCHAR")
        connection.execute(
            "CREATE TABLE projects AS SELECT 'p1' AS project_id, 'grain' AS name, '' AS description, '#14b8a6' AS color"
        )
        connection.execute("UPDATE runs SET project_id = 'p1'")
    stale = arrays.slice(0, 1).set_column(8, "y_true", pa.array([[0.0]], pa.list_(pa.float64())))
    pq.write_table(
        pa.concat_tables([stale, arrays.cast(stale.schema)]),
        root / "arrays" / "array_dataset.parquet",
        row_group_size=10,
    )
