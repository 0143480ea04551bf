"""Shards and their merge: everything arrives once, whole, whatever was killed, repeated or in conflict."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    DEADLINE,
    PREDICTION,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    count,
    counts,
    finish,
    kill,
    predict_with_arrays,
    read_line,
    save_chain,
)

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ArtifactMissingError, ConflictError, InvalidInputError, NotFoundError, ReadOnlyError

SHARDS = int(os.environ.get("N4A_SHARDS", "60"))
DESCRIPTORS = max(64, SHARDS // 8)
TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs", "chain_artifacts")


def fill(store: WorkspaceStore, run: str | None = None, model: object = "model", predictions: int = 4) -> Sweep:
    """A whole pipeline: a chain with an artifact, predictions with arrays, a log entry."""
    run = store.begin_run("shard", {}, [{"name": "corn"}]) if run is None else run
    pipeline = begin_pipeline(store, run)
    artifact = store.save_artifact(model, "PLS", "model", "joblib")
    sweep = Sweep(run, pipeline, save_chain(store, pipeline, fold_artifacts={"fold_0": artifact}))
    for fold in range(predictions):
        predict_with_arrays(store, sweep, fold, fold_id=str(fold))
    store.log_step(pipeline, 1, "SNV", "end", 5)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return sweep


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another workspace with one whole pipeline."""
    with WorkspaceStore(tmp_path / "other") as store:
        fill(store)
    return tmp_path / "other"


def content(store: WorkspaceStore) -> dict[str, Any]:
    """Everything that can be read back, by documented table."""
    found: dict[str, Any] = {}
    for table in TABLES:
        frame = store.sql(f"FROM {table}")
        key = [name for name in frame.columns if name.endswith("_id")]
        found[table] = frame.drop("ref_count", strict=False).sort(key).to_dicts()
    return found


def test_a_merge_brings_everything_and_a_second_one_nothing(store: WorkspaceStore, other: Path) -> None:
    report = store.merge(other)
    with WorkspaceStore.open_readonly(other) as source:
        assert content(store) == content(source)
        assert store.load_artifact(source.sql("SELECT artifact_id FROM artifacts")["artifact_id"][0]) == "model"
    assert {table.table: table.added for table in report.tables if table.added} == {
        "runs": 1,
        "pipelines": 1,
        "stored_artifacts": 1,
        "chains": 1,
        "shared_arrays": 2,
        "shared_indices": 1,
        "prediction_values": 4,
        "predictions": 4,
        "logs": 1,
    }
    before = content(store)
    again = store.merge(str(other))
    assert [table.added for table in again.tables] == [0] * len(again.tables)
    assert [table.found for table in again.tables] == [table.found for table in report.tables]
    assert content(store) == before


def test_what_was_merged_is_a_part_like_any_other(store: WorkspaceStore, other: Path) -> None:
    fill(store, model="mine")
    store.merge(other)
    runs = store.list_runs()["run_id"].to_list()
    assert len(runs) == 2
    for run in runs:
        pipeline = store.list_pipelines(run_id=run)["pipeline_id"][0]
        prediction = store.query_predictions(pipeline_id=pipeline, fold_id="3").to_dicts()[0]
        arrays = store.get_prediction_arrays(prediction["prediction_id"])
        assert arrays is not None
        np.testing.assert_array_equal(arrays["y_pred"], np.arange(5.0) + 3)
        np.testing.assert_array_equal(arrays["weights"], np.ones(5))
    for run in runs:
        store.delete_run(run)
    assert counts(store, *TABLES) == dict.fromkeys(TABLES, 0)
    store.merge(other)  # deleted here, welcome again
    begin_sweep(store)
    store.flush()
    assert counts(store, "runs", "predictions") == {"runs": 2, "predictions": 4}


