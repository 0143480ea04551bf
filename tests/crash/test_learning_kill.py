"""A cross-validation, or a search, that is killed while it is stored is there whole or not at all."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from campaign import SHIM
from helpers import counts, finish, library, program, read_line
from sampling import some

from n4a_fast import WorkspaceStore

# for each line (folder, operation, what) a child that is killed within that operation on files of the folder
WORKER = """
import ctypes, os, sys
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from n4a_fast import WorkspaceStore

X = np.random.default_rng(0).normal(size=(24, 4))
y = X @ np.arange(4.0)
search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3).fit(X, y)

def store(place, operation, what):
    store = WorkspaceStore(place)
    ctypes.CDLL(None).crash_die(place.encode(), ctypes.c_ulong(operation))
    if what == "search":
        store.save_search(search)
    else:
        store.save_cross_validation(Ridge(), X, y, cv=3)
    os._exit(0)  # it is acknowledged, and not closed

for line in sys.stdin:
    place, operation, what = line.rsplit(maxsplit=2)
    if not (process := os.fork()):
        store(place, int(operation), what)
    print("killed" if os.waitpid(process, 0)[1] else "stored", flush=True)
"""
TABLES = ("runs", "pipelines", "chains", "predictions")
NOTHING = (0, 0, 0, 0)
WHOLE = {"search": (1, 2, 2, 6), "cross-validation": (1, 1, 1, 7)}
STEP = 3  # operations from one kill to the next


@pytest.fixture(scope="module")
def worker() -> Iterator[subprocess.Popen[str]]:
    with program("-c", code=WORKER, LD_PRELOAD=str(library(SHIM))) as process:
        yield process
        finish(process)


@pytest.mark.parametrize("what", some(WHOLE, 1))
def test_a_kill_within_any_operation_leaves_before_or_after(
    what: str, tmp_path: Path, worker: subprocess.Popen[str], empty_workspace: Path
) -> None:
    assert worker.stdin is not None
    left = []
    for operation in count(1, STEP):
        place = tmp_path / str(operation)
        shutil.copytree(empty_workspace, place)
        worker.stdin.write(f"{place} {operation} {what}\n")
        worker.stdin.flush()
        told = read_line(worker)
        with WorkspaceStore(place) as store:
            left.append(tuple(counts(store, *TABLES).values()))
            assert store.verify(quick=True).is_sound
        if told == "stored":
            break
    assert left[0] == NOTHING
    assert left[-1] == WHOLE[what]
    assert set(left) == {NOTHING, WHOLE[what]}
    assert len(left) > 3
