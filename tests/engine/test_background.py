"""The thread of an open workspace: what it drains, and how rarely; what it lets go of at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import DEADLINE, Sweep, begin_sweep, child, finish, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.engine import background
from n4a_fast.engine.workspace import Workspace

READ = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    print(store.query_predictions().height)
"""
LONG = 3600.0


def until(is_so: Callable[[], bool], workspace: Workspace) -> None:
    """Look after a workspace as its thread does, which does it, too."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        workspace.look_after()


def seem_idle(workspace: Workspace) -> None:
    workspace.database.last_used = time.monotonic() - 2 * LONG


def save_one(store: WorkspaceStore, sweep: Sweep, fold: str) -> None:
    predict_with_arrays(store, sweep, fold_id=fold)
    store.flush()


def test_what_is_saved_after_each_pause_is_not_drained_after_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "IDLE_SECONDS", LONG)  # the thread, too, finds it idle only when we say so
    monkeypatch.setattr(background, "_TIMES", 1e9)
    monkeypatch.setattr(background, "_AT_MOST", LONG)
    with WorkspaceStore(tmp_path) as store:
        sweep, workspace = begin_sweep(store), store._open()
        database = workspace.database
        save_one(store, sweep, "0")
        seem_idle(workspace)
        until(lambda: not (database.wants_rest or database.attached), workspace)  # the first is drained at once
        save_one(store, sweep, "1")
        database.attach()
        seem_idle(workspace)
        until(lambda: not database.attached, workspace)  # whoever wants the file may have it
        assert database.wants_rest
        seem_idle(workspace)
        waits: list[float | None] = []
        until(lambda: (waits.append(workspace.look_after()) or waits[-1] or 0.0) > background.LOOK_SECONDS, workspace)
        assert database.wants_rest
        assert finish(child(READ, tmp_path)) == "2\n"  # by what is logged
        save_one(store, sweep, "2")
        workspace._drains = background.Pace()  # as when it is due again
        seem_idle(workspace)
        until(lambda: not (database.wants_rest or database.attached), workspace)
        assert store.query_predictions().height == 3


def test_a_pace_is_the_slower_the_longer_something_takes_and_never_slower_than_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(background.time, "monotonic", lambda: now)
    pace = background.Pace()
    assert pace.seconds <= 0
    for seconds, wait in ((0.02, 2.0), (0.5, 50.0), (5.0, 60.0)):
        with pace.taken():
            now += seconds
        assert pace.seconds == pytest.approx(wait)
        now += wait
        assert pace.seconds <= 1e-9
