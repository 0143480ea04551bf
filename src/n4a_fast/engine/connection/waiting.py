"""How long a thread waits for a file, and who goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from n4a_fast.platform.interrupts import Uninterrupted


class Patience(threading.local):
    """How many seconds the calls of a thread wait for the file; None: as long as the database itself says."""

    seconds: float | None = None


@contextmanager
def released(lock: Any) -> Iterator[None]:
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
            for _ in range(times):
                lock.acquire()
