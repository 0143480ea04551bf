"""Who lives: one file with one held lock for each process and workspace, and what hangs from it.

A session is alive while its file is there and locked. The kernel lets go of the lock when the process ends, however it
ends; process ids, host names and clocks decide nothing, so containers may share a folder. The log segment of a process
is named after its session, artifacts are held in its name, and what its saves are about to use is noted in its file.
Process id and host stand there too, for people to read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.errors import DiskWithoutLocksError, StoreUnavailableError
from n4a_fast.platform import FileLock, LocksUnsupportedError
from n4a_fast.values.ids import uuid7

ID = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_ID = re.compile(ID)
_MARK = ".session-"
_SPILL = ".spill-"  # a folder for what does not fit into memory


class Holder(NamedTuple):
    """The process of a session as it wrote of itself; nothing is concluded from it."""

    pid: int
    host: str


class Session:
    """This process's own session in one workspace, begun with its first use, and its view of the others'."""

    def __init__(self, store: Path) -> None:
        self._store, self._prefix = store, store.name + _MARK
        self._lock: FileLock | None = None
        self._file, self._start, self._end = -1, 0, 0  # its descriptor, and where the notes begin and end
        self._is_torn = False  # behind the notes is what a refused write has left
        self._id = ""

    @property
    def id(self) -> str:
        """The name of this session, which no other one ever has; it is alive from now on."""
        if self._lock is None:
            self.begin()
        return self._id

    @property
    def spill(self) -> Path:
        """The folder of this session for what does not fit into memory; who uses it makes and removes it."""
        return self._store.with_name(self._store.name + _SPILL + self.id)

    def begin(self) -> None:
        """Be alive; DiskWithoutLocksError where nobody could tell."""
        while self._lock is None:
            name = uuid7()
            path = self._path_of(name)
            try:
                descriptor = platform.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except OSError as error:
                raise StoreUnavailableError(path.parent, error.strerror or str(error)) from error
            lock = FileLock(path)
            try:
                is_ours = _is_taken(lock)  # or it was taken for a dead one's before it was locked
                head = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n"
                platform.write_at(descriptor, head, 0)
            except BaseException:
                _discard(descriptor, lock)
                raise
            if is_ours:
                self._lock, self._file, self._id = lock, descriptor, name
                self._start = self._end = len(head)
            else:
                _discard(descriptor, lock)

    def end(self, *, leaves_log: bool = False) -> None:
        """This process has nothing here any more, but perhaps a log: then the file stays to tell people whose it is."""
        if self._lock is not None and leaves_log:
            os.close(self._file)
            self._lock.close()
        elif self._lock is not None:
            _discard(self._file, self._lock)
        self._lock, self._file = None, -1

    def forget_after_fork(self) -> None:
        """In a forked child: the session is its parent's."""
        if self._lock is not None:
            self._lock.forget_after_fork()
            os.close(self._file)
        self._lock, self._file = None, -1

    def is_gone(self) -> bool:
        """Whether the folder of this session was removed with everything in it; False when it was only renamed."""
        return self._lock is None or os.fstat(self._file).st_nlink == 0

    def note(self, line: bytes) -> None:
        """Write lines that others may read for as long as this session lives, and does not take them back."""
        self.id  # noqa: B018  # begun
        if self._is_torn:
            os.ftruncate(self._file, self._end)
        self._is_torn = True
        platform.write_at(self._file, line, self._end)
        self._is_torn, self._end = False, self._end + len(line)

    def take_back_notes(self) -> None:
        if self._lock is not None:
            os.ftruncate(self._file, self._start)
            self._is_torn, self._end = False, self._start

    # -- others ----------------------------------------------------------------------------

    def is_alive(self, session: str) -> bool:
        """Whether the process of a session, this one's included, still runs; one that cannot be asked counts as
        alive.
        """
        if _ID.fullmatch(session) is None:
            return False  # written by a release that named processes, not locks
        if session == self._id and self._lock is not None:
            return True
        lock = FileLock(self._path_of(session))
        try:
            return not lock.acquire(0.0, shared=True)
        except FileNotFoundError:
            return False
        except OSError:  # another user's
            return True
        finally:
            lock.close()

    def holder_of(self, session: str) -> Holder | None:
        """Who a session says it is, if it still says anything."""
        try:
            head = json.loads(_content(self._path_of(session)).partition(b"\n")[0])
            return Holder(int(head["pid"]), str(head["host"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def notes_of_the_living(self) -> Iterator[bytes]:
        """What every living session has noted, by line; StoreUnavailableError for one that may not be read."""
        for session in self.listed():
            if self.is_alive(session):
                path = self._path_of(session)
                try:
                    # what follows the last end of a line is of a write that was refused
                    yield from _content(path).rpartition(b"\n")[0].split(b"\n")[1:]
                except FileNotFoundError:
                    continue  # it ended just now, and notes nothing any more
                except OSError as error:
                    raise StoreUnavailableError(
                        path, error.strerror or str(error), "run this as a user who may read it"
                    ) from error

    def listed(self) -> list[str]:
        """All sessions that have a file, dead or alive, oldest first."""
        return self._listed(self._prefix)

    def _listed(self, prefix: str) -> list[str]:
        """The sessions after which something in the folder is named."""
        found = (name.removeprefix(prefix) for name in os.listdir(self._store.parent) if name.startswith(prefix))
        return sorted(name for name in found if _ID.fullmatch(name))

    def dead(self, needed: Iterable[str]) -> list[Path]:
        """The files of dead sessions, but for those whose log is still to be applied."""
        others = set(self.listed()).difference(needed, (self._id,))
        return [self._path_of(session) for session in sorted(others) if not self.is_alive(session)]

    def remove_dead(self, needed: Iterable[str]) -> None:
        """Take the files of dead sessions away, but for those whose log is still to be applied."""
        with suppress(OSError):  # another user's: it harms nobody
            platform.finish_removals(self._store.parent)
        for session in self._listed(self._store.name + _SPILL):
            if not self.is_alive(session):
                shutil.rmtree(self._store.with_name(self._store.name + _SPILL + session), ignore_errors=True)
        for session in set(self.listed()).difference(needed, (self._id,)):
            lock = FileLock(self._path_of(session))
            try:
                if lock.acquire(0.0):
                    platform.remove(lock.path)
            except OSError:
                pass  # gone, or another user's: it harms nobody
            finally:
                lock.close()

    def _path_of(self, session: str) -> Path:
        return self._store.with_name(self._prefix + session)


def _content(path: Path) -> bytes:
    """What a file says that its owner may remove at this moment."""
    with open(platform.open_regular(path), "rb") as file:
        return file.read()


def _is_taken(lock: FileLock) -> bool:
    """Lock a session's file; whether it is still there."""
    try:
        lock.acquire()  # waits for those who are just asking whether it is free
        return lock.is_this_file()
    except FileNotFoundError:
        return False
    except LocksUnsupportedError as error:
        raise DiskWithoutLocksError(lock.path.parent, platform.mount_point(lock.path.parent)) from error


def _discard(descriptor: int, lock: FileLock) -> None:
    """Take a session's file away, whose name may mean another one by now, and close what is open of it."""
    try:
        if os.fstat(descriptor).st_nlink and platform.identity(lock.path) == platform.identity_of(descriptor):
            platform.remove(lock.path)
    except OSError:
        pass  # the folder was renamed, or is gone
    os.close(descriptor)
    lock.close()
