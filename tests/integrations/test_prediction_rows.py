"""Rows that nirs4all keeps in memory are those that its own code makes, however they are made; needs no nirs4all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, predict, save_chain

from n4a_fast.integrations.nirs4all import prediction_rows
from n4a_fast.integrations.nirs4all.late_rows import LATE, LateRow
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

AS_STORED = ("dataset_name", "model_name", "partition", "test_score", "train_score", "metric", "task_type")
MORE = ("preprocessings", "branch_id", "refit_context")


class Plain:
    """The part of nirs4all's `Predictions` that is looked at: one row after the other."""

    more: dict[str, Any] = {}  # noqa: RUF012  # what another release has in a row

    def __init__(self) -> None:
        self._buffer: list[dict[str, Any]] = []
        self.calls = 0

    def _populate_buffer_from_store(self, store: Any, df: Any, *, load_arrays: bool = True) -> None:
        self.calls += len(df)
        refits = {row["chain_id"]: row["val_score"] for row in df.to_dicts() if row["fold_id"] == "final_agg"}
        stored = store.array_store.load_batch(df["prediction_id"].to_list()) if load_arrays else {}
        for row in df.to_dicts():
            arrays = stored.get(row["prediction_id"], {})
            (chain,) = store.get_chains_for_pipeline(row["pipeline_id"]).to_dicts() if row["chain_id"] else ({},)
            given = {name: arrays[name] for name in ("y_true", "y_pred", "y_proba") if arrays.get(name) is not None}
            indices = arrays.get("sample_indices")
            self._buffer.append(
                {
                    "id": row["prediction_id"],
                    **{name: row[name] for name in (*AS_STORED, *MORE)},
                    "dataset_path": "",
                    "config_name": store.get_pipeline(row["pipeline_id"])["name"],
                    "pipeline_uid": row["pipeline_id"],
                    "step_idx": chain.get("model_step_idx") or 0,
                    "model_classname": row["model_class"],
                    "fold_id": row["fold_id"],
                    "sample_indices": [] if indices is None else indices.tolist(),
                    "weights": [],
                    "metadata": arrays.get("sample_metadata") or {},
                    **dict.fromkeys(("y_true", "y_pred", "y_proba", "X", "spectra"), np.array([])),
                    **given,
                    "result_metadata": arrays.get("result_metadata") or {},
                    "val_score": refits.get(row["chain_id"]) if row["fold_id"] == "final" else row["val_score"],
                    "n_samples": row["n_samples"] or 0,
                    "n_features": row["n_features"] or 0,
                    "best_params": json.loads(row["best_params"] or "{}"),
                    "scores": json.loads(row["scores"] or "{}"),
                    "branch_path": json.loads(chain.get("branch_path") or "null"),
                    "branch_name": row["branch_name"] or "",
                    "created_at": "now",
                    **self.more,
                    "prediction_id": row["prediction_id"],
                    "pipeline_id": row["pipeline_id"],
                    "chain_id": row["chain_id"] or "",
                }
            )

    def _restore_workspace_context(self, store: Any, df: Any) -> None:
        asked = df.select("pipeline_id", "dataset_name").rows()
        self.asked = [(store.get_pipeline(pipeline)["run_id"], dataset) for pipeline, dataset in asked]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store1x]:
    """Two pipelines: plain rows, refits, one with metadata, one without arrays, one without a chain."""
    with Store1x(tmp_path_factory.mktemp("rows") / "w") as opened:
        run = opened.begin_run("sweep", {}, [{"name": "corn"}])
        for name, branches in (("first", None), ("second", [0, 1])):
            pipeline = begin_pipeline(opened, run, name)
            chain = save_chain(opened, pipeline, branch_path=branches)
            for number, fold in enumerate(("0", "1", "2", "3", "4", "5", "avg", "final", "final_agg")):
                for partition in ("val", "test"):
                    score = None if fold == "final" else 0.1 * number
                    prediction = predict(opened, pipeline, chain, fold_id=fold, partition=partition, val_score=score)
                    record = {"prediction_id": prediction, "y_true": np.arange(3.0), "y_pred": np.arange(3.0) + number}
                    record |= {"sample_indices": np.arange(3)} if number % 2 else {}
                    record |= {"sample_metadata": {"site": ["a", "b", "c"]}} if number == 2 else {}
                    opened.array_store.save_batch([record] if number != 4 else [])
            opened.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
            predict(opened, pipeline, None, fold_id="0", partition="train")
        yield opened


