"""Several workspaces at once, for what goes from one to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from n4a_fast.engine.workspace import Workspace


@contextmanager
def held_together(*workspaces: Workspace) -> Iterator[None]:
    """The locks of several workspaces; none is kept while another one is waited for, whose thread may wait for it."""
    first = workspaces[0]
    while True:
        with ExitStack() as locks:
            locks.enter_context(first.database.held())
            busy = next((each for each in workspaces if not _is_held_at_once(each, locks)), None)
            if busy is None:
                yield
                return
        first = busy


def _is_held_at_once(workspace: Workspace, locks: ExitStack) -> bool:
    """Whether nobody else had its lock, which stays with this thread then."""
    lock = workspace.lock
    if not lock.acquire(blocking=False):
        return False
    locks.callback(lock.release)
    locks.enter_context(workspace.database.held())
    return True
