"""A workspace of ours written as one that nirs4all 1.4 opens: `store.sqlite`, Parquet arrays, artifacts.

Everything goes into a folder that nobody else sees. Columns that this store does not have come from
what was carried along when the workspace was taken in; summaries of chains are computed anew.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.workspaces.array_files import ArrayFiles
from n4a_fast.integrations.workspaces.batches import BATCH_ROWS, CARRIED_TABLES, TABLES, pieces
from n4a_fast.integrations.workspaces.reports import Progress, TableReport
from n4a_fast.integrations.workspaces.sqlite_schema import COLUMNS, statements
from n4a_fast.schema.chain_scores import ALL_SUMMARIES
from n4a_fast.schema.ddl import ARTIFACTS
from n4a_fast.values import jsontext

_ROWS = """SELECT t.*, c.content AS carried FROM {table} t LEFT JOIN carried c ON c.table_name = '{name}' AND c.row_id =
t.{key}
WHERE t.rowid >= ? AND t.rowid < ? ORDER BY t.rowid"""
_REFERENCES = f"SELECT artifact_id, ref_count FROM ({ARTIFACTS})"
# results of runs, chains or predictions that were deleted since go with them
_CARRIED = """SELECT content FROM carried WHERE table_name = ?
AND (content->>'run_id' IS NULL OR content->>'run_id' IN (SELECT run_id FROM runs))
AND (content->>'pipeline_id' IS NULL OR content->>'pipeline_id' IN (SELECT pipeline_id FROM pipelines))
AND (content->>'chain_id' IS NULL OR content->>'chain_id' IN (SELECT chain_id FROM chains))
AND (content->>'prediction_id' IS NULL OR content->>'prediction_id' IN (SELECT prediction_id FROM predictions)) ORDER BY
row_id"""


class Outgoing:
    """Writes one workspace of ours into a folder."""

    def __init__(self, workspace: Workspace, folder: Path, progress: Progress) -> None:
        self._database, self._folder, self._progress = workspace.database, folder, progress

    def run(self) -> tuple[TableReport, ...]:
        """Write everything but the artifact files; what was found and written, by table."""
        with closing(sqlite3.connect(self._folder / "store.sqlite", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # as nirs4all keeps it
            connection.execute("BEGIN")
            for statement in statements():
                connection.execute(statement)
            reports = [self._table(connection, name) for name in TABLES]
            reports += [report for name in CARRIED_TABLES if (report := self._carried_table(connection, name)).found]
            connection.execute("COMMIT")
        return (*reports, ArrayFiles(self._database).write_all(self._folder / "arrays", self._progress))

    def _table(self, connection: sqlite3.Connection, name: str) -> TableReport:
        table, schema = TABLES[name]
        more = self._computed(name)
        found, done = int(self._database.rows(f"SELECT count(*) FROM {table}")[0][0]), 0
        for piece in pieces(
            self._database, _ROWS.format(table=table, name=name, key=schema.names[0]), table, BATCH_ROWS
        ):
            rows = piece.to_pylist()
            _insert(
                connection,
                name,
                [row | (jsontext.decode(row["carried"]) or {}) | more.get(row[schema.names[0]], {}) for row in rows],
            )
            done += len(rows)
            self._progress(f"writing {name}", done, found)
        return TableReport(name, found, done)

    def _computed(self, name: str) -> dict[str, dict[str, Any]]:
        """By id, columns that nirs4all stores and this store computes."""
        if name == "chains":
            wanted = set(COLUMNS["chains"]) - set(TABLES["chains"][1].names)
            rows = self._database.arrow(ALL_SUMMARIES).to_pylist()
            return {row["chain_id"]: {key: value for key, value in row.items() if key in wanted} for row in rows}
        if name == "artifacts":
            return {artifact_id: {"ref_count": count} for artifact_id, count in self._database.rows(_REFERENCES)}
        return {}

    def _carried_table(self, connection: sqlite3.Connection, name: str) -> TableReport:
        rows = [jsontext.decode(content) for (content,) in self._database.rows(_CARRIED, (name,))]
        _insert(connection, name, rows)
        return TableReport(name, len(rows), len(rows))


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = COLUMNS[table]
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    try:
        connection.executemany(statement, [[_value(name, row.get(name)) for name in names] for row in rows])
    except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError) as error:
        raise InvalidInputError(f"rows of {table} do not fit nirs4all's workspace: {error}") from error


def _value(name: str, value: Any) -> Any:
    """A value as nirs4all's SQLite holds it; NaN becomes NULL there."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.removesuffix(".zst") if name == "artifact_path" and value else value
