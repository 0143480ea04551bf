"""One open workspace: the parts of a store, shared by every `WorkspaceStore` on the same path in this process.

It decides when what is in memory is written. A small flush appends what is new to this process's
journal and keeps it in memory too; once enough has gathered, or before a read, all of it goes into
the tables in one transaction, before a read together with what other processes have journaled.
Memory is cleared only after the commit, so a failed flush loses nothing and can be repeated. Calls
run one at a time under `lock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import msgpack

from n4a_fast import checks, jsontext
from n4a_fast.artifacts.catalog import Artifacts
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.gc import Collector
from n4a_fast.database import Database
from n4a_fast.errors import InvalidInputError, StoreError, StoreLockedError, StoreUnavailableError
from n4a_fast.journal import Journal, Waiting
from n4a_fast.predictions import bulk
from n4a_fast.predictions.metadata import SampleMetadata
from n4a_fast.predictions.queries import PredictionQueries
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.predictions.records import Predictions
from n4a_fast.predictions.summaries import ChainSummaries
from n4a_fast.records.chains import Chains
from n4a_fast.records.logs import Logs
from n4a_fast.records.pipelines import Pipelines
from n4a_fast.records.projects import Projects
from n4a_fast.records.runs import Runs
from n4a_fast.replay.persisted import CompiledChains
from n4a_fast.replay.replayer import Replayer
from n4a_fast.turnstile import Turnstile

STORE_FILE = "store.duckdb"
_FLUSH_ROWS = 4096
_FLUSH_BYTES = 64 * 2**20
_DIRECT_ROWS = 1024  # a flush this large goes straight into the tables


Parts = tuple[Runs, Pipelines, Chains, Logs, Predictions, Artifacts, Projects, SampleMetadata]
Tables = dict[str, pa.Table]


class Workspace:
    """Parts, buffers and transactions of one workspace folder."""

    def __init__(self, root: Path, *, read_only: bool, lock_timeout: float) -> None:
        self.root = root
        turnstile = Turnstile(turn=root, queue=root / "artifacts")
        self.database = Database(root / STORE_FILE, read_only=read_only, lock_timeout=lock_timeout, turnstile=turnstile)
        self.lock = self.database.lock
        self._parts = parts = _new_parts(self.database, ArtifactFiles(root / "artifacts"))
        self.runs, self.pipelines, self.chains, self.logs, self.predictions, self.artifacts, self.projects, self.metadata = parts
        self.queries, self.arrays, self.summaries = PredictionQueries(self.database), ArrayReader(self.database), ChainSummaries(self.database)
        self.collector = Collector(self.database, self.artifacts)
        self.journal = Journal(self.database)
        self._deletions = 0  # how many runs had been deleted when ids were last known for sure
        self.database.settle, self.database.rest = self._settle, self._rest
        self.compiled = CompiledChains(self.database)
        self.replayer = Replayer(self.database, self.chains, self._load_artifact, self.compiled, self.flush, self.keep_compiled)
        self.users = 0

    # -- writing out -----------------------------------------------------------------------

    def flush(self) -> None:
        """Make everything in memory durable, together; on failure it stays in memory and the call can be repeated."""
        content = self._fresh()
        if not content:
            return
        if self.database.in_transaction or self.predictions.fresh_rows >= _DIRECT_ROWS or self.predictions.nbytes >= _FLUSH_BYTES:
            self.put_in_tables(others=False)
            return
        self.artifacts.files.sync()
        self.journal.append(msgpack.encode(content))
        for part in self._parts:
            part.keep()
        self.artifacts.settle()
        self.database.keep_awake()
        if len(self.predictions) >= _FLUSH_ROWS or self.predictions.nbytes >= _FLUSH_BYTES:
            self.put_in_tables(others=False)

    def flush_when_full(self) -> None:
        """Flush once the buffer has reached its row or byte limit."""
        if len(self.predictions) >= _FLUSH_ROWS or len(self.logs) >= _FLUSH_ROWS or self.predictions.nbytes >= _FLUSH_BYTES:
            self.flush()

    def put_in_tables(self, *, others: bool = True) -> None:
        """Write what is in memory, and what waits in the journals of other processes, to the tables, in one transaction."""
        self._take_notice()
        if not self._has_own() and not (others and self.journal.others_waiting()):
            return
        self.artifacts.files.sync()
        with self._writable_for_journal():
            self._take_notice()  # a reader has attached the file anew
            waiting = self.journal.others_waiting() if others else []
            with self.database.transaction(settled=False):
                batches = [_written_in_transaction(parts) for parts in (*self._parts_of_others(waiting), self._parts)]
                self.journal.place_in_transaction(waiting)
                self._delete_again_in_transaction(batches)
        self.journal.rewind(waiting)
        for part in self._parts:
            part.clear()
        if self.journal.deleted_runs:
            self._forget_known()
        self.artifacts.settle()

    def _settle(self, own: bool) -> None:
        """Before a read: `own=False` when the caller knows what this process has saved, and only others may have added to it."""
        self._take_notice()
        if own or self.journal.others_waiting():
            self.put_in_tables()

    def _rest(self) -> None:
        if self._has_own():
            self.put_in_tables(others=False)

    def _has_own(self) -> bool:
        return not self.journal.is_empty or bool(self._fresh())

    def _fresh(self) -> dict[str, Any]:
        return {name: rows for part in self._parts for name, rows in part.fresh().items()}

    def _take_notice(self) -> None:
        """After other processes may have used the file: let memory hold what they left of this one's journal, and then what is fresh."""
        frames = self.journal.take_notice()
        if self._deletions != len(self.journal.deleted_runs):
            self._deletions = len(self.journal.deleted_runs)
            self._forget_known()
            self.pipelines.forget_open(self.journal.deleted_runs)
        if frames is None:
            return
        fresh = msgpack.encode(self._fresh())
        for part in self._parts:
            part.clear()
        for frame in frames:
            _replay(self._parts, frame)
        for part in self._parts:
            part.keep()
        _replay(self._parts, fresh)

    def _parts_of_others(self, waiting: list[Waiting]) -> list[Parts]:
        """Parts that hold what other processes have journaled; none when that is nothing."""
        if not waiting:
            return []
        parts = _new_parts(self.database, self.artifacts.files)
        for journal in waiting:
            for frame in journal.contents:
                _replay(parts, frame)
        return [parts]

    def _delete_again_in_transaction(self, batches: list[Tables]) -> None:
        """Runs that some process deleted stay deleted, whatever another one had in its journal or memory."""
        if self.journal.deleted_runs:
            pipelines = self.pipelines.astray_in_transaction({name for tables in batches for name in _pipelines_of(tables)})
            self._delete_contents_in_transaction(pipelines)
            for run_id in self.runs.back_in_transaction():
                self.pipelines.delete_of_run_in_transaction(run_id)
                self.runs.delete_in_transaction(run_id)

    @contextmanager
    def _writable_for_journal(self) -> Iterator[None]:
        """A reader finishes the work of a writer that was stopped: rows would be missed otherwise."""
        if not self.database.read_only:
            yield
            return
        self.database.read_only = False
        try:
            yield
        except StoreError as error:
            reason = f"its journal holds rows that a stopped process has not put in place, and they cannot be now ({error})"
            raise StoreUnavailableError(self.database.path, reason) from error
        finally:
            self.database.read_only = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What the block saves is committed at its end, or not at all if it raises; other threads wait."""
        with self.lock:
            if self.database.in_transaction:
                raise InvalidInputError("transaction() is already open; use one block")
            self.flush()
            try:
                with self.database.transaction():
                    yield
                    self.flush()
            except BaseException:
                self._give_up_pending()
                raise

    def _give_up_pending(self) -> None:
        for part in self._parts:
            part.clear()
        self.pipelines.forget_open()
        self._forget_known()
        self.artifacts.settle()
        self.artifacts.files.claims.unlock()

    def _forget_known(self) -> None:
        for part in (self.runs, self.pipelines, self.chains, self.artifacts, self.projects, self.metadata, self.replayer):
            part.forget_known()

    # -- what spans several parts ----------------------------------------------------------

    def require_places(self, pipeline_id: str, chain_id: str | None) -> None:
        """NotFoundError unless the pipeline and the chain, where one is given, are known."""
        self.pipelines.require_known(pipeline_id)
        if chain_id is not None:
            self.chains.require(chain_id)

    def rename_artifacts(self, chain_id: str, names: dict[str, str]) -> None:
        """Let a chain of this session refer to other artifacts: old id to new."""
        with self.lock:
            if self.chains.get(chain_id) is None:  # in its table meanwhile
                with self.database.transaction():
                    self.chains.take_back_in_transaction(chain_id)
            self.chains.rename_artifacts(chain_id, names)

    def end_pipeline(self) -> None:
        """Flush after a pipeline has ended; without another open one, its artifacts are held by chains alone."""
        if not self.pipelines.any_open:
            self.artifacts.release()
        self.flush()

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Remove the pipeline's predictions, chains and logs, and keep its failed row, in one transaction."""
        self.flush()  # on its own: if the transaction below cannot commit, what other pipelines have pending must not go with it
        self.pipelines.fail(pipeline_id, error)
        with self.database.transaction():
            self.end_pipeline()
            self._delete_contents_in_transaction([pipeline_id])

    def delete_run(self, run_id: str, delete_artifacts: bool) -> int:
        """Delete a run and all below it in one transaction; the number of rows in the documented tables."""
        self.flush()
        self.runs.require(run_id)
        pipeline_ids = self.pipelines.ids_of_run(run_id)
        with self._collecting():
            deleted = self._delete_contents_in_transaction(pipeline_ids)
            deleted += self.pipelines.delete_of_run_in_transaction(run_id) + self.runs.delete_in_transaction(run_id)
            self.runs.note_deleted_in_transaction(run_id)
            if delete_artifacts:
                self.collector.collect_in_transaction()
        return deleted

    def save_arrays(self, prediction_id: str, arrays: tuple[Any, ...], sample_metadata: dict[str, Any] | None) -> None:
        """Buffer a prediction's arrays and what is known of its samples; without metadata it keeps those it had."""
        content = jsontext.encode(checks.optional_mapping(sample_metadata, "sample_metadata"), "sample_metadata")
        self.predictions.save_arrays(prediction_id, *arrays)
        if content is not None:
            self.metadata.save(prediction_id, content)

    def save_predictions(self, columns: Any, arrays: dict[str, Any]) -> list[str]:
        """Write many predictions in one transaction, past the buffer; durable on return."""
        checked = bulk.checked(columns, arrays)
        for pipeline_id in checked.distinct("pipeline_id"):
            self.pipelines.require_known(pipeline_id)
        for chain_id in checked.distinct("chain_id"):
            self.chains.require(chain_id)
        identifiers: list[str] = []
        with self.database.transaction():
            for ids, tables in bulk.prefetched(bulk.slices(checked)):
                self.predictions.write_in_transaction(tables)
                identifiers += ids.to_pylist()
        return identifiers

    def keep_compiled(self) -> None:
        """Store the compiled chains that wait for it."""
        with self.lock:
            if len(self.compiled):
                self.flush()
                with self.database.transaction():
                    self.compiled.write_in_transaction()
                self.compiled.clear()

    def _load_artifact(self, artifact_id: str) -> Any:
        with self.lock:
            self.flush()
            return self.artifacts.load(artifact_id)

    def delete_prediction(self, prediction_id: str) -> bool:
        with self.database.transaction():
            deleted = self.predictions.delete_in_transaction(prediction_id)
            self.metadata.sweep_in_transaction()
        return deleted

    def delete_dataset_predictions(self, dataset_name: str) -> int:
        """Delete a dataset's predictions, and the chains and ended pipelines that are empty then; how many predictions."""
        chain_ids, pipeline_ids = self.predictions.places_of_dataset(dataset_name)
        with self._collecting():
            self._forget_known()
            deleted = self.predictions.delete_of_dataset_in_transaction(dataset_name)
            self.metadata.sweep_in_transaction()
            emptied = self.chains.delete_empty_in_transaction(chain_ids)
            self.compiled.sweep_in_transaction()
            self.logs.delete_in_transaction(self.pipelines.delete_empty_in_transaction(pipeline_ids))
            if emptied:
                self.collector.collect_in_transaction()
        return deleted

    def set_run_project(self, run_id: str, project_id: str | None) -> None:
        if project_id is not None:
            self.projects.require(project_id)
        self.runs.set_project(run_id, project_id)

    def delete_project(self, project_id: str) -> None:
        with self.database.transaction():
            self.projects.delete_in_transaction(project_id)

    def gc(self) -> int:
        """Collect unused artifacts; the number of files removed."""
        with self._collecting():
            return len(self.collector.collect_in_transaction())

    def clean_up_transient(self, run_id: str, dataset_name: str, winners: list[str]) -> int:
        """Let go of artifacts that a refit made unnecessary, then collect; the number of files removed."""
        pipelines = self.pipelines.listed(run_id, dataset_name)["pipeline_id"].to_list()
        chains = self.chains.of_pipelines(pipelines)
        with self._collecting():
            for chain_id, artifact_ids in self.collector.transient(run_id, dataset_name, chains, set(winners)).items():
                self.chains.unlink_in_transaction(chain_id, artifact_ids)
            return len(self.collector.collect_in_transaction())

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        """A transaction that may collect artifacts; if it fails, other processes can claim them again."""
        try:
            with self.database.transaction():
                yield
        except BaseException:
            self.artifacts.files.claims.unlock()
            raise

    def invalidate_dataset(self, dataset_hash: str) -> int:
        with self.database.transaction():
            return self.artifacts.invalidate_in_transaction(dataset_hash)

    def _delete_contents_in_transaction(self, pipeline_ids: list[str]) -> int:
        self._forget_known()
        deleted = self.predictions.delete_of_pipelines_in_transaction(pipeline_ids)
        self.metadata.sweep_in_transaction()
        deleted += self.chains.delete_in_transaction(pipeline_ids) + self.logs.delete_in_transaction(pipeline_ids)
        self.compiled.sweep_in_transaction()
        return deleted

    # -- life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is pending and let the file go."""
        self.artifacts.release()
        self.flush()
        try:
            self._rest()
            self.keep_compiled()
        except StoreLockedError:
            pass  # it is durable in the journal, and whoever uses the file next puts it in place
        self.journal.close()
        self.database.close()
        self.artifacts.close()

    def forget_after_fork(self) -> None:
        """In a forked child: the parent writes its own pending rows, so they must not be written here."""
        self.lock = self.database.lock
        self.journal.forget()
        self._give_up_pending()


def _new_parts(database: Database, files: ArtifactFiles) -> Parts:
    """What has tables of its own, in the order in which they are written."""
    return (
        Runs(database), Pipelines(database), Chains(database), Logs(database), Predictions(database), Artifacts(database, files),
        Projects(database), SampleMetadata(database),
    )  # fmt: skip


def _replay(parts: Parts, frame: bytes) -> None:
    content = msgpack.decode(frame)
    for part in parts:
        part.replay(content)


def _written_in_transaction(parts: Parts) -> Tables:
    """Write what the parts hold in memory; its tables."""
    tables: Tables = {name: table for part in parts for name, table in part.pending().items()}
    for part in parts:
        part.write_in_transaction(tables)
    return tables


def _pipelines_of(tables: Tables) -> set[str]:
    """Every pipeline that rows of a batch belong to."""
    return {name for table in tables.values() if "pipeline_id" in table.column_names for name in table["pipeline_id"].unique().to_pylist()}
