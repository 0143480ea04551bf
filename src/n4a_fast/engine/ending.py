"""The end of the program, for threads that it does not wait for.

The interpreter ends a daemon thread where that asks for its lock again. Inside DuckDB that ends the process as a crash.
So once the end has begun, connections are closed under their locks, and only the thread that ends the program can
attach a file or open a store.
"""

from __future__ import annotations

import threading
from typing import Protocol

from n4a_fast.engine.living import Living


class Ending(Protocol):
    """Something that other threads must have left when the program ends."""

    def end_with_program(self) -> None: ...


def tell_of_end(listener: Ending) -> None:
    """Call `listener` when the program ends, if it lives so long."""
    _LISTENERS.add(listener)


def begin_end() -> None:
    """From now on other threads are refused."""
    global _is_ending
    _is_ending = True


def end_all() -> None:
    """Let everything end that other threads could be inside."""
    for listener in _LISTENERS:
        listener.end_with_program()


def is_ending() -> bool:
    return _is_ending


def refuses_this_thread() -> bool:
    """Whether the program ends, and not in this thread."""
    return _is_ending and threading.current_thread() is not threading.main_thread()


_is_ending = False
_LISTENERS = Living[Ending]()
