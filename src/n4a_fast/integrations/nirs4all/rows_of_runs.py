"""Pipelines and chains as nirs4all 1.x asks for them: one by one, for all pipelines of a run.

The first question reads the whole run, and who knows its questions has them read ahead; these rows answer the others,
as long as nothing has changed the tables. Runs of more pipelines than `_AT_MOST`, and questions inside a transaction,
are answered by the tables each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from n4a_fast.engine.workspace import Workspace
from n4a_fast.integrations.workspaces.batches import CARRIED_TABLES

_AT_MOST = 4096  # pipelines of a run that is kept
_SAME_RUN = "(SELECT run_id FROM pipelines WHERE pipeline_id = ?)"
_PIPELINES = f"SELECT * FROM pipelines WHERE run_id = {_SAME_RUN} LIMIT {_AT_MOST + 1}"
_CHAINS = f"""SELECT c.* FROM chains c JOIN pipelines p USING (pipeline_id) WHERE p.run_id = {_SAME_RUN}
ORDER BY c.created_at, c.chain_id"""
_THESE_PIPELINES = "SELECT * FROM pipelines WHERE pipeline_id IN ({})"
_THESE_CHAINS = "SELECT * FROM chains WHERE pipeline_id IN ({}) ORDER BY created_at, chain_id"
_COUNTED = ("runs", "pipelines", "chains", "predictions", "logs")
_COUNT = f"""SELECT {" + ".join(f"(SELECT count(*) FROM {table})" for table in _COUNTED)} + count(*)
FROM carried WHERE list_contains(?, table_name)"""


class RowsOfRuns:
    """What one store has read of the runs that it was asked for last."""

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None
        self._pipelines: dict[str, dict[str, Any]] = {}
        self._chains: dict[str, pl.DataFrame] = {}

    def read_ahead(self, workspace: Workspace, pipeline_ids: list[str], *, chains: bool) -> None:
        """Read what will be asked about these pipelines, and their chains if so."""
        database = workspace.database
        with workspace.lock, database.reading():
            if self._may_keep(workspace) and len(pipeline_ids) + len(self._pipelines) <= _AT_MOST:
                marks = ", ".join("?" * len(pipeline_ids))
                rows = database.frame(_THESE_PIPELINES.format(marks), pipeline_ids).to_dicts()
                self._pipelines |= {row["pipeline_id"]: row for row in rows}
                if chains:
                    self._note_chains(pipeline_ids, database.frame(_THESE_CHAINS.format(marks), pipeline_ids))

    def pipeline(self, workspace: Workspace, pipeline_id: str) -> dict[str, Any] | None:
        """The pipeline with its JSON columns decoded, or None."""
        with workspace.lock, workspace.database.reading():
            if self._is_kept(workspace, pipeline_id):
                return workspace.pipelines.decoded(self._pipelines[pipeline_id])
            return workspace.pipelines.find(pipeline_id)

    def chains(self, workspace: Workspace, pipeline_id: str) -> pl.DataFrame:
        """The chains of a pipeline, oldest first."""
        with workspace.lock, workspace.database.reading():
            if not self._is_kept(workspace, pipeline_id):
                return workspace.chains.of_pipeline(pipeline_id)
            if pipeline_id not in self._chains:
                found = workspace.database.frame(_CHAINS, (pipeline_id,))
                of_run = self._pipelines[pipeline_id]["run_id"]
                ids = [each for each, row in self._pipelines.items() if row["run_id"] == of_run]
                self._note_chains(ids, found)
            return self._chains[pipeline_id]

    def _note_chains(self, pipeline_ids: list[str], found: pl.DataFrame) -> None:
        parts = found.partition_by("pipeline_id", as_dict=True)
        self._chains |= {each: parts.get((each,), found.clear()) for each in pipeline_ids}

    def _may_keep(self, workspace: Workspace) -> bool:
        """Whether rows may be kept; those that are kept are true now."""
        database = workspace.database
        if database.in_transaction:
            return False
        if database.state != self._state:
            self._state = database.state
            self._pipelines.clear()
            self._chains.clear()
        return True

    def _is_kept(self, workspace: Workspace, pipeline_id: str) -> bool:
        """Whether the pipeline is among the rows that are true now; those of its run are read for that."""
        if not self._may_keep(workspace):
            return False
        if pipeline_id not in self._pipelines:
            rows = workspace.database.frame(_PIPELINES, (pipeline_id,)).to_dicts()
            if len(rows) + len(self._pipelines) <= _AT_MOST:
                self._pipelines |= {row["pipeline_id"]: row for row in rows}
        return pipeline_id in self._pipelines


def rows_gone(workspace: Workspace, delete: Callable[[], object]) -> int:
    """How many rows a deletion removes as nirs4all counts them: results of analyses are some, arrays are none."""
    with workspace.transaction(flushed=False):
        ((before,),) = workspace.database.rows(_COUNT, (list(CARRIED_TABLES),))
        delete()
        ((after,),) = workspace.database.rows(_COUNT, (list(CARRIED_TABLES),))
        return int(before - after)
