"""What has been saved and is not yet in the tables, and when it goes there.

A small flush appends what is new to this process's journal and keeps it in memory too; once enough
has gathered, or before a read, all of it goes into the tables in one transaction, before a read
together with what other processes have journaled. Memory is cleared only after the commit, so a
failed flush loses nothing and can be repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from msgspec import msgpack

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.engine import background
from n4a_fast.engine.connection import Database
from n4a_fast.engine.interrupts import Uninterrupted
from n4a_fast.errors import InvalidInputError, StoreError, StoreLockedError, StoreUnavailableError
from n4a_fast.log.recovery import Waiting
from n4a_fast.log.write_ahead import WriteAheadLog
from n4a_fast.memtable.key_ranges import tables_beyond
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.tables.carried import Carried
from n4a_fast.tables.chains import Chains
from n4a_fast.tables.logs import Logs
from n4a_fast.tables.pipelines import Pipelines
from n4a_fast.tables.predictions.logged import JournaledPredictions
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.saving import Predictions
from n4a_fast.tables.projects import Projects
from n4a_fast.tables.runs import Runs

Parts = tuple[Runs, Pipelines, Chains, Logs, Predictions, Artifacts, Projects, SampleMetadata, Carried]
Tables = dict[str, pa.Table]

_LOOK_SECONDS = 0.025
_DIRECT_ROWS = 1024  # a flush this large goes straight into the tables


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When rows in memory are flushed though nobody asks for it."""

    rows: int = 4096
    nbytes: int = 64 * 2**20
    seconds: float | None = 5.0  # after the first of them was saved; None: never by time

    def __post_init__(self) -> None:
        for name, value in (("flush_rows", self.rows), ("flush_bytes", self.nbytes), ("flush_interval", self.seconds)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise InvalidInputError(f"{name} must be a number above 0, got {value!r}")


class Buffer:
    """The rows of all parts in memory, and the journal behind them."""

    def __init__(
        self,
        database: Database,
        files: ArtifactFiles,
        limits: FlushLimits,
        *,
        forget_known: Callable[[], None],
        delete_in_transaction: Callable[[list[str]], object],
    ) -> None:
        self.parts = new_parts(database, files, Predictions(database))
        self.limits, self.log = limits, WriteAheadLog(database, files.session)
        self.runs, self.pipelines, _, self.logs, self.predictions, self.artifacts, *_ = self.parts
        self._database, self._files = database, files
        self._forget_known, self._delete_contents_in_transaction = forget_known, delete_in_transaction
        self._deletions = 0  # how many runs had been deleted when ids were last known for sure
        self._since: float | None = None  # when the first row that may not be flushed was saved
        self._watcher: threading.Thread | None = None
        self.stays_journaled = False  # while nothing has asked for the tables, they are left empty at rest, too
        database.drain, database.rest = self.drain, self.rest

    def flush(self) -> None:
        """Make everything in memory durable, together; on failure it stays in memory and the call can be repeated."""
        content = self._fresh()
        if not content:
            self._since = None
            return
        if (
            self._database.in_transaction
            or self.predictions.fresh_rows >= _DIRECT_ROWS
            or self.predictions.nbytes >= self.limits.nbytes
        ):
            self.put_in_tables(others=False)
            return
        self._files.sync()
        with Uninterrupted():
            self.log.append(msgpack.encode(content))
            for part in self.parts:
                part.mark_logged()
        self._since = None
        self._database.keep_awake()
        if self._is_full() and (self._is_full(twice=True) or self._database.enter_if_free()):
            self.refresh()
            if self._is_full():  # others may have put most of it in place
                self.put_in_tables(others=False)

    def _is_full(self, *, twice: bool = False) -> bool:
        """Whether it is time for the tables; `twice`: even if another process has the file."""
        return len(self.predictions) >= (1 + twice) * self.limits.rows or self.predictions.nbytes >= self.limits.nbytes

    def flush_when_full(self) -> None:
        """Flush once the buffer has reached its row or byte limit; by time, a thread does it."""
        batch, limits = self.predictions.batch, self.limits
        if batch.nbytes >= limits.nbytes or batch.fresh_rows >= limits.rows or self.logs.fresh_rows >= limits.rows:
            self.flush()
        elif self._since is None and limits.seconds is not None:
            self._since = time.monotonic()
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = background.watch(self)

    def rest_when_idle(self) -> float | None:
        """For the watching thread: flush what has been in memory for too long; when to look again, None when nothing
        has to be watched.
        """
        with self._database.lock:
            if self._since is None or self.limits.seconds is None:
                self._watcher = None
                return None
            left = self._since + self.limits.seconds - time.monotonic()
            if left <= 0 and not self._database.in_transaction:
                self._since = time.monotonic()
                try:
                    self.flush()
                except StoreError:
                    pass  # it is still in memory; the next call that flushes meets the cause itself, in its own thread
        return min(max(left, _LOOK_SECONDS), 1.0)  # the limit may become shorter

    def put_in_tables(self, *, others: bool = True) -> None:
        """Write what is in memory, and what waits in the journals of other processes, to the tables, in one
        transaction.
        """
        self.refresh()
        waiting = self.log.others_waiting() if others else []
        if not waiting and not self._has_own():
            return
        self._files.sync()
        self.stays_journaled = False
        with self._writable_for_journal():
            self._database.attach()
            if not self.log.is_current:  # a reader has attached the file anew
                self.refresh()
                waiting = self.log.others_waiting() if others else []
            with Uninterrupted():
                with self._database.transaction(drained=False):
                    batches = [
                        self._written_in_transaction(parts) for parts in (*self._parts_of_others(waiting), self.parts)
                    ]
                    self.log.apply_in_transaction(waiting)
                    self._delete_again_in_transaction(batches)
                self._forget_placed(waiting)

    def _forget_placed(self, waiting: list[Waiting]) -> None:
        """What is in the tables now leaves memory and journals."""
        self.log.rewind(waiting)
        self._since = None
        for part in self.parts:
            part.clear()
        if self.log.deleted_runs:
            self._forget_known()
        self.artifacts.release_claims()

    @property
    def unflushed(self) -> int:
        """How many rows are only in memory."""
        return sum(part.fresh_rows for part in self.parts)

    def place_others_in_transaction(self) -> None:
        """Write what other processes have journaled since the transaction began; it stays theirs if the transaction
        fails.
        """
        waiting = self.log.others_waiting()
        if waiting:
            batches = [self._written_in_transaction(parts) for parts in self._parts_of_others(waiting)]
            self.log.apply_in_transaction(waiting)
            self._delete_again_in_transaction(batches)
            self._database.after_commit(lambda: self.log.rewind(waiting))

    def drain(self, own: bool) -> None:
        """Before a read: `own=False` when the caller knows what this process has saved, and only others may have added
        to it.
        """
        self.refresh()
        if own or self.log.others_waiting():
            self.put_in_tables()

    def rest(self) -> None:
        """What was flushed goes into the tables; what was not is still for its flush to make durable."""
        if not self.log.is_empty and not self.stays_journaled:
            self.put_in_tables(others=False)

    def logged(self) -> Tables | None:
        """What other processes have journaled, as tables; None when there is something of this process, too."""
        self.refresh()
        if self._has_own():
            return None
        return {
            name: table
            for parts in self._parts_of_others(self.log.others_waiting())
            for part in parts
            for name, table in part.pending().items()
        }

    def _has_own(self) -> bool:
        return not self.log.is_empty or bool(self._fresh())

    def _fresh(self) -> dict[str, Any]:
        return {name: rows for part in self.parts for name, rows in part.fresh().items()}

    def refresh(self) -> None:
        """After other processes may have used the file: let memory hold what they left of this one's journal, and then
        what is fresh.
        """
        self._database.attach()  # a wait that Ctrl-C may end
        if not self.log.is_current:
            with Uninterrupted():
                self._refresh()

    def _refresh(self) -> None:
        frames = self.log.refresh()
        if self._deletions != len(self.log.deleted_runs):
            self._deletions = len(self.log.deleted_runs)
            self._forget_known()
            self.pipelines.forget_open(self.log.deleted_runs)
        if frames is None:
            return
        fresh = msgpack.encode(self._fresh())
        for part in self.parts:
            part.clear()
        for frame in frames:
            _replay(self.parts, frame)
        for part in self.parts:
            part.mark_logged()
        _replay(self.parts, fresh)

    def _parts_of_others(self, waiting: list[Waiting]) -> list[Parts]:
        """Parts that hold what other processes have journaled; none when that is nothing."""
        if not waiting:
            return []
        self.artifacts.forget_ids()
        parts = new_parts(self._database, self._files, JournaledPredictions(self._database))
        for segment in waiting:
            for record in segment.records:
                _replay(parts, record.content)
        return [parts]

    def _written_in_transaction(self, parts: Parts) -> Tables:
        """Write what the parts hold in memory; its tables."""
        tables: Tables = {name: table for part in parts for name, table in part.pending().items()}
        beyond = tables_beyond(self._database, tables)
        for part in parts:
            part.write_in_transaction(tables, beyond)
        return tables

    def _delete_again_in_transaction(self, batches: list[Tables]) -> None:
        """Runs that some process deleted stay deleted, whatever another one had in its journal or memory."""
        if self.log.deleted_runs:
            pipelines = self.pipelines.orphaned_in_transaction(
                {name for tables in batches for name in _pipelines_of(tables)}
            )
            self._delete_contents_in_transaction(pipelines)
            for run_id in self.runs.back_in_transaction():
                self.pipelines.delete_of_run_in_transaction(run_id)
                self.runs.delete_in_transaction(run_id)

    @contextmanager
    def _writable_for_journal(self) -> Iterator[None]:
        """A reader finishes the work of a writer that was stopped: rows would be missed otherwise."""
        if not self._database.read_only:
            yield
            return
        self._database.read_only = False
        try:
            yield
        except StoreLockedError:  # it names who is in the way
            raise
        except StoreError as error:
            reason = (
                f"its journal holds rows that a stopped process has not put in place, and they cannot be now ({error})"
            )
            raise StoreUnavailableError(self._database.path, reason) from error
        finally:
            self._database.read_only = True


def new_parts(database: Database, files: ArtifactFiles, predictions: Predictions) -> Parts:
    """What has tables of its own, in the order in which they are written."""
    return (
        Runs(database),
        Pipelines(database),
        Chains(database),
        Logs(database),
        predictions,
        Artifacts(database, files),
        Projects(database),
        SampleMetadata(database),
        Carried(database),
    )


def _replay(parts: Parts, frame: bytes) -> None:
    content = msgpack.decode(frame)
    for part in parts:
        part.replay(content)


def _pipelines_of(tables: Tables) -> set[str]:
    """Every pipeline that rows of a batch belong to."""
    return {
        name
        for table in tables.values()
        if "pipeline_id" in table.column_names
        for name in table["pipeline_id"].unique().to_pylist()
    }
