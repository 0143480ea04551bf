"""Pipelines: begun under a run, completed with scores, or failed with nothing left but the failure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, count, counts, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError


def found(store: WorkspaceStore, pipeline: str) -> dict[str, Any]:
    row = store.get_pipeline(pipeline)
    assert row is not None
    return row


def test_a_pipeline_from_its_begin_to_its_end(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    pipeline = store.begin_pipeline(
        run, "0001_pls", {"steps": [{"n": np.int64(3)}]}, [{"_or_": "SNV"}, 5], "corn", "hash"
    )
    row = found(store, pipeline)
    assert (row["run_id"], row["name"], row["dataset_name"], row["dataset_hash"]) == (run, "0001_pls", "corn", "hash")
    assert (row["expanded_config"], row["generator_choices"]) == ({"steps": [{"n": 3}]}, [{"_or_": "SNV"}, 5])
    assert (row["status"], row["best_val"], row["metric"], row["duration_ms"], row["completed_at"]) == (
        "running",
        None,
        None,
        None,
        None,
    )
    store.complete_pipeline(pipeline, np.float32(0.5), math.nan, "rmse", np.int64(2**40))
    row = found(store, pipeline)
    assert (row["status"], row["best_val"], row["metric"], row["duration_ms"]) == ("completed", 0.5, "rmse", 2**40)
    assert math.isnan(row["best_test"])
    assert row["completed_at"] >= row["created_at"]


def test_pipelines_are_listed_newest_first_by_exact_filters(store: WorkspaceStore) -> None:
    one, other = store.begin_run("a", {}, []), store.begin_run("b", {}, [])
    made = [begin_pipeline(store, run, dataset=dataset) for run in (one, other) for dataset in ("corn_1", "corn%1")]
    assert store.list_pipelines()["pipeline_id"].to_list() == made[::-1]
    assert store.list_pipelines(run_id=one)["pipeline_id"].to_list() == made[1::-1]
    assert store.list_pipelines(dataset_name="corn_1")["pipeline_id"].to_list() == [made[2], made[0]]
    assert store.list_pipelines(other, "corn%1")["pipeline_id"].to_list() == [made[3]]
    for nothing in ({"run_id": "%"}, {"dataset_name": "corn%"}, {"run_id": "unknown"}):
        assert store.list_pipelines(**nothing).schema == store.list_pipelines().schema
        assert store.list_pipelines(**nothing).height == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": None}, "name"),
        ({"dataset_name": None}, "dataset_name"),
        ({"dataset_hash": 5}, "dataset_hash"),
        ({"generator_choices": "SNV"}, "generator_choices"),
        ({"generator_choices": {"a": 1}}, "generator_choices"),
        ({"expanded_config": {"a": object()}}, "expanded_config"),
        ({"generator_choices": [object()]}, "generator_choices"),
    ],
)
def test_wrong_arguments_are_refused_by_name(store: WorkspaceStore, changes: dict[str, Any], named: str) -> None:
    run = store.begin_run("r", {}, [])
    given = {
        "name": "p",
        "expanded_config": {},
        "generator_choices": [],
        "dataset_name": "corn",
        "dataset_hash": "h",
        **changes,
    }
    with pytest.raises(InvalidInputError, match=named):
        store.begin_pipeline(run, **given)
    assert count(store, "pipelines") == 0


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [(0, "good", "best_val"), (1, object(), "best_test"), (2, 5, "metric"), (3, 0.5, "duration_ms")],
)
def test_a_wrong_end_leaves_the_pipeline_running(
    store: WorkspaceStore, sweep: Sweep, place: int, value: Any, named: str
) -> None:
    arguments: list[Any] = [0.1, 0.2, "rmse", 5]
    arguments[place] = value
    with pytest.raises(InvalidInputError, match=named):
        store.complete_pipeline(sweep.pipeline, *arguments)
    assert found(store, sweep.pipeline)["status"] == "running"


# -- failing ---------------------------------------------------------------------------------

CONTENTS = (
    "chains",
    "predictions",
    "prediction_arrays",
    "logs",
    "prediction_values",
    "shared_arrays",
    "shared_indices",
    "chain_artifacts",
)


def fill(store: WorkspaceStore, sweep: Sweep) -> str:
    """A chain with an artifact, three predictions with arrays, a log entry; the artifact's id."""
    artifact = store.save_artifact({"of": sweep.pipeline}, "dict", "model", "joblib")
    chain = save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": artifact})
    for fold in range(3):
        predict_with_arrays(store, sweep._replace(chain=chain), fold, fold_id=str(fold))
    store.log_step(sweep.pipeline, 1, "SNV", "start")
    return artifact


