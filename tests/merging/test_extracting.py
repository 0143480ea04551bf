"""Parts of a workspace, extracted and merged again, are the workspace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.merging import extract

TABLES = (
    "projects",
    "runs",
    "pipelines",
    "chains",
    "predictions",
    "prediction_arrays",
    "artifacts",
    "logs",
    "metrics",
    "prediction_metadata",
    "shared_metadata",
)


def fill_at_random(store: WorkspaceStore, chance: random.Random) -> list[str]:
    """Runs in every state, which share artifacts, targets and a project now and then."""
    project = store.create_project("shared")
    models = [store.save_artifact({"model": number}, "dict", "model", "joblib") for number in range(3)]
    runs = []
    for number in range(4):
        run = store.begin_run(f"run {number}", {"cv": number}, [{"name": "corn"}])
        runs.append(run)
        if number == 0 or chance.random() < 0.5:
            store.set_run_project(run, project)
        for name in range(chance.randrange(3)):
            fill_pipeline(store, begin_pipeline(store, run, str(name)), models, chance)
        end = chance.choice(
            [lambda run: store.complete_run(run, {"best": 1}), lambda run: store.fail_run(run, "no"), None]
        )
        if end is not None:
            end(run)
    return runs


def fill_pipeline(store: WorkspaceStore, pipeline: str, models: list[str], chance: random.Random) -> None:
    chains = [
        save_chain(store, pipeline, fold_artifacts={"0": chance.choice(models)}, preprocessings=str(number))
        for number in range(chance.randrange(2))
    ]
    for fold in range(chance.randrange(4)):
        chain = chance.choice([*chains, None])
        saved = predict(store, pipeline, chain, fold_id=str(fold), val_score=chance.choice([0.5, float("nan"), None]))
        if chance.random() < 0.8:
            metadata = {"plot": fold} if chance.random() < 0.5 else None
            store.save_prediction_arrays(saved, np.arange(3.0), np.full(3, chance.random()), sample_metadata=metadata)
    store.log_step(pipeline, 1, "SNV", "end", details={"n": 1})
    if chance.random() < 0.3:
        store.fail_pipeline(pipeline, "boom")
    elif chance.random() < 0.7:
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)


def content(store: WorkspaceStore) -> dict[str, Any]:
    """All rows, in any order, and what the artifacts hold."""
    rows = {table: sorted(map(str, store.sql(f"FROM {table}").rows())) for table in TABLES}
    models = {name: store.load_artifact(name) for (name,) in store.sql("SELECT artifact_id FROM artifacts").rows()}
    return {**rows, "models": models}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.long
def test_a_workspace_is_the_merge_of_its_extracted_runs(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "_PREDICTIONS_AT_ONCE", 5 * seed)  # a piece of its own for each pipeline, and of some
    chance = random.Random(seed)
    with WorkspaceStore(tmp_path / "whole") as store:
        runs = fill_at_random(store, chance)
    with WorkspaceStore(tmp_path / "whole") as store, WorkspaceStore(tmp_path / "again") as again:
        store.gc_artifacts()  # what no chain uses belongs to no run
        chance.shuffle(runs)
        cut = chance.randrange(1, len(runs))
        for name, part in (("first", runs[:cut]), ("second", runs[cut:])):
            store.extract(part, tmp_path / name)
            again.merge(tmp_path / name)
            assert all(table.added == 0 for table in store.merge(tmp_path / name).tables)
        assert content(again) == content(store)
        assert again.verify()
