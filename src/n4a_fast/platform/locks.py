"""Locks on files and folders, between processes: the kernel's, which are gone with the process that held them.

A `FileLock` has a descriptor of its own, so no other use of the file gives its lock away, and it is held once: a lock
that is held is neither taken again nor changed from shared to exclusive.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from n4a_fast.platform.choice import system
from n4a_fast.platform.interrupts import start

_POLL_SECONDS = 0.01


class LocksUnsupportedError(OSError):
    """The disk of this path has no locks."""


class FileLock:
    """The lock of a path that exists; not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self.is_held = False
        self._pid = os.getpid()  # a forked child has a copy of the descriptor, and the lock is not its to let go

    def acquire(self, timeout: float | None = None, *, shared: bool = False) -> bool:
        """Whether the lock could be had within `timeout` seconds; None waits for as long as it takes.

        LocksUnsupportedError where the disk has none; another OSError when the path cannot be opened.
        """
        assert not self.is_held, f"{self.path} is locked already"
        try:
            if self._descriptor is None:
                self._descriptor = system.open_to_lock(self.path)
            if not system.try_lock(self._descriptor, shared=shared):
                self.is_held = (timeout is None or timeout > 0) and self._wait(timeout, shared)
                return self.is_held
        except OSError as error:
            if system.has_no_locks(error):
                raise LocksUnsupportedError(error.errno, error.strerror, str(self.path)) from error
            raise
        self.is_held = True
        return True

    def release(self) -> None:
        """Let go of the lock; nothing when it is not held."""
        was_held, self.is_held = self.is_held, False  # before an interrupt that comes with the end of the unlocking
        if was_held and self._descriptor is not None and self._pid == os.getpid():
            system.unlock(self._descriptor)

    def is_this_file(self) -> bool:
        """Whether the path still means the file that is open here."""
        assert self._descriptor is not None
        with suppress(FileNotFoundError):
            return system.identity(system.lock_file(self.path)) == system.identity_of(self._descriptor)
        return False

    def close(self) -> None:
        """Let go of the lock, and of the file."""
        if self._descriptor is not None:
            with suppress(OSError):  # a disk that is gone
                self.release()
            os.close(self._descriptor)
        self._descriptor, self.is_held = None, False

    def remove_folder(self) -> None:
        """Remove the folder that is locked here with what is in it, as far as others let it go, then let go."""
        own = os.fspath(system.lock_file(self.path))
        with suppress(OSError):
            for name in os.listdir(self.path):
                if (path := os.path.join(self.path, name)) != own:
                    _remove(path)
            with suppress(FileNotFoundError):
                system.take_lock_out(self.path)
            os.rmdir(self.path)  # never a lock that another process made here meanwhile
        self.close()

    def forget_after_fork(self) -> None:
        """In a forked child: the lock is its parent's, and stays there."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.is_held, self._pid = None, False, os.getpid()

    def _wait(self, timeout: float | None, shared: bool) -> bool:
        """Without a limit, here; with one, in a thread, on a descriptor that becomes ours or is given up with the wait:
        the system's call has no timeout.
        """
        if timeout is None:
            assert self._descriptor is not None
            system.wait_for_lock(self._descriptor, shared=shared)
            return True
        wait = _Wait(self.path, shared)
        try:
            if start(wait):
                wait.join(timeout)
            else:
                wait.poll(timeout)
        finally:
            descriptor = wait.result_or_give_up()
        if descriptor is None:
            return False
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor
        return True


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


class _Wait(threading.Thread):
    """Waits for a lock; a result that nobody wants any more is released at once."""

    def __init__(self, path: Path, shared: bool) -> None:
        super().__init__(name="n4a_fast-turn", daemon=True)
        self._shared = shared
        self._descriptor = system.open_to_lock(path)
        self._state = threading.Lock()
        self._acquired = self._given_up = False

    def run(self) -> None:
        try:
            system.wait_for_lock(self._descriptor, shared=self._shared)
        except OSError:  # the one who waits is told by its timeout
            os.close(self._descriptor)
            return
        with self._state:
            self._acquired = True
            if self._given_up:
                self._close()

    def poll(self, seconds: float) -> None:
        """Where no thread can be started: try until it is there, without a place in the queue."""
        end = time.monotonic() + seconds
        try:
            while not self._acquired and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
                self._acquired = system.try_lock(self._descriptor, shared=self._shared)
        finally:
            if not self._acquired:
                os.close(self._descriptor)

    def result_or_give_up(self) -> int | None:
        """The locked descriptor; None, and none will be kept, if the lock is not there yet."""
        with self._state:
            self._given_up = not self._acquired
            return self._descriptor if self._acquired else None

    def _close(self) -> None:
        system.unlock(self._descriptor)  # a forked child may hold a copy of the descriptor
        os.close(self._descriptor)
