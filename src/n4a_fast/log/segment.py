"""This process's segment of the log: one file, to which it alone writes, named after its session.

An append is one write and one sync; it is acknowledged after both, and after the folder was synced once the name is
new. What was refused is void: it does not turn up after a crash. Another process may have put it into the tables
meanwhile, under its number, so no other record gets that one: it stays that of a record without content, which takes
the place. `rewind` follows the commit that has put all records into the tables: the next record overwrites the first.
Where a seal was set, records that came after it may wait while those before it are in the tables: they move to the
begin, so the file is as long as some drains take it, however long a sweep lasts.

A record that makes the file longer takes zeros with it, so that the next ones lie in bytes that the disk has already:
a sync then writes no length and no place of new blocks (0.8 ms instead of 1.5 for the two records of a pipeline of
nirs4all). Zeros are no record; a reader stops there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from n4a_fast import platform
from n4a_fast.log import record

_ROOM = 3  # times what is moved: a quarter more is written at most
_AHEAD_AT_MOST = 2**20  # bytes of zeros; a short log gets as many as it is long


class Segment:
    """The file, made with its first record."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._descriptor: int | None = None
        self._has_lasting_name = False
        self.last = 0  # number of the last record
        self._begin = self._end = 0  # where it begins, and where the next one goes
        self._void = self._void_before = b""  # records without content that go before the next one, and before the last
        self._seal = self._sealed = 0  # where the seal is, 0 without one, and the number of the last record before it
        self._length = 0  # of the file

    def open(self, path: Path) -> None:
        """Make the file; there is none yet."""
        self._descriptor = platform.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.path = path

    def append(self, content: bytes, schema: int, store_id: str) -> None:
        """Make one more record durable; an OSError leaves it void, and the next one tries everything again."""
        assert self._descriptor is not None
        assert self.path is not None
        self.last += 1
        data = self._void + record.encoded(self.last, content, schema, store_id)
        try:
            self._write(data)
            platform.sync_data(self._descriptor)
            if not self._has_lasting_name:
                platform.sync_path(self.path.parent)
                self._has_lasting_name = True
        except BaseException:
            self._make_void(schema, store_id)
            raise
        self._begin, self._end = self._end, self._end + len(data)
        self._void_before, self._void = self._void, b""

    def take_back(self, schema: int, store_id: str) -> None:
        """The record that was just appended is void: it must not be acknowledged."""
        self._end, self._void = self._begin, self._void_before
        self._make_void(schema, store_id)

    def is_here(self) -> bool:
        """Whether the file still has its name; a segment without one is."""
        if self._descriptor is None or self.path is None:
            return True
        with suppress(OSError):
            return platform.identity(self.path) == platform.identity_of(self._descriptor)
        return False

    def rewind(self) -> None:
        """All records are in the tables, durably."""
        self._end = self._seal = 0

    def seal(self) -> int:
        """What is appended from now on may outlive what is there; the number of the last record."""
        self._seal, self._sealed = self._end, self.last
        return self.last

    def unseal(self) -> None:
        """What is there is needed still."""
        self._seal = 0

    def rewind_to_seal(self, schema: int, store_id: str) -> None:
        """The records before the seal are in the tables, durably. Those behind it move to the begin where there is room
        for many times as much; until they are there a hop leads to where they were, and an OSError leaves them there.
        """
        behind = self._end - self._seal
        if self._descriptor is None or not self._seal or _ROOM * behind > self._seal:
            return
        there, here = (
            record.hop(self._sealed, place - record.HEADER_SIZE, schema, store_id)
            for place in (self._seal, record.HEADER_SIZE)
        )
        with suppress(OSError):
            self._put(there, 0)
            self._put(platform.read_at(self._descriptor, behind, self._seal), record.HEADER_SIZE)
            try:
                self._put(here, 0)
            except OSError:
                platform.write_at(self._descriptor, there, 0)
                raise
            self._end, self._seal = record.HEADER_SIZE + behind, 0

    def _put(self, data: bytes, offset: int) -> None:
        assert self._descriptor is not None
        platform.write_at(self._descriptor, data, offset)
        platform.sync_data(self._descriptor)

    def remove(self) -> None:
        """Take the file away: all its records are in the tables, durably."""
        if self._descriptor is not None and self.path is not None and self.is_here():
            with suppress(OSError):  # whoever comes next removes it: the tables tell that its records are there
                platform.remove(self.path)
        self.close()

    def close(self) -> None:
        """Leave the file as it is to whoever comes next; the next record begins a new one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.path, self._has_lasting_name = None, None, False
        self.last = self._begin = self._end = self._length = self._seal = self._sealed = 0
        self._void = self._void_before = b""

    def _write(self, data: bytes) -> None:
        """Write a record to the end, with zeros behind it where the file becomes longer and the disk has room; behind a
        seal few records follow.
        """
        assert self._descriptor is not None
        end = self._end + len(data)
        ahead = min(self._length, _AHEAD_AT_MOST) if end > self._length and not self._seal else 0
        if ahead:
            try:
                platform.write_at(self._descriptor, data + bytes(ahead), self._end)
            except OSError:
                ahead = 0
        if not ahead:
            platform.write_at(self._descriptor, data, self._end)
        self._length = max(self._length, end + ahead)

    def _make_void(self, schema: int, store_id: str) -> None:
        """What the refused record says may be saved again, or deleted: it must not be found after a crash."""
        assert self._descriptor is not None
        self._void += record.encoded(self.last, b"", schema, store_id)
        try:
            self._put(self._void, self._end)
        except OSError:
            pass  # nothing of it was written then, or the disk is gone with all it holds
