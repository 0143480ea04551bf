"""Objects of this process for as long as they live, listed while other threads make new ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """A `WeakSet` that may grow while it is listed: that one raises then."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[int, T] = weakref.WeakValueDictionary()

    def add(self, each: T) -> None:
        self._known[id(each)] = each

    def discard(self, each: T) -> None:
        self._known.pop(id(each), None)

    def __iter__(self) -> Iterator[T]:
        """Those that live now."""
        for reference in self._known.valuerefs():
            if (each := reference()) is not None:
                yield each
