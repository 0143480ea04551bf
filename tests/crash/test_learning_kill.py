"""A cross-validation, or a search, that is killed while it is stored is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import child, counts, finish, read_line

from n4a_fast import WorkspaceStore

# for each line a child that is killed before the so-many-th call of the storing that makes bytes durable
WORKER = """
import os, signal, sys
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from n4a_fast import WorkspaceStore

X = np.random.default_rng(0).normal(size=(24, 4))
y = X @ np.arange(4.0)
search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3).fit(X, y)

def counted(call, last, seen=[]):
    def synced(descriptor):
        seen.append(descriptor)
        if len(seen) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(descriptor)
    return synced

def store(place, last, what):
    store = WorkspaceStore(place)
    os.fsync, os.fdatasync = counted(os.fsync, last), counted(os.fdatasync, last)
    if what == "search":
        store.save_search(search)
    else:
        store.save_cross_validation(Ridge(), X, y, cv=3)
    os.kill(os.getpid(), signal.SIGTERM)  # it is acknowledged, and not closed

for line in sys.stdin:
    place, last, what = line.rsplit(maxsplit=2)
    if not (pid := os.fork()):
        store(place, int(last), what)
    _, state = os.waitpid(pid, 0)
    print("stored" if os.WTERMSIG(state) == signal.SIGTERM else "killed", flush=True)
"""
TABLES = ("runs", "pipelines", "chains", "predictions")
WHOLE = {"search": (1, 2, 2, 6), "cross-validation": (1, 1, 1, 7)}


@pytest.mark.parametrize("what", list(WHOLE))
def test_a_kill_at_any_sync_leaves_before_or_after(what: str, tmp_path: Path) -> None:
    worker, told, moment = child(WORKER), "killed", 0
    assert worker.stdin is not None
    while told == "killed":
        moment += 1
        place = tmp_path / str(moment)
        WorkspaceStore(place).close()
        worker.stdin.write(f"{place} {moment} {what}\n")
        worker.stdin.flush()
        told = read_line(worker)
        with WorkspaceStore(place) as store:
            rows = tuple(counts(store, *TABLES).values())
            assert rows == WHOLE[what] or (told == "killed" and rows == (0, 0, 0, 0))
            assert store.verify(quick=True).is_sound
    assert moment > 2
    finish(worker)
