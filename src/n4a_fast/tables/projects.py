"""Projects: names under which runs are grouped. Deleting one keeps its runs."""

from __future__ import annotations

from typing import Any

import polars as pl

from n4a_fast.engine.connection import Database
from n4a_fast.errors import NotFoundError
from n4a_fast.schema.columns import PROJECTS
from n4a_fast.tables.rows import PendingRows
from n4a_fast.values import checks
from n4a_fast.values.ids import uuid7

_GET = "SELECT * FROM projects WHERE project_id = ?"
_BY_NAME = "SELECT * FROM projects WHERE name = ? ORDER BY created_at, project_id LIMIT 1"
_LIST = "SELECT * FROM projects ORDER BY created_at DESC, project_id DESC"
_FREE_RUNS = "UPDATE runs SET project_id = NULL WHERE project_id = ?"
_DELETE = "DELETE FROM projects WHERE project_id = ?"


class Projects(PendingRows):
    """The `projects` table."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "projects", PROJECTS)

    def create(self, name: str, description: str, color: str) -> str:
        project_id = uuid7()
        self.put({"project_id": project_id, "created_at": checks.now(), **_described(name, description, color)})
        return project_id

    def update(self, project_id: str, name: str, description: str, color: str) -> None:
        self.require(project_id)
        self.change(project_id, **_described(name, description, color))

    def require(self, project_id: str) -> dict[str, Any]:
        """The project's row; NotFoundError without one."""
        row = self.get(project_id) or self.find(project_id)
        if row is None:
            raise NotFoundError("project", project_id)
        return row

    def find(self, project_id: str) -> dict[str, Any] | None:
        return self._database.row(_GET, (project_id,))

    def find_by_name(self, name: str) -> dict[str, Any] | None:
        """The oldest project of this name, or None."""
        return self._database.row(_BY_NAME, (name,))

    def listed(self) -> pl.DataFrame:
        return self._database.frame(_LIST)

    def delete_in_transaction(self, project_id: str) -> None:
        """Remove a project; its runs belong to none from then on."""
        self.forget_known()
        self.free_runs_in_transaction(project_id)
        if not self._database.execute(_DELETE, (project_id,)):
            raise NotFoundError("project", project_id)

    def free_runs_in_transaction(self, project_id: str) -> None:
        """The runs of a project belong to none from then on."""
        self._database.execute(_FREE_RUNS, (project_id,))


def _described(name: str, description: str, color: str) -> dict[str, Any]:
    texts = {"name": name, "description": description, "color": color}
    return {**{key: checks.text(value, key) for key, value in texts.items()}, "updated_at": checks.now()}
