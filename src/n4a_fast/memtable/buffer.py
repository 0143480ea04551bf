"""When what is in memory becomes durable: asked for, when there is much of it, or after some time.

A small flush appends what is new to this process's log and keeps it in memory too; once enough has gathered, or
before a read, all of it goes into the tables (see `drain`). While a unit of work is open, nothing is flushed: it
becomes durable with the end of the unit, as one record where it only saved.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from n4a_fast.errors import InvalidInputError, StoreError
from n4a_fast.memtable.drain import DrainedDatabase
from n4a_fast.platform.interrupts import Uninterrupted

_DIRECT_ROWS = 1024  # a flush this large goes straight into the tables

# what is logged goes into the tables after so many times the rows of a flush: a drain takes about 20 statements, 45 ms
# of processor time, for one row and for many (a pipeline of 21: 0.24 ms with 4,096 rows a drain, 0.06 with 16,384)
_FLUSHES_OF_A_DRAIN = 4
_SLOW_SECONDS = 2.0  # unless the first of it has waited so long: who looks at the tables alone sees a slow sweep, too
_LOOK_EVERY = 16  # calls; a look at every table takes as long as saving a prediction


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When rows in memory are flushed though nobody asks for it."""

    rows: int = 4096
    nbytes: int = 64 * 2**20
    seconds: float | None = 5.0  # after the first of them was saved; None: never by time

    def __post_init__(self) -> None:
        for name, value in (("flush_rows", self.rows), ("flush_bytes", self.nbytes), ("flush_interval", self.seconds)):
            is_none = value is None and name == "flush_interval"
            if not is_none and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise InvalidInputError(f"{name} must be a number above 0, got {value!r}")


AT_ONCE = FlushLimits(rows=1)  # of stores that nobody closes any more: the program ends, or they are closed already


class Buffer:
    """The rows of all tables that are in memory, and the limits for them."""

    def __init__(self, database: DrainedDatabase, limits: FlushLimits) -> None:
        self._database, self._tables, self._limits = database, database.tables, limits
        self._since: float | None = None  # when the first row that may not be flushed was saved
        self._waits_since = 0.0  # when the first record that is not in the tables was logged
        self._calls = 0
        self._is_timed = False  # the background knows that there is something to flush by time

    @property
    def limits(self) -> FlushLimits:
        """The limits of the store that gave any last."""
        return self._limits

    def use(self, limits: FlushLimits | None) -> None:
        """Limits of one more store on this folder, which may leave them as they are."""
        self._limits = limits or self._limits

    @property
    def unflushed(self) -> int:
        """How many rows are only in memory."""
        return sum(table.fresh_rows for table in self._tables.pending)

    @property
    def held_rows(self) -> int:
        """Rows in memory of the table that has most of them."""
        return max(map(len, self._tables.pending))

    def flush(self, *, wait: bool = True) -> None:
        """Make everything in memory durable, together; on failure it stays in memory and the call can be repeated.

        Much of it goes straight into the tables, if it may `wait` for the file.
        """
        if not self._database.unit_is_open:
            self.write(wait=wait)

    def write(self, *, wait: bool = True, in_unit: bool = False) -> None:
        """`flush`, whether a unit of work is open or not: at its end, what it saved is one record, or is written in one
        transaction.
        """
        database = self._database
        if (wait or in_unit) and self._is_large():
            database.drain(others=False)
            self._since = None
            return
        content = self._tables.fresh()
        if not content:
            self._since = None
            return
        database.files.sync()
        if database.log.is_empty:
            self._waits_since = time.monotonic()
        with Uninterrupted():
            database.log.append(content)
            self._tables.mark_logged()
        self._since = None
        database.note_use()
        if not in_unit and database.is_over:
            database.take_back()
            database.log.shorten()
        if not in_unit and self._is_full() and self._may_make_room(wait):
            self._make_room()

    def _may_make_room(self, wait: bool) -> bool:
        """Whether the file is free, or worth waiting for: at once for a drain of this process."""
        database = self._database
        return database.enter_if_free() or (wait and (database.is_lent or self._is_full(twice=True)))

    def make_room_at_once(self) -> None:
        """After a unit that is durable: put what is in memory in the tables if it is much and the file is free. It must
        not fail for a file that others have, or that takes nothing: the next flush meets that itself.
        """
        database = self._database
        if self._is_full() and database.enter_if_free():
            patience = database.lock_timeout
            database.wait_at_most(0.0)
            try:
                with suppress(StoreError):
                    self._make_room()
            finally:
                database.wait_at_most(patience)

    def make_room_in_unit(self) -> None:
        """Before an inner unit: what was set aside is not looked at by `flush_when_full` any more."""
        if self.held_rows >= 2 * self._limits.rows or self._nbytes() >= self._limits.nbytes:
            self._spill()

    def _make_room(self) -> None:
        database = self._database
        database.refresh()
        if self._is_full():  # others may have put most of it in place
            if database.drain_beside():
                self._waits_since = time.monotonic()
            else:
                database.drain(others=False)

    def flush_when_full(self) -> None:
        """Flush once there is as much as the limits say; by time, the background does it."""
        limits = self._limits
        self._calls += 1
        if self._tables.predictions.batch.reach(limits.rows, limits.nbytes) or (
            (not self._calls % _LOOK_EVERY or limits.rows <= _LOOK_EVERY) and self._others_are_full()
        ):
            self._spill()
        elif self._since is None and limits.seconds is not None:
            self._since = time.monotonic()
            if not self._is_timed:
                self._is_timed = True
                self._database.activity.set()

    def _others_are_full(self) -> bool:
        """Whether rows without arrays reach the limits; asked in some calls, each of which adds a row at most."""
        limits = self._limits
        return self._fresh_nbytes() >= limits.nbytes or any(
            table.fresh_rows >= limits.rows for table in self._tables.pending
        )

    def flush_when_due(self) -> float | None:
        """Flush what has been in memory for too long, without waiting for the file; in how many seconds to look again,
        None when there is nothing to flush.
        """
        if self._since is None or self._limits.seconds is None or self._database.unit_is_open:
            self._is_timed = False
            return None
        left = self._since + self._limits.seconds - time.monotonic()
        if left <= 0:
            self._since = time.monotonic()
            self.flush(wait=False)
            return self._limits.seconds
        return left

    def _spill(self) -> None:
        """Flush; in a unit of work, let the open transaction have what is in memory."""
        if self._database.unit_is_open:
            with self._database.reading():
                pass
        else:
            self.flush()

    def _is_large(self) -> bool:
        """Whether a record of the log would cost more than the tables do."""
        return self._tables.predictions.fresh_rows >= _DIRECT_ROWS or self._fresh_nbytes() >= self._limits.nbytes

    def _is_full(self, *, twice: bool = False) -> bool:
        """Whether it is time for the tables; `twice`: even if another process has the file."""
        is_slow = not twice and time.monotonic() > self._waits_since + _SLOW_SECONDS
        rows, nbytes = (1 + twice) * self._limits.rows * (1 if is_slow else _FLUSHES_OF_A_DRAIN), 0
        for table in self._tables.pending:
            nbytes += table.nbytes
            if len(table) >= rows or nbytes >= self._limits.nbytes:
                return True
        return False

    def _nbytes(self) -> int:
        return sum(table.nbytes for table in self._tables.pending)

    def _fresh_nbytes(self) -> int:
        return sum(table.fresh_nbytes for table in self._tables.pending)
