"""Shards that rest in their journals: a merge takes from there what it would have found in the tables."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import (
    PREDICTION,
    Sweep,
    begin_pipeline,
    count,
    counts,
    names_in,
    plain_rows,
    predict_with_arrays,
    save_chain,
)
from msgspec import msgpack
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ConflictError
from n4a_fast.merging.logged_tables import logged
from n4a_fast.tables.predictions.fields import FIELDS
from n4a_fast.tables.predictions.logged import tables_of
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.pending import PredictionBatch
from n4a_fast.tables.predictions.saving import Predictions

EVERYTHING = (
    "projects",
    "runs",
    "pipelines",
    "stored_artifacts",
    "chains",
    "chain_artifacts",
    "shared_arrays",
    "shared_indices",
    "shared_metadata",
    "prediction_metadata",
    "prediction_values",
    "predictions",
    "logs",
    "metrics",
)


def sweep_at_random(store: WorkspaceStore, run: str, dice: random.Random) -> None:
    """Calls of a sweep, with rows saved again, arrays replaced, ids that move and flushes in between."""
    sweeps: list[Sweep] = []
    for _ in range(60):
        way = dice.choice(
            [
                "pipeline",
                "predict",
                "predict",
                "predict",
                "again",
                "artifact",
                "log",
                "flush",
                "project",
                "complete",
                "arrays",
            ]
        )
        if way == "pipeline" or not sweeps:
            artifact = store.save_artifact({"model": dice.randrange(3)}, "PLS", "model", "joblib")
            pipeline = begin_pipeline(store, run)
            sweeps.append(Sweep(run, pipeline, save_chain(store, pipeline, fold_artifacts={"fold_0": artifact})))
        sweep = dice.choice(sweeps)
        if way == "predict":
            predict_with_arrays(
                store,
                sweep,
                dice.random(),
                fold_id=str(dice.randrange(100)),
                prediction_id=dice.choice([None, f"own-{dice.randrange(4)}"]),
            )
        elif way == "again":
            kept = store.save_prediction(sweep.pipeline, None, **PREDICTION)
            store.save_prediction_arrays(
                kept, None, np.full((2, 3), dice.random()), np.ones((2, 2)), sample_metadata={"leaf": dice.randrange(3)}
            )
        elif way == "arrays":
            store.save_prediction_arrays(
                predict_with_arrays(store, sweep, fold_id="a"), np.full(3, dice.random()), np.ones(3)
            )
        elif way == "artifact":
            store.save_artifact({"model": dice.randrange(3)}, "PLS", "model", "joblib")
        elif way == "log":
            store.log_step(sweep.pipeline, 1, "SNV", "end", 5, details={"at": dice.random()})
        elif way == "project":
            store.set_run_project(run, store.create_project(f"project {dice.random()}"))
        elif way == "complete":
            store.complete_pipeline(sweep.pipeline, 0.1, None, "rmse", 5)
        elif way == "flush":
            store.flush()


def everything(store: WorkspaceStore) -> dict[str, Any]:
    return {table: sorted(store.sql(f"FROM {table}").rows(), key=repr) for table in EVERYTHING}


@pytest.mark.parametrize("seed", some(range(12), 3))
@pytest.mark.long
def test_journals_are_merged_like_the_tables_they_would_have_been_put_in(tmp_path: Path, seed: int) -> None:
    with WorkspaceStore(tmp_path / "parent") as parent:
        run = parent.begin_run("sweep", {}, [])
        shard = parent.shard(tmp_path / "journaled", run_id=run)
    dice = random.Random(seed)
    with shard.open() as store:
        sweep_at_random(store, run, dice)
    assert logged(tmp_path / "journaled", 5.0) is not None
    shutil.copytree(tmp_path / "journaled", tmp_path / "placed")
    with WorkspaceStore(tmp_path / "placed") as store:
        assert store.list_runs().height == 1  # a read puts everything in its tables
        expected = everything(store)
    assert logged(tmp_path / "placed", 5.0) is None
    for name in ("journaled", "placed"):
        with WorkspaceStore(tmp_path / f"from {name}") as target:
            report = target.merge(tmp_path / name)
            assert everything(target) == expected
            assert {table.table: table.added for table in report.tables} == {
                table.table: len(expected[table.table]) for table in report.tables
            }
            again = target.merge(tmp_path / "placed", tmp_path / "journaled")
            assert sum(table.added for table in again.tables) == 0
            assert everything(target) == expected


def frames_at_random(dice: random.Random) -> list[dict[str, Any]]:
    """What a journal might hold: each of several batches as its frame."""
    nothing: Any = None  # is looked up
    predictions, contents = Predictions(nothing, SampleMetadata(nothing)), []
    predictions.first_ids.begin("pipeline")
    for _ in range(dice.randrange(1, 5)):
        for _ in range(dice.randrange(4)):
            fields = {**PREDICTION, **dict.fromkeys(("prediction_id", "preprocessings", "refit_context"))}
            fields["fold_id"] = str(dice.randrange(dice.choice([3, 1000])))
            fields.update(pipeline_id="pipeline", chain_id=dice.choice([None, "chain"]))
            identifier = predictions.save(tuple(fields[name] for name in FIELDS))
            if dice.random() < 0.8:
                lengths = dice.choice([None, 2, (2, 2), (0, 2)])
                y = None if lengths is None else np.full(lengths, dice.random())
                predictions.save_arrays(identifier, y, y, None, None, dice.choice([None, np.ones(2)]))
        contents.append(msgpack.decode(msgpack.encode(predictions.fresh())))
        predictions.mark_logged()
    return contents


@pytest.mark.parametrize("seed", range(60))
def test_frames_become_tables_as_they_would_one_by_one(seed: int) -> None:
    contents, batch = frames_at_random(random.Random(seed)), PredictionBatch()
    for content in contents:
        batch.replay(content)
    expected, found = batch.pending(), tables_of(contents)
    assert {name: table.to_pylist() for name, table in found.items()} == {
        name: table.to_pylist() for name, table in expected.items()
    }
    assert {name: table.schema for name, table in found.items()} == {
        name: table.schema for name, table in expected.items()
    }
    assert all(isinstance(table, pa.Table) and table.validate(full=True) is None for table in found.values())


def filled_shard(store: WorkspaceStore, path: Path, run: str) -> Sweep:
    with store.shard(path, run_id=run).open() as shard:
        pipeline = begin_pipeline(shard, run)
        sweep = Sweep(run, pipeline, save_chain(shard, pipeline))
        for fold in range(3):
            predict_with_arrays(shard, sweep, fold, fold_id=str(fold))
        shard.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return sweep


def test_a_closed_shard_rests_in_its_journal_until_it_is_read(store: WorkspaceStore, tmp_path: Path) -> None:
    run, path = store.begin_run("sweep", {}, []), tmp_path / "shard"
    filled_shard(store, path, run)
    assert plain_rows(path / "store.duckdb", "SELECT count(*) FROM predictions") == [(0,)]
    assert len(list(path.glob("store.duckdb.log-*"))) == 1
    assert store.merge(path).added("predictions") == 3
    assert len(list(path.glob("store.duckdb.log-*"))) == 1  # it is left as it was
    with WorkspaceStore(path) as shard:
        assert counts(shard, "runs", "pipelines", "predictions", "prediction_arrays") == {
            "runs": 1,
            "pipelines": 1,
            "predictions": 3,
            "prediction_arrays": 3,
        }
    assert names_in(path) == ["artifacts", "store.duckdb"]
    assert store.merge(path).added("predictions") == 0


@pytest.mark.long
def test_a_shard_that_is_opened_again_goes_on_and_keeps_its_first_rows(store: WorkspaceStore, tmp_path: Path) -> None:
    run, path = store.begin_run("sweep", {}, []), tmp_path / "shard"
    for pipelines in (1, 2):
        filled_shard(store, path, run)
        assert store.merge(path).added("pipelines") == 1
        assert count(store, "pipelines") == pipelines
    assert count(store, "predictions") == 6


@pytest.mark.long
def test_a_conflict_with_a_journal_is_refused_by_name(store: WorkspaceStore, tmp_path: Path) -> None:
    run, path = store.begin_run("sweep", {}, []), tmp_path / "shard"
    sweep = filled_shard(store, path, run)
    shutil.copytree(path, tmp_path / "other")
    store.merge(path)
    with WorkspaceStore(tmp_path / "other") as other:
        changed = other.save_prediction(sweep.pipeline, sweep.chain, **{**PREDICTION, "val_score": 0.9})
    with WorkspaceStore(tmp_path / "target") as target:
        target.merge(tmp_path / "other")
        before = everything(target)
        with pytest.raises(ConflictError, match=changed):
            target.merge(path)
        assert everything(target) == before
