"""Configurations, runs and tables of predictions as files that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import Sweep, predict, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.bundles import tabular
from n4a_fast.errors import InvalidInputError, NotFoundError, StoreUnavailableError


def test_a_configuration_is_the_json_that_was_saved_with_the_word_that_nirs4all_knows(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "été.json"
    assert store.export_pipeline_config(sweep.pipeline, target) == target
    assert json.loads(target.read_text(encoding="utf-8")) == {"pipeline": ["SNV", "PLS"]}


def test_a_run_is_whole_and_plain_yaml(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    store.complete_run(sweep.run, {"best": 0.1})
    text = store.export_run(sweep.run, tmp_path / "run.yaml").read_text(encoding="utf-8")
    told = yaml.safe_load(text)
    assert "!!" not in text
    assert (told["run"]["run_id"], told["run"]["summary"], told["run"]["config"]) == (sweep.run, {"best": 0.1}, {"cv": 5})
    assert [pipeline["pipeline_id"] for pipeline in told["pipelines"]] == [sweep.pipeline]
    assert [chain["chain_id"] for chain in told["pipelines"][0]["chains"]] == [sweep.chain]
    assert told["pipelines"][0]["chains"][0]["steps"][0]["operator_class"] == "SNV"


@pytest.mark.parametrize("export", ["export_pipeline_config", "export_run"])
def test_an_unknown_id_leaves_no_file(store: WorkspaceStore, tmp_path: Path, export: str) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        getattr(store, export)("nobody", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predictions_keep_their_types_and_match_the_filters(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    for fold in range(3):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=float("nan"))
    frame = pl.read_parquet(store.export_predictions_parquet(tmp_path / "all.parquet"))
    assert frame.height == 3
    assert frame.schema["val_score"] == pl.Float64
    assert frame.schema["scores"] == pl.String
    assert isinstance(frame.schema["created_at"], pl.Datetime)
    assert frame["val_score"].is_nan().all()
    assert pl.read_parquet(store.export_predictions_parquet(tmp_path / "one.parquet", fold_id="1"))["fold_id"].to_list() == ["1"]


def test_a_table_without_rows_has_its_columns(store: WorkspaceStore, tmp_path: Path) -> None:
    schemas = [pq.read_schema(store.export_predictions_parquet(tmp_path / "none.parquet", arrays=arrays)) for arrays in (False, True)]
    assert set(schemas[1].names) - set(schemas[0].names) == {"y_true", "y_pred", "y_proba", "sample_indices", "weights"}


def test_arrays_come_as_lists_across_batches(store: WorkspaceStore, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "_ARRAYS_BATCH", 2)
    ids = [predict_with_arrays(store, sweep, float(fold), fold_id=str(fold)) for fold in range(5)]
    frame = pl.read_parquet(store.export_predictions_parquet(tmp_path / "arrays.parquet", arrays=True))
    assert sorted(frame["prediction_id"]) == sorted(ids)
    assert {row["fold_id"]: row["y_pred"][0] for row in frame.iter_rows(named=True)} == {str(fold): float(fold) for fold in range(5)}
    assert frame["y_true"].to_list() == [[0.0, 1.0, 2.0, 3.0, 4.0]] * 5


def test_a_folder_an_unknown_filter_and_a_file_as_parent_are_refused(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
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
    assert yaml.safe_load(target.read_text(encoding="utf-8"))["run"]["run_id"] == sweep.run
