"""An attachment whose indexes take a part of DuckDB's memory, and no more.

DuckDB keeps each block of an index that it has read, and takes it for no other use, until the file is detached: ten
million predictions and their arrays take 480 MB. So a file whose indexes may fill the memory is attached anew, between
statements, when they have taken a part of it; where an index does not fit, fewer rows are looked up at once. Only what
makes an index anew, or writes all over it in one transaction, needs it in memory as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from n4a_fast.engine.connection import client
from n4a_fast.engine.connection.attachment import Attachment
from n4a_fast.errors import StoreLockedError

_LOOK_SECONDS = 0.004  # a look costs 25 µs
_BLOCK = 2**18  # bytes
_BLOCKS_OF_ROW = 4  # that a row of a few columns lies in, at most: a row group has its columns one after the other
_BLOCKS_OF_KEY = 3  # of an index, that a key is found by: its first levels are the same for all
_ENTRY = 24  # bytes of a row in an index
_MADE = 56  # bytes of a row while all of an index is made
_PART = 2  # indexes may take one of so many parts of the memory from one statement to the next
_PART_OF_ROWS = 3  # and the blocks of the rows that one statement looks up, one of so many
_LEAST_ROWS = 8  # that are looked up at once, however little memory there is
_USES = 16  # of the file, from one look at what indexes take to the next
_ROWS = """SELECT coalesce(sum(estimated_size), 0) FROM duckdb_tables()
WHERE database_name = 'store' AND table_name IN ('predictions', 'prediction_values')"""
_TAKEN = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'ART_INDEX'"


class IndexedAttachment(Attachment):
    """One file, attached or not, and the memory that DuckDB takes for it."""

    _little_memory: int | None = None  # bytes, while DuckDB takes less than `memory_limit`
    _looked_at = 0  # uses of the file, when it was last looked at what indexes take

    def rows_to_look_up(self, nbytes: int, rows: int) -> int:
        """How many rows of about so many bytes, of a table with `rows`, an index may give at once: DuckDB holds the
        blocks of each until the end of the statement, and they can lie anywhere.
        """
        blocks = _BLOCKS_OF_ROW + (0 if self.index_fits(rows) else _BLOCKS_OF_KEY)
        return max(_LEAST_ROWS, self._memory // _PART_OF_ROWS // (blocks * _BLOCK + nbytes))

    def index_fits(self, rows: int) -> bool:
        """Whether the index of a table with so many rows can stay in memory."""
        return rows * _ENTRY <= self._memory // _PART

    def forget_indexes(self) -> None:
        """Let DuckDB forget what it has read of indexes, if that is more than their part; the turn stays ours. Nothing
        happens inside a transaction.
        """
        with self.held():
            if self._depth or not self.attached or not self.indexes_may_take_much:
                return
            with self._use(self._attached_read_only) as connection:
                ((taken,),) = connection.execute(_TAKEN).fetchall()
            if taken > self._memory // _PART:
                self._attach_anew()

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
        `forget_indexes`; looks rarely enough to cost nothing.
        """
        if (now := time.monotonic()) < self._look_at or self._depth or self._turnstile is None or self.is_lent:
            return
        self._look_at = now + _LOOK_SECONDS
        if self._turnstile.is_awaited():
            self.detach()
        elif self.uses - self._looked_at >= _USES and self.attached:
            self._looked_at = self.uses
            self.forget_indexes()

    @property
    def indexes_may_take_much(self) -> bool:
        """Whether the file is so large that they may; they take less than a third of it."""
        try:
            return self.path.stat().st_size > self._memory // 2
        except OSError:  # it was taken away: what needs it tells
            return False

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

    def _attach_anew(self) -> None:
        read_only, kept, self._keeps_turn = self._attached_read_only, self._keeps_turn, True
        try:
            self.detach()
            with self._use(read_only):
                pass
        finally:
            self._keeps_turn = kept
            if not self.attached:
                self._let_go()

    @property
    def _memory(self) -> int:
        return self._little_memory or self.memory_limit
