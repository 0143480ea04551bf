"""A deletion that is a record of the log until the next read is a deletion: for every reader, and after any end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import (
    Sweep,
    begin_sweep,
    child,
    counts,
    examples,
    finish,
    kill,
    plain_rows,
    predict_with_arrays,
    read_line,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError, StoreUnavailableError

COUNT = "SELECT count(*) FROM predictions"
DELETE = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
for prediction in sys.argv[2:]:
    assert store.delete_prediction(prediction)
print("deleted", flush=True)
sys.stdin.readline()
"""
FOLDS = [str(fold) for fold in range(6)]
STEPS = st.lists(
    st.tuples(st.sampled_from(["delete", "delete", "save", "look", "own id"]), st.integers(0, 5)), max_size=12
)


def filled(path: Path) -> tuple[Sweep, list[str]]:
    """A chain with six predictions with arrays, all in the tables."""
    with WorkspaceStore(path) as store:
        sweep = begin_sweep(store)
        saved = [predict_with_arrays(store, sweep, fold_id=fold) for fold in FOLDS]
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 6)
    return sweep, saved


def logs(path: Path) -> list[Path]:
    return [found for found in path.glob("store.duckdb.log-*") if found.stat().st_size]


def ids_in(store: WorkspaceStore) -> list[str]:
    return sorted(store.query_predictions()["prediction_id"])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep, list[str]]:
    path = tmp_path_factory.mktemp("filled")
    return path, *filled(path)


def test_deletions_wait_in_the_log_and_go_together(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert [store.delete_prediction(prediction) for prediction in saved[:4]] == [True] * 4
        with store.undrained():
            assert store.sql(COUNT).item() == 6
        assert logs(tmp_path)
        assert ids_in(store) == sorted(saved[4:])
        assert counts(store, "prediction_values", "shared_arrays") == {"prediction_values": 2, "shared_arrays": 2}
    assert plain_rows(tmp_path / "store.duckdb", COUNT) == [(2,)]
    assert not logs(tmp_path)


def test_what_was_deleted_before_a_kill_stays_deleted(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    worker = child(DELETE, tmp_path, *saved[:5])
    assert read_line(worker) == "deleted"
    kill(worker)
    assert logs(tmp_path)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert ids_in(store) == sorted(saved[5:])
        assert store.get_prediction(saved[0]) is None


def test_another_process_sees_a_deletion_at_once(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    worker = child(DELETE, tmp_path, saved[0])
    assert read_line(worker) == "deleted"
    with WorkspaceStore(tmp_path) as store:
        assert not store.delete_prediction(saved[0])
        assert store.delete_prediction(saved[1])
        assert store.query_predictions().height == 4
    assert worker.stdin is not None
    worker.stdin.write("\n")
    finish(worker)


def test_what_another_process_saves_after_a_deletion_stays(tmp_path: Path) -> None:
    sweep, saved = filled(tmp_path)
    worker = child(DELETE, tmp_path, *saved)
    assert read_line(worker) == "deleted"
    with WorkspaceStore(tmp_path) as store:
        assert predict_with_arrays(store, sweep, fold_id="0") == saved[0]
        store.flush()
        kill(worker)
        assert ids_in(store) == sorted(saved[:1])
        assert store.get_prediction_arrays(saved[0]) is not None


def test_a_workspace_whose_deletions_are_in_a_killed_log_is_merged_without_them(tmp_path: Path) -> None:
    _, saved = filled(tmp_path / "source")
    worker = child(DELETE, tmp_path / "source", *saved[:3])
    assert read_line(worker) == "deleted"
    kill(worker)
    with WorkspaceStore(tmp_path / "target") as store:
        store.merge(tmp_path / "source")
        assert store.query_predictions().height == 3


def test_a_deletion_in_a_block_that_raises_is_given_up_and_those_before_it_are_not(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert store.delete_prediction(saved[0])
        with pytest.raises(ValueError, match="on purpose"), store.transaction():
            assert not store.delete_prediction(saved[0])
            assert store.delete_prediction(saved[1])
            raise ValueError("on purpose")
        assert store.delete_prediction(saved[2], dry_run=True)
        assert ids_in(store) == sorted(saved[1:])


@pytest.mark.not_on("windows", reason="whether an open file that is removed keeps its name depends on the release")
def test_a_deletion_that_cannot_be_logged_is_void(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert store.delete_prediction(saved[0])
        for log in logs(tmp_path):
            log.unlink()
        with pytest.raises(StoreUnavailableError, match="was removed"):
            store.delete_prediction(saved[1])
        assert ids_in(store) == sorted(saved[1:])
        assert store.delete_prediction(saved[1])


def test_a_deleted_prediction_takes_no_arrays(tmp_path: Path) -> None:
    _, saved = filled(tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert store.delete_prediction(saved[0])
        with pytest.raises(NotFoundError):
            store.save_prediction_arrays(saved[0], [1.0], [1.0])


def test_a_key_whose_prediction_was_deleted_takes_the_next_id(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        assert predict_with_arrays(store, sweep, prediction_id="first") == "first"
        predict_with_arrays(store, sweep, fold_id="1")
        assert store.delete_prediction("first")
        assert predict_with_arrays(store, sweep, prediction_id="second") == "second"
        assert store.delete_prediction("second")
        assert predict_with_arrays(store, sweep, prediction_id="first") == "first"
        assert set(store.query_predictions()["prediction_id"]) >= {"first"}
        assert store.query_predictions().height == 2


@given(steps=STEPS)
@settings(max_examples=examples(30), deadline=None)
@pytest.mark.long
def test_deletions_by_the_log_leave_what_deletions_in_the_tables_leave(
    workspace: tuple[Path, Sweep, list[str]], tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    source, sweep, saved = workspace
    left = []
    for at_once in (False, True):
        path = tmp_path_factory.mktemp("copy") / "workspace"
        shutil.copytree(source, path)
        with WorkspaceStore(path) as store:
            told = [_step(store, sweep, saved, step, place, at_once) for step, place in steps]
            rows = store.query_predictions().select("prediction_id", "fold_id", "val_score").sort("prediction_id")
            arrays = {name: store.get_prediction_arrays(name)["y_pred"].tolist() for name in rows["prediction_id"]}
            tables = counts(store, "predictions", "prediction_values", "shared_arrays", "chains")
            left.append((told, rows.rows(), arrays, tables, store.query_chain_summaries().rows()))
        shutil.rmtree(path)
    assert left[0] == left[1]


def _step(store: WorkspaceStore, sweep: Sweep, saved: list[str], step: str, place: int, at_once: bool) -> object:
    if step == "delete" and at_once:
        with store.transaction():
            return store.delete_prediction(saved[place])
    if step == "delete":
        return store.delete_prediction(saved[place])
    if step == "look":
        return store.query_predictions().height
    own = {"prediction_id": f"own {place}"} if step == "own id" else {}
    return predict_with_arrays(store, sweep, place, fold_id=FOLDS[place], val_score=place / 8, **own)
