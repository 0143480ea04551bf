"""Backups, restores, extracts and vacuums killed within any of their file operations: what was whole before is whole,
and what is there afterwards is whole, too. `make crash-scan` kills them at every one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from campaign import SHIM
from helpers import begin_sweep, finish, library, names_in, predict_with_arrays, program, read_line

from n4a_fast import WorkspaceStore

# forks a process for each line (call, folder, operation), which is killed within that operation; prints whether it was
_CALLS = """
import ctypes, os, sys
from pathlib import Path
from n4a_fast import WorkspaceStore

def backup(place):
    with WorkspaceStore(place / "workspace") as store:
        store.backup(place / "backup")

def extract(place):
    with WorkspaceStore(place / "workspace") as store:
        store.extract(list(store.list_runs()["run_id"]), place / "extracted")

def vacuum(place):
    with WorkspaceStore(place / "workspace") as store:
        store.vacuum()

calls = {
    "backup": backup,
    "vacuum": vacuum,
    "extract": extract,
    "restore": lambda place: WorkspaceStore.restore(place / "backup", place / "restored"),
    "replace": lambda place: WorkspaceStore.restore(place / "backup", place / "workspace", replace=True),
}
for line in sys.stdin:
    call, place, operation = line.split()
    process = os.fork()
    if not process:
        ctypes.CDLL(None).crash_die(place.encode(), ctypes.c_ulong(int(operation)))
        calls[call](Path(place))
        os._exit(0)
    print(os.waitpid(process, 0)[1] != 0, flush=True)
"""
STEP = 9  # operations from one kill to the next
FOLDS = 3


@pytest.fixture(scope="module")
def caller() -> Iterator[subprocess.Popen[str]]:
    with program("-c", code=_CALLS, LD_PRELOAD=str(library(SHIM))) as process:
        yield process
        finish(process)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a workspace of two runs, and a backup that has the first."""
    with WorkspaceStore(tmp_path / "workspace") as store:
        for _ in range(2):
            sweep = begin_sweep(store)
            store.save_artifact({"of": sweep.run}, "dict", "model", "joblib")
            for fold in range(FOLDS):
                predict_with_arrays(store, sweep, fold, fold_id=str(fold))
            store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
            if not (tmp_path / "backup").exists():
                store.backup(tmp_path / "backup")
    return tmp_path


def kills(caller: subprocess.Popen[str], call: str, place: Path) -> Iterator[int]:
    """Call again and again, killed a little later each time; the number of kills after each, until one got through."""
    assert caller.stdin is not None
    for number in count(1):
        caller.stdin.write(f"{call} {place} {1 + STEP * (number - 1)}\n")
        caller.stdin.flush()
        if read_line(caller) == "False":
            assert number > 2
            return
        yield number


def runs(folder: Path) -> int:
    """How many whole runs are there."""
    with WorkspaceStore.open_readonly(folder) as store:
        assert store.verify(quick=True)
        arrays: Any = store.sql("SELECT count(y_pred) FROM prediction_arrays").item()
        assert arrays == FOLDS * store.list_runs().height
        return int(store.list_runs().height)


def names(place: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in place.iterdir())


def test_a_killed_backup_leaves_the_last_whole_one(caller: subprocess.Popen[str], place: Path) -> None:
    for _ in kills(caller, "backup", place):
        assert runs(place / "backup") in (1, 2)
    assert runs(place / "backup") == 2
    assert names(place) == ["backup", "workspace"]


def test_a_killed_vacuum_leaves_a_whole_store_and_nothing_beside_it(caller: subprocess.Popen[str], place: Path) -> None:
    for _ in kills(caller, "vacuum", place):
        assert runs(place / "workspace") == 2
    with WorkspaceStore(place / "workspace") as store:
        store.vacuum()
        assert store.verify().findings == []
    assert names_in(place / "workspace") == ["artifacts", "store.duckdb"]


@pytest.mark.parametrize(("call", "made"), [("restore", "restored"), ("extract", "extracted")])
def test_a_killed_copy_is_whole_or_not_there(caller: subprocess.Popen[str], place: Path, call: str, made: str) -> None:
    expected = 1 if call == "restore" else 2
    for _ in kills(caller, call, place):
        if (place / made).exists():  # killed between its name and the end
            assert runs(place / made) == expected
            shutil.rmtree(place / made)
    assert runs(place / made) == expected
    assert names(place) == sorted(["backup", made, "workspace"])


def test_a_killed_restore_in_place_leaves_the_workspace_or_its_backup(
    caller: subprocess.Popen[str], place: Path
) -> None:
    for _ in kills(caller, "replace", place):
        found = {path.name: runs(path) for path in place.glob("workspace*")}
        assert found["workspace"] in (1, 2)
        assert 2 in found.values()
    assert runs(place / "workspace") == 1
    assert all(name in ("backup", "workspace", "workspace.replaced") for name in names(place))
