"""One open workspace: the tables, queries and files of one folder, shared by every `WorkspaceStore` on the same path
in this process.

Here is what concerns several of them at once: cascades, collections, closing. What is committed together is for
`unit`, when rows in memory become durable for `buffer`. Calls run one at a time under `lock`.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from n4a_fast import platform, schema
from n4a_fast.artifacts.checkup import Progress, VerifyReport, verify
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.gc import Collector
from n4a_fast.artifacts.settings import DEFAULTS, ArtifactSettings
from n4a_fast.durable.sync import make_folder
from n4a_fast.engine import background
from n4a_fast.engine.connection.waiting import CallLock
from n4a_fast.engine.deletions import Deletions
from n4a_fast.engine.lease import Turnstile
from n4a_fast.engine.refusals import told
from n4a_fast.engine.session import Session
from n4a_fast.engine.unit import Units
from n4a_fast.errors import InvalidInputError, StoreError, StoreLockedError, StoreMovedError, StoreUnavailableError
from n4a_fast.memtable.buffer import AT_ONCE, Buffer, FlushLimits
from n4a_fast.memtable.drain import DrainedDatabase
from n4a_fast.platform.interrupts import Uninterrupted
from n4a_fast.predictions.aggregates import Aggregates
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import PredictionQueries
from n4a_fast.predictions.ranking import Ranking
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.predictions.summaries import ChainSummaries
from n4a_fast.replay.serve.replayer import Replayer
from n4a_fast.tables.artifact_rows import Written
from n4a_fast.tables.predictions import bulk
from n4a_fast.tables.stale_chains import refresh, refresh_at_rest
from n4a_fast.values import checks, jsontext

STORE_FILE = "store.duckdb"
_CHAIN_VIEWS = re.compile(r"chain_(scores|summary)", re.IGNORECASE)


class Workspace:
    """Everything that is open of one workspace folder."""

    def __init__(self, root: Path, *, read_only: bool, lock_timeout: float, limits: FlushLimits) -> None:
        self.root = root
        self.database = database = DrainedDatabase(
            root / STORE_FILE,
            ArtifactFiles(root / "artifacts", Session(root / STORE_FILE)),
            read_only=read_only,
            lock_timeout=lock_timeout,
            turnstile=Turnstile(turn=root, queue=root / "artifacts"),
        )
        self.tables = tables = database.tables
        self.runs, self.pipelines, self.chains, self.logs = tables.runs, tables.pipelines, tables.chains, tables.logs
        self.predictions, self.artifacts = tables.predictions, tables.artifacts
        self.projects, self.metadata, self.carried = tables.projects, tables.metadata, tables.carried
        self.queries, self.arrays = PredictionQueries(database), ArrayReader(database)
        self.summaries, self.aggregates = ChainSummaries(database), Aggregates(database)
        self.ranking = Ranking(database)
        self.buffer = Buffer(database, limits)
        self.collector = Collector(database, self.artifacts)
        self.units = Units(database, self.buffer, self.collector)
        self.deletions = Deletions(database, self.buffer, self.units, self.collector, self.queries)
        self.replayer = Replayer(database, tables)
        self._background: threading.Thread | None = None
        self._drains = background.Pace()  # those of the background
        self._is_prepared = False
        self.users, self._counting = 0, threading.RLock()
        self._dropped = deque[ArtifactSettings]()  # of stores that are not there any more, and were not closed

    def prepare(self, *, writing: bool) -> None:
        """Make the folder and the file ready for one more store, unless they are."""
        if self._is_prepared and not (writing and self.database.read_only):
            return
        with self.lock:
            self.database.require_open()
            if writing:
                _make_folders(self.root)
                self.session.begin()
                self.database.allow_writes()
            if not self._is_prepared:
                schema.prepare(self.database)
                self._is_prepared = True
            if writing:
                self.database.log.begin()

    @property
    def session(self) -> Session:
        """Says that this process lives, for as long as it has the workspace open."""
        return self.artifacts.files.session

    @property
    def lock(self) -> CallLock:
        """One call at a time has it; a child made by a fork has one of its own."""
        return self.database.lock

    def require_usable(self, lock_timeout: float) -> None:
        """StoreClosedError once the program has ended; from now on this thread waits so long for the file."""
        self.database.begin_call(lock_timeout)
        if self._background is None:
            self.keep_watch()

    def keep_watch(self) -> None:
        """Let the background look after this workspace, if it does not yet."""
        with self._counting:
            self._background = self._background or background.watch(self)

    def flush(self) -> None:
        """Make everything saved so far durable; in a unit of work that happens at its end."""
        self.buffer.flush()

    def transaction(self, *, flushed: bool = True) -> AbstractContextManager[None]:
        """What the block saves is committed at its end, or not at all if it raises; other threads wait."""
        return self.units.unit(flushed=flushed)

    @contextmanager
    def reading_chains(self) -> Iterator[bool]:
        """All reads of the block see one moment; it tells whether the cached rows of chains are up to date in it, or
        only the views give the right ones.
        """
        with self.lock:
            self.flush()
            with self.database.reading():
                yield refresh(self.database)

    def sql(self, query: str, params: Sequence[Any]) -> pl.DataFrame:
        """The answer to a user's SELECT; where it asks for chains, the views find their rows up to date."""
        if not _CHAIN_VIEWS.search(query):
            return self.database.frame_of_user_sql(query, params)
        with self.reading_chains():
            return self.database.frame_of_user_sql(query, params)

    def require_no_unit(self, call: str) -> None:
        """InvalidInputError inside a transaction, which the call cannot be a part of."""
        with self.lock:
            is_inside = self.units.is_open
        if is_inside:
            raise InvalidInputError(f"{call} cannot be called inside transaction(); leave the block first")

    # -- what spans several parts ----------------------------------------------------------

    def save_prediction(self, given: tuple[Any, ...], prediction_id: str | None) -> str:
        """Buffer a prediction; NotFoundError unless its pipeline, and its chain where it has one, are known."""
        self.pipelines.require_known(given[0])
        if given[1] is not None:
            self.chains.require(given[1])
        return self.predictions.save(given, prediction_id)

    def register_artifact(self, written: Written) -> str:
        """Note a file that is already below `artifacts/`; ConflictError when its id means other content."""
        (result,) = self.artifacts.register([written])
        if isinstance(result, StoreError):
            raise result
        return result

    def begin_pipeline(self, run_id: str, name: str, *described: Any) -> str:
        pipeline_id = self.pipelines.begin(run_id, name, *described)
        self.predictions.begin_pipeline(pipeline_id)
        return pipeline_id

    def save_chain(self, pipeline_id: str, *described: Any, **texts: Any) -> str:
        """Buffer a chain; collections of other processes spare what it names from now on."""
        self.pipelines.require_known(pipeline_id)
        chain_id = self.chains.save(pipeline_id, *described, **texts)
        self.artifacts.claim(self.chains.references(chain_id))
        return chain_id

    def rename_artifacts(self, chain_id: str, names: dict[str, str]) -> None:
        """Let a chain of this session refer to other artifacts: old id to new."""
        with self.lock:
            if self.chains.get(chain_id) is not None:
                self.chains.rename_artifacts(chain_id, names)
                return
            with self.units.change():  # it is in its table meanwhile: its links change with it
                self.chains.take_back_in_transaction(chain_id)
                self.chains.rename_artifacts(chain_id, names)

    def end_pipeline(self) -> None:
        """Flush after a pipeline has ended; without another open one, its artifacts are held by chains alone."""
        if not self.pipelines.any_open:
            self.artifacts.release()
        self.flush()

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Remove the pipeline's predictions, chains and logs, and keep its failed row, in one commit."""
        with self.units.change():
            self.pipelines.fail(pipeline_id, error)
            self.end_pipeline()
            self.tables.delete_contents_in_transaction([pipeline_id])

    def pending_prediction(self, prediction_id: str, load_arrays: bool, labels: bool) -> dict[str, Any] | None:
        """A prediction of this process that is in memory; nothing is drained, or made durable, to find it."""
        with self.lock:
            return self.predictions.find_pending(prediction_id, load_arrays, labels)

    def pending_arrays(self, prediction_id: str, labels: bool) -> dict[str, Any] | None:
        """The arrays of a prediction of this process that is in memory."""
        with self.lock:
            return self.predictions.find_pending_arrays(prediction_id, labels)

    def save_arrays(self, prediction_id: str, arrays: tuple[Any, ...], sample_metadata: dict[str, Any] | None) -> None:
        """Buffer a prediction's arrays and what is known of its samples; without metadata it keeps those it had."""
        content = (
            None
            if sample_metadata is None
            else jsontext.encode(checks.mapping(sample_metadata, "sample_metadata"), "sample_metadata")
        )
        self.predictions.save_arrays(prediction_id, *arrays)
        if content is not None:
            self.metadata.save(prediction_id, content)

    def save_predictions(self, columns: Any, arrays: dict[str, Any], classes: Sequence[str] | None) -> list[str]:
        """Write many predictions in one transaction, past the buffer; durable on return."""
        checked = bulk.checked(columns, arrays, classes)
        with self.units.change():
            self.tables.require_stored(checked.distinct("pipeline_id"), checked.distinct("chain_id"))
            return self.predictions.write_bulk_in_transaction(checked)

    def set_run_project(self, run_id: str, project_id: str | None) -> None:
        if project_id is not None:
            self.projects.require(project_id)
        self.runs.set_project(run_id, project_id)

    def set_metric_direction(self, metric: str, higher_is_better: bool) -> None:
        with self.database.transaction():
            Metrics(self.database).store_in_transaction(metric, higher_is_better, "user")

    def delete_project(self, project_id: str) -> None:
        with self.units.change():
            self.projects.delete_in_transaction(project_id)

    def verify_artifacts(self, progress: Progress | None) -> VerifyReport:
        """Check every file against its row; others may go on saving meanwhile."""
        with self.lock:
            self.flush()
            addresses = self.artifacts.addresses()
        report = verify(self.artifacts.files, addresses, progress)
        with self.lock:
            return report.of_stored(self.artifacts.addresses())

    def invalidate_dataset(self, dataset_hash: str) -> int:
        with self.units.change():
            return self.artifacts.invalidate_in_transaction(dataset_hash)

    # -- life ------------------------------------------------------------------------------

    def join(self) -> bool:
        """One user more; False once it is shut, which nobody can have any more."""
        with self._counting:
            self.users += not self.is_closed
            return not self.is_closed

    def release(self, artifacts: ArtifactSettings = DEFAULTS, *, may_repeat: bool = False) -> None:
        """One user less; the last one closes the file. What could not be written raises: it stays in the log, or with
        `may_repeat` the user stays and can try again, unless the file is no longer there.
        """
        with told(self.root), self.lock:
            if not self.users:
                return  # Ctrl-C has cut what shut it
            if is_last := self.users == 1:
                self.require_no_unit("close()")
            try:
                (self.finish if is_last else self.flush)()
            except BaseException as error:
                if not may_repeat or isinstance(error, StoreMovedError):
                    self.leave(artifacts)
                raise
            self.leave(artifacts)

    def leave(self, artifacts: ArtifactSettings | None = None) -> None:
        """One user less, and nothing is written; the last one shuts it."""
        with Uninterrupted(), self._counting:
            self.users -= 1
            if artifacts is not None:
                self.artifacts.agreed.leave(artifacts)
            if not self.users:
                self.shut()

    def drop(self, artifacts: ArtifactSettings) -> None:
        """A user is not there any more, and has not closed: the background does. It may be told of in the middle of
        anything, so nothing is locked.
        """
        self._dropped.append(artifacts)
        self.activity.set()

    @property
    def activity(self) -> background.Bell:
        """Set when there is something for the background."""
        return self.database.activity

    @property
    def is_closed(self) -> bool:
        """Whether it was closed for good."""
        return self.database.is_closed

    def look_after(self) -> float | None:
        """For the background: flush what is due; once idle, let go of the file, and drain if that is due; yield it when
        another process waits. In how many seconds to look again, None for not before there is `activity`.
        """
        if not self.lock.acquire(blocking=False):
            return background.LOOK_SECONDS
        try:
            self.database.wait_at_most(0.0)  # this thread only tries
            if self.database.in_transaction or self.units.is_open:
                return background.LOOK_SECONDS
            with suppress(StoreError):  # what is not flushed, or not drained, is met by the next call of the user
                return self._look_after()
            return background.IDLE_SECONDS
        finally:
            self.lock.release()

    def _look_after(self) -> float | None:
        self._release_dropped()
        if self.is_closed:
            return None
        due, database = self.buffer.flush_when_due(), self.database
        until_idle = database.last_used + background.IDLE_SECONDS - time.monotonic()
        if until_idle > 0 or database.is_lent:
            database.yield_turn()
        elif database.wants_rest and self._drains.seconds <= 0:
            if database.enter_if_free():
                with self._drains.taken():
                    database.rest()
                    database.detach()
        else:
            database.detach()
        if database.attached:
            return background.LOOK_SECONDS
        self.activity.clear()
        if database.wants_rest:
            wait = max(until_idle, self._drains.seconds, background.LOOK_SECONDS)
            return wait if due is None else min(wait, due)
        return due

    def _release_dropped(self) -> None:
        while self._dropped:
            lost = self.buffer.unflushed if self.users == 1 else 0
            try:
                self.release(self._dropped[0], may_repeat=True)
            except StoreMovedError as error:
                if lost:
                    message = f"a store was never closed, and what it had in memory is lost: {error}"
                    print(f"n4a_fast: {message}", file=sys.stderr)
            self._dropped.popleft()

    def finish(self) -> None:
        """Write what is pending, and let the file go; no other thread saves meanwhile, even while this one waits."""
        with self.database.held():
            self.artifacts.release()
            self.flush()
            with suppress(StoreLockedError):  # it is durable in the log, and whoever uses the file next drains it
                self.database.rest()
                if self.database.is_writable:
                    refresh_at_rest(self.database)
                self.replayer.keep()
            self.database.detach()

    def shut(self) -> None:
        """Give back what `finish` has left: no file is waited for. A call that waited for it, and saves, is refused."""
        self.buffer.use(AT_ONCE)
        try:
            self.database.take_back()
            self.database.log.close()
            self.artifacts.close()
        finally:
            self.database.close()

    def forget_after_fork(self) -> None:
        """In a forked child: the parent writes its own pending rows, so they must not be written here."""
        self._background, self._counting = None, threading.RLock()
        self.session.forget_after_fork()
        self.database.log.forget()
        self.database.unit_is_open = False
        self.tables.clear()
        self.pipelines.forget_open()
        self.tables.forget_known()
        self.artifacts.release_claims()


def _make_folders(root: Path) -> None:
    try:
        make_folder(root / "artifacts")
        if not platform.is_writable_folder(root):
            raise PermissionError("the folder is not writable")
    except OSError as error:
        raise StoreUnavailableError(root, error.strerror or str(error)) from error
