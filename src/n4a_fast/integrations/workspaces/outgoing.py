"""A workspace of ours written as one that nirs4all 1.4 opens: `store.sqlite`, Parquet arrays, artifacts.

Everything goes into a folder that nobody else sees. Columns that this store does not have come from
what was carried along when the workspace was taken in; summaries of chains are computed anew.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.workspaces.batches import ARRAYS, BATCH_ROWS, CARRIED_TABLES, TABLES, pieces, views
from n4a_fast.integrations.workspaces.reports import Progress, TableReport
from n4a_fast.integrations.workspaces.sqlite_schema import COLUMNS, statements
from n4a_fast.values import jsontext

_ROWS = """SELECT t.*, c.content AS carried FROM {table} t LEFT JOIN carried c ON c.table_name = '{name}' AND c.row_id =
t.{key}
WHERE t.rowid >= ? AND t.rowid < ? ORDER BY t.rowid"""
_SUMMARIES = "SELECT * FROM v_chain_summary"
_REFERENCES = "SELECT artifact_id, ref_count FROM artifacts"
# results of runs, chains or predictions that were deleted since go with them
_CARRIED = """SELECT content FROM carried WHERE table_name = ?
AND (content->>'run_id' IS NULL OR content->>'run_id' IN (SELECT run_id FROM runs))
AND (content->>'pipeline_id' IS NULL OR content->>'pipeline_id' IN (SELECT pipeline_id FROM pipelines))
AND (content->>'chain_id' IS NULL OR content->>'chain_id' IN (SELECT chain_id FROM chains))
AND (content->>'prediction_id' IS NULL OR content->>'prediction_id' IN (SELECT prediction_id FROM predictions)) ORDER BY
row_id"""
_LABELLED = (
    "SELECT count(*) FROM carried WHERE table_name = 'prediction_arrays' AND (content->>'y_true_labels' <> '' OR"
    " content->>'y_pred_labels' <> '')"
)
_DESCRIBED = """SELECT p.prediction_id, p.dataset_name, p.model_name, p.fold_id, p.partition, p.metric, p.val_score,
p.task_type,
    t.array_values AS y_true, t.width AS y_true_width, v.y_pred, v.y_pred_width, v.y_proba, v.y_proba_width,
    i.array_values AS sample_indices, w.array_values AS weights, m.content AS sample_metadata, c.content AS carried
