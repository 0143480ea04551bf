"""Pipelines: one row for each variant that a run executed on a dataset."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.schema.columns import PIPELINES
from n4a_fast.tables import deleted_owners
from n4a_fast.tables.rows import ONE_OF, PendingRows
from n4a_fast.tables.stale_chains import note_of_pipelines_in_transaction
from n4a_fast.values import checks, jsontext
from n4a_fast.values.ids import uuid7

_JSON = ("expanded_config", "generator_choices", "original_template")
_LIST = """SELECT * FROM pipelines
WHERE (?1 IS NULL OR run_id = ?1) AND (?2 IS NULL OR dataset_name = ?2)
ORDER BY created_at DESC, pipeline_id DESC"""
_OF_RUN = "SELECT pipeline_id FROM pipelines WHERE run_id = ?"
_EMPTY = f"""SELECT pipeline_id FROM pipelines WHERE {ONE_OF.format("pipeline_id", 1)} AND (status <> 'running' OR ?2)
AND pipeline_id NOT IN (SELECT pipeline_id FROM chains WHERE {ONE_OF.format("pipeline_id", 1)})"""
_DELETE = f"DELETE FROM pipelines WHERE {ONE_OF.format('pipeline_id', 1)}"
_RUNNING = f"""SELECT pipeline_id FROM pipelines
WHERE {ONE_OF.format("pipeline_id", 1)} AND status = 'running'"""
_BACK = """SELECT pipeline_id FROM pipelines
WHERE run_id IN (SELECT run_id FROM deleted_runs) OR pipeline_id IN (SELECT run_id FROM deleted_runs)"""
_DELETE_OF_RUN = "DELETE FROM pipelines WHERE run_id = ?"


class Pipelines(PendingRows):
    """The `pipelines` table, and which of them this session has begun and not ended."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "pipelines", PIPELINES)
        self._open: dict[str, dict[str, Any]] = {}

    def begin(
        self,
        run_id: str,
        name: str,
        expanded_config: Any,
        generator_choices: list[Any],
        dataset_name: str,
        dataset_hash: str | None,
        original_template: Any = None,
    ) -> str:
        if generator_choices is not None and not isinstance(generator_choices, list | tuple):
            raise InvalidInputError(f"generator_choices must be a list, got {type(generator_choices).__name__}")
        pipeline_id = uuid7()
        row = {
            "pipeline_id": pipeline_id,
            "run_id": run_id,
            "name": checks.text(name, "name"),
            "expanded_config": jsontext.encode(expanded_config, "expanded_config"),
            "generator_choices": jsontext.encode(generator_choices, "generator_choices"),
            "dataset_name": checks.text(dataset_name, "dataset_name"),
            "dataset_hash": checks.optional_text(dataset_hash, "dataset_hash"),
            "status": "running",
            "created_at": checks.now(),
            "original_template": jsontext.encode(original_template, "original_template"),
        }
        self.put(row)
        self._open[pipeline_id] = row
        return pipeline_id

    def complete(
        self,
        pipeline_id: str,
        best_val: float | None,
        best_test: float | None,
        metric: str | None,
        duration_ms: int | None,
    ) -> None:
        changes = {
            "best_val": checks.real(best_val, "best_val"),
            "best_test": checks.real(best_test, "best_test"),
            "metric": checks.optional_text(metric, "metric"),
            "duration_ms": checks.optional_integer(duration_ms, "duration_ms", checks.INT64),
        }
        if self.require(pipeline_id)["status"] == "failed":
            raise InvalidInputError(
                f"pipeline {pipeline_id!r} has failed and what it stored was removed; begin a new pipeline"
            )
        self._finish(pipeline_id, status="completed", **changes)

    def fail(self, pipeline_id: str, error: str) -> None:
        self._finish(pipeline_id, status="failed", error=checks.text(error, "error"))

    def require(self, pipeline_id: str) -> dict[str, Any]:
        """The pipeline's row as it is stored; NotFoundError without one."""
        row = self._open.get(pipeline_id) or self.get(pipeline_id) or self.stored_row(pipeline_id)
        if row is None:
            raise NotFoundError("pipeline", pipeline_id)
        return row

    def require_known(self, *pipeline_ids: str) -> None:
        """NotFoundError unless each pipeline is stored or pending."""
        if len(pipeline_ids) == 1 and pipeline_ids[0] in self._open:
            return  # as of most predictions
        asked = [each for each in pipeline_ids if each not in self._open]
        if asked and (unknown := self.unknown(asked)):
            raise NotFoundError("pipeline", unknown[0])

    @property
    def any_open(self) -> bool:
        """Whether a pipeline begun here has not ended."""
        return bool(self._open)

    def pending_row(self, pipeline_id: str) -> dict[str, Any] | None:
        """The pipeline as `find` gives it, if it is in memory; None otherwise."""
        row = self.get(pipeline_id) or self._open.get(pipeline_id)
        return row and {
            **dict.fromkeys(PIPELINES.names),
            **row,
            **{name: jsontext.decode(row.get(name)) for name in _JSON},
        }

    def find(self, pipeline_id: str) -> dict[str, Any] | None:
        """The pipeline with its JSON columns decoded, or None."""
        row = self.stored_row(pipeline_id)
        return row and self.decoded(row)

    def decoded(self, row: dict[str, Any]) -> dict[str, Any]:
        """A stored row as `find` gives it."""
        return {**row, **{name: jsontext.decode(row[name]) for name in _JSON}}

    def listed(self, run_id: str | None, dataset_name: str | None) -> pl.DataFrame:
        return self._database.frame(_LIST, (run_id, dataset_name))

    def ids_of_run(self, run_id: str) -> list[str]:
        return [pipeline_id for (pipeline_id,) in self._database.rows(_OF_RUN, (run_id,))]

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        super().write_in_transaction(tables, beyond)
        if self._table in tables and self._table not in beyond:
            note_of_pipelines_in_transaction(self._database, tables[self._table]["pipeline_id"].to_pylist())

    def delete_empty_in_transaction(self, pipeline_ids: list[str], running: bool) -> list[str]:
        """Remove those of these pipelines, which no prediction belongs to, that hold no chains and have ended, or are
        `running`; their ids.
        """
        empty = [pipeline_id for (pipeline_id,) in self._database.rows(_EMPTY, (pipeline_ids, running))]
        if empty:
            self._delete_noted_in_transaction(empty)
            self._open = {key: row for key, row in self._open.items() if key not in empty}
        return empty

    def delete_in_transaction(self, pipeline_id: str) -> int:
        """Remove a pipeline; where it has not ended, another process may hold rows of it that are not in the tables."""
        self._database.after_commit(lambda: self._open.pop(pipeline_id, None))
        return self._delete_noted_in_transaction([pipeline_id])

    def _delete_noted_in_transaction(self, pipeline_ids: list[str]) -> int:
        running = [pipeline_id for (pipeline_id,) in self._database.rows(_RUNNING, (pipeline_ids,))]
        deleted_owners.note_in_transaction(self._database, running)
        return self._database.execute(_DELETE, (pipeline_ids,))

    def delete_back_in_transaction(self, pipeline_ids: list[str]) -> None:
        """Remove pipelines again that came back after they were deleted."""
        self._database.execute(_DELETE, (pipeline_ids,))

    def delete_of_run_in_transaction(self, run_id: str) -> int:
        self._database.after_commit(lambda: self.forget_open([run_id]))
        return self._database.execute(_DELETE_OF_RUN, (run_id,))

    def back_in_transaction(self) -> list[str]:
        """Deleted pipelines, and pipelines of deleted runs, that have rows again."""
        return [pipeline_id for (pipeline_id,) in self._database.rows(_BACK)]

    def begun(self) -> dict[str, dict[str, Any]]:
        """What this session has begun and not ended, for `set_begun`."""
        return dict(self._open)

    def set_begun(self, begun: dict[str, dict[str, Any]]) -> None:
        """A unit of work was rolled back: what was begun and not ended is as it was before."""
        self._open = dict(begun)

    def forget_open(self, gone: Collection[str] | None = None) -> None:
        """Give up what was begun and not ended, of these pipelines and runs or all: its rows are gone."""
        self._open = (
            {}
            if gone is None
            else {key: row for key, row in self._open.items() if key not in gone and row["run_id"] not in gone}
        )

    def _finish(self, pipeline_id: str, **changes: Any) -> None:
        self.put({**self.require(pipeline_id), **changes, "completed_at": checks.now()})
        self._open.pop(pipeline_id, None)
