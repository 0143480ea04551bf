"""Metadata of samples comes back with the arrays, is stored once per content, and goes with its predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Sweep, begin_sweep, child, count, finish, predict

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError

SITES = {"site": ["a", "b", "a"], "year": [2019, 2020, 2021]}


def saved(store: WorkspaceStore, sweep: Sweep, metadata: Any, **changes: Any) -> str:
    prediction = predict(store, sweep.pipeline, sweep.chain, **changes)
    store.save_prediction_arrays(prediction, np.arange(3.0), np.arange(3.0), sample_metadata=metadata)
    return prediction


def metadata_of(store: WorkspaceStore, prediction: str) -> Any:
    found = store.get_prediction(prediction, load_arrays=True)
    return found and found["sample_metadata"]


def test_metadata_comes_back_and_equal_ones_are_stored_once(store: WorkspaceStore, sweep: Sweep) -> None:
    both = [saved(store, sweep, SITES, fold_id=fold) for fold in ("0", "1")]
    other = saved(store, sweep, {"site": ["c"]}, fold_id="2")
    none = saved(store, sweep, None, fold_id="3")
    assert [metadata_of(store, prediction) for prediction in (*both, other, none)] == [
        SITES,
        SITES,
        {"site": ["c"]},
        {},
    ]
    assert (count(store, "prediction_metadata"), count(store, "shared_metadata")) == (3, 2)
    assert "sample_metadata" not in (store.get_prediction(both[0]) or {})


def test_newer_metadata_replace_those_before_a_flush_and_after_it(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = saved(store, sweep, SITES)
    saved(store, sweep, {"site": ["b"]})
    assert metadata_of(store, prediction) == {"site": ["b"]}
    saved(store, sweep, {"site": ["c"]})
    saved(store, sweep, None)
    assert metadata_of(store, prediction) == {"site": ["c"]}
    assert count(store, "prediction_metadata") == 1


def test_the_first_metadata_are_found_though_there_were_none_before(store: WorkspaceStore, sweep: Sweep) -> None:
    first, second = (saved(store, sweep, None, fold_id=fold) for fold in ("0", "1"))
    store.list_runs()
    assert [metadata_of(store, each) for each in (first, second)] == [{}, {}]
    store.save_prediction_arrays(second, np.arange(3.0), np.arange(3.0), sample_metadata=SITES)
    store.list_runs()
    assert [metadata_of(store, each) for each in (first, second)] == [{}, SITES]
    with store.transaction():
        store.save_prediction_arrays(first, np.arange(3.0), np.arange(3.0), sample_metadata=SITES)
        assert metadata_of(store, first) == SITES


def test_metadata_go_with_the_last_prediction_that_has_them(store: WorkspaceStore, sweep: Sweep) -> None:
    first, second = (saved(store, sweep, SITES, fold_id=fold) for fold in ("0", "1"))
    store.delete_prediction(first)
    assert metadata_of(store, second) == SITES
    store.delete_run(sweep.run)
    assert (count(store, "prediction_metadata"), count(store, "shared_metadata")) == (0, 0)


WAYS: dict[str, Callable[[WorkspaceStore, Sweep, str], object]] = {
    "pipeline": lambda store, sweep, _: store.delete_pipeline(sweep.pipeline),
    "chain": lambda store, sweep, _: store.delete_chain(sweep.chain),
    "dataset": lambda store, _, __: store.delete_dataset_predictions("corn"),
    "prediction": lambda store, _, prediction: store.delete_prediction(prediction),
    "failed": lambda store, sweep, _: store.fail_pipeline(sweep.pipeline, "why"),
}


@pytest.mark.parametrize("way", WAYS)
def test_metadata_go_with_their_predictions_in_every_way(store: WorkspaceStore, sweep: Sweep, way: str) -> None:
    gone = saved(store, sweep, SITES)
    other = begin_sweep(store)
    kept = saved(store, other, {"site": ["c"]}, dataset_name="wheat")
    store.list_runs()
    WAYS[way](store, sweep, gone)
    assert metadata_of(store, kept) == {"site": ["c"]}
    assert (count(store, "prediction_metadata"), count(store, "shared_metadata")) == (1, 1)
    assert store.verify(quick=True).findings == []


def test_metadata_of_a_block_that_raises_are_given_up(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = saved(store, sweep, None)
    with pytest.raises(RuntimeError), store.transaction():
        saved(store, sweep, SITES)
        raise RuntimeError
    assert metadata_of(store, prediction) == {}


def test_metadata_that_are_no_dict_are_refused(store: WorkspaceStore, sweep: Sweep) -> None:
    with pytest.raises(InvalidInputError, match="sample_metadata must be a dict"):
        saved(store, sweep, [1, 2])
    with pytest.raises(NotFoundError):
        store.save_prediction_arrays("unknown", None, np.zeros(1), sample_metadata=SITES)
    assert (count(store, "prediction_metadata"), count(store, "prediction_arrays")) == (0, 0)


def test_flushed_metadata_outlive_their_process(tmp_path: Path) -> None:
    finish(child(SAVE_AND_VANISH, tmp_path, Path(__file__).parent))
    with WorkspaceStore(tmp_path) as store:
        (prediction,) = store.query_predictions()["prediction_id"]
        assert metadata_of(store, prediction) == SITES


SAVE_AND_VANISH = """
import os, sys
from helpers import WorkspaceStore, begin_sweep
sys.path.insert(0, sys.argv[2])
from test_metadata import SITES, saved
store = WorkspaceStore(sys.argv[1])
saved(store, begin_sweep(store), SITES)
store.flush()
os._exit(0)
"""
