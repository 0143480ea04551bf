"""The way from memory and logs into the tables, before anything is read.

`DrainedDatabase` is the database as all parts of a workspace see it: a read first puts in the tables what this
process has in memory and what all processes have logged, in one transaction. Memory is cleared after the commit, so
a drain that fails loses nothing and can be repeated. While a unit of work is open, its first read or change of the
tables begins a transaction that ends with the unit; what was saved before the unit is drained ahead of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.engine.connection import Connection, Database
from n4a_fast.engine.lease import Turnstile
from n4a_fast.errors import StoreError, StoreFormatError, StoreLockedError, StoreUnavailableError
from n4a_fast.log.recovery import Waiting
from n4a_fast.log.write_ahead import WriteAheadLog
from n4a_fast.memtable.beside import DrainBeside
from n4a_fast.memtable.pending_table import Tables
from n4a_fast.platform.interrupts import Uninterrupted
from n4a_fast.tables.predictions.deleted import may_delete
from n4a_fast.tables.table_set import OTHER_CONTENT, TableSet

_MOST_CLAIMS = 10_000  # of artifacts: they are released when nothing is left in memory, as an ordinary drain does


class _Inside(threading.local):
    """Whether this thread is inside a block whose reads drain nothing."""

    reading = False


class DrainedDatabase(Database):
    """A store file with its log and the rows in memory: reads see all of it."""

    def __init__(
        self, path: Path, files: ArtifactFiles, *, read_only: bool, lock_timeout: float, turnstile: Turnstile
    ) -> None:
        super().__init__(path, read_only=read_only, lock_timeout=lock_timeout, turnstile=turnstile)
        self.identity.session = files.session
        self.files, self.log = files, WriteAheadLog(self, files.session)
        self.tables = TableSet(self, files)
        self._borrower: DrainBeside | None = None
        self._rests_in_log = False
        self._needs_caller = False  # the next drain is not beside it
        self.unit_is_open, self._inside = False, _Inside()
        self._set_aside: list[bytes] = []  # what the open unit saved before its inner ones, as records
        self._deletions = 0  # how many runs had been deleted when ids were last known for sure

    def spill_folder(self) -> Path | None:
        """Beside the file, where there is room for it; a store that is only read leaves nothing there."""
        return super().spill_folder() if self.read_only else self.files.session.spill

    # -- reading ---------------------------------------------------------------------------

    @contextmanager
    def reading(self, own: bool = True) -> Iterator[Connection]:
        """All reads of the block see the tables at one moment: what waits is drained before it, and nothing during it.

        `own=False` when the caller knows what this process has saved, and only others may have added to it.
        """
        with self.lock:
            outer = self._inside.reading
            if not outer:
                if not self.in_transaction:
                    self._drain_before(own)
                if own and self.unit_is_open:
                    self.write_fresh_in_transaction()
            self._inside.reading = True
            try:
                with super().reading() as connection:
                    yield connection
            finally:
                self._inside.reading = outer

    @property
    def drains(self) -> bool:
        """Whether reads of this thread see what waits."""
        return not self._inside.reading

    def _drain_before(self, own: bool) -> None:
        self.refresh()
        if self.unit_is_open:
            if ((own or self.tables.deleted) and not self.log.is_empty) or self.log.others_waiting():
                self._drain_what_came_before()
            if own:
                self.begin()
        elif own or self.tables.deleted or self.log.others_waiting():
            self.drain()

    @contextmanager
    def reading_but_deletions(self) -> Iterator[None]:
        """All reads of the block see the tables with all in them but deletions of this process, which alone wait."""
        with self.lock:
            self.refresh()
            if self.tables.has_rows or self.log.others_waiting():
                self.drain()
            with self.undrained(), self.reading():
                yield

    # -- draining --------------------------------------------------------------------------

    def drain(self, *, others: bool = True, salvage: bool = False) -> None:
        """Write what is in memory, and what waits in the logs of other processes, to the tables, in one transaction;
        `salvage` takes what is whole of a damaged log, which goes then.
        """
        self.with_room(partial(self._drain, others, salvage))

    def _drain(self, others: bool, salvage: bool) -> None:
        self.refresh()
        waiting = self._waiting(others, salvage)
        if not waiting and not self.has_own:
            return
        self.begin_anew_if_due()
        self.files.sync()
        with self._as_a_writer():
            self._delete_ahead(waiting)
            if not self.log.is_current:  # that, or a reader, has attached the file anew
                self.refresh()
                waiting = self._waiting(others, salvage)
            with Uninterrupted():
                with self.undrained(), self.transaction():
                    all_belong = self._write_in_transaction([*self._tables_of(waiting), self.tables])
                    self.log.apply_in_transaction(waiting)
                self._forget_drained(waiting, all_belong)
        self._rests_in_log = self._needs_caller = False

    def drain_beside(self) -> bool:
        """Let a thread write what was just flushed, while the caller goes on (see `beside`); False where that is for
        `drain`: where anything else goes with it, or where the last one failed.
        """
        self.begin_anew_if_due()
        self.refresh()
        if (
            (self._needs_caller or self.in_transaction or self.unit_is_open or not self.drains or not self.is_writable)
            or (self.tables.has_fresh or self.tables.deleted or len(self.files.claims) > _MOST_CLAIMS)
            or self._waiting(others=False, salvage=False)
        ):
            return False
        with Uninterrupted():
            self.log.shorten()
            self._borrower = drain = DrainBeside(self, self.files, self.tables, self.log)
            drain.begin()
        return True

    @property
    def is_over(self) -> bool:
        """Whether there was a drain beside the caller that has ended, and was not taken back."""
        return self._borrower is not None and self._borrower.is_over

    def take_back(self) -> None:
        """Wait for the drain beside the caller, if there is one. What it has written leaves the log; what it has not is
        in memory again.
        """
        drain = self._borrower
        if drain is None:
            return
        with Uninterrupted():
            drain.end()
            self._borrower = None
            self._needs_caller = not drain.is_done
            if drain.is_done:
                self.log.rewind(through_seal=True)
                if not self.has_own:
                    self.tables.artifacts.release_claims()
            else:
                self.log.unseal()
                self.tables.forget_known()
                self.restore(self.log.own_waiting(), self.fresh_records())

    def _delete_ahead(self, waiting: list[Waiting]) -> None:
        """Where more predictions are deleted than one transaction has room for: some of them at a time. What waits
        tells it once more, and finds them gone.
        """
        if not self.indexes_may_take_much:
            return
        deleting = [each for each in waiting if any(may_delete(record.content) for record in each.records)]
        sets = [*self._tables_of(deleting), self.tables]
        named = sorted({name for each in sets for name in each.deleted.names()})  # by time, as the rows lie
        if len(named) > (size := self.rows_to_delete()):
            for start in range(0, len(named), size):
                with self.undrained(), self.transaction():
                    self.tables.delete_named_in_transaction(pa.array(named[start : start + size]))
                self.begin_anew()

    def _waiting(self, others: bool, salvage: bool) -> list[Waiting]:
        """What goes into the tables with the rows of this process. Where that is not all that waits, it is what
        deletes: of the rows that are written now, none was saved before these deletions and is meant by them.
        """
        if others:
            return self.log.others_waiting(salvage=salvage)
        try:
            waiting = self.log.others_waiting()
        except StoreError:  # the next read tells it, and what was saved here need not wait for its cure
            return []
        return [each for each in waiting if any(may_delete(record.content) for record in each.records)]

    def write_fresh_in_transaction(self) -> None:
        """Write what the open unit has saved since its transaction began; if that rolls back, so does this."""
        if self.tables.has_fresh or self._set_aside:
            self.files.sync()
            with self.undrained():
                all_belong = self._write_in_transaction([self.tables])
            self.tables.clear()
            self._set_aside = []
            if not all_belong:
                self.tables.forget_known()

    def place_others_in_transaction(self) -> None:
        """Write what other processes have logged since the transaction began; it stays theirs if that rolls back."""
        if waiting := self.log.others_waiting():
            with self.undrained():
                self._write_in_transaction(self._tables_of(waiting))
                self.log.apply_in_transaction(waiting)
            self.after_commit(lambda: self.log.rewind(waiting))

    @property
    def has_own(self) -> bool:
        """Whether this process has rows that are not in the tables."""
        return not self.log.is_empty or self.tables.has_fresh

    def logged(self) -> Tables | None:
        """What other processes have logged, as tables; None when there is something of this process, too."""
        self.refresh()
        if self.has_own:
            return None
        return {
            name: rows for each in self._tables_of(self.log.others_waiting()) for name, rows in each.as_arrow().items()
        }

    @property
    def wants_rest(self) -> bool:
        """Whether something was flushed that is to be in the tables at rest."""
        return not self.log.is_empty and not self._rests_in_log

    def rest(self) -> None:
        """What was flushed goes into the tables; what was not is still for its flush to make durable."""
        if self.wants_rest:
            self.drain(others=False)

    def rest_in_log(self, wanted: bool) -> None:
        """While nothing asks for the tables, leave them empty at rest, too."""
        self._rests_in_log = wanted

    # -- memory ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """After other processes may have used the file: let memory hold what they left of this one's log, and then what
        is fresh.
        """
        self.attach()  # a wait that Ctrl-C may end
        if self.log.is_current:
            return
        with Uninterrupted():
            records = self.log.refresh()
            if self._deletions != len(self.log.deleted_runs):
                self._deletions = len(self.log.deleted_runs)
                self.tables.forget_known()
                self.tables.pipelines.forget_open(self.log.deleted_runs)
            if records is not None:
                self.restore(records, self.fresh_records())

    def restore(self, records: Iterable[bytes], fresh: Iterable[bytes]) -> None:
        """Let memory hold what is in the log, and what is fresh."""
        self.tables.clear()
        self.tables.replay(records)
        self.tables.mark_logged()
        self._set_aside = []
        self.tables.replay(fresh)

    def fresh_records(self) -> list[bytes]:
        """What was saved and is not in the log, as `restore` takes it."""
        return [*self._set_aside, self.tables.fresh()]

    def set_aside(self) -> None:
        """Make a record of what is fresh, so that the next `fresh_records` makes one of what comes after it alone;
        `gather` follows before anything is flushed.
        """
        if content := self.tables.fresh():
            self._set_aside.append(content)
            self.tables.mark_logged()

    def gather(self) -> None:
        """What was set aside is fresh again."""
        if self._set_aside:
            self.restore(self.log.own_waiting(), self.fresh_records())

    def _drain_what_came_before(self) -> None:
        """Drain all but what the open unit has saved."""
        fresh, self.unit_is_open = self.fresh_records(), False
        try:
            if any(fresh):  # else memory is what the log holds, which takes a while to be read
                self.restore(self.log.own_waiting(), ())
            self.drain()
        finally:
            self.unit_is_open = True
            self.tables.replay(fresh)

    def _forget_drained(self, waiting: list[Waiting], all_belong: bool) -> None:
        """What is in the tables now leaves memory and logs."""
        self.log.rewind(waiting)
        self.tables.clear()
        if self.log.deleted_runs or not all_belong:
            self.tables.forget_known()
        self.tables.artifacts.release_claims()

    def forget_after_fork(self) -> None:
        """In a forked child: the open unit, too, is the parent's."""
        self._forked_inside = self._forked_inside or self.unit_is_open
        self.unit_is_open, self._inside, self._set_aside = False, _Inside(), []
        super().forget_after_fork()

    # -- inside ----------------------------------------------------------------------------

    def _tables_of(self, waiting: list[Waiting]) -> list[TableSet]:
        """Tables that hold what other processes have logged; none when that is nothing."""
        if not waiting:
            return []
        self.tables.artifacts.forget_ids()
        records = (record.content for segment in waiting for record in segment.records)
        try:
            return [TableSet.of_records(self, self.files, records)]
        except OTHER_CONTENT as error:
            paths = ", ".join(str(each.found.path) for each in waiting)
            raise StoreFormatError(
                f"{paths}: its records are whole, and not what a store logs ({type(error).__name__}: {error}); restore"
                " the workspace from a backup, or put this file elsewhere if you do not know where it is from"
            ) from error

    def _write_in_transaction(self, sets: list[TableSet]) -> bool:
        return self.tables.write_in_transaction(sets, after_deletions=bool(self.log.deleted_runs))

    @contextmanager
    def undrained(self) -> Iterator[None]:
        """Reads of the block, by this thread, see the tables as they are."""
        outer, self._inside.reading = self._inside.reading, True
        try:
            yield
        finally:
            self._inside.reading = outer

    @contextmanager
    def _as_a_writer(self) -> Iterator[None]:
        """The file attached for writing: a reader, too, finishes the work of a writer that was stopped, or rows would
        be missed.
        """
        try:
            self.attach(writing=True)
            yield
        except StoreError as error:
            if not self.read_only or isinstance(error, StoreLockedError):  # it names who is in the way
                raise
            reason = (
                f"its log holds rows that a stopped process has not put in the tables, and they cannot be now ({error})"
            )
            raise StoreUnavailableError(self.path, reason) from error