def module(more: dict[str, Any]) -> Any:
    made: Any = ModuleType("predictions")
    made.Predictions = type("Predictions", (Plain,), {"more": more, **{n: vars(Plain)[n] for n in FILLS}})
    return made


FILLS = ("_populate_buffer_from_store", "_restore_workspace_context")


@pytest.mark.parametrize(("load_arrays", "batch"), [(True, 16_384), (True, 5), (False, 7)])
def test_rows_made_many_at_a_time_are_those_made_one_by_one(
    store: Store1x, load_arrays: bool, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_rows, "_BATCH", batch)
    predictions = module({})
    prediction_rows.exchange(predictions)
    found, wanted = predictions.Predictions(), Plain()
    frame = store.query_predictions()
    found._populate_buffer_from_store(store, frame, load_arrays=load_arrays)
    wanted._populate_buffer_from_store(store, frame, load_arrays=load_arrays)
    assert [row["id"] for row in found._buffer] == frame["prediction_id"].to_list()
    assert found.calls == 0
    for ours, theirs in zip(found._buffer, wanted._buffer, strict=True):
        assert list(ours) == list(theirs)
        for name in ours.keys() - {"created_at"}:
            np.testing.assert_equal(ours[name], theirs[name], err_msg=name)
    shared = [id(row[name]) for row in found._buffer for name in ("metadata", "weights", "scores")]
    assert len(set(shared)) == len(shared)


def test_arrays_and_scores_are_made_when_they_are_looked_at(store: Store1x) -> None:
    predictions = module({})
    prediction_rows.exchange(predictions)
    found = predictions.Predictions()
    found._populate_buffer_from_store(store, store.query_predictions())
    late = [row for row in found._buffer if isinstance(row, LateRow)]
    assert len(late) > 20
    assert all(dict.__getitem__(row, name) is LATE for row in late for name in ("y_pred", "scores", "sample_indices"))
    row = next(row for row in late if len(row["y_pred"]))
    row["y_pred"][0] = 7.0  # its own: the others, and what is read again, keep theirs
    again = predictions.Predictions()
    again._populate_buffer_from_store(store, store.query_predictions())
    (stored,) = (other for other in again._buffer if other["id"] == row["id"])
    assert row["y_pred"][0] == 7.0 != stored["y_pred"][0]
    assert all(other["y_pred"][0] != 7.0 for other in late if other is not row and len(other["y_pred"]))


def test_classes_come_back_as_they_were(tmp_path: Path) -> None:
    with Store1x(tmp_path / "w") as store:
        pipeline = begin_pipeline(store, store.begin_run("sweep", {}, [{"name": "corn"}]), "only")
        chain = save_chain(store, pipeline, branch_path=[0, 1])
        for fold in range(20):
            prediction = predict(store, pipeline, chain, fold_id=str(fold), val_score=0.5)
            found = np.array(["rye", "oat"])[[fold % 2, 0]]
            record = {"prediction_id": prediction, "task_type": "binary", "y_true": found, "y_pred": found[::-1]}
            store.array_store.save_batch([record])
        predictions = module({})
        prediction_rows.exchange(predictions)
        made, wanted = predictions.Predictions(), Plain()
        for each in (made, wanted):
            each._populate_buffer_from_store(store, store.query_predictions())
    assert made.calls == 0
    for ours, theirs in zip(made._buffer, wanted._buffer, strict=True):
        assert ours["branch_path"] == [0, 1]
        for name in ours.keys() - {"created_at"}:
            np.testing.assert_equal(ours[name], theirs[name], err_msg=name)
    assert len({id(row["branch_path"]) for row in made._buffer}) == len(made._buffer)


def test_a_release_whose_rows_have_more_makes_them_itself(store: Store1x) -> None:
    predictions = module({"dataset_path": "elsewhere", "val_score": 7.0})
    prediction_rows.exchange(predictions)
    found = predictions.Predictions()
    found._populate_buffer_from_store(store, store.query_predictions())
    assert found.calls == len(found._buffer) == store.query_predictions().height
    assert {row["val_score"] for row in found._buffer} == {7.0}
    prediction_rows.give_back(predictions)
    assert predictions.Predictions._populate_buffer_from_store is vars(Plain)["_populate_buffer_from_store"]


def test_each_run_is_asked_once_for_each_of_its_data_sets(store: Store1x) -> None:
    predictions = module({})
    prediction_rows.exchange(predictions)
    found, wanted = predictions.Predictions(), Plain()
    for each in (found, wanted):
        each._restore_workspace_context(store, store.query_predictions())
    assert found.asked == list(dict.fromkeys(wanted.asked))
    assert len(wanted.asked) > len(found.asked)
