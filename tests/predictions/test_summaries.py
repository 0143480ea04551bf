"""One row per chain: its folds' means, its refit's scores, filtered by lists, ranked in pages."""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from helpers import PREDICTION, Sweep, begin_pipeline, begin_sweep, counts, predict, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError

PARTITIONS = ("train", "val", "test")


def scores(value: float) -> dict[str, dict[str, Any]]:
    return {
        partition: {"rmse": value + place, "r2": -value, "text": "0.5", "nan": math.nan}
        for place, partition in enumerate(PARTITIONS)
    }


def fill(store: WorkspaceStore, sweep: Sweep, start: float, chain: str | None = None, **changes: Any) -> None:
    """Three folds with their averages and a refit."""
    for place, fold in enumerate(("0", "1", "2", "avg", "w_avg", "0_agg")):
        value = start + place
        for partition in PARTITIONS:
            numbers = {"val_score": value, "test_score": value + 1, "train_score": value + 2, "scores": scores(value)}
            predict(
                store,
                sweep.pipeline,
                chain or sweep.chain,
                **{"fold_id": fold, "partition": partition, **numbers, **changes},
            )
    for partition in ("train", "test"):
        refit = {
            "refit_context": "standalone",
            "fold_id": "final",
            "test_score": start / 2,
            "train_score": start / 4,
            "scores": {partition: {"rmse": start}},
        }
        predict(store, sweep.pipeline, chain or sweep.chain, **{**refit, "partition": partition, **changes})


def test_a_chain_is_summed_up_by_its_folds_and_its_refit(store: WorkspaceStore, sweep: Sweep) -> None:
    fill(store, sweep, 4.0)
    save_chain(store, sweep.pipeline)  # without predictions, so without a row
    (row,) = store.query_chain_summaries().to_dicts()
    wanted = {
        "chain_id": sweep.chain,
        "pipeline_id": sweep.pipeline,
        "run_id": sweep.run,
        "pipeline_status": "running",
        "dataset_name": "corn",
        "model_name": "PLS",
        "model_class": PREDICTION["model_class"],
        "metric": "rmse",
        "task_type": "regression",
        "preprocessings": "SNV",
        "cv_val_score": 5.0,
        "cv_test_score": 6.0,
        "cv_train_score": 7.0,
        "cv_fold_count": 3,
        "final_test_score": 2.0,
        "final_train_score": 1.0,
        "final_agg_test_score": None,
    }
    assert {name: row[name] for name in wanted} == wanted
    assert json.loads(row["best_params"]) == {"n_components": 3}
    assert json.loads(row["final_scores"]) == {"test": {"rmse": 4.0}}
    assert json.loads(row["cv_scores"]) == {
        name: {"r2": -5.0, "rmse": 5.0 + place} for place, name in enumerate(PARTITIONS)
    }


def test_the_mean_of_a_metric_is_that_of_the_folds_that_have_it(store: WorkspaceStore, sweep: Sweep) -> None:
    drawn = np.random.default_rng(0).random(7).tolist()
    for fold, value in enumerate(drawn):
        inner = {"rmse": value, **({"rpd": fold} if fold % 2 else {})}
        predict(
            store,
            sweep.pipeline,
            sweep.chain,
            fold_id=str(fold),
            val_score=math.nan if fold == 3 else value,
            scores={"val": inner} if fold else inner,
        )
    (row,) = store.query_chain_summaries().to_dicts()
    assert row["cv_val_score"] == pytest.approx(fmean(value for fold, value in enumerate(drawn) if fold != 3))
    assert json.loads(row["cv_scores"]) == {"val": {"rmse": round(fmean(drawn), 6), "rpd": 3.0}}


@pytest.mark.parametrize("refit", [False, True], ids=["folds", "refit"])
def test_predictions_of_new_spectra_leave_what_is_told_of_their_chain(
    store: WorkspaceStore, sweep: Sweep, refit: bool
) -> None:
    if refit:
        predict(store, sweep.pipeline, sweep.chain, fold_id="final", partition="test", refit_context="standalone")
    else:
        fill(store, sweep, 1.0)
    reads = (
        store.query_chain_summaries,
        lambda: store.query_top_chains("rmse"),
        lambda: store.leaderboard("rmse").frame,
    )
    told = [read() for read in reads]
    assert told[0]["metric"].to_list() == ["rmse"]
    assert told[1].height == 1
    for fold, partition in (("final", "prediction"), ("avg", "test"), ("0", "val")):
        predict(
            store,
            sweep.pipeline,
            sweep.chain,
            fold_id=fold,
            partition=partition,
            metric="",
            model_name="new",
            task_type="",
            best_params={"n": 9},
            scores={},
            **dict.fromkeys(("val_score", "test_score", "train_score")),
        )
    for read, before in zip(reads, told, strict=True):
        assert read().equals(before)


def test_scores_that_are_missing_or_no_numbers_give_no_means(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold, given in enumerate((None, {}, {"val": {}}, {"val": {"rmse": "0.5", "ok": True, "list": [1]}})):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), scores=given, val_score=None, best_params={})
    (row,) = store.query_chain_summaries().to_dicts()
    assert (row["cv_scores"], row["cv_val_score"], row["best_params"], row["cv_fold_count"]) == (None, None, None, 4)


