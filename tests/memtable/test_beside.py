"""Drains beside the caller: what is saved, read, changed, lost or killed while one is in its transaction."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    DEADLINE,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    counts,
    finish,
    kill,
    plain_rows,
    predict,
    predict_with_arrays,
    read_line,
    save_chain,
)

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import Lent
from n4a_fast.errors import MemoryLimitError, NotFoundError, StoreMovedError, StoreUnavailableError

ROWS = 2  # flush_rows: a drain begins with the eighth row that is logged
FIRST = [str(fold) for fold in range(8)]


class Held:
    """Each drain beside the caller stops before its commit until it may go on, and then commits, or fails."""

    def __init__(self) -> None:
        self.is_there, self.may_go_on = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.committed = 0

    def let_go(self) -> None:
        self.may_go_on.set()

    def let_go_soon(self) -> None:
        """While the caller waits for it."""
        threading.Timer(0.05, self.may_go_on.set).start()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, commit = Held(), Lent.commit

    def commit_when_told(lent: Lent) -> None:
        held.is_there.set()
        assert held.may_go_on.wait(DEADLINE)
        if held.error is not None:
            raise held.error
        commit(lent)
        held.committed += 1

    monkeypatch.setattr(Lent, "commit", commit_when_told)
    yield held
    held.let_go()


@pytest.fixture
def store(tmp_path: Path, held: Held) -> Iterator[WorkspaceStore]:
    store = WorkspaceStore(tmp_path / "sweep", flush_interval=None, flush_rows=ROWS)
    yield store
    held.let_go()
    store.close()


def save(store: WorkspaceStore, sweep: Sweep, *folds: str, shift: float = 0.0) -> list[str]:
    """Each is flushed."""
    saved = []
    for fold in folds:
        saved.append(predict_with_arrays(store, sweep, shift, fold_id=fold))
        store.flush()
    return saved


def begin(store: WorkspaceStore, held: Held) -> tuple[Sweep, list[str]]:
    """A sweep whose first predictions are being drained, and their ids."""
    sweep = begin_sweep(store)
    saved = save(store, sweep, *FIRST)
    assert held.is_there.wait(DEADLINE)
    return sweep, saved


def found(folder: Path) -> list[str]:
    with WorkspaceStore(folder) as store:
        assert not store.verify().findings
        return store.query_predictions()["prediction_id"].sort().to_list()


def test_the_caller_goes_on_meanwhile(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    saved += save(store, sweep, "8", "9")  # durable, though nothing can be committed to the tables
    assert held.committed == 0
    held.let_go()
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)
    assert held.committed == 1
    store.close()
    assert not list(store._path.glob("store.duckdb.log-*"))
    assert plain_rows(store._path / "store.duckdb", "SELECT count(*) FROM predictions") == [(10,)]


def test_a_read_waits_for_its_end_and_sees_all(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    saved += save(store, sweep, "8")
    held.let_go_soon()
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)
    for number, prediction in enumerate(saved):
        assert store.get_prediction(prediction)["fold_id"] == str(number)  # type: ignore[index]
    assert counts(store, "predictions", "prediction_values", "chains", "pipelines", "runs") == {
        "predictions": 9,
        "prediction_values": 9,
        "chains": 1,
        "pipelines": 1,
        "runs": 1,
    }


def test_what_is_saved_again_meanwhile_replaces_what_is_drained(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    again = save(store, sweep, "0", shift=5.0)
    again.append(predict(store, sweep.pipeline, sweep.chain, fold_id="1", val_score=0.75))
    store.flush()
    assert again == saved[:2]
    held.let_go_soon()
    assert store.query_predictions().height == len(FIRST)
    arrays = [store.get_prediction_arrays(prediction) for prediction in saved[:3]]
    assert all(each is not None for each in arrays)
    first, second, third = (each["y_pred"] for each in arrays if each is not None)
    np.testing.assert_array_equal(first, third + 5.0)
    np.testing.assert_array_equal(second, third)  # it keeps those that the drain has written
    assert store.get_prediction(saved[1])["val_score"] == 0.75  # type: ignore[index]


def test_a_given_id_stays_the_first_one(store: WorkspaceStore, held: Held) -> None:
    sweep = begin_sweep(store)
    given = predict(store, sweep.pipeline, sweep.chain, fold_id="given", prediction_id="mine")
    save(store, sweep, *FIRST)
    assert held.is_there.wait(DEADLINE)
    held.let_go_soon()
    assert given == "mine"
    assert predict(store, sweep.pipeline, sweep.chain, fold_id="given", prediction_id="other") == "mine"
    assert predict(store, sweep.pipeline, sweep.chain, fold_id="given") == "mine"


def test_a_pipeline_completed_meanwhile_is_there_once(store: WorkspaceStore, held: Held) -> None:
    sweep, _ = begin(store, held)
    store.complete_pipeline(sweep.pipeline, best_val=0.5, best_test=0.25, metric="rmse", duration_ms=3)
    other = begin_pipeline(store, sweep.run, "0002")
    chain = save_chain(store, other)
    save(store, Sweep(sweep.run, other, chain), "0")
    held.let_go_soon()
    pipelines = store.list_pipelines().sort("name")
    assert pipelines["status"].to_list() == ["completed", "running"]
    assert pipelines["best_val"].to_list()[0] == 0.5


@pytest.mark.parametrize("what", ["run", "pipeline", "chain", "prediction"])
def test_what_is_deleted_meanwhile_is_gone(store: WorkspaceStore, held: Held, what: str) -> None:
    sweep, saved = begin(store, held)
    save(store, sweep, "8")
    held.let_go_soon()
    calls: dict[str, Callable[[], object]] = {
        "run": lambda: store.delete_run(sweep.run),
        "pipeline": lambda: store.delete_pipeline(sweep.pipeline),
        "chain": lambda: store.delete_chain(sweep.chain),
        "prediction": lambda: store.delete_prediction(saved[0]),
    }
    calls[what]()
    left = store.query_predictions()["prediction_id"].to_list()
    assert len(left) == (8 if what == "prediction" else 0)
    assert saved[0] not in left
    store.close()
    assert len(found(store._path)) == len(left)


def test_a_block_that_raises_meanwhile_takes_only_its_own(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    with pytest.raises(ZeroDivisionError), store.transaction():
        predict_with_arrays(store, sweep, fold_id="given up")
        raise ZeroDivisionError
    assert held.committed == 0
    held.let_go_soon()
    saved += save(store, sweep, "8")  # its chain is looked up, for a block was given up
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailableError(Path("disk"), "full"),
        MemoryLimitError(Path("disk"), "no room"),
        MemoryError(),
        OSError(5, "broken"),
    ],
)
def test_one_that_fails_loses_nothing_and_the_next_one_is_the_callers(
    store: WorkspaceStore, held: Held, error: BaseException
) -> None:
    sweep, saved = begin(store, held)
    saved += save(store, sweep, "8", shift=1.0)
    assert save(store, sweep, "0", shift=2.0) == saved[:1]
    held.error = error
    held.let_go()
    saved += save(store, sweep, "9")  # meets it, and drains itself
    assert held.committed == 0
    held.error = None
    saved += save(store, sweep, *map(str, range(10, 20)))
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)
    shifted = {number: store.get_prediction_arrays(saved[number])["y_pred"] for number in (0, 1, 8)}  # type: ignore[index]
    np.testing.assert_array_equal(shifted[0], shifted[1] + 2.0)
    np.testing.assert_array_equal(shifted[8], shifted[1] + 1.0)
    store.close()
    assert found(store._path) == sorted(saved)


def test_an_error_that_stays_is_told_by_the_call_that_saves(
    store: WorkspaceStore, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, saved = begin(store, held)
    held.error = StoreUnavailableError(store._path, "full")
    held.let_go()
    database = store._open().database
    while database.is_lent:
        pass

    def full(*_: object, **__: object) -> int:
        raise StoreUnavailableError(store._path, "full")

    with monkeypatch.context() as patch:
        patch.setattr(type(database), "insert", full)
        saved.append(predict_with_arrays(store, sweep, fold_id="8"))
        with pytest.raises(StoreUnavailableError, match="full"):
            store.flush()
    held.error = None
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)


def test_rows_of_a_pipeline_that_another_process_has_deleted_go_with_it(store: WorkspaceStore, held: Held) -> None:
    sweep, _ = begin(store, held)
    held.let_go()
    assert store.query_predictions().height == len(FIRST)
    store._open().database.detach()
    deletes = (
        "import sys; from n4a_fast import WorkspaceStore; WorkspaceStore(sys.argv[1]).delete_pipeline(sys.argv[2])"
    )
    finish(child(deletes, store._path, sweep.pipeline))
    with pytest.raises(NotFoundError):
        save(store, sweep, *map(str, range(8, 40)))
        store.query_predictions()
        save(store, sweep, "40")
    assert store.query_predictions().is_empty()
    store.close()
    assert found(store._path) == []


def test_memory_is_bounded_where_the_drain_is_slower(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    held.is_there.clear()
    saver = threading.Thread(target=lambda: saved.extend(save(store, sweep, *map(str, range(8, 100)))))
    saver.start()
    batch = store._open().predictions.batch
    while len(batch) < 8:  # the next one is full, and waits for the first
        assert saver.is_alive()
    saver.join(0.2)
    assert saver.is_alive()
    assert len(store._open().predictions.batch) == 8
    held.let_go()
    saver.join(DEADLINE)
    assert store.query_predictions()["prediction_id"].sort().to_list() == sorted(saved)
    assert len(saved) == 100


def test_a_folder_that_is_replaced_meanwhile_takes_no_row_of_the_old_one(store: WorkspaceStore, held: Held) -> None:
    sweep, _ = begin(store, held)
    moved = store._path.with_name("moved")
    store._path.rename(moved)
    with WorkspaceStore(store._path.with_name("other")) as other:
        begin_sweep(other)
    store._path.with_name("other").rename(store._path)
    with pytest.raises(StoreMovedError):
        save(store, sweep, "8")
    held.let_go()
    with pytest.raises(StoreMovedError):
        store.query_predictions()
    with pytest.raises(StoreMovedError):
        store.close()
    assert found(store._path) == []
    assert len(found(moved)) == len(FIRST)
    shutil.rmtree(moved)


# begins a drain that stops before or behind its commit, or not at all, and logs more
SAVER = """
import sys, threading
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import Lent
from n4a_fast.log.segment import Segment
store = WorkspaceStore(sys.argv[1], flush_interval=None, flush_rows=2)
sweep, commit, there, stops = begin_sweep(store), Lent.commit, threading.Event(), sys.argv[2]
def stopping(lent):
    if stops == "behind":
        commit(lent)
    there.set()
    if stops != "never":
        threading.Event().wait()
    commit(lent)
