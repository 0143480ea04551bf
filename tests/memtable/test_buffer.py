"""When rows in memory are flushed though nobody asks for it: by number, by size, by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    DEADLINE,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    counts,
    kill,
    predict_with_arrays,
    read_line,
    save_chain,
)

from n4a_fast import WorkspaceStore, platform
from n4a_fast.errors import InvalidInputError, StoreUnavailableError

# saves predictions one by one, tells how many, and waits to be killed
SAVER = """
import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], **eval(sys.argv[2]))
sweep = begin_sweep(store)
for fold in range(int(sys.argv[3])):
    predict_with_arrays(store, sweep, fold_id=str(fold))
print("saved", flush=True)
sys.stdin.readline()
"""


def left_after_a_kill(folder: Path, limits: dict[str, Any], saved: int) -> int:
    worker = child(SAVER, folder, repr(limits), saved)
    assert read_line(worker) == "saved"
    kill(worker)
    with WorkspaceStore(folder) as store:
        return store.query_predictions().height


@pytest.mark.parametrize(
    ("limits", "saved", "kept"),
    [
        ({"flush_interval": None}, 50, 0),
        ({"flush_interval": None, "flush_rows": 20}, 50, 40),
        ({"flush_interval": None, "flush_bytes": 400}, 50, 50),
    ],
    ids=["nothing asks for it", "by number", "by size"],
)
def test_rows_are_flushed_once_there_are_enough(tmp_path: Path, limits: dict[str, Any], saved: int, kept: int) -> None:
    found = left_after_a_kill(tmp_path, limits, saved)
    assert kept - 10 <= found <= kept


def test_rows_are_flushed_after_a_while_without_another_call(tmp_path: Path) -> None:
    worker = child(SAVER, tmp_path, "{'flush_interval': 0.1}", 3)
    assert read_line(worker) == "saved"
    deadline = time.monotonic() + DEADLINE
    with WorkspaceStore(tmp_path) as reader:
        while reader.query_predictions().height < 3:
            assert time.monotonic() < deadline
    kill(worker)


@pytest.mark.parametrize(
    "limits",
    [
        {"flush_rows": 0},
        {"flush_bytes": -1},
        {"flush_interval": 0},
        {"flush_interval": float("nan")},
        {"flush_rows": "many"},
    ],
)
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        WorkspaceStore(tmp_path, **limits)
    assert list(tmp_path.iterdir()) == []


def test_a_flush_that_fails_by_time_is_met_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WorkspaceStore(tmp_path, flush_interval=1e-9)
    sweep, workspace = begin_sweep(store), store._open()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(platform, "sync_data", fail)
        predict_with_arrays(store, sweep)
        assert workspace.look_after() is not None  # as its thread calls it: failed, kept, still watched
        with pytest.raises(StoreUnavailableError, match="No space left"):
            store.flush()
    store.close()
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "predictions", "prediction_arrays") == {"predictions": 1, "prediction_arrays": 1}


KINDS: dict[str, Callable[[WorkspaceStore, Sweep, int], object]] = {
    "logs": lambda store, sweep, number: store.log_step(sweep.pipeline, number, "SNV", "end", message="m" * 1000),
    "runs": lambda store, _, number: store.begin_run(str(number), {"grid": "v" * 1000}, []),
    "pipelines": lambda store, sweep, number: begin_pipeline(store, sweep.run, "p" * 1000),
    "chains": lambda store, sweep, number: save_chain(store, sweep.pipeline, preprocessings="c" * 1000),
    "projects": lambda store, _, number: store.create_project(f"{number}" + "p" * 1000),
    "metadata": lambda store, sweep, number: store.save_prediction_arrays(
        predict_with_arrays(store, sweep), None, np.ones(1), sample_metadata={"of": f"{number}" + "m" * 1000}
    ),
}


@pytest.mark.parametrize("limits", [{"flush_rows": 40}, {"flush_bytes": 40_000}], ids=["by number", "by size"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
def test_rows_of_every_kind_count_and_leave_memory(tmp_path: Path, kind: str, limits: dict[str, Any]) -> None:
    with WorkspaceStore(tmp_path, flush_interval=None, **limits) as store:
        sweep, buffer = begin_sweep(store), store._open().buffer
        most = logged = 0
        for number in range(250):
            KINDS[kind](store, sweep, number)
            most = max(most, sum(len(table) for table in store._open().tables.pending))
            logged = max(logged, sum(path.stat().st_size for path in tmp_path.glob("store.duckdb.log-*")))
        assert most < 200
        assert logged < 400_000
        assert buffer.unflushed < 100


@pytest.mark.long
def test_rows_that_come_to_rest_a_few_at_a_time_share_the_space_of_many(tmp_path: Path) -> None:
    for number in range(30):
        with WorkspaceStore(tmp_path) as store:
            predict_with_arrays(store, begin_sweep(store), number)
    assert (tmp_path / "store.duckdb").stat().st_size < 10 * 2**20  # 41 MB if each rest kept row groups of its own
    with WorkspaceStore(tmp_path) as store:
        expected = {"runs": 30, "pipelines": 30, "chains": 30, "predictions": 30, "prediction_arrays": 30}
        assert counts(store, *expected) == expected
