"""A workspace at a glance, for showing it: what the tables hold now, and only if the file is to be had at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import StoreError, StoreLockedError
from n4a_fast.predictions.ranking import Question
from n4a_fast.tables.stale_chains import are_many
from n4a_fast.values import checks
from n4a_fast.values.texttable import number, plain

PATIENCE = 0.2  # seconds

_ROWS = " UNION ALL ".join(
    f"SELECT {place}, '{name}', count(*) FROM {name}"
    for place, name in enumerate(("runs", "pipelines", "chains", "predictions"))
)
_RUNS = """SELECT r.run_id, r.name, r.status, count(p.pipeline_id) FILTER (p.status = 'completed')
FROM runs r LEFT JOIN pipelines p ON p.run_id = r.run_id GROUP BY r.run_id, r.name, r.status, r.created_at
ORDER BY r.created_at DESC, r.run_id DESC LIMIT 5"""


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """The first chain of a board."""

    dataset: str
    metric: str
    score: float | None
    chain_id: str
    preprocessings: str
    model_name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Glance:
    """Rows of tables, the newest runs (id, name, status, pipelines done), bytes of the store file, the best chains."""

    rows: Mapping[str, int]
    runs: tuple[tuple[Any, ...], ...]
    nbytes: int
    best: tuple[BestSoFar, ...]

    def __str__(self) -> str:
        rows = ", ".join(f"{n:,} {name[: -1 if n == 1 else None]}" for name, n in self.rows.items() if n)
        return f"{rows or 'empty'}; {self.nbytes / 1e6:,.1f} MB{told_best(self.best)}"


@contextmanager
def patient(workspace: Workspace, seconds: float | None) -> Iterator[None]:
    """The workspace for the block, waited for no longer than this; StoreLockedError when it is busy."""
    if seconds is None:
        yield
        return
    seconds = checks.seconds(seconds, "wait")
    lock, database = workspace.lock, workspace.database
    if not lock.acquire(timeout=seconds):
        raise StoreLockedError(database.path, None)
    try:
        with database.patience.limited(seconds):
            yield
    finally:
        lock.release()


@contextmanager
def looking(workspace: Workspace, seconds: float | None) -> Iterator[None]:
    """Reads of the block see what is in the tables now, and wait for the workspace no longer than this."""
    with patient(workspace, seconds), workspace.database.undrained():
        yield


def glance(workspace: Workspace) -> Glance | None:
    """What is in the tables now, nothing drained for it; None when that cannot be had at once."""
    try:
        with looking(workspace, PATIENCE):
            counted = sorted(workspace.database.rows(_ROWS))
            runs = tuple(workspace.database.rows(_RUNS))
            nbytes = workspace.database.path.stat().st_size
            best = best_so_far(workspace, None, in_haste=True)
        return Glance({str(name): int(n) for _, name, n in counted}, runs, nbytes, best)
    except (StoreError, OSError):  # busy, moved or damaged: the next call tells it
        return None


def best_so_far(workspace: Workspace, run_id: str | None, *, in_haste: bool) -> tuple[BestSoFar, ...]:
    """The first chain of each board, nothing drained for it; in haste nothing is written, and none are told while so
    many are not ranked that it would take a while.
    """
    if in_haste and are_many(workspace.database):
        return ()
    try:
        boards = workspace.ranking.ranked(Question(run=run_id, n=1), writes=not in_haste).boards
    except StoreError:
        return ()
    names = ("val_score", "chain_id", "preprocessings", "model_name", "created_at")
    rows = ((board, board.frame.row(0, named=True)) for board in boards)
    return tuple(BestSoFar(board.dataset, board.metric, *(row[name] for name in names)) for board, row in rows)


def told_best(best: Sequence[BestSoFar]) -> str:
    """The best scores, to be said after something else."""
    scored = (each for each in best if each.score is not None)
    return "".join(f"; best {number(each.score)} {plain(each.metric)} ({plain(each.dataset)})" for each in scored)
