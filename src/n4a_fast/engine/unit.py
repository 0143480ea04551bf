"""Units of work: what spans several tables, or what a user puts into one block, is committed together or not at all.

A unit that only saves needs no transaction of DuckDB: its rows stay in memory and become one record of the log at its
end. Its first read or change of the tables drains what was saved before it and begins a transaction that ends with
the unit. Artifacts to be collected are looked for at the commit, under the lock of the claims, so what the unit itself
or another process has come to use meanwhile stays; their files go after the commit.

Units nest: an inner one joins the outer one, whose rows are set aside as a record at its begin, so that each row is
encoded once, however many inner ones there are. If it raises, what it saved is given up, and the outer one may go on,
unless the inner one had used the tables: DuckDB has no savepoints, so the outer one cannot be committed either then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from n4a_fast.artifacts.checkup import Progress
from n4a_fast.artifacts.gc import Collector
from n4a_fast.errors import InvalidInputError
from n4a_fast.memtable.buffer import Buffer
from n4a_fast.memtable.drain import DrainedDatabase
from n4a_fast.platform.interrupts import Uninterrupted


@dataclass(slots=True)
class Collection:
    """What a unit wants removed at its commit, and how many files were: artifacts that nothing uses, if `unused`, and
    files without rows too, if `orphans`; and `named` files.
    """

    unused: bool = False
    orphans: bool = False
    named: list[str] = field(default_factory=list)
    progress: Progress | None = None
    removed: int = 0


@dataclass(frozen=True, slots=True)
class _Savepoint:
    """Memory at the begin of a unit; what the log holds is not repeated here."""

    fresh: list[bytes]
    begun: dict[str, Any]
    used_tables: bool


class Units:
    """The unit of work of one workspace: at most one is open, and belongs to the thread that has the lock."""

    def __init__(self, database: DrainedDatabase, buffer: Buffer, collector: Collector) -> None:
        self._database, self._buffer, self._collector = database, buffer, collector
        self._is_broken = False
        self._wanted: Collection | None = None

    @property
    def is_open(self) -> bool:
        """Whether the caller is inside a unit: the lock is its own."""
        return self._database.unit_is_open

    @contextmanager
    def unit(self, *, flushed: bool = True) -> Iterator[None]:
        """Everything saved or changed in the block is committed at its end, or not at all if it raises.

        What came before is durable when the block begins; `flushed=False`, for a short one: as it ends, in one record
        with it, and if it raises, in memory as before.
        """
        with self._database.held():
            if self.is_open:
                with self._inner():
                    yield
                return
            if flushed:
                self._buffer.flush()
            start = self._savepoint()
            self._database.unit_is_open, self._is_broken, self._wanted = True, False, None
            try:
                yield
                self._commit()
            except BaseException:
                self._give_up(start)
                raise

    @contextmanager
    def change(self) -> Iterator[None]:
        """A unit that changes the tables: a delete, a cascade. Ctrl-C waits for its end."""
        with self._database.lock:
            self._database.attach()  # outside the unit: while this thread waits for the file, others go on
            self._database.begin_anew_if_due()
            with self.unit(), Uninterrupted(), self._database.reading():
                yield

    def collect(self, *, orphans: bool = False, progress: Progress | None = None) -> Collection:
        """At the commit of the open unit, remove artifacts that nothing uses then; it tells how many files."""
        wanted = self._collection()
        wanted.unused, wanted.orphans, wanted.progress = True, wanted.orphans or orphans, progress or wanted.progress
        return wanted

    def collect_file(self, path: str) -> None:
        """At the commit of the open unit, remove a file if no row names it then, however young it is."""
        self._collection().named.append(path)

    def _collection(self) -> Collection:
        self._wanted = self._wanted or Collection()
        return self._wanted

    # -- inside ----------------------------------------------------------------------------

    @contextmanager
    def _inner(self) -> Iterator[None]:
        if not self._database.in_transaction:
            self._database.set_aside()
            self._buffer.make_room_in_unit()
        start = self._savepoint()
        try:
            yield
        except BaseException:
            if self._database.in_transaction:
                self._is_broken = True
            else:
                self._restore(start)
            raise

    def _commit(self) -> None:
        database = self._database
        database.require_usable()  # a child forked in the block must not commit what is its parent's
        if self._is_broken:
            raise InvalidInputError(
                "a block inside this one raised after it had used the tables, so nothing of this one can be committed;"
                " let the error leave this block too, or begin the inner block outside"
            )
        if not (database.in_transaction or self._wanted):
            database.gather()
            self._buffer.write(in_unit=True)
            database.unit_is_open = False
            self._buffer.make_room_at_once()
            return
        with Uninterrupted():
            with database.reading():  # begins the transaction, and writes what is in memory
                pass
            self._commit_transaction()

    def _commit_transaction(self) -> None:
        database, wanted = self._database, self._wanted
        if wanted is None:
            database.commit()
            database.unit_is_open = False
            database.run_hooks()
            return
        try:
            claimed = self._collector.lock()
            database.place_others_in_transaction()  # what is claimed no more was logged before
            doomed = self._collector.collect_in_transaction(claimed, orphans=wanted.orphans) if wanted.unused else []
            doomed = [*dict.fromkeys(doomed + self._collector.unnamed(wanted.named, claimed))]
            database.commit()
            database.unit_is_open = False
            database.run_hooks()
            wanted.removed = len(doomed)
            self._collector.unlink(doomed, wanted.progress)
        finally:
            self._collector.unlock()

    def _give_up(self, start: _Savepoint) -> None:
        """Roll the outermost unit back."""
        database = self._database
        if not database.unit_is_open and not database.in_transaction:
            return  # it has committed; what failed came after that
        database.unit_is_open = False
        with Uninterrupted():
            database.roll_back()
            self._restore(start)
            if database.log.is_empty:  # or what was flushed before still needs its claims
                database.tables.artifacts.release_claims()

    def _savepoint(self) -> _Savepoint:
        database = self._database
        fresh = [] if database.in_transaction else database.fresh_records()
        return _Savepoint(fresh, database.tables.pipelines.begun(), database.in_transaction)

    def _restore(self, start: _Savepoint) -> None:
        database = self._database
        database.restore(database.log.own_waiting(), start.fresh)
        database.tables.pipelines.set_begun(start.begun)
        database.tables.forget_known()
