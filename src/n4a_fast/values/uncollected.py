"""Python's collector of cycles, and blocks in which it finds none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector waits. The block makes many objects at once and no cycles: the collector would look at all of them,
    and now and then at all objects of the process, in which a sweep has millions (70 ms), and find nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
