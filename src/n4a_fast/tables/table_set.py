"""All tables of a workspace, and what goes with a pipeline through several of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec
import pyarrow as pa
from msgspec import msgpack

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.engine.connection import Database
from n4a_fast.errors import NotFoundError
from n4a_fast.memtable.key_ranges import tables_beyond
from n4a_fast.memtable.pending_table import PendingTable, Tables
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.tables.carried import Carried
from n4a_fast.tables.chains import Chains
from n4a_fast.tables.derived import sweep_compiled_in_transaction
from n4a_fast.tables.logs import Logs
from n4a_fast.tables.pipelines import Pipelines
from n4a_fast.tables.predictions import deleted
from n4a_fast.tables.predictions.logged import LoggedPredictions
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.saving import Predictions
from n4a_fast.tables.projects import Projects
from n4a_fast.tables.runs import Runs
from n4a_fast.values.uncollected import uncollected

_METADATA, _COMPILED = "prediction_metadata", "compiled_chains"
_KEPT = f"""(SELECT '{_METADATA}' FROM {_METADATA} LIMIT 1) UNION ALL (SELECT '{_COMPILED}' FROM {_COMPILED} LIMIT 1)
UNION ALL SELECT DISTINCT table_name FROM carried"""

# what reading a record raises that is whole, and that no store of ours has written
OTHER_CONTENT = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError),
    *(msgspec.MsgspecError, pa.ArrowException),
)


class TableSet:
    """The tables, each with its rows in memory."""

    def __init__(self, database: Database, files: ArtifactFiles, predictions: type[Predictions] = Predictions) -> None:
        self._database = database
        self.runs, self.pipelines, self.chains = Runs(database), Pipelines(database), Chains(database)
        self.metadata = SampleMetadata(database)
        self.logs, self.predictions = Logs(database), predictions(database, self.metadata)
        self.artifacts, self.projects = Artifacts(database, files), Projects(database)
        self.carried, self.deleted = Carried(database), deleted.DeletedPredictions(database)
        # in the order in which they are written
        self.pending: tuple[PendingTable, ...] = (
            self.runs,
            self.pipelines,
            self.chains,
            self.logs,
            self.predictions,
            self.artifacts,
            self.projects,
            self.metadata,
            self.carried,
            self.deleted,
        )
        self._arrow: Tables | None = None  # of what others have logged, which nobody adds to
        self.generation = 0  # how often ids had to be looked up again
        self._kept: tuple[tuple[int, int], frozenset[str]] | None = None  # what `kept` found, and in which state

    @classmethod
    def of_records(cls, database: Database, files: ArtifactFiles, records: Iterable[bytes]) -> TableSet:
        """What other processes have logged, to be written at once; one of OTHER_CONTENT where it is something else."""
        tables = cls(database, files, LoggedPredictions)
        tables.replay(records)
        tables._arrow = tables.as_arrow()
        return tables

    def fresh(self) -> bytes:
        """What was saved since the last flush, as the content of a log record; empty for nothing."""
        content = {name: rows for table in self.pending for name, rows in table.fresh().items()}
        return msgpack.encode(content) if content else b""

    @property
    def has_fresh(self) -> bool:
        """Whether anything was saved since the last flush."""
        rows = any(table.fresh_rows for table in self.pending)
        return rows or bool(self.artifacts.fresh())  # what is held, and found again, is no row

    @property
    def has_rows(self) -> bool:
        """Whether anything but deletions is in memory."""
        return any(len(table) for table in self.pending if table is not self.deleted)

    def require_stored(self, pipeline_ids: Collection[str], chain_ids: Collection[str]) -> None:
        """NotFoundError unless these pipelines and chains are in the tables: another process may have deleted some."""
        for kind, rows, named in (("pipeline", self.pipelines, pipeline_ids), ("chain", self.chains, chain_ids)):
            if missing := rows.not_stored(named):
                raise NotFoundError(kind, missing[0])

    def mark_logged(self) -> None:
        """What is fresh is in the log."""
        for table in self.pending:
            table.mark_logged()

    def replay(self, records: Iterable[bytes]) -> None:
        """Save again what `fresh` once gave."""
        for record in records:
            content = msgpack.decode(record) if record else {}
            for table in self.pending:
                table.replay(content)

    def clear(self) -> None:
        """Forget what is in memory: it is written, or given up."""
        for table in self.pending:
            table.clear()

    def as_arrow(self) -> Tables:
        """What is in memory, by the name of the SQL table."""
        if self._arrow is not None:
            return self._arrow
        return {name: rows for table in self.pending for name, rows in table.pending().items()}

    def sealed(self, database: Database, files: ArtifactFiles) -> TableSet:
        """What is in memory, for another database to write; it leaves memory, where it counts as stored."""
        tables = TableSet(database, files)
        with uncollected():
            tables._arrow = self.as_arrow()
        self.artifacts.keep_stored()
        self.clear()
        return tables

    def write_in_transaction(self, sets: Sequence[TableSet], *, after_deletions: bool = False) -> bool:
        """Write what these have in memory; whether all of their rows belong to something that is there: others do not
        stay, nor, `after_deletions` of runs, what comes of those.
        """
        with uncollected():
            batches = [each.as_arrow() for each in sets]
        self.delete_predictions_in_transaction(batches)
        for each, tables in zip(sets, batches, strict=True):
            beyond = tables_beyond(self._database, tables)
            for table in each.pending:
                table.write_in_transaction(tables, beyond)
        if after_deletions:
            self.delete_of_deleted_in_transaction()
        return not self.delete_orphans_in_transaction(batches)

    def brings_back_deleted(self) -> bool:
        """Whether the open transaction has written anything of runs and pipelines that some process deleted."""
        return bool(self.pipelines.back_in_transaction() or self.runs.back_in_transaction())

    def forget_known(self) -> None:
        """Rows may have come or gone: ids must be looked up again."""
        self.generation += 1
        for table in self.pending:
            table.forget_known()

    def delete_predictions_in_transaction(self, batches: Iterable[Tables]) -> None:
        """Remove the predictions whose deletion some process has logged, before anything of the batches is written."""
        named = [tables[deleted.NAME]["prediction_id"] for tables in batches if deleted.NAME in tables]
        if named:
            self.delete_named_in_transaction(pa.chunked_array(named).unique())

    def delete_named_in_transaction(self, prediction_ids: pa.Array) -> None:
        """Remove those of these predictions that there are, and what was kept for them."""
        self.predictions.delete_named_in_transaction(prediction_ids)
        self.sweep_in_transaction(chains=False)

    def delete_contents_in_transaction(self, pipeline_ids: list[str]) -> int:
        """Delete the predictions, chains and logs of pipelines and what depends on them; the documented rows."""
        self.forget_known()
        deleted = self.predictions.delete_of_pipelines_in_transaction(pipeline_ids)
        deleted += self.chains.delete_in_transaction(pipeline_ids) + self.logs.delete_in_transaction(pipeline_ids)
        self.sweep_in_transaction()
        return deleted

    def delete_emptied_in_transaction(
        self, chain_ids: list[str], pipeline_ids: list[str], running: bool
    ) -> tuple[int, list[str]]:
        """Delete those of some chains, and then of some pipelines, that hold nothing any more: how many chains, and
        which pipelines. Pipelines that have not ended stay, unless `running`.
        """
        used_chains, used_pipelines = self.predictions.owners_among(chain_ids, pipeline_ids)
        empty, unused = (
            [*set(asked) - used] for asked, used in ((chain_ids, used_chains), (pipeline_ids, used_pipelines))
        )
        chains = self.chains.delete_these_in_transaction(empty) if empty else 0
        pipelines = self.pipelines.delete_empty_in_transaction(unused, running) if unused else []
        if pipelines:
            self.logs.delete_in_transaction(pipelines)
        self.sweep_in_transaction(chains=bool(chains))
        return chains, pipelines

    def kept(self) -> frozenset[str]:
        """The tables beside whose rows something is kept, "prediction_metadata" where samples have any, and
        "compiled_chains"; asked within `reading`, and looked up once for each state of the file.
        """
        if self._database.in_transaction:
            return self._kept_now()
        if self._kept is None or self._kept[0] != self._database.state:
            self._kept = self._database.state, self._kept_now()
        return self._kept[1]

    def _kept_now(self) -> frozenset[str]:
        return frozenset(name for (name,) in self._database.rows(_KEPT))

    def sweep_in_transaction(self, *, chains: bool = True) -> None:
        """Remove what was kept for rows that have gone; `chains` unless none of these has."""
        kept = self._kept_now()
        if chains and _COMPILED in kept:
            sweep_compiled_in_transaction(self._database)
        self.carried.sweep_in_transaction(kept)

    def delete_run_in_transaction(self, run_id: str) -> int:
        """Delete a run and all below it; the documented rows. What other processes have of it goes as it comes."""
        deleted = self.delete_contents_in_transaction(self.pipelines.ids_of_run(run_id))
        deleted += self.pipelines.delete_of_run_in_transaction(run_id) + self.runs.delete_in_transaction(run_id)
        self.runs.note_deleted_in_transaction(run_id)
        self.sweep_in_transaction(chains=False)
        return deleted

    def delete_of_deleted_in_transaction(self) -> None:
        """Runs and pipelines that some process deleted stay deleted, whatever another one had in its log or memory."""
        if pipelines := self.pipelines.back_in_transaction():
            self.delete_contents_in_transaction(pipelines)
            self.pipelines.delete_back_in_transaction(pipelines)
        for run_id in self.runs.back_in_transaction():
            self.pipelines.delete_of_run_in_transaction(run_id)
            self.runs.delete_in_transaction(run_id)

    def delete_orphans_in_transaction(self, batches: Sequence[Tables]) -> bool:
        """Remove rows that were just written and belong to what another process has deleted meanwhile; whether there
        were any.
        """
        pipelines = self.pipelines.not_stored(
            _named("pipeline_id", batches) - _named("pipeline_id", batches, "pipelines")
        )
        chains = self.chains.not_stored(
            _named("chain_id", batches, "predictions") - _named("chain_id", batches, "chains")
        )
        values, of = (_named("prediction_id", batches, name) for name in ("prediction_values", "predictions"))
        metadata = _named("prediction_id", batches, "prediction_metadata")
        for project_id in self.projects.not_stored(
            _named("project_id", batches, "runs") - _named("project_id", batches, "projects")
        ):
            self.projects.free_runs_in_transaction(project_id)
        if pipelines:
            self.pipelines.forget_open(pipelines)
            self.delete_contents_in_transaction(pipelines)
        for chain_id in chains:
            self.predictions.delete_of_chain_in_transaction(chain_id)
        without = self.predictions.delete_unowned_in_transaction((values | metadata) - of)
        if chains or without:
            self.sweep_in_transaction()
        return bool(pipelines or chains or without)


def _named(column: str, batches: Iterable[Tables], *among: str) -> set[str]:
    """The ids in a column of the tables of batches, of all that have it or of those `among` them."""
    found = (table for tables in batches for name, table in tables.items() if not among or name in among)
    names = {each for table in found if column in table.column_names for each in table[column].unique().to_pylist()}
    return names - {None}
