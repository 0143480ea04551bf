"""The journals: small flushes made durable beside the store file, put into its tables later in bulk.

DuckDB logs the list data of a whole vector again at each small commit: 33 ms for 21 predictions,
against 0.4 ms for one write and one fdatasync here. Each process appends to a journal of its own
and so needs no turn at the store file for a flush. A flush is one frame. The table `journals`
tells, by journal, the number of the last frame that is in the tables; the transaction that puts
frames there raises it, so a crash at any moment neither loses nor doubles a row. Any process that
has the file attached may place the frames of all of them. Frames that are placed are overwritten
from the start; a process that ends takes its journal along, and a killed one's goes with the next
that comes: the lock on a journal tells whether its process is alive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.durable.sync import sync
from n4a_fast.engine.connection import Database
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.log import record
from n4a_fast.platform import FileLock
from n4a_fast.values.ids import uuid7

_READ = "SELECT journal, placed FROM journals UNION ALL SELECT run_id, NULL FROM deleted_runs"
_FORGET_PLACED = "DELETE FROM journals WHERE list_contains(?, journal)"
_SET_PLACED = "INSERT INTO journals SELECT unnest(?), unnest(?)"


class Waiting(NamedTuple):
    """Frames of another process that are not in the tables."""

    path: Path
    contents: Sequence[bytes]
    last: int
    is_dead: bool  # nothing can have been added since


class Journal:
    """This process's frames, and the view of the others'."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._prefix = database.path.name + ".journal-"
        self.path = self._new_path()
        self._descriptor: int | None = None
        self._lock = FileLock(self.path)
        self._attachment = -1  # of the database, when the table was last read
        self._known: dict[str, int] = {}  # the table: by journal, the number of the last frame that is placed
        self.deleted_runs: frozenset[str] = frozenset()
        self._last = self._placed = self._end = (
            0  # number of the last frame; of the last in the tables; where the next one goes
        )
        self._is_new = True  # nothing of it was placed by this process

    @property
    def is_empty(self) -> bool:
        """Whether every frame of this process is in the tables, as far as known."""
        return self._last == self._placed

    @property
    def is_current(self) -> bool:
        """Whether nobody else can have used the file since the last notice was taken."""
        return self._attachment == self._database.attachment

    def refresh(self) -> list[bytes] | None:
        """On each new attachment, once: if others have placed frames of this process, those that still wait; None
        otherwise.
        """
        self._database.attach()
        if self.is_current:
            return None
        rows = self._database.rows_undrained(_READ)
        self._known = {name: placed for name, placed in rows if placed is not None}
        self.deleted_runs = frozenset(name for name, placed in rows if placed is None)
        self._attachment = self._database.attachment
        placed = self._known.get(self.path.name, 0)
        if placed <= self._placed:
            return None
        self._placed = placed
        if self.is_empty:
            self._end = 0
        return [frame.content for frame in record.read_after(self.path, placed, complete=True)]

    def others_waiting(self) -> list[Waiting]:
        """The frames of other processes that are not in the tables; the caller has refreshed.

        Who may not write here leaves the living to put theirs in place.
        """
        found = []
        may_write = platform.is_writable_folder(self.path.parent)
        for path in self._others():
            is_dead = _with_lock(path, lambda: None, shared=True)
            waiting = record.read_after(path, self._known.get(path.name, 0), complete=is_dead)
            if waiting and (may_write or is_dead):
                found.append(Waiting(path, [frame.content for frame in waiting], waiting[-1].number, is_dead))
            elif not waiting and is_dead and not self._database.read_only:
                _remove_if_dead(path)
        return found

    def writers(self) -> list[tuple[int, bool, int]]:
        """Of each journal, oldest first: process id, whether it runs, how many of its frames are not in the tables; the
        caller has refreshed.
        """
        found = []
        for path in sorted(self.path.parent.glob(self._prefix + "*")):
            waiting = record.read_after(path, self._known.get(path.name, 0), complete=False)
            is_alive = path == self.path or not _with_lock(path, lambda: None, shared=True)
            found.append((int(path.name.rpartition("-")[2]), is_alive, len(waiting)))
        return found

    def append(self, content: bytes) -> None:
        """Make a frame durable."""
        frame = record.encoded(self._last + 1, content)
        try:
            descriptor = self._opened()
            platform.write_at(descriptor, frame, self._end)
            platform.sync_data(descriptor)
        except OSError as error:
            self._revoke()
            raise StoreUnavailableError(self.path, error.strerror or str(error)) from error
        self._last, self._end = self._last + 1, self._end + len(frame)

    def place_in_transaction(self, others: Sequence[Waiting] = ()) -> None:
        """Note, with the caller's writes, that all frames of this process and those of `others` are in the tables;
        `rewind` follows the commit.
        """
        placed = {waiting.path.name: waiting.last for waiting in others}
        if not self.is_empty:
            placed[self.path.name] = self._last
            if self._is_new:
                self._forget_gone_in_transaction()
        if placed:
            self._database.execute(_FORGET_PLACED, (list(placed),))
            self._database.execute(_SET_PLACED, (list(placed), list(placed.values())))

    def rewind(self, others: Sequence[Waiting] = ()) -> None:
        """The transaction has committed: the next frame overwrites the first, and journals of killed processes go."""
        if not self.is_empty:
            self._is_new = False
            self._known[self.path.name] = self._last
        self._placed, self._end = self._last, 0
        for waiting in others:
            self._known[waiting.path.name] = waiting.last
            if waiting.is_dead:
                _remove_if_dead(waiting.path)

    def close(self) -> None:
        """Remove the file when all its frames are in the tables."""
        if self._descriptor is not None and self.is_empty:
            self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Start a new journal with the next frame; the old one is another's, or gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._lock.forget_after_fork()
        self._descriptor, self._attachment, self.path = None, -1, self._new_path()
        self._last = self._placed = self._end = 0
        self._is_new = True

    def _forget_gone_in_transaction(self) -> None:
        """Noted journals were there when their number was, so what is not there now has gone for good."""
        gone = [name for name in self._known if name != self.path.name and not self.path.with_name(name).exists()]
        if gone:
            sync(self.path.parent)  # or a power loss would bring them back, and nobody knew that they are placed
            self._database.execute(_FORGET_PLACED, (gone,))

    def _new_path(self) -> Path:
        return self._database.path.with_name(f"{self._prefix}{uuid7()}-{os.getpid()}")

    def _others(self) -> Iterator[Path]:
        folder = self.path.parent
        return (
            folder / name
            for name in sorted(os.listdir(folder))
            if name.startswith(self._prefix) and name != self.path.name
        )

    def _opened(self) -> int:
        """The journal, locked for as long as this process lives; made with the first frame."""
        while self._descriptor is None:
            descriptor = platform.open_regular(self.path, os.O_RDWR | os.O_CREAT)
            self._lock = FileLock(self.path)
            with suppress(OSError):  # without locks on this disk, nobody takes it for a dead one's
                self._lock.acquire()
            if os.fstat(descriptor).st_nlink == 0:  # taken for a killed one's before it was locked
                os.close(descriptor)
                self._lock.close()
                continue
            self._descriptor = descriptor
            sync(self.path.parent)
        return self._descriptor

    def _revoke(self) -> None:
        """A frame that was refused must not turn up after a crash: what it says may be saved again, or deleted."""
        try:
            if self._descriptor is not None:
                platform.write_at(self._descriptor, bytes(record.HEADER_SIZE), self._end)
        except OSError:
            pass  # nothing of it was written then, or the disk is gone with all it holds


def _remove_if_dead(path: Path) -> None:
    _with_lock(path, lambda: path.unlink(missing_ok=True), shared=False)


def _with_lock(path: Path, action: Callable[[], object], *, shared: bool) -> bool:
    """Do `action` if the journal is there and its process is not; whether it was done."""
    lock = FileLock(path)
    try:
        if not lock.acquire(0.0, shared=shared):
            return False
        action()
    except OSError:
        return False
    finally:
        lock.close()
    return True
