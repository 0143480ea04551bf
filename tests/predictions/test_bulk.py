"""The bulk call stores what the same calls one by one would have stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers import PREDICTION, Sweep, begin_sweep, child, count, counts, finish, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.tables.predictions import bulk
from n4a_fast.values import jsontext


def columns(sweep: Sweep, **changes: Any) -> dict[str, Any]:
    return {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, **changes}


def test_bulk_and_single_calls_fill_the_tables_alike(store: WorkspaceStore, sweep: Sweep) -> None:
    scores = [{"val": {"rmse": float(fold)}} for fold in range(4)]
    matrix = np.arange(20.0).reshape(4, 5)
    bulk = store.save_predictions(
        columns(sweep, fold_id=["0", "1", "2", "3"], scores=scores),
        y_true=np.arange(5.0),
        y_pred=matrix,
        sample_indices=np.arange(5),
    )
    frame = store.query_predictions().drop("created_at").sort("prediction_id")
    arrays = store.sql("SELECT * FROM prediction_arrays ORDER BY prediction_id")
    for fold in range(4):
        single = predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), scores=scores[fold])
        assert single == bulk[fold]
        store.save_prediction_arrays(single, np.arange(5.0), matrix[fold], None, np.arange(5))
    assert store.query_predictions().drop("created_at").sort("prediction_id").equals(frame)
    assert store.sql("SELECT * FROM prediction_arrays ORDER BY prediction_id").equals(arrays)
    assert count(store, "shared_arrays") == 1


@pytest.mark.parametrize("make", [dict, pa.table, pl.DataFrame])
def test_every_kind_of_columns_is_taken(store: WorkspaceStore, sweep: Sweep, make: Any) -> None:
    given = columns(sweep)
    lists = {
        name: [value] * 3
        for name, value in given.items()
        if name not in ("scores", "best_params", "branch_id", "branch_name")
    }
    ids = store.save_predictions(make({**lists, "fold_id": ["0", "1", "2"]}))
    assert sorted(store.query_predictions()["prediction_id"]) == sorted(ids)


def test_what_was_buffered_before_is_older(store: WorkspaceStore, sweep: Sweep) -> None:
    first = predict(store, sweep.pipeline, sweep.chain, val_score=0.9)
    assert store.save_predictions(columns(sweep, val_score=[0.5])) == [first]
    assert store.query_predictions()["val_score"].to_list() == [0.5]


def test_the_newest_row_of_a_key_wins_within_one_call(store: WorkspaceStore, sweep: Sweep) -> None:
    ids = store.save_predictions(
        columns(sweep, val_score=[0.1, 0.2, 0.3], fold_id=["0", "1", "0"]), y_pred=np.arange(6.0).reshape(3, 2)
    )
    assert ids[0] == ids[2]
    assert store.query_predictions().sort("fold_id")["val_score"].to_list() == [0.3, 0.2]
    found = store.get_prediction_arrays(ids[0])
    assert found is not None
    assert found["y_pred"].tolist() == [4, 5]
    assert counts(store, "predictions", "prediction_arrays") == {"predictions": 2, "prediction_arrays": 2}


def test_a_key_keeps_its_first_id_within_one_call(store: WorkspaceStore, sweep: Sweep) -> None:
    saved = store.save_predictions(columns(sweep, prediction_id=["a", "b", "b"], fold_id=["0", "0", "1"]))
    assert saved == ["a", "a", "b"]
    assert store.query_predictions().select("prediction_id", "fold_id").sort("fold_id").rows() == [
        ("a", "0"),
        ("b", "1"),
    ]


@pytest.mark.parametrize("first", [None, ["x", "y"]], ids=["ids that follow", "given ids"])
def test_stored_keys_keep_their_first_ids(store: WorkspaceStore, sweep: Sweep, first: list[str] | None) -> None:
    matrix = np.arange(4.0).reshape(2, 2)
    given = {} if first is None else {"prediction_id": first}
    kept = store.save_predictions(columns(sweep, fold_id=["0", "1"], **given), y_pred=matrix)
    again = store.save_predictions(
        columns(sweep, prediction_id=["b", "c", "a"], fold_id=["1", "2", "0"]), y_pred=np.ones((3, 2))
    )
    assert again == [kept[1], "c", kept[0]]
    loaded = store.load_arrays([*kept, "c"], columns=["y_pred"])
    np.testing.assert_array_equal(loaded.y_pred_2d(), np.ones((3, 2)))
    assert counts(store, "predictions", "prediction_arrays") == {"predictions": 3, "prediction_arrays": 3}


def test_more_than_one_slice(store: WorkspaceStore, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SLICE_ROWS", 4096)
    rows = 9000
    ids = store.save_predictions(
        columns(sweep, model_name=[f"m{i}" for i in range(rows)]), y_pred=np.arange(rows * 2.0).reshape(rows, 2)
    )
    assert counts(store, "predictions", "prediction_arrays") == {"predictions": rows, "prediction_arrays": rows}
    np.testing.assert_array_equal(
        store.load_arrays(ids, columns=["y_pred"]).y_pred_2d(), np.arange(rows * 2.0).reshape(rows, 2)
    )


@pytest.mark.parametrize(
    ("changes", "arrays", "named"),
    [
        ({"colour": ["red"]}, {}, "unknown column colour"),
        ({"fold_id": [None]}, {}, "fold_id has 1 missing"),
        ({"fold_id": ["0", "1"], "val_score": [0.1]}, {}, "differ in length"),
        ({"fold_id": ["0", "1"]}, {"y_pred": np.zeros((3, 2))}, "differ in length"),
        ({"val_score": ["x"]}, {}, "val_score"),
        ({"scores": ["{not json"]}, {}, "scores"),
        ({"n_samples": [2.5]}, {}, "n_samples"),
        ({"fold_id": ["0"]}, {"y_pred": np.array([[1j]])}, "y_pred must be numeric"),
        ({"fold_id": ["0"]}, {"sample_indices": np.array([[0.5]])}, "whole numbers"),
        ({"fold_id": ["0"]}, {"y_true": np.zeros((1, 2)), "y_pred": np.zeros((1, 3))}, "y_true"),
        ({"fold_id": ["0"]}, {"y_pred": np.zeros((1, 2)), "sample_indices": np.arange(3)}, "sample_indices"),
        ({"fold_id": ["0"]}, {"y_true": [np.zeros(2)], "y_pred": [np.zeros(3)]}, "y_true"),
    ],
)
def test_wrong_columns_are_refused_and_nothing_is_written(
    store: WorkspaceStore, sweep: Sweep, changes: dict[str, Any], arrays: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        store.save_predictions(columns(sweep, **changes), **arrays)
    assert counts(store, "predictions", "prediction_values") == {"predictions": 0, "prediction_values": 0}


@pytest.mark.parametrize("is_opened_again", [False, True])
@pytest.mark.long
def test_one_unknown_chain_among_many_is_named(tmp_path: Path, is_opened_again: bool) -> None:
    store = WorkspaceStore(tmp_path)
    sweep = begin_sweep(store)
    chains = [save_chain(store, sweep.pipeline) for _ in range(40)]
    if is_opened_again:  # none of them is in memory
        store.close()
        store = WorkspaceStore(tmp_path)
    with store, pytest.raises(NotFoundError, match="unknown"):
        store.save_predictions(columns(sweep, chain_id=[*chains, "unknown"]), y_pred=np.zeros((41, 3)))
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "predictions") == 0
        assert len(store.save_predictions(columns(sweep, chain_id=chains), y_pred=np.zeros((40, 3)))) == 40


@pytest.mark.parametrize("name", ["pipeline_id", "chain_id"])
def test_unknown_places_are_refused(store: WorkspaceStore, sweep: Sweep, name: str) -> None:
    with pytest.raises(NotFoundError, match="unknown"):
        store.save_predictions(
            columns(sweep, fold_id=["0", "1"], **{name: [getattr(sweep, name.removesuffix("_id")), "unknown"]})
        )
    assert count(store, "predictions") == 0


# -- reading many ----------------------------------------------------------------------------


def test_many_arrays_come_in_the_order_of_their_ids(store: WorkspaceStore, sweep: Sweep) -> None:
    ids = [predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold)) for fold in range(5)]
    for number, prediction in enumerate(ids[:4]):
        store.save_prediction_arrays(
            prediction, np.zeros(3), np.full(3, float(number)), np.full((3, 2), number), np.arange(3), np.ones(2)
        )
    loaded = store.load_arrays(
        [ids[3], ids[4], ids[0], ids[3]], columns=["y_pred", "y_proba", "weights", "sample_indices"]
    )
    assert loaded.prediction_ids == [ids[3], ids[4], ids[0], ids[3]]
    assert [None if value is None else value.tolist() for value in loaded.y_pred] == [
        [3, 3, 3],
        None,
        [0, 0, 0],
        [3, 3, 3],
    ]
    assert loaded.y_proba[0].shape == (3, 2)
    with pytest.raises(AttributeError, match="y_true was not loaded"):
        _ = loaded.y_true
    with pytest.raises(InvalidInputError, match="differ in length"):
        loaded.y_pred.to_2d()


def test_many_arrays_by_filter_and_in_batches(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold in range(5):
        prediction = predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), partition="val" if fold else "test")
        store.save_prediction_arrays(prediction, np.zeros(2), np.full(2, float(fold)))
    assert store.load_arrays(partition="val").y_pred_2d()[:, 0].tolist() == [1, 2, 3, 4]
    pieces = [piece.y_pred_2d()[:, 0].tolist() for piece in store.iter_arrays(batch_size=2, partition="val")]
    assert pieces == [[1, 2], [3, 4]]
    assert store.load_arrays(partition="nothing").y_pred_2d().shape == (0, 0)
    assert len(store.load_arrays([])) == 0


AT_THE_END = """
import atexit, sys
from helpers import PREDICTION, begin_sweep
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)

