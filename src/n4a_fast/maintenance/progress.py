"""How far a run is, read from what is in the tables and a count of what waits: no writer is made to stop for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import NotFoundError
from n4a_fast.maintenance.glance import BestSoFar, best_so_far, patient, told_best
from n4a_fast.maintenance.stats import Writer
from n4a_fast.tables.runs import EXPECTED
from n4a_fast.values import checks
from n4a_fast.values.notebook import report_text
from n4a_fast.values.texttable import plain

_RECENT = 60  # ended pipelines from which the present rate is taken
_ERRORS = 5

_RUN = """SELECT run_id, name, status, created_at, completed_at, summary, error FROM runs
WHERE ?1 IS NULL OR run_id = ?1 ORDER BY status = 'running' DESC, created_at DESC, run_id DESC LIMIT 1"""
_STATES = "SELECT status, count(*) FROM pipelines WHERE run_id = ? GROUP BY ALL"
_ENDS = "SELECT completed_at FROM pipelines WHERE run_id = ? AND completed_at IS NOT NULL ORDER BY 1 DESC LIMIT ?"
_FAILURES = """SELECT name, error, completed_at FROM pipelines WHERE run_id = ? AND status = 'failed'
ORDER BY completed_at DESC NULLS LAST LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Failure:
    """A pipeline that failed, its error, and when."""

    pipeline: str
    error: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run as it is now: pipelines by state, rate, best chains, the newest errors, and who writes.

    `waiting` flushes are durable but not in the tables: what they hold is not counted yet.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    ended: datetime | None
    done: int
    failed: int
    running: int
    expected: int | None
    per_second: float | None
    best: tuple[BestSoFar, ...]
    failures: tuple[Failure, ...]
    error: str | None
    writers: tuple[Writer, ...]

    @property
    def waiting(self) -> int:
        """Flushes that are durable and not in the tables yet."""
        return sum(writer.flushes for writer in self.writers)

    @property
    def left(self) -> timedelta | None:
        """How long it will take at the present rate; None where that cannot be told."""
        if self.expected is None or not self.per_second or self.status != "running":
            return None
        return timedelta(seconds=round(max(self.expected - self.done - self.failed, 0) / self.per_second))

    def __str__(self) -> str:
        counts = f"{self.done:,} done, {self.failed:,} failed, {self.running:,} running"
        return f"run {self.run_id} {plain(self.name)!r}: {self.status}, {counts}{told_best(self.best)}"

    def __repr__(self) -> str:
        failures = [f"failed: {each.pipeline}: {each.error}" for each in self.failures]
        return report_text(str(self), [f"error: {self.error}", *failures] if self.error else failures)


def progress_of(workspace: Workspace, run_id: str | None, wait: float | None) -> RunProgress:
    """The run's state, of the newest running one for None, or else of the newest; NotFoundError without any.

    Who waits no longer than `wait` gets no best chains while so many are not ranked that it would take a while.
    """
    with patient(workspace, wait), workspace.lock:
        database = workspace.database
        database.refresh()
        writers = tuple(Writer(*found) for found in database.log.writers())
        with database.undrained():
            found = database.rows(_RUN, (run_id,))
            if not found:
                raise NotFoundError("run", run_id or "@last", None if run_id else "no run is in the tables yet")
            identifier, *rest = found[0]
            states = dict(database.rows(_STATES, (identifier,)))
            ends = [end for (end,) in database.rows(_ENDS, (identifier, _RECENT))]
            failures = tuple(Failure(str(a), str(b), c) for a, b, c in database.rows(_FAILURES, (identifier, _ERRORS)))
            best = best_so_far(workspace, identifier, in_haste=wait is not None)
    return _progress(identifier, rest, states, ends, failures, best, writers)


def _progress(
    run_id: str,
    row: Sequence[Any],
    states: dict[str, int],
    ends: list[datetime],
    failures: tuple[Failure, ...],
    best: tuple[BestSoFar, ...],
    writers: tuple[Writer, ...],
) -> RunProgress:
    name, status, started, ended, summary, error = row
    found = (json.loads(summary) if summary else None) or {}
    return RunProgress(
        run_id,
        str(name),
        str(status),
        started,
        ended,
        states.get("completed", 0),
        states.get("failed", 0),
        states.get("running", 0),
        found.get(EXPECTED) if isinstance(found, dict) else None,
        _rate(ends, started, ended or checks.now()),
        best,
        failures,
        error,
        writers,
    )


def _rate(ends: list[datetime], started: datetime | None, until: datetime) -> float | None:
    """Pipelines a second, from the newest ends; it falls while nothing ends."""
    since = started if len(ends) < _RECENT else ends[-1]
    seconds = (until - since).total_seconds() if since else 0.0
    return len(ends) / seconds if ends and seconds > 0 else None
