"""Work that another thread begins while its caller goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def begun(pool: ThreadPoolExecutor, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """What gives the result of `work` once it is asked; until then a thread of `pool` is at it."""
    try:
        return pool.submit(work, *args, **kwargs).result
    except RuntimeError:  # the interpreter ends, and starts no thread any more: who asks does it
        return partial(work, *args, **kwargs)


def prefetched(items: Iterator[T], thread: str = "n4a_fast-ahead") -> Iterator[T]:
    """The same items; each is made in another thread while the caller works on the one before."""
    with ThreadPoolExecutor(1, thread) as pool:
        following = begun(pool, next, items, None)
        while (item := following()) is not None:
            following = begun(pool, next, items, None)
            yield item
