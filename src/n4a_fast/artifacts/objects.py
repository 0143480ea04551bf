"""Loaded objects that replays share, the least recently used given up first.

The key is the content, and what the store trusts: an id that comes to another file finds another object, and
a store that trusts less never gets what one that trusts more has loaded. Who gets an object from here must not change
it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class ObjectCache:
    """At most `limit` bytes of objects, counted by their serialised size."""

    def __init__(self) -> None:
        self.limit = self.nbytes = 0
        self._objects: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> tuple[Any] | None:
        """The object in a tuple, since it may be None itself."""
        found = self._objects.get(key)
        if found is None:
            return None
        self._objects.move_to_end(key)
        return (found[0],)

    def put(self, key: Hashable, obj: Any, nbytes: int) -> None:
        """Keep `obj`; one larger than the limit is not kept at all."""
        if nbytes > self.limit or key in self._objects:
            return
        self._objects[key] = (obj, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self.limit:
            _, (_, freed) = self._objects.popitem(last=False)
            self.nbytes -= freed

    def clear(self) -> None:
        self._objects.clear()
        self.nbytes = 0