@atexit.register
def last_words():
    columns = {**PREDICTION, "pipeline_id": sweep.pipeline, "fold_id": ["0", "1"]}
    print(len(store.save_predictions(columns, y_pred=[[1.0], [2.0]])))
    print(store.export_predictions_parquet(sys.argv[1] + "/out.parquet").exists())
"""


def test_many_predictions_are_written_when_the_interpreter_starts_no_thread_any_more(tmp_path: Path) -> None:
    assert finish(child(AT_THE_END, tmp_path)).split() == ["2", "True"]
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "prediction_arrays") == 2


def test_wrong_requests_for_arrays_are_refused(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = predict(store, sweep.pipeline, sweep.chain)
    with pytest.raises(NotFoundError, match="unknown"):
        store.load_arrays([prediction, "unknown"])
    for wrong in ({"columns": ["colour"]}, {"columns": []}, {"colour": "red"}):
        with pytest.raises(InvalidInputError):
            store.load_arrays(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not both"):
        store.load_arrays([prediction], partition="val")


@pytest.mark.parametrize("folds", [["0", "1"], ["0", "0"]])
@pytest.mark.parametrize("text", ['"\\ud800"', '{"a": "\\udc00"}'])
def test_text_that_duckdb_does_not_take_for_json_is_refused(
    store: WorkspaceStore, sweep: Sweep, folds: list[str], text: str
) -> None:
    for scores in (["{}", text], [{"a": 1}, text]):
        with pytest.raises(InvalidInputError, match="JSON"):
            store.save_predictions(columns(sweep, fold_id=folds, scores=scores))
    assert store.query_predictions().is_empty()


def test_what_was_encoded_here_is_json_to_duckdb(store: WorkspaceStore, sweep: Sweep) -> None:
    scores = [{"rmse": float(fold), "best": float("nan"), "name": 'é"\\n'} for fold in range(3)]
    store.save_predictions(columns(sweep, fold_id=["0", "1", "1"], scores=scores))
    predict(store, sweep.pipeline, sweep.chain, fold_id="2", scores=scores[0])
    found = store.sql(
        "SELECT fold_id, scores->>'$.name' AS name, json_valid(scores) AS valid, typeof(scores) AS kind"
        " FROM predictions ORDER BY fold_id"
    )
    assert found["name"].to_list() == [scores[0]["name"]] * 3
    assert found["valid"].all()
    assert found["kind"].unique().to_list() == ["JSON"]
    stored = store.query_predictions().sort("fold_id")["scores"].to_list()
    assert [jsontext.decode(each)["rmse"] for each in stored] == [0.0, 2.0, 0.0]