@pytest.fixture
def ranked(store: WorkspaceStore) -> tuple[WorkspaceStore, list[str], list[Sweep]]:
    """Two runs with three chains each; the chains by rising score."""
    sweeps, chains = [begin_sweep(store, "corn"), begin_sweep(store, "soil")], []
    for place in range(6):
        sweep = sweeps[place % 2]
        chains.append(save_chain(store, sweep.pipeline, model_class="PLS" if place < 4 else "Ridge"))
        fill(store, sweep, math.nan if place == 5 else float(place), chains[-1], metric="rmse" if place else "r2")
    return store, chains, sweeps


def test_filters_take_one_value_or_a_list(ranked: tuple[WorkspaceStore, list[str], list[Sweep]]) -> None:
    store, chains, (corn, soil) = ranked
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({}, {0, 1, 2, 3, 4, 5}),
        ({"run_id": corn.run}, {0, 2, 4}),
        ({"run_id": [corn.run, soil.run]}, {0, 1, 2, 3, 4, 5}),
        ({"pipeline_id": [soil.pipeline]}, {1, 3, 5}),
        ({"chain_id": chains[:2]}, {0, 1}),
        ({"chain_id": []}, {0, 1, 2, 3, 4, 5}),
        ({"dataset_name": ("soil",)}, {1, 3, 5}),
        ({"model_class": "Rid%"}, {4, 5}),
        ({"model_class": ["PLS", "other"]}, {0, 1, 2, 3}),
        ({"metric": "r2"}, {0}),
        ({"task_type": "classification"}, set()),
        ({"run_id": corn.run, "metric": "rmse"}, {2, 4}),
    ]
    for filters, places in cases:
        wanted = sorted(chains[place] for place in places)
        assert store.query_chain_summaries(**filters)["chain_id"].to_list() == wanted, filters
        assert store.count_chain_summaries(**filters) == len(wanted), filters
    assert store.query_chain_summaries(corn.run, None, chains[0])["chain_id"].to_list() == chains[:1]
    with pytest.raises(InvalidInputError, match="unknown filter modelclass"):
        store.query_top_chains(modelclass="PLS")


def test_the_ranking_comes_in_pages_and_knows_the_direction_of_a_metric(
    ranked: tuple[WorkspaceStore, list[str], list[Sweep]],
) -> None:
    store, chains, (corn, _) = ranked
    assert store.query_top_chains("rmse")["chain_id"].to_list() == [*chains[1:5], chains[5]]
    assert store.query_top_chains("rmse", 2, 1)["chain_id"].to_list() == chains[2:4]
    assert store.query_top_chains(n=2, ascending=False)["chain_id"].to_list() == [chains[4], chains[3]]
    assert store.query_top_chains("rmse", score_column="avg_test_score", run_id=[corn.run])["chain_id"].to_list() == [
        chains[2],
        chains[4],
    ]
    assert store.query_top_chains("rmse", score_column="final_test_score", ascending=False, n=1)[
        "chain_id"
    ].to_list() == [chains[4]]
    assert store.query_top_chains("r2")["cv_val_score"].to_list() == [1.0]
    assert store.query_top_chains("mae").height == 0
    with pytest.raises(InvalidInputError, match="score_column 'created_at'"):
        store.query_top_chains("rmse", score_column="created_at")


def test_predictions_take_lists_as_filters_too(ranked: tuple[WorkspaceStore, list[str], list[Sweep]]) -> None:
    store, _, sweeps = ranked
    assert set(store.query_predictions(fold_id=[0, "1"], run_id=[sweeps[0].run])["fold_id"]) == {"0", "1"}  # type: ignore[arg-type]
    assert store.query_predictions(run_id=[sweep.run for sweep in sweeps]).height == store.query_predictions().height  # type: ignore[arg-type]


def test_deleting_a_dataset_takes_what_it_empties(store: WorkspaceStore) -> None:
    corn, soil = begin_sweep(store, "corn"), begin_sweep(store, "soil")
    other = begin_pipeline(store, corn.run, dataset="corn")
    mixed = save_chain(store, other)
    predict_with_arrays(store, corn)
    for fold in ("0", "1"):
        predict_with_arrays(store, soil, fold_id=fold, dataset_name="soil")
    predict(store, other, mixed)
    predict(store, other, mixed, dataset_name="soil", fold_id="1")
    for pipeline in (corn.pipeline, soil.pipeline, other):
        store.log_step(pipeline, 1, "SNV", "end")
    store.complete_pipeline(corn.pipeline, 0.1, 0.1, "rmse", 1)
    assert store.delete_dataset_predictions("corn") == 2
    assert store.get_pipeline(corn.pipeline) is None
    assert store.get_chain(corn.chain) is None
    assert store.get_chain(mixed) is not None
    assert counts(store, "runs", "pipelines", "chains", "predictions", "logs", "prediction_arrays") == {
        "runs": 2,
        "pipelines": 2,
        "chains": 2,
        "predictions": 3,
        "logs": 2,
        "prediction_arrays": 2,
    }
    assert store.delete_dataset_predictions("corn") == 0


def test_a_running_pipeline_stays_when_its_predictions_are_deleted(store: WorkspaceStore, sweep: Sweep) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    assert store.delete_dataset_predictions("corn") == 1
    predict(store, sweep.pipeline, save_chain(store, sweep.pipeline))
    store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    assert counts(store, "pipelines", "chains", "predictions") == {"pipelines": 1, "chains": 1, "predictions": 1}
