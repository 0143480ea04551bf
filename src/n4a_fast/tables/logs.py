"""Logs: what happened at each step of a pipeline, in the order it was said."""

from __future__ import annotations

from typing import Any

import polars as pl

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError
from n4a_fast.schema.columns import LOGS
from n4a_fast.tables.rows import ONE_OF, PendingRows
from n4a_fast.values import checks, jsontext
from n4a_fast.values.ids import uuid7

_LEVELS = ("debug", "info", "warning", "error", "critical")
_OF_PIPELINE = """SELECT log_id, step_idx, operator_class, event, duration_ms, message, details, level, created_at
FROM logs WHERE pipeline_id = ? ORDER BY step_idx, created_at, log_id"""
_SUMMARY = """SELECT pipelines.pipeline_id, pipelines.name AS pipeline_name, pipelines.status AS pipeline_status,
    count(log_id) AS log_count,
    CAST(coalesce(sum(logs.duration_ms) FILTER (event = 'end'), 0) AS BIGINT) AS total_duration_ms,
    count(*) FILTER (level = 'warning') AS warning_count, count(*) FILTER (level = 'error') AS error_count
FROM pipelines LEFT JOIN logs ON logs.pipeline_id = pipelines.pipeline_id
WHERE pipelines.run_id = ?
GROUP BY pipelines.pipeline_id, pipelines.name, pipelines.status, pipelines.created_at
ORDER BY pipelines.created_at, pipelines.pipeline_id"""
_DELETE = f"DELETE FROM logs WHERE {ONE_OF.format('pipeline_id', 1)}"


class Logs(PendingRows):
    """The `logs` table."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "logs", LOGS)

    def add(
        self,
        pipeline_id: str,
        step_idx: int,
        operator_class: str,
        event: str,
        duration_ms: int | None,
        message: str | None,
        details: dict[str, Any] | None,
        level: str,
    ) -> None:
        if checks.text(level, "level") not in _LEVELS:
            raise InvalidInputError(f"level {level!r} is unknown; use one of {', '.join(_LEVELS)}")
        self.put(
            {
                "log_id": uuid7(),
                "pipeline_id": pipeline_id,
                "step_idx": checks.integer(step_idx, "step_idx"),
                "operator_class": checks.optional_text(operator_class, "operator_class"),
                "event": checks.text(event, "event"),
                "duration_ms": checks.optional_integer(duration_ms, "duration_ms", checks.INT64),
                "message": checks.optional_text(message, "message"),
                "details": jsontext.encode(details, "details"),
                "level": level,
                "created_at": checks.now(),
            }
        )

    def of_pipeline(self, pipeline_id: str) -> pl.DataFrame:
        return self._database.frame(_OF_PIPELINE, (pipeline_id,))

    def summary_of_run(self, run_id: str) -> pl.DataFrame:
        return self._database.frame(_SUMMARY, (run_id,))

    def delete_in_transaction(self, pipeline_ids: list[str]) -> int:
        return self._database.execute(_DELETE, (pipeline_ids,))
