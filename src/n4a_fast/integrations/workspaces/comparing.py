"""The proof of a copy: every row and every array is read again on both sides and compared by fingerprint.

A fingerprint takes in every value of a row, or the type, shape and bytes of every array of a
prediction; both sides are read once, in their own order, so the proof stays linear. Arrays that
are stored once per content are checked against the hash that is their address. Rows that a newer one
of the same natural key replaced are the only ones that may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa

from n4a_fast.artifacts.files import ZSTD
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import CopyDiffersError
from n4a_fast.integrations.workspaces.batches import (
    ARRAYS,
    BATCH_ROWS,
    TABLES,
    Source,
    fitted,
    natural_keys,
    pieces,
    views,
)
from n4a_fast.integrations.workspaces.reports import Progress
from n4a_fast.tables.predictions.contents import content_hash

_ROWS = "SELECT {columns} FROM {table} WHERE rowid >= ? AND rowid < ?"
_VALUES = """SELECT prediction_id, y_pred, y_pred_width, y_proba, y_proba_width, y_true_hash, sample_indices_hash,
weights_hash
FROM prediction_values WHERE rowid >= ? AND rowid < ?"""
_SHARED = "SELECT content_hash, array_values, {width} AS width FROM {table} WHERE rowid >= ? AND rowid < ?"
_SHARED_TABLES: Mapping[str, tuple[str, Any]] = {
    "shared_arrays": ("width", np.float64),
    "shared_indices": ("NULL::INTEGER", np.int64),
}
_ARRAY_ROWS = 2048

Array = np.ndarray[Any, Any]


def compare(source: Source, workspace: Workspace, progress: Progress, *, outgoing: bool = False) -> int:
    """CopyDiffersError unless the workspace holds what the source holds; the number of arrays compared.

    `outgoing` when the source is what was written from the workspace: nirs4all knows no NaN in its
    tables and no compressed artifacts.
    """
    for name in TABLES:
        _compare_table(source, workspace, name, progress, outgoing)
    _check_shared(source, workspace)
    return _compare_arrays(source, workspace, progress)


def _compare_table(source: Source, workspace: Workspace, name: str, progress: Progress, outgoing: bool) -> None:
    table, schema = TABLES[name]
    columns: list[str] = [schema.names[0]]
    found, done, given = source.count(name), 0, []
    for batch in source.rows(name) if found else ():
        columns = [column for column in schema.names if column in batch.column_names]
        rows = fitted(batch, schema).select(columns)
        keys = [str(key) for key in natural_keys(rows)] if name == "predictions" else rows[0].to_pylist()
        given.append(_row_prints(_frame(rows)).with_columns(pl.Series("key", keys, pl.String)))
        done += rows.num_rows
        progress(f"comparing {name}", done, found)
    query = _ROWS.format(columns=", ".join(columns), table=table)
    stored = [
        _frame(fitted(piece, schema).select(columns)) for piece in pieces(workspace.database, query, table, BATCH_ROWS)
    ]
    newest = _joined(given, "key").unique("key", keep="last", maintain_order=True).drop("key")
    _require_equal(
        source,
        newest,
        _joined([_row_prints(_as_written(frame) if outgoing else frame) for frame in stored]),
        f"rows of {name}",
    )
    if done != found:
        raise CopyDiffersError(source.root, f"the number of rows of {name}")


def _compare_arrays(source: Source, workspace: Workspace, progress: Progress) -> int:
    compared = done = 0
    total, given = source.array_count(), []
    for batch in source.arrays():
        columns = [
            [None if value is None else content_hash(np.ascontiguousarray(value)) for value in batch.arrays[name]]
            for name in ARRAYS
        ]
        compared += sum(value is not None for column in columns for value in column)
        given.append(_array_prints(batch.ids, columns))
        done += len(batch.ids)
        progress("comparing arrays", done, total)
    known = workspace.database.frame("SELECT prediction_id AS id FROM predictions")
    stored = [
        _array_prints(*_stored_hashes(piece))
        for piece in pieces(workspace.database, _VALUES, "prediction_values", _ARRAY_ROWS)
    ]
    _require_equal(source, _joined(given).join(known, on="id", how="semi"), _joined(stored), "arrays of predictions")
    return compared


def _stored_hashes(piece: pa.Table) -> tuple[list[str], list[list[str | None]]]:
    y_pred, y_proba = (_hashes(piece, name, np.float64, f"{name}_width") for name in ("y_pred", "y_proba"))
    shared = {name: piece[f"{name}_hash"].to_pylist() for name in ("y_true", "sample_indices", "weights")}
    return piece["prediction_id"].to_pylist(), [
        {**shared, "y_pred": y_pred, "y_proba": y_proba}[name] for name in ARRAYS
    ]


def _check_shared(source: Source, workspace: Workspace) -> None:
    """CopyDiffersError unless arrays stored once per content have the content that their address tells."""
    for table, (width, dtype) in _SHARED_TABLES.items():
        for piece in pieces(workspace.database, _SHARED.format(width=width, table=table), table, _ARRAY_ROWS):
            if _hashes(piece, "array_values", dtype, "width") != piece["content_hash"].to_pylist():
                raise CopyDiffersError(source.root, "arrays that predictions share")


def _hashes(piece: pa.Table, name: str, dtype: type[np.generic], width: str) -> list[str | None]:
    return [
        _hash(flat, columns) for flat, columns in zip(views(piece[name], dtype), piece[width].to_pylist(), strict=True)
    ]


def _hash(flat: Array | None, width: int | None) -> str | None:
    if flat is None:
        return None
    return content_hash(flat if width is None else flat.reshape(-1 if width else 0, width))


def _require_equal(source: Source, given: pl.DataFrame, stored: pl.DataFrame, what: str) -> None:
    for one, other in ((given, stored), (stored, given)):
        alone = one.join(other, on=["id", "print"], how="anti")
        if alone.height:
            raise CopyDiffersError(source.root, f"{what} ({alone['id'][0]})")
    if given.height != stored.height:
        raise CopyDiffersError(source.root, f"the numbers of {what}")


def _row_prints(frame: pl.DataFrame) -> pl.DataFrame:
    """The id of each row, its first column, and a hash of all its values; NaN equals NaN."""
    return pl.DataFrame({"id": frame.to_series(0), "print": frame.hash_rows(seed=7)})


def _array_prints(identifiers: list[str], hashes: list[list[str | None]]) -> pl.DataFrame:
    prints = pl.DataFrame(
        {name: pl.Series(column, dtype=pl.String) for name, column in zip(ARRAYS, hashes, strict=True)}
    ).hash_rows(seed=7)
    return pl.DataFrame({"id": pl.Series(identifiers, dtype=pl.String), "print": prints})


def _joined(frames: list[pl.DataFrame], *more: str) -> pl.DataFrame:
    empty = pl.DataFrame(schema={"id": pl.String, "print": pl.UInt64, **dict.fromkeys(more, pl.String)})
    return pl.concat([empty, *frames])


def _as_written(frame: pl.DataFrame) -> pl.DataFrame:
    paths = [pl.col("artifact_path").str.strip_suffix(ZSTD)] if "artifact_path" in frame.columns else []
    return frame.with_columns(cs.float().fill_nan(None), *paths)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
