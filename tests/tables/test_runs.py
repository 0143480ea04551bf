"""Runs: begun, ended, listed by exact names, deleted whole."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import begin_pipeline, begin_sweep, count, counts, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError


def test_a_run_from_its_begin_to_its_end(store: WorkspaceStore) -> None:
    config = {"cv": np.int64(5), "alpha": np.float32(0.5), "nan": math.inf, "none": None}
    run = store.begin_run("sweep", config, [{"name": "corn", "hash": "abc"}])
    found = store.get_run(run)
    assert found is not None
    assert found["config"] == {"cv": 5, "alpha": 0.5, "nan": math.inf, "none": None}
    assert found["datasets"] == [{"name": "corn", "hash": "abc"}]
    assert (found["status"], found["completed_at"], found["summary"], found["error"]) == ("running", None, None, None)
    assert abs(found["created_at"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=5)
    store.complete_run(run, {"best": np.float64(0.25)})
    found = store.get_run(run)
    assert found is not None
    assert (found["status"], found["summary"], found["name"]) == ("completed", {"best": 0.25}, "sweep")
    assert found["completed_at"] >= found["created_at"]
    assert count(store, "runs") == 1


def test_a_failed_run_keeps_its_error_and_its_rows(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    predict_with_arrays(store, sweep)
    store.fail_run(sweep.run, "out of memory")
    found = store.get_run(sweep.run)
    assert found is not None
    assert (found["status"], found["error"]) == ("failed", "out of memory")
    assert counts(store, "predictions", "chains") == {"predictions": 1, "chains": 1}


def test_runs_are_listed_newest_first_in_pages(store: WorkspaceStore) -> None:
    runs = [store.begin_run(f"r{number}", {}, []) for number in range(5)]
    assert store.list_runs()["run_id"].to_list() == runs[::-1]
    assert store.list_runs(limit=2, offset=1)["run_id"].to_list() == runs[::-1][1:3]
    assert store.list_runs(limit=0).height == 0


def test_runs_are_filtered_by_status(store: WorkspaceStore) -> None:
    running, completed, failed = (store.begin_run(name, {}, []) for name in "abc")
    store.complete_run(completed, {})
    store.fail_run(failed, "boom")
    for status, run in (("running", running), ("completed", completed), ("failed", failed)):
        assert store.list_runs(status=status)["run_id"].to_list() == [run]
    assert store.list_runs(status="%").height == 0


@pytest.mark.parametrize("wanted", ["corn", "corn%", "c_rn", "CORN", 'co"rn', "rn", "path", "a.b", "", "é"])
def test_the_data_set_filter_is_the_exact_name_and_nothing_else(store: WorkspaceStore, wanted: str) -> None:
    names = ["corn", "corn%", "c_rn", "CORN", 'co"rn', "a.b", "", "é"]
    for name in names:
        store.begin_run(
            f"run of {name}",
            {"mentions": "rn"},
            [{"name": "other", "path": "path"}, {"name": name, "nan": math.nan, "tags": ["rn"]}],
        )
    expected = [f"run of {wanted}"] if wanted in names else []
    assert store.list_runs(dataset=wanted)["name"].to_list() == expected


def test_runs_without_data_sets_or_names_match_no_data_set(store: WorkspaceStore) -> None:
    store.begin_run("none", {}, [])
    store.begin_run("nameless", {}, [{"path": "corn"}, {"name": None}, {"name": {"name": "corn"}}])
    assert store.list_runs(dataset="corn").height == 0
    assert store.list_runs(dataset="null").height == 0


def test_an_empty_list_has_the_schema_of_a_full_one(store: WorkspaceStore) -> None:
    empty = store.list_runs()
    store.begin_run("r", None, [])
    full = store.list_runs()
    assert empty.schema == full.schema
    assert full.schema["summary"] == pl.String
    assert full.schema["completed_at"] == pl.Datetime("us")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, {}, []), "name"),
        ((5, {}, []), "name"),
        (("r", {"a": object()}, []), "config"),
        (("r", {}, None), "datasets"),
        (("r", {}, {"name": "corn"}), "datasets"),
        (("r", {}, ["corn"]), "datasets"),
        (("r", {}, [{"name": b"corn"}]), "datasets"),
        (("\ud800", {}, []), "name"),
    ],
)
def test_wrong_arguments_are_refused_by_name(store: WorkspaceStore, arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        store.begin_run(*arguments)
    assert count(store, "runs") == 0


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}, {"limit": "a"}, {"limit": 1.5}])
def test_wrong_pages_are_refused(store: WorkspaceStore, page: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(page))):
        store.list_runs(**page)


def test_a_wrong_end_leaves_the_run_running(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    for wrong in (lambda: store.complete_run(run, {"a": object()}), lambda: store.fail_run(run, None)):  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            wrong()
    found = store.get_run(run)
    assert found is not None
    assert found["status"] == "running"


# -- deleting --------------------------------------------------------------------------------

TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "logs")
HIDDEN = ("prediction_values", "shared_arrays", "shared_indices", "chain_artifacts")


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.long
def test_delete_run_says_how_many_documented_rows_went(store: WorkspaceStore, flushed: bool) -> None:
    kept, gone = begin_sweep(store), begin_sweep(store, "coffee")
    for sweep in (kept, gone):
        for fold in range(3):
            predict_with_arrays(store, sweep, fold_id=str(fold))
        store.log_step(sweep.pipeline, 1, "SNV", "start")
        begin_pipeline(store, sweep.run)
    if flushed:
        store.complete_pipeline(gone.pipeline, 0.1, 0.2, "rmse", 5)
    before = counts(store, *TABLES)
    assert store.delete_run(gone.run) == 1 + 2 + 1 + 3 + 3 + 1
    assert counts(store, *TABLES) == {table: number // 2 for table, number in before.items()}
    assert set(store.list_pipelines()["run_id"]) == {kept.run}
    assert store.get_run(gone.run) is None
    assert store.delete_run(kept.run) == 11
    assert set(counts(store, *TABLES, *HIDDEN).values()) == {0}


def test_a_run_without_anything_is_one_row(store: WorkspaceStore) -> None:
    assert store.delete_run(store.begin_run("r", {}, [])) == 1


def test_a_deleted_run_takes_nothing_more(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    store.delete_run(sweep.run)
    for call in (
        lambda: begin_pipeline(store, sweep.run),
        lambda: predict_with_arrays(store, sweep),
        lambda: store.complete_run(sweep.run, {}),
        lambda: store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 1),
        lambda: store.delete_run(sweep.run),
        lambda: store.log_step(sweep.pipeline, 1, "SNV", "start"),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert set(counts(store, *TABLES).values()) == {0}


def test_artifacts_go_with_the_run_unless_they_are_to_stay(store: WorkspaceStore) -> None:
    runs = []
    for number in range(2):
        sweep = begin_sweep(store)
        artifact = store.save_artifact({"number": number}, "dict", "model", "joblib")
        save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": artifact})
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
        runs.append((sweep.run, store.get_artifact_path(artifact)))
    store.delete_run(runs[0][0])
    assert not runs[0][1].exists()
    assert runs[1][1].exists()
    store.delete_run(runs[1][0], delete_artifacts=False)
    assert runs[1][1].exists()
    assert store.gc_artifacts() == 1
    assert not runs[1][1].exists()


def test_several_runs_are_found_as_each_of_them_is(store: WorkspaceStore) -> None:
    runs = [store.begin_run(f"run {number}", {"seed": number}, [{"name": "corn"}]) for number in range(3)]
    store.complete_run(runs[1], {"best": 0.1})
    found = store._open().runs.find_many([runs[2], "unknown", runs[0], runs[1]])
    assert found == {run: store.get_run(run) for run in runs}
    assert store._open().runs.find_many([]) == {}


@pytest.mark.parametrize("number", [1, 3, 20])  # few are changed where they are, many are written anew
def test_the_end_of_stored_runs_keeps_what_else_is_known_of_them(store: WorkspaceStore, number: int) -> None:
    project = store.create_project("wheat")
    runs = [store.begin_run(f"run {each}", {"seed": each}, [{"name": "corn"}]) for each in range(number)]
    before = {run: store.get_run(run) for run in runs}
    for each, run in enumerate(runs):
        store.complete_run(run, {"best": each})
        store.set_run_project(run, project)
    assert store._open().database.has_own
    for each, run in enumerate(runs):
        found = store.get_run(run) or {}
        assert found.pop("completed_at") is not None
        changed = {"status": "completed", "summary": {"best": each}, "project_id": project}
        assert {**(before[run] or {}), **changed, "completed_at": None} == {**found, "completed_at": None}
    assert count(store, "runs") == number
