"""A source's rows and arrays written into a new store of ours.

The new store is a draft that nobody else sees: it is given up whole when anything fails. Rows go in
as Arrow batches, past the buffers, with the ids and times they have. Where a source holds several
rows of one natural key (older releases let that happen), the newest one counts, as a re-save would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from n4a_fast.artifacts.files import names_its_content
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import ConflictError
from n4a_fast.integrations.workspaces.batches import (
    CARRIED_TABLES,
    TABLES,
    ArrayBatch,
    Source,
    carried_rows,
    fitted,
    leftovers,
    natural_keys,
)
from n4a_fast.integrations.workspaces.reports import Progress, TableReport
from n4a_fast.schema.columns import CARRIED, PREDICTIONS, table_of
from n4a_fast.tables.artifact_rows import PROMISED
from n4a_fast.tables.chains import links_of
from n4a_fast.tables.predictions import bulk
from n4a_fast.tables.predictions.keys import id_keys
from n4a_fast.values import ids

_CARRY = "INSERT INTO carried BY NAME SELECT * FROM batch"
_IDS = "SELECT prediction_id FROM predictions"
_KNOWN = frozenset({*TABLES, *CARRIED_TABLES, "prediction_arrays", "sqlite_sequence", "sqlite_stat1"})
_WRITTEN = "SELECT count(*) FROM {table}"


class Intake:
    """Fills one new store from one source."""

    def __init__(self, source: Source, folder: Path, progress: Progress) -> None:
        self._source, self._progress = source, progress
        self.workspace: Workspace = open_workspace(folder, read_only=False, lock_timeout=30.0)
        self._database = self.workspace.database

    def close(self) -> None:
        """Let go of the new store, with everything in its file."""
        self.workspace.release()

    def run(self) -> tuple[TableReport, ...]:
        """Write everything; what was found and written, by table."""
        reports = [self._table(name) for name in TABLES]
        reports.append(self._arrays())
        reports += [self._carried_table(name, key) for name, key in CARRIED_TABLES.items() if self._source.count(name)]
        unknown = {name: self._source.count(name) for name in sorted(self._source.names() - _KNOWN)}
        reports += [TableReport(name, found, 0, "no place for it here") for name, found in unknown.items() if found]
        self._database.checkpoint()
        return tuple(reports)

    def _table(self, name: str) -> TableReport:
        table, schema = TABLES[name]
        found, done = self._source.count(name), 0
        for batch in self._source.rows(name) if found else ():
            rows = fitted(batch, schema)
            with self._database.transaction():
                self._write_in_transaction(table, rows)
                self._carry_in_transaction(name, rows[schema.names[0]].to_pylist(), leftovers(name, batch, schema))
            done += batch.num_rows
            self._progress(f"copying {name}", done, found)
        written = int(self._database.rows(_WRITTEN.format(table=table))[0][0])
        return TableReport(name, found, written, "" if written == found else "the newest row of each natural key")

    def _write_in_transaction(self, table: str, rows: pa.Table) -> None:
        workspace = self.workspace
        if table == "predictions":
            workspace.predictions.write_in_transaction({table: _with_keys(rows)})
            return
        part: Any = {
            "projects": workspace.projects,
            "runs": workspace.runs,
            "pipelines": workspace.pipelines,
            "chains": workspace.chains,
            "logs": workspace.logs,
            "stored_artifacts": workspace.artifacts,
        }[table]
        tables = {table: rows}
        if table == "chains":
            tables["chain_artifacts"] = links_of(rows.to_pylist())
        if table == "stored_artifacts":
            _require_own_ids(rows)
            folder = self._source.root / "artifacts"
            origins = [
                "registered" if (folder / path).is_file() else PROMISED for path in rows["artifact_path"].to_pylist()
            ]
            place = rows.column_names.index("origin")
            tables[table] = rows.set_column(place, "origin", pa.array(origins, pa.string()))
        part.write_in_transaction(tables)

    def _arrays(self) -> TableReport:
        found, done, written = self._source.array_count(), 0, 0
        known = set(self._database.arrow(_IDS)["prediction_id"].to_pylist())
        for batch in self._source.arrays():
            kept = [place for place, identifier in enumerate(batch.ids) if identifier in known]
            self._write_arrays(batch, kept)
            done, written = done + len(batch.ids), written + len(kept)
            self._progress("copying arrays", done, found)
        return TableReport(
            "prediction_arrays", found, written, "" if written == found else "only those of predictions that exist"
        )

    def _write_arrays(self, batch: ArrayBatch, kept: list[int]) -> None:
        identifiers = pa.array([batch.ids[place] for place in kept], pa.string())
        given = {name: [values[place] for place in kept] for name, values in batch.arrays.items()}
        metadata = self.workspace.metadata
        with self._database.transaction():
            self.workspace.predictions.write_in_transaction(
                bulk.array_tables(given, identifiers, pa.array(id_keys(identifiers)))
            )
            for place in kept:
                if (content := batch.sample_metadata[place]) is not None:
                    metadata.save(batch.ids[place], content)
            metadata.write_in_transaction(metadata.pending())
            metadata.clear()
            self._carry_in_transaction("prediction_arrays", identifiers, [batch.carried[place] for place in kept])

    def _carried_table(self, name: str, key: str) -> TableReport:
        found = self._source.count(name)
        for batch in self._source.rows(name):
            rows = batch.to_pylist()
            with self._database.transaction():
                self._carry_in_transaction(name, [row[key] for row in rows], rows)
        return TableReport(name, found, found, "kept as they are, for the way back")

    def _carry_in_transaction(self, name: str, row_ids: list[str], contents: list[dict[str, Any]]) -> None:
        rows = carried_rows(name, row_ids, contents)
        if rows:
            self._database.insert(_CARRY, batch=table_of(rows, CARRIED))


def _require_own_ids(artifacts: pa.Table) -> None:
    """ConflictError for an artifact whose id is the hash of another content, which may be saved here some day."""
    names = ("artifact_id", "content_hash", "artifact_path")
    for artifact_id, content_hash, path in zip(*(artifacts[name].to_pylist() for name in names), strict=True):
        if not names_its_content(str(artifact_id), str(content_hash), str(path)):
            raise ConflictError("artifact", artifact_id, "of this hash at its address", content_hash)


def _with_keys(rows: pa.Table) -> pa.Table:
    """Prediction rows with their look-up columns, the last row of each natural key."""
    keys = natural_keys(rows)
    last = sorted({key: place for place, key in enumerate(keys)}.values())
    found = {
        "nk": [ids.nk(key) for key in keys],
        "id_key": [ids.id_key(identifier) for identifier in rows["prediction_id"].to_pylist()],
    }
    keyed = pa.table(
        [pa.array(found[name], pa.uint64()) if name in found else rows[name] for name in PREDICTIONS.names],
        schema=PREDICTIONS,
    )
    return keyed if len(last) == len(keys) else keyed.take(pa.array(last))
