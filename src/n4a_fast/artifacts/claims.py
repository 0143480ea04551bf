"""What running saves are about to use, told to collections in other processes before any row says so.

A save knows that a file exists long before its flush: another process must not collect it in between.
So each process first notes ids and file names in `artifacts/.saving/` and only then looks at the files;
the note goes once a flush has committed holds and chains. A collection locks this from its decision to
its last unlink: a claim is made before, and is heeded, or after, and then its save sees that the file is
gone. `flock` orders the two and ends with a process that is killed; claims of dead processes count for
nothing. Nobody waits for the database with the lock in hand, except the collection that has both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote

import orjson

from n4a_fast.engine.session import is_alive, this_session
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.platform import FileLock

SAVING = ".saving"
_LOCK = "lock"
_NOTE = ".txt"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Claims:
    """The claims of this process, and a collection's view of everyone's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: set[str] = set()
        self._pid = self._note = self._witness = -1
        self._lock = FileLock(folder / _LOCK)

    def claim(self, *names: str) -> None:
        """Until `release`, no collection takes what has one of these ids or file names."""
        new = [name for name in names if name not in self._own]
        if not new and self._pid == os.getpid():
            return
        self._open()
        with self._sharing():
            os.write(self._note, b"".join(orjson.dumps(name) + b"\n" for name in new))
        self._own.update(new)

    @contextmanager
    def _sharing(self) -> Iterator[None]:
        """No collection of another process decides meanwhile; a collection of this one goes on having the lock."""
        if self._lock.is_held:
            yield
            return
        self._lock.acquire(shared=True)
        try:
            yield
        finally:
            self._lock.release()

    @property
    def descriptor(self) -> int:
        """A file of this folder that is open since before the first claim of this process."""
        self._open()
        return self._witness

    def release(self) -> None:
        """The database tells now what is in use."""
        if self._own and self._pid == os.getpid():
            os.ftruncate(self._note, 0)
        self._own.clear()

    def close(self) -> None:
        """Take the note of this process away."""
        if self._pid == os.getpid():
            self._note_of(this_session()).unlink(missing_ok=True)
            self._lock.close()
            os.close(self._note)
            os.close(self._witness)
        self._own.clear()
        self._pid = -1

    def lock(self) -> frozenset[str]:
        """What live processes claim; from now until `unlock` none can claim anything more."""
        self._open()
        if not self._lock.is_held:
            self._lock.acquire()
        return frozenset(self._claimed())

    def unlock(self) -> None:
        """Let other processes go on; nothing when they can already."""
        if self._pid == os.getpid():
            self._lock.release()

    def _claimed(self) -> Iterator[str]:
        for note in self._folder.glob(f"*{_NOTE}"):
            session = unquote(note.name.removesuffix(_NOTE))
            if not is_alive(session):
                note.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):  # a store that was closed just now: it claims nothing any more
                yield from map(orjson.loads, note.read_bytes().splitlines())

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock.forget_after_fork()  # a forked child needs a lock of its own
            self._witness = os.open(self._folder / _LOCK, _FLAGS, 0o666)
            self._note = os.open(self._note_of(this_session()), _FLAGS, 0o666)
        except OSError as error:
            raise StoreUnavailableError(self._folder, error.strerror or str(error)) from error
        self._pid = os.getpid()
        self._own.clear()

    def _note_of(self, session: str) -> Path:
        return self._folder / f"{quote(session, safe='')}{_NOTE}"
