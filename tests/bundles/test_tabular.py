"""Configurations, runs and tables of predictions as files that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Sweep

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreUnavailableError


def test_a_configuration_is_the_json_that_was_saved_with_the_word_that_nirs4all_knows(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "folder" / "été.json"
    assert store.export_pipeline_config(sweep.pipeline, target) == target
    assert json.loads(target.read_text(encoding="utf-8")) == {"pipeline": ["SNV", "PLS"]}


def test_a_run_is_whole_and_plain_yaml(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    store.complete_run(sweep.run, {"best": 0.1})
    text = store.export_run(sweep.run, tmp_path / "run.yaml").read_text(encoding="utf-8")
    told = yaml.safe_load(text)
    assert "!!" not in text
    assert (told["run_id"], told["summary"], told["config"]) == (
        sweep.run,
        {"best": 0.1},
        {"cv": 5},
    )
    assert [pipeline["pipeline_id"] for pipeline in told["pipelines"]] == [sweep.pipeline]
    assert [chain["chain_id"] for chain in told["pipelines"][0]["chains"]] == [sweep.chain]
    assert told["pipelines"][0]["chains"][0]["steps"][0]["operator_class"] == "SNV"


@pytest.mark.parametrize("export", ["export_pipeline_config", "export_run"])
def test_an_unknown_id_leaves_no_file(store: WorkspaceStore, tmp_path: Path, export: str) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        getattr(store, export)("nobody", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_an_unknown_filter_and_a_file_as_parent_are_refused(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    before: Any = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match="is a folder"):
        store.export_run(sweep.run, tmp_path)
    with pytest.raises(InvalidInputError, match="unknown filter colour"):
        store.export_predictions_parquet(tmp_path / "out.parquet", colour="red")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreUnavailableError):
        store.export_run(sweep.run, tmp_path / "file" / "run.yaml")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "file"])


def test_a_failed_export_keeps_the_file_that_was_there(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    target = tmp_path / "run.yaml"
    target.write_text("mine")
    with pytest.raises(NotFoundError):
        store.export_run("nobody", target)
    assert target.read_text() == "mine"
    store.export_run(sweep.run, target)
    assert yaml.safe_load(target.read_text(encoding="utf-8"))["run_id"] == sweep.run