@pytest.mark.parametrize("flushed", [True, False])
def test_a_failed_pipeline_leaves_only_its_row_and_its_error(
    store: WorkspaceStore, sweep: Sweep, flushed: bool
) -> None:
    fill(store, sweep)
    if flushed:
        store.flush()
    store.fail_pipeline(sweep.pipeline, "singular matrix")
    row = found(store, sweep.pipeline)
    assert (row["status"], row["error"], row["name"]) == ("failed", "singular matrix", "0001_pls")
    assert row["completed_at"] is not None
    assert set(counts(store, *CONTENTS).values()) == {0}
    assert counts(store, "runs", "pipelines") == {"runs": 1, "pipelines": 1}


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.long
def test_other_pipelines_keep_everything_they_share(store: WorkspaceStore, sweep: Sweep, flushed: bool) -> None:
    other = sweep._replace(pipeline=begin_pipeline(store, sweep.run))
    fill(store, other)
    if flushed:
        store.flush()
    before = {table: store.sql(f"SELECT * FROM {table} ORDER BY ALL") for table in CONTENTS if table != "chains"}
    fill(store, sweep)
    store.fail_pipeline(sweep.pipeline, "boom")
    for table, rows in before.items():
        assert store.sql(f"SELECT * FROM {table} ORDER BY ALL").equals(rows), table
    assert store.get_chains_for_pipeline(other.pipeline).height == 1
    assert store.get_chains_for_pipeline(sweep.pipeline).height == 0
    assert found(store, other.pipeline)["status"] == "running"


def test_artifacts_of_a_failed_pipeline_become_collectable_unless_shared(store: WorkspaceStore, sweep: Sweep) -> None:
    shared = store.save_artifact({"shared": True}, "dict", "model", "joblib")
    other = begin_pipeline(store, sweep.run)
    save_chain(store, other, fold_artifacts={"fold_0": shared})
    save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": shared})
    own = fill(store, sweep)
    store.complete_pipeline(other, 0.1, 0.2, "rmse", 5)
    store.fail_pipeline(sweep.pipeline, "boom")
    assert store.gc_artifacts() == 1
    assert store.load_artifact(shared) == {"shared": True}
    with pytest.raises(NotFoundError):
        store.load_artifact(own)


def test_a_completed_pipeline_can_still_fail_and_loses_its_contents(store: WorkspaceStore, sweep: Sweep) -> None:
    fill(store, sweep)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    store.fail_pipeline(sweep.pipeline, "too late")
    assert found(store, sweep.pipeline)["status"] == "failed"
    assert set(counts(store, *CONTENTS).values()) == {0}


def test_the_chain_of_a_failed_pipeline_is_unknown(store: WorkspaceStore, sweep: Sweep) -> None:
    store.flush()
    store.fail_pipeline(sweep.pipeline, "boom")
    with pytest.raises(NotFoundError, match="chain"):
        predict_with_arrays(store, sweep)
    assert set(counts(store, *CONTENTS).values()) == {0}


def test_a_failure_needs_a_reason_in_words(store: WorkspaceStore, sweep: Sweep) -> None:
    fill(store, sweep)
    with pytest.raises(InvalidInputError, match="error must be text"):
        store.fail_pipeline(sweep.pipeline, ValueError("boom"))  # type: ignore[arg-type]
    assert count(store, "predictions") == 3


def test_failing_survives_reopening(tmp_path: Any) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        fill(store, sweep)
        store.flush()
        store.fail_pipeline(sweep.pipeline, "boom")
    with WorkspaceStore(tmp_path) as store:
        assert found(store, sweep.pipeline)["error"] == "boom"
        assert set(counts(store, *CONTENTS).values()) == {0}


def test_a_failed_pipeline_cannot_be_completed(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    pipeline = store.begin_pipeline(run, "p", {}, [], "corn", "h")
    store.fail_pipeline(pipeline, "no convergence")
    with pytest.raises(InvalidInputError, match="begin a new pipeline"):
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    found = store.get_pipeline(pipeline)
    assert found is not None
    assert (found["status"], found["error"]) == ("failed", "no convergence")
