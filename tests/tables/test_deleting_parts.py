"""Deleting a pipeline or a chain takes what is below it and nothing else; a dry run takes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, count, counts, predict, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError

TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "logs", "artifacts")


@pytest.fixture
def two(store: WorkspaceStore, sweep: Sweep) -> Sweep:
    """Two pipelines of two chains each; the first chains of both share an artifact, each chain has one of its own."""
    shared = store.save_artifact({"of": "both"}, "dict", "transformer", "joblib")
    for number, pipeline in enumerate([sweep.pipeline, begin_pipeline(store, sweep.run, "0002_ridge")]):
        for place in range(2):
            own = store.save_artifact({"of": (number, place)}, "dict", "model", "joblib")
            chain = save_chain(
                store, pipeline, fold_artifacts={"fold_0": own}, shared_artifacts={} if place else {"1": shared}
            )
            predict_with_arrays(store, Sweep(sweep.run, pipeline, chain))
        store.log_step(pipeline, 1, "SNV", "start")
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return sweep


def test_a_pipeline_goes_with_all_below_it(store: WorkspaceStore, two: Sweep) -> None:
    assert store.delete_pipeline(two.pipeline) == 1 + 3 + 2 + 2 + 1
    assert counts(store, *TABLES) == {
        "runs": 1, "pipelines": 1, "chains": 2, "predictions": 2, "prediction_arrays": 2, "logs": 1, "artifacts": 3
    }  # fmt: skip
    assert store.verify_artifacts()


def test_a_chain_goes_with_its_predictions_and_its_own_artifact(store: WorkspaceStore, two: Sweep) -> None:
    chain = store.get_chains_for_pipeline(two.pipeline)["chain_id"][1]
    assert store.delete_chain(chain) == 1 + 1 + 1
    assert store.get_chain(chain) is None
    assert counts(store, "pipelines", "chains", "predictions", "artifacts") == {
        "pipelines": 2, "chains": 4, "predictions": 3, "artifacts": 4
    }  # fmt: skip


def _second_chain(store: WorkspaceStore, two: Sweep) -> str:
    return str(store.get_chains_for_pipeline(two.pipeline)["chain_id"][1])


DELETES: dict[str, Callable[[WorkspaceStore, Sweep, bool], Any]] = {
    "run": lambda store, two, dry: store.delete_run(two.run, dry_run=dry),
    "pipeline": lambda store, two, dry: store.delete_pipeline(two.pipeline, dry_run=dry),
    "chain": lambda store, two, dry: store.delete_chain(_second_chain(store, two), dry_run=dry),
    "prediction": lambda store, two, dry: store.delete_prediction(store.find("@last", "prediction"), dry_run=dry),
    "data set": lambda store, two, dry: store.delete_dataset_predictions("corn", dry_run=dry),
    "garbage": lambda store, two, dry: store.gc_artifacts(dry_run=dry),
}


@pytest.mark.parametrize("what", DELETES)
def test_a_dry_run_tells_what_would_go_and_leaves_everything(store: WorkspaceStore, two: Sweep, what: str) -> None:
    if what == "garbage":
        store.delete_chain(store.find("@last", "chain"), delete_artifacts=False)
    running = begin_pipeline(store, two.run, "0003_running")
    rows = counts(store, *TABLES)
    files = sorted((store.workspace_path / "artifacts").rglob("*.joblib"))
    told = DELETES[what](store, two, True)
    assert told
    assert counts(store, *TABLES) == rows
    assert sorted((store.workspace_path / "artifacts").rglob("*.joblib")) == files
    save_chain(store, running)  # what is open stays open
    store.save_artifact({"new": what}, "dict", "model", "joblib")  # and others are let in
    store.flush()
    assert count(store, "chains") == rows["chains"] + 1
    store.complete_pipeline(running, 0.1, 0.1, "rmse", 1)
    if what not in ("run", "garbage"):  # the one has a pipeline more by now, the other an artifact
        assert DELETES[what](store, two, False) == told


def test_a_dry_run_keeps_what_is_only_in_memory(store: WorkspaceStore, sweep: Sweep) -> None:
    predict_with_arrays(store, sweep)
    assert store.delete_run(sweep.run, dry_run=True) > 3
    assert count(store, "predictions") == 1


def test_a_dry_run_inside_a_transaction_is_refused(store: WorkspaceStore, two: Sweep) -> None:
    with store.transaction(), pytest.raises(InvalidInputError, match="dry_run"):
        store.delete_run(two.run, dry_run=True)
    assert count(store, "runs") == 1


@pytest.mark.parametrize("nothing", [[], (), np.array([])])
def test_a_list_without_ids_deletes_nothing(tmp_path: Path, nothing: Any) -> None:
    with WorkspaceStore(tmp_path / "w") as store:
        prediction = predict_with_arrays(store, begin_sweep(store))
        delete = store._open().deletions.delete_matching_predictions
        with pytest.raises(InvalidInputError, match="no filter would mean every prediction"):
            delete({"prediction_id": nothing, "chain_id": None})
        assert delete({"prediction_id": nothing, "dataset_name": "corn"}, running=True).predictions == 0
        assert delete({"prediction_id": [prediction], "dataset_name": nothing}, running=True).predictions == 0
        assert store.get_prediction(prediction) is not None


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.long
def test_predictions_deleted_one_by_one_leave_what_the_same_leave_that_go_together(tmp_path: Path, seed: int) -> None:
    """One is deleted by its values, many by a table of them."""
    chosen = np.random.default_rng(seed).permutation(12)[: 4 + 5 * seed]
    left = []
    for way in ("alone", "together", "in a block"):
        with WorkspaceStore(tmp_path / way) as store:
            sweep = begin_sweep(store)
            predictions = [_with_shared_arrays(store, sweep, number) for number in range(12)]
            going = [predictions[number] for number in chosen]
            store.flush()
            if way == "together":
                gone = store._open().deletions.delete_matching_predictions({"prediction_id": going})
                assert gone.predictions == len(going)
            else:
                with store.transaction() if way == "in a block" else nullcontext():
                    assert [store.delete_prediction(prediction) for prediction in going] == [True] * len(going)
                    assert not store.delete_prediction(going[0])
            kept = [predictions[number] for number in sorted(set(range(12)) - set(chosen))]
            assert store.query_predictions().sort("created_at")["prediction_id"].to_list() == kept
            arrays = [(store.get_prediction(each, load_arrays=True) or {})["y_true"].tolist() for each in kept]
            assert store.verify().findings == []
            left.append(
                (arrays, counts(store, "shared_arrays", "shared_indices", "prediction_metadata", "shared_metadata"))
            )
    assert left[0] == left[1] == left[2]


def _with_shared_arrays(store: WorkspaceStore, sweep: Sweep, number: int) -> str:
    """A prediction whose targets, weights and samples are those of others; weights of one are targets too."""
    prediction = predict(store, sweep.pipeline, sweep.chain, fold_id=str(number))
    y, weights = (np.arange(3.0) + place for place in (number % 4, number % 3))
    metadata = {"site": [f"s{number % 5}"] * 3} if number % 2 else None
    store.save_prediction_arrays(prediction, y, y + number, None, np.arange(3) + number % 6, weights, metadata)
    return prediction
