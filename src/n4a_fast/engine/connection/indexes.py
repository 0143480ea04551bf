"""An attachment whose indexes take a part of DuckDB's memory, and no more.

DuckDB keeps each block of an index that it has read, and takes it for no other use, until the file is detached: ten
million predictions and their arrays take 480 MB. So a file whose indexes may fill the memory is attached anew, between
statements, when they have taken a part of it; where an index does not fit, fewer rows are looked up at once. What
makes an index anew needs it in memory as a whole, and one transaction that deletes all over the tables two blocks for
each row group besides: DuckDB may take that much more until it is done.

A file of which a part was written since it was attached is attached anew, too: DuckDB reads what it has written itself
up to twice as slowly as what it finds there (among five million predictions a page of 100 took 21 ms of processor time
before, and 12 afterwards).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import duckdb

from n4a_fast.engine.background import Pace
from n4a_fast.engine.connection import client
from n4a_fast.engine.connection.attachment import Attachment
from n4a_fast.errors import MemoryLimitError, StoreLockedError, StoreUnavailableError

Result = TypeVar("Result")

_LOOK_SECONDS = 0.004  # a look costs 25 µs
_BLOCK = 2**18  # bytes
_BLOCKS_OF_ROW = 4  # that a row of a few columns lies in, at most: a row group has its columns one after the other
_BLOCKS_OF_KEY = 3  # of an index, that a key is found by: its first levels are the same for all
_ENTRY = 24  # bytes of a row in an index
_CHANGED = 32  # of one, while it changes
# of a prediction that is deleted, alone in its row groups: each of both keeps one until a checkpoint, for what is known
# of its rows, and their keys leave two of each index
_BLOCKS_OF_DELETED = 6
_MADE = 56  # bytes of a row while all of an index is made
_PART = 2  # indexes may take one of so many parts of the memory from one statement to the next
_PART_OF_ROWS = 3  # and the blocks of the rows that one statement looks up, one of so many
_LEAST_ROWS = 8  # that are looked up at once, however little memory there is
_USES = 16  # of the file, from one look at what indexes take to the next
_WRITTEN = 2**28  # bytes, at least, since the file was attached
_PART_WRITTEN = 8  # and of the file one of so many parts: the larger it is, the longer it takes to attach it
_ROWS = """SELECT coalesce(sum(estimated_size), 0) FROM duckdb_tables()
WHERE database_name = 'store' AND table_name IN ('predictions', 'prediction_values')"""
_TAKEN = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'ART_INDEX'"


class IndexedAttachment(Attachment):
    """One file, attached or not, and the memory that DuckDB takes for it."""

    _little_memory: int | None = None  # bytes, while DuckDB takes less than `memory_limit`
    _looked_at = 0  # uses of the file, when it was last looked at what indexes take
    _more = 0  # bytes that DuckDB may take beside `memory_limit`, until its transaction has ended
    _new_keys = 0  # of both tables, in the open transaction
    _size = 0  # of the file, when it was attached

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refused = Pace()  # of a disk that has refused to let the file be attached anew

    def use_memory(self, nbytes: int | None) -> None:
        """From now on DuckDB takes so many bytes for this file; None: as before."""
        if nbytes is None:
            return
        with self.lock:
            self.take_back()
            try:
                if self._connection is not None:
                    client.use_memory(self._connection, nbytes)
            except duckdb.Error as error:
                raise self._translated(error) from error
            self.memory_limit = nbytes

    def rows_to_look_up(self, nbytes: int, rows: int) -> int:
        """How many rows of about so many bytes, of a table with `rows`, an index may give at once: DuckDB holds the
        blocks of each until the end of the statement, and they can lie anywhere.
        """
        blocks = _BLOCKS_OF_ROW + (0 if self.index_fits(rows) else _BLOCKS_OF_KEY)
        return max(_LEAST_ROWS, self._memory // _PART_OF_ROWS // (blocks * _BLOCK + nbytes))

    def index_fits(self, rows: int) -> bool:
        """Whether the index of a table with so many rows can stay in memory."""
        return rows * _ENTRY <= self._memory // _PART

    def begin_anew_if_due(self) -> None:
        """`begin_anew` if what DuckDB has read of indexes is more than their part, or if what it has written is much.
        Nothing happens inside a transaction, or soon after the disk has refused it.
        """
        with self.held():
            if self._depth or not self.attached or self._refused.seconds > 0:
                return
            if self._made_room or self._has_written_much or self._indexes_take_much():
                self.begin_anew()

    def _indexes_take_much(self) -> bool:
        if not self.indexes_may_take_much:
            return False
        with self._use(self._attached_read_only) as connection:
            ((taken,),) = connection.execute(_TAKEN).fetchall()
        return bool(taken > self._memory // _PART)

    @property
    def _has_written_much(self) -> bool:
        size = self._file_size()
        return max(self._inserted, size - self._size) >= max(_WRITTEN, size // _PART_WRITTEN)

    def rows_to_delete(self) -> int:
        """How many predictions, wherever they lie, one transaction may delete within the memory."""
        return max(_LEAST_ROWS, self._memory // _PART // (_BLOCKS_OF_DELETED * _BLOCK))

    def make_room(self, row_groups: int) -> None:
        """The open transaction deletes predictions of so many row groups. Where that may be too many for the memory,
        DuckDB may take as much more until it has ended: at the commit it would fail for good.
        """
        if row_groups > self.rows_to_delete() and self.indexes_may_take_much:
            with self._use() as connection:
                ((rows,),) = connection.execute(_ROWS).fetchall()
            indexes = min(int(rows) * _CHANGED, row_groups * 2 * _BLOCKS_OF_KEY * _BLOCK)
            self._take_more(row_groups * 2 * _BLOCK + indexes)

    def add_keys(self, rows: int) -> None:
        """The open transaction writes so many rows of either table: DuckDB puts their keys into its index at the
        commit.
        """
        self._new_keys += rows
        if self._new_keys * _CHANGED > self._memory // _PART:
            self._take_more(0)

    def _take_more(self, nbytes: int) -> None:
        if (nbytes := nbytes + self._new_keys * _CHANGED) > self._more:
            with self._use() as connection:
                client.limit_memory(connection, self.memory_limit + nbytes)
            self._more = nbytes

    def with_room(self, work: Callable[[], Result]) -> Result:
        """What `work` gives. Where that is refused for want of memory, and not inside a transaction, it is done once
        more with the file attached anew: DuckDB keeps what it has read of indexes, and of each row group that has
        changed a block for each column of text and one for its deletions, until a checkpoint or a detach.
        """
        try:
            return work()
        except MemoryLimitError:
            if self._depth or not self.attached:
                raise
            self.begin_anew()
            return work()

    def begin_anew(self) -> None:
        """Attach the file anew: all that reads and transactions have left in memory goes; the turn stays ours. A disk
        that takes nothing keeps nobody from that.
        """
        with self.held():
            read_only, kept, self._keeps_turn = self._attached_read_only, self._keeps_turn, True
            inserted, self._inserted = self._inserted, 0  # no row moves to another position: some may be known
            began = time.monotonic()
            try:
                try:
                    self.detach()
                except StoreUnavailableError:  # what is not in the file stays in its log, which is read again
                    self._refused.took(time.monotonic() - began)
                with self._use(read_only):
                    self._inserted = inserted if inserted < _WRITTEN else 0
            finally:
                self._keeps_turn = kept
                if not self.attached:
                    self._let_go()

    @contextmanager
    def making_indexes(self) -> Iterator[None]:
        """Indexes are made anew in the block, and detached, or written by a checkpoint, before its end: DuckDB takes as
        much memory as they need.
        """
        with self._use() as connection:
            ((rows,),) = connection.execute(_ROWS).fetchall()
            client.limit_memory(connection, self.memory_limit + int(rows) * _MADE)
            try:
                yield
            finally:
                if self._connection is connection:
                    client.limit_memory(connection, self.memory_limit)

    def yield_turn(self) -> None:
        """Between calls: detach if another process waits and this one has had its turn, and now and then
        `begin_anew_if_due`; looks rarely enough to cost nothing.
        """
        if ((now := time.monotonic()) < self._look_at and not self._more) or self._depth or self.is_lent:
            return
        self._look_at = now + _LOOK_SECONDS
        if self._turnstile is not None and self._turnstile.is_awaited():
            self.detach()
        elif (self._made_room or self.uses - self._looked_at >= _USES) and self.attached:
            self._looked_at = self.uses
            self.begin_anew_if_due()

    @property
    def _made_room(self) -> bool:
        """Whether DuckDB may take more than `memory_limit`, and need not once the file is attached anew: one that is
        only read keeps the log that a crash has left.
        """
        return self._more > 0 and self.is_writable

    def _attached_now(self, read_only: bool, is_late: bool) -> None:
        """As any attachment; the log of a killed writer has room for all that its transactions had room for."""
        self._size = self._file_size()
        if self.indexes_may_take_much and self._has_log():
            connection = self._connection = self._connection or client.connected(self.memory_limit, self.spill_folder())
            self._more = self._file_size()
            client.limit_memory(connection, self.memory_limit + self._more)
        super()._attached_now(read_only, is_late)

    @property
    def indexes_may_take_much(self) -> bool:
        """Whether the file is so large that they may; they take less than a third of it."""
        return self._file_size() > self._memory // 2

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process has a turn at the file during the block, whether it is attached or not."""
        with self.held():
            self.detach()
            if not self._wait_for_turn(time.monotonic() + self.lock_timeout, shared=False):
                raise StoreLockedError(self.path, None)
            self._keeps_turn = True
            try:
                yield
            finally:
                self._keeps_turn = False
                if not self.attached:
                    self._let_go()

    def _has_log(self) -> bool:
        try:
            return client.log_size(self.path) > 0
        except OSError:  # it cannot be looked at: DuckDB, which needs it, tells
            return False

    def _file_size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:  # it was taken away: what needs it tells
            return 0

    def _let_go(self) -> None:
        super()._let_go()
        if self._more and self._connection is not None:
            client.limit_memory(self._connection, self.memory_limit)
        self._more = 0

    @property
    def _memory(self) -> int:
        return self._little_memory or self.memory_limit
