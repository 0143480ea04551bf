"""Whose turn it is with a store file, among processes: two advisory locks that the kernel queues.

The one in turn holds the turn lock for as long as it has the file attached. A process that wants
the file takes the queue lock first and then waits for the turn, so the one in turn sees that
somebody waits, and each leaves the turn to the one that came before it. Readers share a turn.
Waits sleep in the kernel, and the locks of a killed process are gone with it.

It is a courtesy: DuckDB's own lock keeps the file safe. Where the disk has no locks, all
processes are let through and meet at that one. The locks are those of two folders that are
there anyway, so a workspace on a read-only disk has its turnstile too, and no file is left behind.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from n4a_fast.platform import FileLock
from n4a_fast.platform.interrupts import OwnLock, Uninterrupted


class Turnstile:
    """One process's place at the turnstile of a file: one of its threads at a time waits there."""

    def __init__(self, turn: Path, queue: Path) -> None:
        self._turn, self._queue = _Lock(turn), _Lock(queue)
        self._is_ours = False
        self._entering = OwnLock()

    def enter(self, timeout: float, *, shared: bool) -> bool:
        """Wait for a turn, at most `timeout` seconds; whether it is ours, to be left again. A turn that is ours already
        is kept.
        """
        deadline = time.monotonic() + timeout
        if not self._is_ours and self._entering.acquire(timeout=max(0.0, timeout)):
            try:
                self._is_ours = self._is_ours or self._enter(deadline, shared)
            finally:
                self._entering.release()
        return self._is_ours

    def _enter(self, deadline: float, shared: bool) -> bool:
        if not self._queue.acquire(deadline - time.monotonic(), shared=False):
            return False
        try:
            return self._turn.acquire(deadline - time.monotonic(), shared=shared)
        finally:
            self._queue.release()

    @property
    def is_ours(self) -> bool:
        """Whether it is the turn of this process."""
        return self._is_ours

    def leave(self) -> None:
        """Let the next one in; nothing happens when it is not our turn, which another thread may wait for."""
        if self._is_ours:
            self._is_ours = False
            self._turn.release()

    def is_awaited(self) -> bool:
        """Whether another process waits; not while a thread of this one does, before or behind it."""
        with Uninterrupted():
            if not self._entering.acquire(blocking=False):
                return False
            try:
                is_free = self._queue.acquire(0.0, shared=True)
                self._queue.release()
                return not is_free
            finally:
                self._entering.release()

    def close(self) -> None:
        """Leave, and keep no descriptor. A thread that enters meanwhile is refused next, and closes it then."""
        if self._entering.acquire(blocking=False):
            self._is_ours = False
            self._turn.close()
            self._queue.close()
            self._entering.release()

    def forget_after_fork(self) -> None:
        """In a forked child: the locks are the parent's."""
        self._turn.forget()
        self._is_ours, self._entering = False, OwnLock()
        self._queue.forget()


class _Lock:
    """A lock that is a courtesy: a path that cannot be locked counts as free."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self, timeout: float, *, shared: bool) -> bool:
        if self._lock.is_held:  # an interrupt kept it from being released
            self.release()
        try:
            return self._lock.acquire(timeout, shared=shared)
        except OSError:
            return True

    def release(self) -> None:
        with suppress(OSError):  # a disk that is gone
            self._lock.release()

    def forget(self) -> None:
        self._lock.forget_after_fork()

    def close(self) -> None:
        self._lock.close()
