"""Predictions that were read ahead are those that are read alone, until anything changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, begin_sweep, child, examples, finish, predict, predict_with_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@pytest.fixture
def mixed(
    filled: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[WorkspaceStore, list[str]]]:
    """The same, of which some were deleted and others saved anew, so that arrays lie elsewhere than their predictions;
    nothing is read ahead.
    """
    workspace, saved = filled
    monkeypatch.setattr(ReadAhead, "find", lambda *_: None)
    with WorkspaceStore(workspace) as store:
        for each in saved[3::9]:
            store.delete_prediction(each)
        store.list_runs()
        for number, each in enumerate(saved[4::9]):
            store.save_prediction_arrays(each, np.arange(4.0), np.arange(4.0) + number)
        store.list_runs()
        yield store, [each for number, each in enumerate(saved) if number % 9 != 3]


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


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.integers(-FILLED, FILLED))
@pytest.mark.long
def test_a_wrong_guess_of_where_arrays_are_changes_nothing(
    mixed: tuple[WorkspaceStore, list[str]], order: Random, shift: int
) -> None:
    store, saved = mixed
    queries = store._open().queries
    for each in order.sample(saved, 6):
        queries._shift, by_key = shift, queries._values_of(each)
        found = store.get_prediction(each, load_arrays=True)
        assert found is not None
        assert (found["y_pred"] is None) == (by_key is None)
        assert by_key is None or np.array_equal(found["y_pred"].ravel(), by_key["y_pred"], equal_nan=True)


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
