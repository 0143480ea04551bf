"""Ctrl-C kept waiting while memory and disk are brought into agreement.

An interrupt between the commit of rows and their leaving memory would store them twice; one inside
a turn at the file would leave DuckDB attached to what this process takes for free.
"""

from __future__ import annotations

import signal
import threading

# what `signal` calls; its own functions try to make a member of an Enum of each handler, 10 us a block instead of 0.4
from _signal import getsignal  # type: ignore[import-not-found]
from _signal import signal as set_handler
from _thread import RLock
from types import FrameType, TracebackType

_SIGINT = int(signal.SIGINT)


def start(thread: threading.Thread) -> bool:
    """Start a thread: Python's own wait for it, cut by Ctrl-C, may end in a RuntimeError about its locks.

    False where none can be started: an interpreter that ends starts none any more (as of Python 3.12 before it runs
    what is registered for its end), and a system may have no room for one.
    """
    with Uninterrupted():
        try:
            thread.start()
        except RuntimeError:
            return False
    return True


class OwnLock(RLock):  # type: ignore[misc]  # no class of its own is final to CPython
    """A re-entrant lock that an interrupted wait leaves to others.

    An interrupt takes effect where Python's code goes on after a call of C, so one that arrives while a thread waits
    may find the lock taken and nobody who gives it back. `acquire` gives it back; `__exit__` and `release` are C's.
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As that of any lock; whoever is interrupted in it has not got it."""
        was_mine = self.is_mine
        try:
            return _ACQUIRE(self, blocking, timeout)
        except BaseException:
            if was_mine or self.is_mine:  # it is had at once again
                self.release()
            raise

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return bool(self._is_owned())  # type: ignore[attr-defined]  # what Condition asks, too


_ACQUIRE = RLock.acquire


class Uninterrupted:
    """In the main thread, Ctrl-C takes effect at the end of the outermost block; a second one at once."""

    def __enter__(self) -> None:
        self._arrived: list[FrameType | None] = []
        handler = getsignal(_SIGINT)
        self._handler = handler if callable(handler) and threading.current_thread() is threading.main_thread() else None
        if self._handler is not None and not isinstance(getattr(self._handler, "__self__", None), Uninterrupted):
            set_handler(_SIGINT, self._note)
        else:  # an outer block does it, Ctrl-C means something else, or it never comes to this thread
            self._handler = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            set_handler(_SIGINT, self._handler)
            if self._arrived:
                self._handler(_SIGINT, self._arrived[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append(frame)
        if len(self._arrived) > 1 and self._handler is not None:
            self._handler(number, frame)
