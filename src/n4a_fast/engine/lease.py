"""Whose turn it is with a store file, among processes: two advisory locks that the kernel queues.

The one in turn holds the turn lock for as long as it has the file attached. A process that wants
the file takes the queue lock first and then waits for the turn, so the one in turn sees that
somebody waits, and each leaves the turn to the one that came before it. Readers share a turn.
Waits sleep in the kernel, and the locks of a killed process are gone with it.

It is a courtesy: DuckDB's own lock keeps the file safe. Where `flock` is not to be had, all
processes are let through and meet at that one. The locks are those of two folders that are
there anyway, so a workspace on a read-only disk has its turnstile too, and no file is left behind.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path


class Turnstile:
    """One process's place at the turnstile of a file; not for several threads at once."""

    def __init__(self, turn: Path, queue: Path) -> None:
        self._turn, self._queue = _Lock(turn), _Lock(queue)
        self._is_ours = False

    def enter(self, timeout: float, *, shared: bool) -> bool:
        """Wait for a turn, at most `timeout` seconds; whether it is ours, to be left again. A turn that is ours already
        is kept.
        """
        if self._is_ours:
            return True
        deadline = time.monotonic() + timeout
        if not self._queue.acquire(timeout, shared=False):
            return False
        try:
            self._is_ours = self._turn.acquire(deadline - time.monotonic(), shared=shared)
            return self._is_ours
        finally:
            self._queue.release()

    def leave(self) -> None:
        """Let the next one in; nothing happens when it is not our turn."""
        self._turn.release()
        self._is_ours = False

    def is_awaited(self) -> bool:
        """Whether another process waits."""
        if not self._queue.acquire(0.0, shared=True):
            return True
        self._queue.release()
        return False

    def forget_after_fork(self) -> None:
        """In a forked child: the locks are the parent's."""
        self._turn.forget()
        self._is_ours = False
        self._queue.forget()


class _Lock:
    """An advisory lock on a path; a path that cannot be locked counts as free."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._wait: _Wait | None = None

    def acquire(self, timeout: float, *, shared: bool) -> bool:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            descriptor = self._opened()
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return timeout > 0 and self._acquire_in_the_kernel(mode, timeout)
        except OSError:
            return True
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # it could not be locked either
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # a copy of the parent's: its lock stays
        self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        return self._descriptor

    def _acquire_in_the_kernel(self, mode: int, timeout: float) -> bool:
        """`flock` has no timeout: a thread waits in it, on a descriptor that becomes ours or is given up with the
        wait.
        """
        wait = _Wait(self._path, mode)
        try:
            wait.start()
            wait.join(timeout)
        finally:
            descriptor = wait.result_or_give_up()
        if descriptor is None:
            return False
        self.forget()
        self._descriptor = descriptor
        return True


class _Wait(threading.Thread):
    """Waits for a lock; a result that nobody wants any more is released at once."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(name="n4a_fast-turn", daemon=True)
        self._mode = mode
        self._descriptor = os.open(path, os.O_RDONLY)
        self._state = threading.Lock()
        self._acquired = self._given_up = False

    def run(self) -> None:
        fcntl.flock(self._descriptor, self._mode)
        with self._state:
            self._acquired = True
            if self._given_up:
                self._close()

    def result_or_give_up(self) -> int | None:
        """The locked descriptor; None, and none will be kept, if the lock is not there yet."""
        with self._state:
            self._given_up = not self._acquired
            return self._descriptor if self._acquired else None

    def _close(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
        os.close(self._descriptor)
