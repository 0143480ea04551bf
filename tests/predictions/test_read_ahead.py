"""Predictions that were read ahead are those that are read alone, until anything changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, begin_sweep, child, finish, predict, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.predictions import read_ahead
from n4a_fast.predictions.read_ahead import ReadAhead

FILLED = 40
DELETE = """
import sys
from n4a_fast import WorkspaceStore
WorkspaceStore(sys.argv[1]).delete_prediction(sys.argv[2])
"""


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, list[str]]:
    """Predictions of every shape: with probabilities, 2-D targets, own ids, and without arrays."""
    with WorkspaceStore(tmp_path) as store:
        sweep, saved = begin_sweep(store), []
        for number in range(FILLED):
            known = {"prediction_id": f"own {number}"} if number % 5 == 0 else {}
            saved.append(predict(store, sweep.pipeline, sweep.chain, fold_id=str(number), **known))
            if number % 7:
                y = np.arange(6.0).reshape(3, 2) * number if number % 3 else np.full(4, np.nan)
                store.save_prediction_arrays(saved[-1], y, y, y[:, None] / 9 if y.ndim == 1 else None, range(len(y)))
                if number % 4 == 0:
                    store.save_prediction_arrays(saved[-1], y, y, sample_metadata={"number": number})
    return tmp_path, saved


def places(store: WorkspaceStore) -> dict[str, Any]:
    return store._open().queries._ahead._places


@pytest.mark.long
def test_neighbours_are_what_each_is_alone(filled: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, saved = filled
    with WorkspaceStore(workspace) as store:
        ahead = [store.get_prediction(each, load_arrays=True) for each in saved]
        arrays = [store.get_prediction_arrays(each) for each in saved]
        assert len(places(store)) == FILLED - len(range(0, FILLED, 7))
        monkeypatch.setattr(ReadAhead, "find", lambda *_: None)
        for each, found, held in zip(saved, ahead, arrays, strict=True):
            alone = store.get_prediction(each, load_arrays=True)
            np.testing.assert_equal(found, alone)
            assert found is not None
            assert alone is not None
            assert list(found) == list(alone)
            assert [type(value) for value in found.values()] == [type(value) for value in alone.values()]
            np.testing.assert_equal(held, store.get_prediction_arrays(each))


def test_what_was_handed_out_is_the_callers_to_change(filled: tuple[Path, list[str]]) -> None:
    workspace, saved = filled
    with WorkspaceStore(workspace) as store:
        for _ in range(3):
            found = store.get_prediction(saved[1], load_arrays=True)
            assert found is not None
            assert found["y_pred"].sum() == 15.0
            found["y_pred"][:] = -1


def test_a_change_by_this_or_another_process_is_seen(filled: tuple[Path, list[str]]) -> None:
    workspace, saved = filled
    with WorkspaceStore(workspace) as store:
        for each in saved[:6]:
            store.get_prediction(each, load_arrays=True)
        assert saved[8] in places(store)
        store.delete_prediction(saved[8])
        assert store.get_prediction(saved[8], load_arrays=True) is None
        for each in saved[:6]:
            store.get_prediction(each, load_arrays=True)
        assert saved[9] in places(store)
        finish(child(DELETE, workspace, saved[9]))
        assert store.get_prediction(saved[9], load_arrays=True) is None


def test_a_row_group_of_long_arrays_is_not_read_ahead(
    filled: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "_MOST_BYTES", 100)
    workspace, saved = filled
    with WorkspaceStore(workspace) as store:
        for each in saved:
            store.get_prediction(each, load_arrays=True)
        assert not places(store)


def test_inside_a_transaction_its_own_changes_are_seen(filled: tuple[Path, list[str]]) -> None:
    workspace, saved = filled
    with WorkspaceStore(workspace) as store:
        for each in saved[:6]:
            store.get_prediction(each, load_arrays=True)
        with store.transaction():
            sweep = begin_sweep(store)
            new = predict_with_arrays(store, sweep, prediction_id=saved[10])
            store.list_runs()
            found = store.get_prediction(saved[10], load_arrays=True)
            assert new == saved[10]
            assert found is not None
            assert found["pipeline_id"] == sweep.pipeline
            begin_pipeline(store, sweep.run)
