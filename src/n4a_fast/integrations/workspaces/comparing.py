"""The proof of a copy: every row and every array of the source is read again and compared with what was written.

Values must be equal, not close; NaN equals NaN. Rows that a newer one of the same natural key
replaced are the only ones that may be missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.artifacts.files import ZSTD
from n4a_fast.errors import CopyDiffersError
from n4a_fast.integrations.workspaces.batches import ARRAYS, TABLES, Source, fitted, natural_keys
from n4a_fast.integrations.workspaces.reports import Progress
from n4a_fast.schema.columns import LOOKUP_COLUMNS
from n4a_fast.workspace import Workspace

_SELECT = "SELECT {columns} FROM {table} WHERE {key} IN (SELECT {key} FROM wanted) ORDER BY {key}"
_OURS_ALONE = frozenset({*LOOKUP_COLUMNS, "origin"})


def compare(source: Source, workspace: Workspace, progress: Progress, *, outgoing: bool = False) -> int:
    """CopyDiffersError unless the workspace holds what the source holds; the number of arrays compared.

    `outgoing` when the source is what was written from the workspace: nirs4all knows no NaN in its
    tables and no compressed artifacts.
    """
    for name in TABLES:
        _compare_table(source, workspace, name, progress, outgoing)
    return _compare_arrays(source, workspace, progress)


def _compare_table(source: Source, workspace: Workspace, name: str, progress: Progress, outgoing: bool) -> None:
    table, schema = TABLES[name]
    key, columns = schema.names[0], [column for column in schema.names if column not in _OURS_ALONE]
    query = _SELECT.format(columns=", ".join(columns), table=table, key=key)
    found, done = source.count(name), 0
    expected: set[int | str] = set()
    for batch in source.rows(name) if found else ():
        rows = fitted(batch, schema).select(columns)
        stored = workspace.database.select(query, wanted=rows.select([key]))
        kept = rows.filter(pc.is_in(rows[key], value_set=stored[key].combine_chunks().cast(pa.string())))
        ours = _frame(fitted(stored, kept.schema), key)
        if not _frame(kept, key).equals(_as_written(ours) if outgoing else ours):
            raise CopyDiffersError(source.root, f"rows of {name}")
        expected.update(natural_keys(rows) if name == "predictions" else rows[key].to_pylist())
        done += rows.num_rows
        progress(f"comparing {name}", done, found)
    ((stored_rows,),) = workspace.database.rows(f"SELECT count(*) FROM {table}")
    if done != found or stored_rows != len(expected):
        raise CopyDiffersError(source.root, f"the number of rows of {name}: {found} found, {done} read, {stored_rows} written")


def _compare_arrays(source: Source, workspace: Workspace, progress: Progress) -> int:
    compared = done = kept = 0
    total = source.array_count()
    known = set(workspace.database.arrow("SELECT prediction_id FROM predictions")["prediction_id"].to_pylist())
    for batch in source.arrays():
        places = [place for place, identifier in enumerate(batch.ids) if identifier in known]
        loaded = workspace.arrays.load(workspace.arrays.ids([batch.ids[place] for place in places], {}), ARRAYS)
        for name in ARRAYS:
            views, given = getattr(loaded, name), batch.arrays[name]
            for row, place in enumerate(places):
                if not _same(given[place], views[row]):
                    raise CopyDiffersError(source.root, f"{name} of prediction {batch.ids[place]}")
                compared += given[place] is not None
        done, kept = done + len(batch.ids), kept + len(places)
        progress("comparing arrays", done, total)
    if [(kept,)] != workspace.database.rows("SELECT count(*) FROM prediction_values"):
        raise CopyDiffersError(source.root, "the number of predictions with arrays")
    return compared


def _as_written(frame: pl.DataFrame) -> pl.DataFrame:
    paths = [pl.col("artifact_path").str.strip_suffix(ZSTD)] if "artifact_path" in frame.columns else []
    return frame.with_columns(cs.float().fill_nan(None), *paths)


def _same(given: np.ndarray[Any, Any] | None, stored: np.ndarray[Any, Any] | None) -> bool:
    if given is None or stored is None:
        return given is stored
    return given.shape == stored.shape and bool(np.array_equal(given, stored, equal_nan=given.dtype.kind == "f"))


def _frame(table: pa.Table, key: str) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.sort(key)
