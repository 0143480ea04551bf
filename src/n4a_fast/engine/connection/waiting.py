"""How long a thread waits for a file, and for the calls of others, and who goes on meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from n4a_fast.engine.living import Living
from n4a_fast.errors import StoreLockedError
from n4a_fast.platform.interrupts import OwnLock, Uninterrupted


class Borrower(Protocol):
    """Another thread that has the attached file for one piece of work."""

    @property
    def is_over(self) -> bool:
        """Whether it touches the file no more."""
        ...


class Patience(threading.local):
    """How many seconds the calls of a thread wait for the file: so many, until a call of it says otherwise, and never
    more than the limit of the block that it is in.
    """

    limit = math.inf

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """All calls of the block wait no longer than this."""
        usual, outer = self.seconds, self.limit
        self.limit = min(seconds, outer)
        self.seconds = min(usual, self.limit)
        try:
            yield
        finally:
            self.seconds, self.limit = usual, outer


class CallLock(OwnLock):  # type: ignore[misc]
    """The lock of the calls on one workspace, re-entrant. A thread that has another workspace's in hand waits for this
    one as long as for the file, and StoreLockedError follows: two blocks, each of which uses the other's workspace,
    would wait for each other for ever.
    """

    def __init__(self, path: Path, patience: Patience) -> None:
        self._path, self._patience = path, patience
        _CALL_LOCKS.add(self)

    def __enter__(self) -> bool:  # type: ignore[override]
        return self.acquire(False) or self._wait()

    def _wait(self) -> bool:
        has_another = any(lock.is_mine for lock in _CALL_LOCKS if lock is not self)
        if not self.acquire(timeout=max(0.0, self._patience.seconds) if has_another else -1):
            raise StoreLockedError(self._path, None, "by a call or a transaction() of another thread")
        return True


@contextmanager
def released(lock: CallLock) -> Iterator[None]:
    """Let other threads go on, however often this one has taken the re-entrant lock."""
    times = 0
    try:
        with Uninterrupted(), suppress(RuntimeError):  # it is not ours any more
            while True:
                lock.release()
                times += 1
        yield
    finally:
        with Uninterrupted():
            _have_again(lock, times)


def _have_again(lock: CallLock, times: int) -> None:
    """Take the lock so often, whatever interrupts: those around will release it."""
    interrupt: BaseException | None = None
    while times:
        try:
            lock.acquire()
            times -= 1
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


_CALL_LOCKS = Living[CallLock]()
