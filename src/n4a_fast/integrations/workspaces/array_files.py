"""The arrays of a workspace of ours as nirs4all 0.8 and later keep them: one Parquet file per dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n4a_fast import platform
from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.workspaces.batches import ARRAYS, pieces, views
from n4a_fast.integrations.workspaces.reports import Progress, TableReport
from n4a_fast.values import jsontext

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


class ArrayFiles:
    """Writes the arrays of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write_all(self, folder: Path, progress: Progress) -> TableReport:
        """Write every dataset into the new folder; how many predictions."""
        folder.mkdir()
        schema = self._schema()
        found, done = int(self._database.rows("SELECT count(*) FROM prediction_values")[0][0]), 0
        writers: dict[str, pq.ParquetWriter] = {}
        with ExitStack() as files:
            for rows in self._array_rows():
                for dataset in sorted({row["dataset_name"] for row in rows}):
                    name = file_name(dataset)
                    if name not in writers:
                        writers[name] = files.enter_context(_writer(folder / f"{name}.parquet", schema))
                    writers[name].write_table(
                        _array_table([row for row in rows if row["dataset_name"] == dataset], schema)
                    )
                done += len(rows)
                progress("writing arrays", done, found)
        return TableReport("prediction_arrays", found, done)

    def write(self, dataset_name: str, target: Path) -> int:
        """Write one dataset to a file that appears whole; how many predictions, no file for none."""
        schema, written = self._schema(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            with _writer(draft, schema) as writer:
                for rows in self._array_rows():
                    wanted = [row for row in rows if row["dataset_name"] == dataset_name]
                    writer.write_table(_array_table(wanted, schema))
                    written += len(wanted)
            if written:
                platform.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
        return written

    def _schema(self) -> pa.Schema:
        labels = _LABEL_COLUMNS if self._database.rows(_LABELLED)[0][0] else ()
        return pa.schema([*_ARRAY_COLUMNS, *(pa.field(name, _text) for name in labels)])

    def _array_rows(self) -> Iterator[list[dict[str, Any]]]:
        for piece in pieces(self._database, _DESCRIBED, "prediction_values", _ARRAY_ROWS):
            arrays = {name: views(piece[name], np.int64 if name == "sample_indices" else np.float64) for name in ARRAYS}
            rows = piece.drop_columns(list(ARRAYS)).to_pylist()
            yield [_array_row(row, {name: arrays[name][place] for name in ARRAYS}) for place, row in enumerate(rows)]


def file_name(dataset_name: str) -> str:
    """The name of a dataset's file, without its ending."""
    return _UNSAFE.sub("_", dataset_name).strip("_") or "unnamed"


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)


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
