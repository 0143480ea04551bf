"""What other programs keep beside our rows: JSON by table and row, for columns and tables that this schema has not.

nirs4all 1.x stores results of its analyses, labels of classes and places in relations this way, and a
converted workspace what it could not place elsewhere. What has lost its row is swept after a delete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import CARRIED
from n4a_fast.tables.rows import PendingRows
from n4a_fast.values import jsontext

_OF_ROWS = "SELECT row_id, content FROM carried WHERE table_name = ? AND list_contains(?, row_id)"
_OF_ROW = "SELECT content FROM carried WHERE table_name = ? AND row_id = ?"
_OF_TABLE = "SELECT row_id, content FROM carried WHERE table_name = ? ORDER BY row_id"
_REPLACED = "DELETE FROM carried c USING batch b WHERE c.table_name = b.table_name AND c.row_id = b.row_id"
_INSERTED = "INSERT INTO carried BY NAME SELECT * FROM batch"
# what is looked for is named within, too: a set of all predictions would be made otherwise
_GONE = (
    "DELETE FROM carried WHERE list_contains(?, table_name) AND row_id NOT IN"
    " (SELECT {0} FROM {1} WHERE {0} IN (SELECT row_id FROM carried))"
)
_ORPHANED = (
    "DELETE FROM carried WHERE list_contains(?, table_name) AND content->>'{0}' IS NOT NULL"
    " AND content->>'{0}' NOT IN (SELECT {0} FROM {1} WHERE {0} IN (SELECT content->>'{0}' FROM carried))"
)
_RESULTS = frozenset({"conformal_results", "tuning_results", "robustness_results"})
_SWEEPS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"predictions", "prediction_arrays"}), _GONE.format("prediction_id", "predictions")),
    (frozenset({"chains"}), _GONE.format("chain_id", "chains")),
    (frozenset({"pipelines"}), _GONE.format("pipeline_id", "pipelines")),
    # results of what has gone go with it, and what was found about them
    *((_RESULTS, _ORPHANED.format(f"{owner}_id", f"{owner}s")) for owner in ("run", "pipeline", "chain", "prediction")),
    (
        frozenset({"robustness_results"}),
        """DELETE FROM carried WHERE list_contains(?, table_name) AND content->>'conformal_id' IS NOT NULL
        AND content->>'conformal_id' NOT IN (SELECT row_id FROM carried WHERE table_name = 'conformal_results')""",
    ),
)


class Carried(PendingRows):
    """The `carried` table; its rows are known by table and row together."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "carried", CARRIED)

    def save(self, table: str, row_id: str, content: Mapping[str, Any]) -> None:
        """Keep `content` beside a row, in place of what was kept there."""
        self.put({"table_name": table, "row_id": row_id, "content": jsontext.encode(dict(content), table)})

    def put(self, row: dict[str, Any]) -> None:
        self._keep(f"{row['table_name']}\0{row['row_id']}", row)

    def of_rows(self, table: str, row_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """What is kept beside these rows, by row."""
        return _decoded(self._database.rows(_OF_ROWS, (table, list(row_ids))))

    def of_row(self, table: str, row_id: str) -> dict[str, Any]:
        """What is kept beside one row, empty for nothing."""
        found = self._database.rows(_OF_ROW, (table, row_id))
        return jsontext.decode(found[0][0]) if found else {}

    def of_table(self, table: str) -> dict[str, dict[str, Any]]:
        """Everything that is kept of a table, by row."""
        return _decoded(self._database.rows(_OF_TABLE, (table,)))

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        if self._table in tables:
            self._database.insert(_REPLACED, batch=tables[self._table])
            self._database.insert(_INSERTED, batch=tables[self._table])

    def sweep_in_transaction(self, kept: Collection[str]) -> None:
        """Remove what was kept beside rows that have gone; there is something of the tables `kept` alone."""
        for tables, statement in _SWEEPS:
            if concerned := sorted(tables.intersection(kept)):
                self._database.execute(statement, (concerned,))


def _decoded(rows: Iterable[tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    return {row_id: jsontext.decode(content) for row_id, content in rows}
