"""One open workspace: the parts of a store, shared by every `WorkspaceStore` on the same path in this process.

It decides when what is in memory is written. A small flush appends what is new to the journal and
keeps it in memory too; once enough has gathered, or before a read, all of it goes into the tables
in one transaction. Memory is cleared only after the commit, so a failed flush loses nothing and can
be repeated. Calls run one at a time under `lock`.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import msgpack

from n4a_fast import checks, jsontext, schema
from n4a_fast.artifacts.catalog import Artifacts
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.gc import Collector
from n4a_fast.database import Database
from n4a_fast.errors import InvalidInputError, StoreError, StoreUnavailableError
from n4a_fast.journal import Journal
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


class Workspace:
    """Parts, buffers and transactions of one workspace folder."""

    def __init__(self, root: Path, *, read_only: bool, lock_timeout: float) -> None:
        self.root = root
        turnstile = Turnstile(turn=root, queue=root / "artifacts")
        self.database = Database(root / STORE_FILE, read_only=read_only, lock_timeout=lock_timeout, turnstile=turnstile)
        self.lock = self.database.lock
        self.runs, self.pipelines = Runs(self.database), Pipelines(self.database)
        self.chains, self.logs = Chains(self.database), Logs(self.database)
        self.predictions, self.queries = Predictions(self.database), PredictionQueries(self.database)
        self.arrays, self.summaries = ArrayReader(self.database), ChainSummaries(self.database)
        self.projects, self.metadata = Projects(self.database), SampleMetadata(self.database)
        self.artifacts = Artifacts(self.database, ArtifactFiles(root / "artifacts"))
        self.collector = Collector(self.database, self.artifacts)
        self._parts = (self.runs, self.pipelines, self.chains, self.logs, self.predictions, self.artifacts, self.projects, self.metadata)
        self.journal = Journal(self.database)
        self.database.settle = self._settle
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
            self.put_in_tables()
            return
        self.artifacts.files.sync()
        self._reload_journaled()
        self.journal.append(msgpack.encode(content))
        for part in self._parts:
            part.keep()
        self.artifacts.settle()
        if len(self.predictions) >= _FLUSH_ROWS or self.predictions.nbytes >= _FLUSH_BYTES:
            self.put_in_tables()

    def flush_when_full(self) -> None:
        """Flush once the buffer has reached its row or byte limit."""
        if len(self.predictions) >= _FLUSH_ROWS or len(self.logs) >= _FLUSH_ROWS or self.predictions.nbytes >= _FLUSH_BYTES:
            self.flush()

    def put_in_tables(self) -> None:
        """Write what is in memory and what is in the journal, by whatever process, to the tables, in one transaction."""
        self._reload_journaled()
        if self.journal.is_empty and not self._fresh():
            return
        self.artifacts.files.sync()
        with self._writable_for_journal():
            self._reload_journaled()  # a reader has attached the file anew
            tables = {name: table for part in self._parts for name, table in part.pending().items()}
            with self.database.transaction(settled=False):
                for part in self._parts:
                    part.write_in_transaction(tables)
                self.journal.place_in_transaction()
        self.journal.rewind()
        for part in self._parts:
            part.clear()
        self.artifacts.settle()

    def _settle(self, own: bool) -> None:
        """Before a read: `own=False` when the caller knows what this process has saved, and only another may have added to it."""
        if self._reload_journaled() or own:
            self.put_in_tables()

    def _fresh(self) -> dict[str, Any]:
        return {name: rows for part in self._parts for name, rows in part.fresh().items()}

    def _reload_journaled(self) -> bool:
        """Let memory hold what the journal holds, after another process may have changed it, and then what is fresh; whether there was any."""
        frames = self.journal.unseen()
        if frames is None:
            return False
        fresh = msgpack.encode(self._fresh())
        for part in self._parts:
            part.clear()
        for frame in frames:
            self._replay(frame)
        for part in self._parts:
            part.keep()
        self._replay(fresh)
        return bool(frames)

    def _replay(self, frame: bytes) -> None:
        content = msgpack.decode(frame)
        for part in self._parts:
            part.replay(content)

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
        self.put_in_tables()
        self.keep_compiled()
        self.journal.close()
        self.database.close()
        self.artifacts.close()

    def forget_after_fork(self) -> None:
        """In a forked child: the parent writes its own pending rows, so they must not be written here."""
        self.lock = self.database.lock
        self.journal.forget()
        self._give_up_pending()


def open_workspace(path: Path, *, read_only: bool, lock_timeout: float) -> Workspace:
    """The workspace at `path`, shared with the stores of this process that have it open; created if need be."""
    root = Path(os.path.realpath(path))
    with _OPENING:
        shared = _OPEN.get(root)
        if not read_only and (shared is None or shared.database.read_only):
            _make_folders(root)
        if shared is None:
            shared = Workspace(root, read_only=read_only, lock_timeout=lock_timeout)
            try:
                schema.prepare(shared.database)
            except BaseException:
                shared.database.close()
                raise
            _OPEN[root] = shared
        elif not read_only:
            shared.database.read_only = False  # the next statement attaches the file for writing
        shared.users += 1
        return shared


def release_workspace(workspace: Workspace) -> None:
    """One user less; the last one closes the file."""
    with _OPENING, workspace.lock:
        if workspace.users > 1:
            workspace.flush()
        else:
            workspace.close()
            _OPEN.pop(workspace.root, None)
        workspace.users -= 1


def _make_folders(root: Path) -> None:
    try:
        (root / "artifacts").mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError("the folder is not writable")
    except OSError as error:
        raise StoreUnavailableError(root, error.strerror or str(error)) from error


def _forget_all_after_fork() -> None:
    global _OPENING
    _OPENING = threading.RLock()
    for workspace in _OPEN.values():
        workspace.forget_after_fork()


def _close_all_at_exit() -> None:
    """A store that nobody closed still keeps what was saved."""
    for workspace in list(_OPEN.values()):
        workspace.close()
    _OPEN.clear()


# DuckDB refuses a second attachment of a file in one process, so stores on one path share theirs
_OPEN: dict[Path, Workspace] = {}
_OPENING = threading.RLock()
os.register_at_fork(after_in_child=_forget_all_after_fork)
atexit.register(_close_all_at_exit)