def test_a_pipeline_that_was_deleted_while_it_ran_is_back_with_the_next_merge(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    with WorkspaceStore(tmp_path / "running") as running:
        sweep = begin_sweep(running)
        running.flush()
        store.merge(tmp_path / "running")
        store.delete_pipeline(sweep.pipeline)
        store.merge(tmp_path / "running")
    begin_sweep(store)
    assert sweep.pipeline in store.list_pipelines()["pipeline_id"].to_list()


@pytest.mark.long
def test_all_shards_below_a_workspace_are_merged_in_one_call(store: WorkspaceStore) -> None:
    run = store.begin_run("sweep", {}, [])
    for number in range(5):
        with pickle.loads(pickle.dumps(store.shard(run_id=run))).open() as shard:
            fill(shard, run, model=number % 2)
    seen: list[tuple[str, int, int]] = []
    report = store.merge(progress=lambda *done: seen.append(done))
    assert [(number, total) for _, number, total in seen] == [(number, 5) for number in range(1, 6)]
    assert [Path(path) for path, _, _ in seen] == list(report.sources)
    assert (
        report.added("runs"),
        report.added("pipelines"),
        report.added("predictions"),
        report.added("stored_artifacts"),
    ) == (0, 5, 20, 2)
    store.complete_run(run, {"pipelines": 5})
    assert counts(store, "runs", "pipelines", "artifacts") == {"runs": 1, "pipelines": 5, "artifacts": 2}
    assert store.merge().added("runs") == 0
    assert store.list_runs()["status"].to_list() == ["completed"]  # the shards' rows of it are still "running"


def test_a_shard_may_lie_anywhere_and_grow_between_merges(store: WorkspaceStore, tmp_path: Path) -> None:
    shard = store.shard(tmp_path / "scratch" / "task_7")
    with shard.open() as private:
        run = private.begin_run("task", {}, [])
        pipeline = begin_pipeline(private, run)
        chain = save_chain(private, pipeline)
        predict_with_arrays(private, Sweep(run, pipeline, chain))
        private.flush()
        assert store.merge(shard).added("predictions") == 1  # while it is open here
        assert store.list_pipelines()["status"].to_list() == ["running"]
        predict_with_arrays(private, Sweep(run, pipeline, chain), fold_id="1")
        private.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        private.complete_run(run, {"best": 0.1})
    assert store.merge(shard).added("predictions") == 1
    assert store.list_pipelines()["status"].to_list() == store.list_runs()["status"].to_list() == ["completed"]
    assert store.get_run(run) is not None
    assert count(store, "predictions") == 2


def change_prediction(store: WorkspaceStore, sweep: Sweep) -> str:
    return store.save_prediction(sweep.pipeline, sweep.chain, **{**PREDICTION, "val_score": 0.9})


def change_arrays(store: WorkspaceStore, sweep: Sweep) -> str:
    prediction = str(store.query_predictions(pipeline_id=sweep.pipeline, fold_id="0")["prediction_id"][0])
    store.save_prediction_arrays(prediction, np.zeros(5), np.zeros(5))
    return prediction


def change_key(store: WorkspaceStore, sweep: Sweep) -> str:
    return store.save_prediction(sweep.pipeline, sweep.chain, **{**PREDICTION, "prediction_id": "mine"})


def change_pipeline(store: WorkspaceStore, sweep: Sweep) -> str:
    store.complete_pipeline(sweep.pipeline, 0.5, 0.5, "rmse", 5)
    return sweep.pipeline


def change_run(store: WorkspaceStore, sweep: Sweep) -> str:
    store.complete_run(sweep.run, {"changed": True})
    return sweep.run


@pytest.mark.parametrize("change", [change_prediction, change_arrays, change_key, change_pipeline, change_run])
def test_other_content_under_a_known_id_is_refused_by_name(store: WorkspaceStore, tmp_path: Path, change: Any) -> None:
    with WorkspaceStore(tmp_path / "other") as other:
        sweep = fill(other)
        other.complete_run(sweep.run, {})
    store.merge(tmp_path / "other")
    with WorkspaceStore(tmp_path / "other") as other:
        identifier = change(other, sweep)
        fill(other, sweep.run)
    before = content(store)
    with pytest.raises(ConflictError, match=identifier):
        store.merge(tmp_path / "other")
    assert content(store) == before
    assert not list((store.workspace_path / "artifacts").rglob("*.draft"))


@pytest.mark.long
def test_an_artifact_with_other_content_is_refused_by_name(store: WorkspaceStore, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        with WorkspaceStore(tmp_path / folder) as other:
            path = tmp_path / folder / "artifacts" / "ab"
            path.mkdir()
            (path / "model.joblib").write_bytes(folder.encode())
            digest = hashlib.sha256(folder.encode()).hexdigest()
            other.register_existing_artifact(
                "shared$id:0", "ab/model.joblib", f"sha256:{digest}", "PLS", "model", "joblib", 1
            )
    store.merge(tmp_path / "a")
    with pytest.raises(ConflictError, match=r"shared\$id:0"):
        store.merge(tmp_path / "b")
    assert store.get_artifact_path("shared$id:0").read_bytes() == b"a"


@pytest.mark.long
def test_sources_are_checked_before_any_is_merged(store: WorkspaceStore, other: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        store.merge(other, tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="merge others into it"):
        store.merge(other, store.workspace_path)
    assert count(store, "runs") == 0
    assert not (tmp_path / "nowhere").exists()
    next((other / "artifacts").rglob("*.joblib")).unlink()
    with pytest.raises(ArtifactMissingError):
        store.merge(other)
    assert counts(store, *TABLES) == dict.fromkeys(TABLES, 0)
    with WorkspaceStore.open_readonly(store.workspace_path) as reader, pytest.raises(ReadOnlyError):
        reader.merge(other)


FILL = """
import sys
from helpers import begin_pipeline
from test_merge import fill
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
fill(store)
print("filled", flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_writer_left_in_its_journal_is_merged_too(store: WorkspaceStore, tmp_path: Path) -> None:
    writer = child(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + FILL, tmp_path / "shard")
    assert read_line(writer) == "filled"
    kill(writer)
    assert store.merge(tmp_path / "shard").added("predictions") == 4


MERGE = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print("open", flush=True)
    store.merge(progress=lambda path, done, total: print(done, flush=True))
print("merged", flush=True)
"""


def test_a_merge_that_is_killed_and_repeated_brings_everything_once(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        run = store.begin_run("sweep", {}, [])
        for number in range(15):
            with store.shard(run_id=run).open() as shard:
                fill(shard, run, model=number)
    done = 0
    for trial in range(4):
        merger = child(MERGE, tmp_path)
        for _ in range(1 + trial):  # then at whatever moment the next one is in
            read_line(merger)
        kill(merger)
        with WorkspaceStore(tmp_path) as store:
            merged = count(store, "pipelines")
            assert counts(store, "predictions", "prediction_arrays", "logs") == {
                "predictions": 4 * merged,
                "prediction_arrays": 4 * merged,
                "logs": merged,
            }
            assert done <= merged
            done = merged
    assert finish(child(MERGE, tmp_path)).split()[-1] == "merged"
    with WorkspaceStore(tmp_path) as store:
        expected = {
            "runs": 1,
            "pipelines": 15,
            "chains": 15,
            "predictions": 60,
            "prediction_arrays": 60,
            "logs": 15,
            "artifacts": 15,
        }
        assert counts(store, *expected) == expected
        assert sorted(store.load_artifact(artifact) for artifact in store.sql("FROM artifacts")["artifact_id"]) == list(
            range(15)
        )
        store.gc_artifacts()
        assert count(store, "artifacts") == 15


MANY = """
import resource, sys
from helpers import begin_pipeline, begin_sweep
from n4a_fast import WorkspaceStore
folder, shards, descriptors = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
with WorkspaceStore(folder) as store:
    run = begin_sweep(store).run
    store.flush()
    for number in range(shards):
        with store.shard(run_id=run).open() as shard:
            shard.complete_pipeline(begin_pipeline(shard, run, str(number)), 0.1, 0.2, "rmse", 5)
    store.merge()
    print(store.list_pipelines().height)
"""


def test_a_merge_of_many_shards_needs_few_descriptors(tmp_path: Path) -> None:
    assert finish(child(MANY, tmp_path, SHARDS, DESCRIPTORS), DEADLINE + SHARDS).split() == [str(SHARDS + 1)]