Lent.commit = stopping
for fold in range(11):
    predict_with_arrays(store, sweep, fold_id=str(fold))
    store.flush()
there.wait()
if stops == "never":
    store._open().database.take_back()
print("saved", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("stops", ["before", "behind", "never"])
def test_what_a_killed_process_has_logged_is_there_once(tmp_path: Path, stops: str) -> None:
    worker = child(SAVER, tmp_path, stops)
    assert read_line(worker) == "saved"
    kill(worker)
    assert len(found(tmp_path)) == 11


def test_another_process_waits_its_turn_and_sees_all(store: WorkspaceStore, held: Held) -> None:
    sweep, saved = begin(store, held)
    saved += save(store, sweep, "8")
    reads = (
        "import sys; from n4a_fast import WorkspaceStore; print(WorkspaceStore(sys.argv[1]).query_predictions().height)"
    )
    reader = child(reads, store._path)
    held.let_go()
    assert finish(reader).split() == [str(len(saved))]


EXITS = """
import sys, threading
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import Lent
store, commit = WorkspaceStore(sys.argv[1], flush_interval=None, flush_rows=2), Lent.commit
there, goes_on = threading.Event(), threading.Event()
def slow(lent):
    there.set()
    goes_on.wait(0.3)
    commit(lent)
Lent.commit, sweep = slow, begin_sweep(store)
for fold in range(11):
    predict_with_arrays(store, sweep, fold_id=str(fold))
    store.flush()
there.wait()
"""


FORKS = """
import os
if os.fork() == 0:
    with WorkspaceStore(sys.argv[1]) as own:
        predict_with_arrays(own, sweep, fold_id="child")
    os._exit(0)
assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_waits_for_it(tmp_path: Path) -> None:
    finish(child(EXITS + FORKS, tmp_path))
    assert len(found(tmp_path)) == 12


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "store = None"])
def test_the_end_of_the_program_waits_for_it(tmp_path: Path, end: str) -> None:
    finish(child(EXITS + end, tmp_path))
    assert plain_rows(tmp_path / "store.duckdb", "SELECT count(*) FROM predictions") == [(11,)]
    assert [name for name in os.listdir(tmp_path) if ".log-" in name] == []


def test_the_log_does_not_grow_with_the_sweep(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_interval=None, flush_rows=20) as store:
        sweep, longest = begin_sweep(store), 0
        for number in range(1_500):
            save(store, sweep, str(number))
            longest = max(longest, *(path.stat().st_size for path in tmp_path.glob("store.duckdb.log-*")))
        assert longest < 1_500_000
        assert store.query_predictions().height == 1_500
