"""A workspace at a glance, for showing it: what the tables hold now, and only if the file is to be had at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import StoreError, StoreLockedError

PATIENCE = 0.2  # seconds

_ROWS = " UNION ALL ".join(
    f"SELECT {place}, '{name}', count(*) FROM {name}"
    for place, name in enumerate(("runs", "pipelines", "chains", "predictions"))
)
_RUNS = """SELECT r.run_id, r.name, r.status, count(p.pipeline_id) FILTER (p.status = 'completed')
FROM runs r LEFT JOIN pipelines p ON p.run_id = r.run_id GROUP BY r.run_id, r.name, r.status, r.created_at
ORDER BY r.created_at DESC, r.run_id DESC LIMIT 5"""


@dataclass(frozen=True, slots=True)
class Glance:
    """Rows of tables, the newest runs (id, name, status, pipelines done), bytes of the store file."""

    rows: Mapping[str, int]
    runs: tuple[tuple[Any, ...], ...]
    nbytes: int


@contextmanager
def patient(workspace: Workspace, seconds: float | None) -> Iterator[None]:
    """The workspace for the block, waited for no longer than this; StoreLockedError when it is busy."""
    if seconds is None:
        yield
        return
    lock, database = workspace.lock, workspace.database
    if not lock.acquire(timeout=seconds):
        raise StoreLockedError(database.path, None)
    usual = database.lock_timeout
    database.wait_at_most(min(seconds, usual))
    try:
        yield
    finally:
        database.wait_at_most(usual)
        lock.release()


def glance(workspace: Workspace) -> Glance | None:
    """What is in the tables now, nothing drained for it; None when that cannot be had at once."""
    try:
        with patient(workspace, PATIENCE), workspace.database.undrained():
            counted = sorted(workspace.database.rows(_ROWS))
            runs = tuple(workspace.database.rows(_RUNS))
            nbytes = workspace.database.path.stat().st_size
        return Glance({str(name): int(n) for _, name, n in counted}, runs, nbytes)
    except (StoreError, OSError):  # busy, moved or damaged: the next call tells it
        return None
