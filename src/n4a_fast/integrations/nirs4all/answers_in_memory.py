"""What nirs4all 1.x asks before each refit, answered from memory: the pipelines of the run, and predictions of one.

What it wants to know is what this process has just saved. For the tables to tell it, all of that would go into them,
and the little that the refit adds once more later. A run that is in memory as a whole is answered here, as the tables
would answer; of any other run, and to any other question, there is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from n4a_fast.engine.frames import as_frame, frame_of, types_of
from n4a_fast.integrations.nirs4all.sqlite_ready import RUNS, newest_first
from n4a_fast.integrations.nirs4all.sqlite_tables import TEXT_COLUMNS, type_in_duckdb
from n4a_fast.integrations.workspaces.sqlite_schema import COLUMNS, RELATION
from n4a_fast.schema.columns import PIPELINES, PREDICTIONS, table_of

if TYPE_CHECKING:
    from n4a_fast.engine.workspace import Workspace

_PREDICTIONS = re.compile(r"SELECT \* FROM predictions WHERE (\w+ = \?(?: AND \w+ = \?)*) ORDER BY created_at DESC")
_TYPES = {"VARCHAR": pl.String, "DOUBLE": pl.Float64, "BIGINT": pl.Int64}


def answer_in_memory(workspace: Workspace, query: str, given: Sequence[Any]) -> pl.DataFrame | None:
    """The answer, if the query is one of these and all that it asks for is in memory."""
    if not all(isinstance(value, str) for value in given):
        return None
    if query in RUNS:
        return _pipelines(workspace, *given)
    if (found := _PREDICTIONS.fullmatch(query)) is None:
        return None
    names = re.findall(r"\w+(?= =)", found[1])
    return _predictions(workspace, list(zip(names, given, strict=True))) if TEXT_COLUMNS.issuperset(names) else None


def _pipelines(workspace: Workspace, run_id: str, dataset_name: str | None = None) -> pl.DataFrame | None:
    with workspace.lock:
        if not _holds_whole(workspace, run_id):
            return None
        of_run = [row for row in workspace.pipelines.values() if row["run_id"] == run_id]
    asked = [row for row in of_run if dataset_name in (None, row["dataset_name"])]
    asked.sort(key=lambda row: (row["created_at"], row["pipeline_id"]))
    rows = [(number, *map(row.get, PIPELINES.names)) for number, row in enumerate(asked, 1)]
    types = pl.Schema([("_rowid", pl.Int64), *types_of(PIPELINES).items()])
    return frame_of(sorted(rows, key=lambda row: str(row[1])), types)


def _predictions(workspace: Workspace, filters: list[tuple[str, str]]) -> pl.DataFrame | None:
    pipeline_id = dict(filters).get("pipeline_id", "")
    with workspace.lock:
        pipeline = workspace.pipelines.get(pipeline_id)
        if pipeline is None or not _holds_whole(workspace, pipeline["run_id"]) or len(workspace.carried):
            return None
        rows = workspace.predictions.batch.rows_of_pipeline(pipeline_id)
    places = [(PREDICTIONS.names.index(name), value) for name, value in filters if name not in RELATION]
    if len(places) < len(filters):
        return None
    asked = [tuple(row) for row in rows if all(row[place] == value for place, value in places)]
    frame = newest_first(as_frame(table_of(asked, PREDICTIONS)))
    absent = [pl.lit(None, _TYPES[type_in_duckdb(name)]).alias(name) for name in RELATION]
    return frame.with_columns(absent).select(COLUMNS["predictions"])


def _holds_whole(workspace: Workspace, run_id: str) -> bool:
    """Whether all that there is of a run is in memory: until a drain takes the run along, nobody else can add to it."""
    if workspace.units.is_open:
        return False
    workspace.database.refresh()
    return workspace.runs.get(run_id) is not None
