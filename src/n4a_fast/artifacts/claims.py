"""What running saves are about to use, told to collections in other processes before any row says so.

A save knows that a file exists long before its flush: another process must not collect it in between. So each process
first notes ids and file names in the file of its session and only then looks at the files; the note goes once a flush
has committed holds and chains. A collection locks this from its decision to its last unlink: a claim is made before,
and is heeded, or after, and then its save sees that the file is gone. A lock orders the two, and is an object of its
own: a save of the process that collects does not let go of it. Notes of sessions that have ended count for nothing.
Nobody waits for the database with the lock in hand, except the collection that has both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from n4a_fast import platform
from n4a_fast.durable.sync import disk_errors_told
from n4a_fast.engine.session import Session
from n4a_fast.errors import StoreLockedError
from n4a_fast.platform import FileLock

SAVING = ".saving"
_LOCK = "lock"
_PATIENCE_SECONDS = 30.0  # for a collection of another process, which may lie in a long transaction


class Claims:
    """The claims of this process, and a collection's view of everyone's."""

    def __init__(self, folder: Path, session: Session) -> None:
        self._folder, self._session = folder, session
        self._own: set[str] = set()
        self._pid = self._witness = -1
        self._lock = FileLock(folder / _LOCK)

    def claim(self, *names: str) -> None:
        """Until `release`, no collection takes what has one of these ids or file names."""
        new = [name for name in names if name not in self._own]
        if not new and self._pid == os.getpid():
            return
        self._open()
        with disk_errors_told(self._folder), self._sharing():
            self._session.note(b"".join(orjson.dumps(name) + b"\n" for name in new))
        self._own.update(new)

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """No collection of another process decides meanwhile; a collection of this one goes on having the lock."""
        if self._lock.is_held:
            yield
            return
        self._take(shared=True)
        try:
            yield
        finally:
            self._lock.release()

    def __len__(self) -> int:
        """How many names this process claims."""
        return len(self._own)

    @property
    def descriptor(self) -> int:
        """A file of this folder that is open since before the first claim of this process."""
        self._open()
        return self._witness

    def release(self) -> None:
        """The database tells now what is in use."""
        if self._own and self._pid == os.getpid():
            with suppress(OSError):  # what stays noted is spared by collections until this process ends
                self._session.take_back_notes()
        self._own.clear()

    def close(self) -> None:
        """Claim nothing, and keep nothing open."""
        if self._pid == os.getpid():
            self._lock.close()
            os.close(self._witness)
        self._own.clear()
        self._pid = -1

    def lock(self) -> frozenset[str]:
        """What live processes claim; from now until `unlock` none can claim anything more."""
        self._open()
        with disk_errors_told(self._folder):
            if not self._lock.is_held:
                self._take(shared=False)
        return frozenset(map(orjson.loads, self._session.notes_of_the_living()))

    def unlock(self) -> None:
        """Let other processes go on; nothing when they can already."""
        if self._pid == os.getpid():
            self._lock.release()

    def _take(self, *, shared: bool) -> None:
        if not self._lock.acquire(_PATIENCE_SECONDS, shared=shared):
            raise StoreLockedError(self._lock.path, None)

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        with disk_errors_told(self._folder):
            self._folder.mkdir(exist_ok=True)
            self._lock.forget_after_fork()  # a forked child needs a lock of its own
            self._witness = platform.open_regular(self._folder / _LOCK, os.O_RDWR | os.O_CREAT)
        self._pid = os.getpid()
        self._own.clear()
