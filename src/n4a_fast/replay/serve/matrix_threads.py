"""How many threads a matrix product may take: a setting of the whole process, shared by all calls that bound it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from n4a_fast import platform


@contextmanager
def matrix_threads(threads: int) -> Iterator[None]:
    """Bounds the threads of matrix products, where threadpoolctl is installed: while several calls do so, by the least
    of theirs; after the last one it is what it was before the first.
    """
    if (controller := _controller()) is None:
        yield
        return
    with _LOCK:
        _ASKED.append((threads, controller.limit(limits=_least(threads), user_api="blas")))
    try:
        yield
    finally:
        with _LOCK:
            _leave(controller, threads)


def _least(*more: int) -> int:
    return min([*more, *(threads for threads, _ in _ASKED)])


def _leave(controller: Any, threads: int) -> None:
    before = _ASKED[0][1]  # the first one knows what there was before all of them
    left = next(place for place, (asked, _) in enumerate(_ASKED) if asked == threads)
    del _ASKED[left]
    if not _ASKED:
        before.restore_original_limits()
        return
    _ASKED[0] = (_ASKED[0][0], before)
    controller.limit(limits=_least(), user_api="blas")


@lru_cache(maxsize=1)
def _controller() -> Any:
    try:  # looking at all loaded libraries takes 5 ms, so it is done once
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


def _forget_after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()


_LOCK = threading.Lock()
_ASKED: list[tuple[int, Any]] = []  # the bound of each call that is at work, and what restores what was before it
platform.at_fork(in_child=_forget_after_fork)
