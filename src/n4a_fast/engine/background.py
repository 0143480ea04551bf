"""A thread that lets something rest once it has not been used for a moment."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

IDLE_SECONDS = 0.25
PATIENCE_SECONDS = 1.0  # while nobody waits: a sweep that stores a pipeline now and then is not interrupted in between


class Resting(Protocol):
    """Something that can tell whether it is idle, and rest."""

    def rest_when_idle(self) -> float | None:
        """Rest if nothing happened for a while; in how many seconds to look again, None for not until it is used
        again.
        """


def watch(resting: Resting) -> threading.Thread:
    """Start a thread that ends when `resting` rests, or is no more."""
    thread = threading.Thread(target=_watch, args=(weakref.ref(resting),), name="n4a_fast-idle", daemon=True)
    thread.start()
    return thread


def _watch(reference: weakref.ref[Resting]) -> None:
    while True:
        resting = reference()
        seconds = None if resting is None else resting.rest_when_idle()
        if seconds is None:
            return
        del resting  # it must not live on because it is watched
        time.sleep(seconds)
