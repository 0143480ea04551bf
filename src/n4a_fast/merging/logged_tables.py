"""A workspace that rests in its logs: read as tables, without writing to it.

A shard that was closed small has empty tables and all its rows in one log segment. A merge takes them
from there: writing them into tables that are read once would take longer than all else. What these
functions give is what the tables would hold; `tests/merging/test_logged_tables.py` keeps it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.memtable.pending_table import Tables
from n4a_fast.schema.columns import STORED_ARTIFACTS
from n4a_fast.tables.predictions.prediction_tables import with_used_contents
from n4a_fast.tables.rows import CHANGED

_EMPTY = " UNION ALL ".join(
    f"(SELECT 1 FROM {name} LIMIT 1)"
    for name in (
        "projects",
        "runs",
        "pipelines",
        "stored_artifacts",
        "chains",
        "shared_arrays",
        "shared_indices",
        "shared_metadata",
        "prediction_metadata",
        "prediction_values",
        "predictions",
        "logs",
        "carried",
        "deleted_runs",
        "metrics",
    )
)


def read_each(roots: Sequence[Path], lock_timeout: float) -> Iterator[tuple[Path, Tables | None]]:
    """Each workspace, with its tables if it rests in its logs."""
    return ((root, logged(root, lock_timeout)) for root in roots)


def logged(root: Path, lock_timeout: float) -> Tables | None:
    """What the tables of a workspace would hold, when they are empty and everything is in its logs; None
    otherwise.
    """
    if not any(root.glob(f"{STORE_FILE}.log-*")):
        return None
    source = open_workspace(root, read_only=True, lock_timeout=lock_timeout)
    try:
        with source.lock:
            tables = source.database.logged()
            return None if tables is None or source.database.rows_undrained(_EMPTY) else _as_written(tables)
    finally:
        source.release()


def _as_written(tables: Tables) -> Tables:
    """Tables of a batch as writing them into empty ones leaves them."""
    tables = {name: _whole(table) for name, table in with_used_contents(tables).items()}
    found = tables.pop("found_artifacts", None)
    if found is not None:
        rows = (
            {row["artifact_id"]: row for row in tables["stored_artifacts"].to_pylist()}
            if "stored_artifacts" in tables
            else {}
        )
        for row in found.to_pylist():
            known = rows.setdefault(row["artifact_id"], row)
            if row["origin"] == "saved":
                known["origin"] = "saved"
        tables["stored_artifacts"] = pa.Table.from_pylist(list(rows.values()), STORED_ARTIFACTS)
    return tables


def _whole(table: pa.Table) -> pa.Table:
    """A table of a batch without changes of rows that are not in it."""
    if CHANGED not in table.column_names:
        return table
    return table.filter(pc.is_null(table[CHANGED])).drop_columns([CHANGED])
