"""Work that another thread begins while its caller goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def begun(pool: ThreadPoolExecutor, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """What gives the result of `work` once it is asked; until then a thread of `pool` is at it."""
    try:
        return pool.submit(work, *args, **kwargs).result
    except RuntimeError:  # the interpreter ends, and starts no thread any more: who asks does it
        return partial(work, *args, **kwargs)