FROM (SELECT *, rowid AS place FROM prediction_values WHERE rowid >= ? AND rowid < ?) v
JOIN predictions p ON p.id_key = v.id_key AND p.prediction_id = v.prediction_id
LEFT JOIN shared_arrays t ON t.content_hash = v.y_true_hash LEFT JOIN shared_arrays w ON w.content_hash = v.weights_hash
LEFT JOIN shared_indices i ON i.content_hash = v.sample_indices_hash
LEFT JOIN prediction_metadata k ON k.prediction_id = p.prediction_id LEFT JOIN shared_metadata m ON m.content_hash =
k.content_hash
LEFT JOIN carried c ON c.table_name = 'prediction_arrays' AND c.row_id = p.prediction_id
ORDER BY v.place"""
_ARRAY_ROWS = 4096
_UNSAFE = re.compile(r'[/\\:*?"<>|\s.]+')

_text, _reals, _shape = pa.string(), pa.list_(pa.float64()), pa.list_(pa.int32())
_ARRAY_COLUMNS = pa.schema(
    {
        "prediction_id": _text,
        "dataset_name": _text,
        "model_name": _text,
        "fold_id": _text,
        "partition": _text,
        "metric": _text,
        "val_score": pa.float64(),
        "task_type": _text,
        "y_true": _reals,
        "y_true_shape": _shape,
        "y_pred": _reals,
        "y_pred_shape": _shape,
        "y_proba": _reals,
        "y_proba_shape": _shape,
        "X": _reals,
        "X_shape": _shape,
        "spectra": _reals,
        "spectra_shape": _shape,
        "sample_indices": pa.list_(pa.int32()),
        "weights": _reals,
        "sample_metadata": _text,
        "result_metadata": _text,
    }
)
_LABEL_COLUMNS = ("y_true_labels", "y_pred_labels")


class Outgoing:
    """Writes one workspace of ours into a folder."""

    def __init__(self, workspace: Workspace, folder: Path, progress: Progress) -> None:
        self._database, self._folder, self._progress = workspace.database, folder, progress

    def run(self) -> tuple[TableReport, ...]:
        """Write everything but the artifact files; what was found and written, by table."""
        with closing(sqlite3.connect(self._folder / "store.sqlite", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # as nirs4all keeps it
            connection.execute("BEGIN")
            for statement in statements():
                connection.execute(statement)
            reports = [self._table(connection, name) for name in TABLES]
            reports += [report for name in CARRIED_TABLES if (report := self._carried_table(connection, name)).found]
            connection.execute("COMMIT")
        return (*reports, self._write_arrays())

    def _table(self, connection: sqlite3.Connection, name: str) -> TableReport:
        table, schema = TABLES[name]
        more = self._computed(name)
        found, done = int(self._database.rows(f"SELECT count(*) FROM {table}")[0][0]), 0
        for piece in pieces(
            self._database, _ROWS.format(table=table, name=name, key=schema.names[0]), table, BATCH_ROWS
        ):
            rows = piece.to_pylist()
            _insert(
                connection,
                name,
                [row | (jsontext.decode(row["carried"]) or {}) | more.get(row[schema.names[0]], {}) for row in rows],
            )
            done += len(rows)
            self._progress(f"writing {name}", done, found)
        return TableReport(name, found, done)

    def _computed(self, name: str) -> dict[str, dict[str, Any]]:
        """By id, columns that nirs4all stores and this store computes."""
        if name == "chains":
            wanted = set(COLUMNS["chains"]) - set(TABLES["chains"][1].names)
            rows = self._database.arrow(_SUMMARIES).to_pylist()
            return {row["chain_id"]: {key: value for key, value in row.items() if key in wanted} for row in rows}
        if name == "artifacts":
            return {artifact_id: {"ref_count": count} for artifact_id, count in self._database.rows(_REFERENCES)}
        return {}

    def _carried_table(self, connection: sqlite3.Connection, name: str) -> TableReport:
        rows = [jsontext.decode(content) for (content,) in self._database.rows(_CARRIED, (name,))]
        _insert(connection, name, rows)
        return TableReport(name, len(rows), len(rows))

    def _write_arrays(self) -> TableReport:
        folder = self._folder / "arrays"
        folder.mkdir()
        labels = _LABEL_COLUMNS if self._database.rows(_LABELLED)[0][0] else ()
        schema = pa.schema([*_ARRAY_COLUMNS, *(pa.field(name, _text) for name in labels)])
        found, done = int(self._database.rows("SELECT count(*) FROM prediction_values")[0][0]), 0
        writers: dict[str, pq.ParquetWriter] = {}
        with ExitStack() as files:
            for rows in self._array_rows():
                for dataset in sorted({row["dataset_name"] for row in rows}):
                    name = _UNSAFE.sub("_", dataset).strip("_") or "unnamed"
                    if name not in writers:
                        file = pq.ParquetWriter(
                            folder / f"{name}.parquet", schema, compression="zstd", compression_level=3
                        )
                        writers[name] = files.enter_context(file)
                    writers[name].write_table(
                        _array_table([row for row in rows if row["dataset_name"] == dataset], schema)
                    )
                done += len(rows)
                self._progress("writing arrays", done, found)
        return TableReport("prediction_arrays", found, done)

    def _array_rows(self) -> Iterator[list[dict[str, Any]]]:
        for piece in pieces(self._database, _DESCRIBED, "prediction_values", _ARRAY_ROWS):
            arrays = {name: views(piece[name], np.int64 if name == "sample_indices" else np.float64) for name in ARRAYS}
            rows = piece.drop_columns(list(ARRAYS)).to_pylist()
            yield [_array_row(row, {name: arrays[name][place] for name in ARRAYS}) for place, row in enumerate(rows)]


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = COLUMNS[table]
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    try:
        connection.executemany(statement, [[_value(name, row.get(name)) for name in names] for row in rows])
    except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError) as error:
        raise InvalidInputError(f"rows of {table} do not fit nirs4all's workspace: {error}") from error


def _value(name: str, value: Any) -> Any:
    """A value as nirs4all's SQLite holds it; NaN becomes NULL there."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.removesuffix(".zst") if name == "artifact_path" and value else value


def _array_row(row: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """One row of a Parquet file; targets that came as labels go out as they came."""
    carried = jsontext.decode(row.pop("carried")) or {}
    shapes = {
        f"{name}_shape": _shape_of(arrays[name], row[f"{name}_width"]) for name in ("y_true", "y_pred", "y_proba")
    }
    if arrays["y_proba"] is not None and shapes["y_proba_shape"] is None:
        shapes["y_proba_shape"] = [len(arrays["y_proba"])]
    for name in ("y_true", "y_pred"):
        if f"{name}_labels" in carried:
            arrays[name] = shapes[f"{name}_shape"] = None
    return row | shapes | arrays | carried


def _shape_of(flat: Any, width: int | None) -> list[int] | None:
    return None if flat is None or width is None else [len(flat) // width if width else 0, width]


def _array_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    try:
        return pa.table(
            [pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema
        )
    except (pa.ArrowInvalid, OverflowError) as error:
        raise InvalidInputError(
            f"arrays do not fit nirs4all's workspace, whose sample indices have 32 bits: {error}"
        ) from error
