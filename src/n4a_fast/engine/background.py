"""The thread of an open workspace that flushes by time, drains what has rested for a moment, and yields the file.

It only ever tries: it waits neither for the lock of the workspace nor for the file, and what fails is met by the next
call of the user, in the user's own thread. What a store has left that nobody has any more it writes itself.

What it drains is in the log, so nothing depends on when: after a drain it lets a hundred times as long pass as that
one took. A sweep that pauses after each pipeline so gives it a hundredth of its time, not a drain for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from n4a_fast.platform.interrupts import start

IDLE_SECONDS = 1.0  # a sweep that stores a pipeline now and then is not interrupted in between
# a look costs 50 µs of CPU time while a program computes; another process waits half of this for a file that rests
LOOK_SECONDS = 0.1
_TIMES = 100  # as long as something took passes before it is done again
_AT_MOST = 60.0  # seconds, when a disk has kept it waiting


class Bell:
    """What one thread waits for. It may be rung anywhere, even where an object is taken away in the middle of
    another ring: a `threading.Event` would wait for itself there.
    """

    def __init__(self) -> None:
        self._rung, self._is_set = threading.Lock(), False
        self._rung.acquire()

    def set(self) -> None:
        """Whoever waits goes on, or does not begin to wait."""
        self._is_set = True
        if self._rung.locked():
            with suppress(RuntimeError):  # it has been rung meanwhile
                self._rung.release()

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float | None = None) -> None:
        """Return once it is set, or after so many seconds; now and then earlier."""
        if not self._is_set:
            self._rung.acquire(timeout=-1 if seconds is None else seconds)


class Pace:
    """Of something that may wait: when it is due again, so that it takes a hundredth of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    @property
    def seconds(self) -> float:
        """Until it is due; 0 or less when it is."""
        return self._next - time.monotonic()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The block does it."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.took(time.monotonic() - start)

    def took(self, seconds: float) -> None:
        """It was done, or tried, and took so long."""
        self._next = time.monotonic() + min(_AT_MOST, _TIMES * seconds)


class Watched(Protocol):
    """A workspace, for its background thread."""

    @property
    def activity(self) -> Bell:
        """Set when there is something to look after again, and when the workspace is closed."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing to look after any more."""
        ...

    def look_after(self) -> float | None:
        """Do what is due, without waiting; in how many seconds to look again, None for not before something happens."""
        ...


def watch(watched: Watched) -> threading.Thread | None:
    """Start the thread; it ends when the workspace is closed. None where none can be started."""
    thread = threading.Thread(target=_watch, args=(watched,), name="n4a_fast-background", daemon=True)
    return thread if start(thread) else None


def _watch(watched: Watched) -> None:
    activity, seconds = watched.activity, None
    while not watched.is_closed:
        activity.wait(seconds)
        seconds = watched.look_after()
        if activity.is_set() and not watched.is_closed:
            time.sleep(min(seconds or LOOK_SECONDS, IDLE_SECONDS))
