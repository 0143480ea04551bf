"""Runs: one row for each `nirs4all.run`, from `begin_run` to its end."""

from __future__ import annotations

from typing import Any

import polars as pl

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.schema.columns import RUNS
from n4a_fast.tables import deleted_owners
from n4a_fast.tables.rows import ONE_OF, PendingRows
from n4a_fast.values import checks, jsontext
from n4a_fast.values.ids import uuid7

EXPECTED = "expected_pipelines"  # key of a running run's summary
_JSON = ("config", "datasets", "summary")
_GET = "SELECT * FROM runs WHERE run_id = ?"
_THESE = f"SELECT * FROM runs WHERE {ONE_OF.format('run_id', 1)}"
_LIST = """SELECT * FROM runs
WHERE (?1 IS NULL OR status = ?1)
    AND (?2 IS NULL OR list_contains(json_extract_string(datasets, '$[*].name'), ?2))
ORDER BY created_at DESC, run_id DESC LIMIT ?3 OFFSET ?4"""
_DELETE = "DELETE FROM runs WHERE run_id = ?"
_BACK = (
    "SELECT run_id FROM (SELECT run_id FROM runs UNION SELECT run_id FROM pipelines) WHERE run_id IN (SELECT run_id"
    " FROM deleted_runs)"
)


class Runs(PendingRows):
    """The `runs` table."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "runs", RUNS)

    def begin(self, name: str, config: Any, datasets: list[dict[str, Any]], expected: int | None = None) -> str:
        if not isinstance(datasets, list | tuple) or not all(isinstance(dataset, dict) for dataset in datasets):
            raise InvalidInputError("datasets must be a list of dicts such as [{'name': 'corn', 'path': ...}]")
        row = {
            "run_id": uuid7(),
            "name": checks.text(name, "name"),
            "config": jsontext.encode(config, "config"),
            "datasets": jsontext.encode(list(datasets), "datasets"),
            "status": "running",
            "created_at": checks.now(),
        }
        if expected is not None:  # until the run's own summary takes its place
            row["summary"] = jsontext.encode({EXPECTED: checks.count(expected, "expected")}, "expected")
        self.put(row)
        return str(row["run_id"])

    def complete(self, run_id: str, summary: dict[str, Any]) -> None:
        self._finish(run_id, status="completed", error=None, summary=jsontext.encode(summary, "summary"))

    def fail(self, run_id: str, error: str) -> None:
        self._finish(run_id, status="failed", error=checks.text(error, "error"))

    def require(self, run_id: str) -> dict[str, Any]:
        """The run's row as it is stored; NotFoundError without one."""
        row = self.get(run_id) or self._database.row(_GET, (run_id,))
        if row is None:
            raise NotFoundError("run", run_id)
        return row

    def set_project(self, run_id: str, project_id: str | None) -> None:
        self.require_known(run_id)
        self.change(run_id, project_id=project_id)

    def require_known(self, run_id: str) -> None:
        """NotFoundError unless the run is stored or pending."""
        if not self.exists(run_id):
            raise NotFoundError("run", run_id)

    def find(self, run_id: str) -> dict[str, Any] | None:
        """The run with its JSON columns decoded, or None."""
        row = self._database.row(_GET, (run_id,))
        return row and _decoded(row)

    def find_many(self, run_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Those of these runs that there are, by id, as `find` gives them."""
        rows = self._database.arrow(_THESE, (run_ids,)).to_pylist() if run_ids else []
        return {row["run_id"]: _decoded(row) for row in rows}

    def listed(self, status: str | None, dataset: str | None, limit: int, offset: int) -> pl.DataFrame:
        return self._database.frame(
            _LIST, (status, dataset, checks.count(limit, "limit"), checks.count(offset, "offset"))
        )

    def delete_in_transaction(self, run_id: str) -> int:
        return self._database.execute(_DELETE, (run_id,))

    def note_deleted_in_transaction(self, run_id: str) -> None:
        """Other processes may hold rows of this run that are not in the tables yet."""
        deleted_owners.note_in_transaction(self._database, [run_id])

    def back_in_transaction(self) -> list[str]:
        """Deleted runs that have rows again."""
        return [run_id for (run_id,) in self._database.rows(_BACK)]

    def _finish(self, run_id: str, **changes: Any) -> None:
        self.require_known(run_id)
        self.change(run_id, **changes, completed_at=checks.now())


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **{name: jsontext.decode(row[name]) for name in _JSON}}
