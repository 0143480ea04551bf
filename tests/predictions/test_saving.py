"""Predictions: the natural key replaces, ids stay, arrays are kept, moved or replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    PREDICTION,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    count,
    counts,
    finish,
    predict,
    predict_with_arrays,
    save_chain,
)

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotFoundError

Between = Callable[[WorkspaceStore], None]
ARRAY_TABLES = ("prediction_values", "shared_arrays", "shared_indices")


def _nothing(store: WorkspaceStore) -> None: ...


def _drained(store: WorkspaceStore) -> None:
    store.flush()
    store.sql("SELECT 1")


# what may happen between two saves: nothing (one buffer), a flush (the journal), a read (the tables)
BETWEEN = pytest.mark.parametrize(
    "between", [_nothing, WorkspaceStore.flush, _drained], ids=["one-buffer", "flushed", "in-the-tables"]
)


@BETWEEN
@pytest.mark.parametrize(
    "changes", [{}, {"branch_id": 0}, {"branch_id": 3}, {"fold_id": "avg"}, {"model_name": "Ridge"}]
)
@pytest.mark.parametrize("with_chain", [True, False])
def test_saving_a_key_again_replaces_the_row_and_keeps_its_id(
    store: WorkspaceStore, sweep: Sweep, between: Between, changes: dict[str, Any], with_chain: bool
) -> None:
    chain = sweep.chain if with_chain else None
    first = predict(store, sweep.pipeline, chain, val_score=0.5, **changes)
    between(store)
    second = predict(store, sweep.pipeline, chain, val_score=0.4, **changes)
    assert first == second
    assert store.query_predictions()["val_score"].to_list() == [0.4]


@BETWEEN
def test_each_part_of_the_key_makes_another_prediction(store: WorkspaceStore, sweep: Sweep, between: Between) -> None:
    other_pipeline = begin_pipeline(store, sweep.run)
    places = [
        (sweep.pipeline, sweep.chain),
        (sweep.pipeline, save_chain(store, sweep.pipeline)),
        (sweep.pipeline, None),
        (other_pipeline, None),
    ]
    made = []
    for pipeline, chain in places:
        for changes in (
            {},
            {"fold_id": "1"},
            {"partition": "test"},
            {"model_name": "x"},
            {"branch_id": 0},
            {"branch_id": 1},
        ):
            made.append(predict(store, pipeline, chain, **changes))
            between(store)
    assert len(set(made)) == len(made) == 24
    assert sorted(store.query_predictions()["prediction_id"]) == sorted(made)


def test_a_branch_is_the_same_in_every_type_that_counts_as_its_number(store: WorkspaceStore, sweep: Sweep) -> None:
    ids = {predict(store, sweep.pipeline, sweep.chain, branch_id=branch) for branch in (True, 1, 1.0, np.int64(1))}
    ids |= set(
        store.save_predictions(
            {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, "branch_id": [True]}
        )
    )
    assert set(store.query_predictions()["prediction_id"]) == ids
    assert len(ids) == 1


@pytest.mark.long
def test_a_key_saved_by_a_later_process_has_the_same_id(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        first = predict_with_arrays(store, sweep, val_score=0.5)
    with WorkspaceStore(tmp_path) as store:
        assert predict(store, sweep.pipeline, sweep.chain, val_score=0.4) == first
        found = store.get_prediction(first, load_arrays=True)
        assert found is not None
        assert found["val_score"] == 0.4
        assert found["y_pred"].tolist() == [0, 1, 2, 3, 4]
        assert count(store, "predictions") == 1


def test_a_given_id_is_kept(store: WorkspaceStore, sweep: Sweep) -> None:
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="0123456789abcdef") == "0123456789abcdef"
    found = store.get_prediction("0123456789abcdef")
    assert found is not None
    assert found["model_name"] == "PLS"


# -- arrays on a re-save ---------------------------------------------------------------------


@BETWEEN
def test_arrays_stay_when_only_the_row_is_saved_again(store: WorkspaceStore, sweep: Sweep, between: Between) -> None:
    prediction = predict_with_arrays(store, sweep, 1.0)
    between(store)
    predict(store, sweep.pipeline, sweep.chain, val_score=0.4)
    assert y_pred(store, prediction) == [1, 2, 3, 4, 5]
    assert count(store, "prediction_arrays") == 1


@BETWEEN
def test_new_arrays_replace_the_old_ones(store: WorkspaceStore, sweep: Sweep, between: Between) -> None:
    prediction = predict_with_arrays(store, sweep, 1.0)
    between(store)
    store.save_prediction_arrays(prediction, None, np.zeros(2))
    between(store)
    arrays = store.get_prediction_arrays(prediction)
    assert arrays is not None
    assert arrays["y_pred"].tolist() == [0, 0]
    assert [arrays[name] for name in ("y_true", "y_proba", "sample_indices", "weights")] == [None] * 4
    assert count(store, "prediction_arrays") == 1


@BETWEEN
@pytest.mark.parametrize("first", [None, "first"], ids=["an id that follows", "a given id"])
def test_a_prediction_keeps_the_id_it_was_first_saved_under(
    store: WorkspaceStore, sweep: Sweep, between: Between, first: str | None
) -> None:
    kept = predict_with_arrays(store, sweep, 1.0, prediction_id=first)
    between(store)
    for later in ("second", None):
        saved = predict(store, sweep.pipeline, sweep.chain, prediction_id=later, val_score=0.7)
        assert saved == kept
        between(store)
    assert store.query_predictions().select("prediction_id", "val_score").rows() == [(kept, 0.7)]
    assert y_pred(store, kept) == [1, 2, 3, 4, 5]
    assert counts(store, "predictions", "prediction_values") == {"predictions": 1, "prediction_values": 1}


@BETWEEN
def test_arrays_and_metadata_of_a_prediction_that_is_saved_again_under_another_id_stay(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    predict(store, sweep.pipeline, sweep.chain, prediction_id="first")
    store.save_prediction_arrays("first", np.arange(3.0), np.arange(3.0), sample_metadata={"of": "first"})
    between(store)
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second") == "first"
    between(store)
    found = store.get_prediction("first", load_arrays=True)
    assert found is not None
    assert (found["y_pred"].tolist(), found["sample_metadata"]) == ([0, 1, 2], {"of": "first"})
    assert store.get_prediction("second") is None
    with pytest.raises(NotFoundError, match="second"):
        store.save_prediction_arrays("second", None, np.arange(3.0))


@BETWEEN
def test_an_id_that_moves_to_another_prediction_leaves_arrays_and_metadata_behind(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    predict(store, sweep.pipeline, sweep.chain, prediction_id="a", fold_id="0")
    store.save_prediction_arrays("a", np.arange(3.0), np.arange(3.0), sample_metadata={"fold": 0})
    between(store)
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="a", fold_id="1") == "a"
    between(store)
    found = store.get_prediction("a", load_arrays=True)
    assert found is not None
    assert (found["fold_id"], found["y_pred"], found["sample_metadata"]) == ("1", None, {})
    assert counts(store, "predictions", "prediction_values", "prediction_metadata") == {
        "predictions": 1,
        "prediction_values": 0,
        "prediction_metadata": 0,
    }
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="b", fold_id="0") == "b"


@BETWEEN
def test_a_deleted_prediction_leaves_its_key_to_the_next_id(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    predict(store, sweep.pipeline, sweep.chain, prediction_id="first")
    between(store)
    assert store.delete_prediction("first")
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second") == "second"
    with pytest.raises(ZeroDivisionError), store.transaction():
        assert predict(store, sweep.pipeline, None, prediction_id="given up") == "given up"
        raise ZeroDivisionError
    assert predict(store, sweep.pipeline, None, prediction_id="third") == "third"


@BETWEEN
def test_first_ids_outlast_a_unit_that_was_given_up(store: WorkspaceStore, sweep: Sweep, between: Between) -> None:
    """What was in memory when ids had to be looked up again is known when it has left it."""
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="first", fold_id="0") == "first"
    followed = predict(store, sweep.pipeline, sweep.chain, fold_id="1")
    store.flush()
    with pytest.raises(ZeroDivisionError), store.transaction():
        predict(store, sweep.pipeline, sweep.chain, fold_id="2")
        raise ZeroDivisionError
    assert predict(store, sweep.pipeline, sweep.chain, fold_id="0") == "first"
    predict(store, sweep.pipeline, sweep.chain, fold_id="3")
    between(store)
    assert predict(store, sweep.pipeline, sweep.chain, fold_id="0") == "first"
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second", fold_id="1") == followed
    assert count(store, "predictions") == 3


@BETWEEN
def test_a_prediction_keeps_its_metadata_when_its_id_is_given_to_one_that_has_another(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    predict(store, sweep.pipeline, sweep.chain, prediction_id="a", fold_id="0")
    predict(store, sweep.pipeline, sweep.chain, prediction_id="b", fold_id="1")
    store.save_prediction_arrays("a", np.arange(3.0), np.arange(3.0), sample_metadata={"of": "a"})
    between(store)
    assert predict(store, sweep.pipeline, sweep.chain, prediction_id="a", fold_id="1") == "b"
    between(store)
    found = store.get_prediction("a", load_arrays=True)
    assert found is not None
    assert (found["fold_id"], found["sample_metadata"]) == ("0", {"of": "a"})


def test_a_later_session_and_another_process_keep_the_first_id(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        assert predict(store, sweep.pipeline, sweep.chain, prediction_id="first") == "first"
        followed = predict(store, sweep.pipeline, sweep.chain, fold_id="1")
    with WorkspaceStore(tmp_path) as store:
        assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second") == "first"
        assert predict(store, sweep.pipeline, sweep.chain, prediction_id="second", fold_id="1") == followed
        other = child(SAVES_AGAIN, tmp_path, sweep.pipeline, sweep.chain)
        assert finish(other).split() == ["first"]


SAVES_AGAIN = """
import sys
from helpers import predict
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(predict(store, *sys.argv[2:], prediction_id="third"))
"""


def test_a_key_that_two_processes_save_at_once_keeps_the_id_that_comes_to_the_tables_first(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_interval=None) as store:
        sweep = begin_sweep(store)
        store.flush()
        assert finish(child(KILLED, tmp_path, sweep.pipeline, sweep.chain)).split() == ["theirs"]
        predict(store, sweep.pipeline, sweep.chain, prediction_id="ours")
        store.save_prediction_arrays("ours", None, np.full(3, 2.0), sample_metadata={"of": "ours"})
        store.flush()
        found = store.query_predictions()["prediction_id"].to_list()
        assert found == ["theirs"]
        stored = store.get_prediction("theirs", load_arrays=True)
        assert stored is not None
        assert (stored["y_pred"].tolist(), stored["sample_metadata"]) == ([2, 2, 2], {"of": "ours"})
        assert counts(store, "predictions", "prediction_values", "prediction_metadata") == {
            "predictions": 1,
            "prediction_values": 1,
            "prediction_metadata": 1,
        }


KILLED = """
import os, sys
import numpy as np
from helpers import predict
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
print(predict(store, *sys.argv[2:], prediction_id="theirs"), flush=True)
store.save_prediction_arrays("theirs", None, np.ones(3), sample_metadata={"of": "theirs"})
store.flush()
os._exit(0)  # as killed: it is in the log alone
"""


def y_pred(store: WorkspaceStore, prediction: str) -> Any:
    arrays = store.get_prediction_arrays(prediction)
    return None if arrays is None else arrays["y_pred"].tolist()


# -- shared content --------------------------------------------------------------------------


@BETWEEN
def test_repeated_targets_are_stored_once_and_never_double_a_row(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    for pipeline in range(3):
        place = sweep._replace(pipeline=begin_pipeline(store, sweep.run))
        for fold in range(4):
            predict_with_arrays(store, place, pipeline, fold_id=str(fold))
        between(store)
    assert counts(store, "predictions", "prediction_arrays", *ARRAY_TABLES) == {
        "predictions": 12,
        "prediction_arrays": 12,
        "prediction_values": 12,
        "shared_arrays": 2,
        "shared_indices": 1,
    }


@BETWEEN
def test_content_that_was_replaced_before_or_after_a_flush_is_not_kept(
    store: WorkspaceStore, sweep: Sweep, between: Between
) -> None:
    prediction = predict(store, sweep.pipeline, sweep.chain)
    for shift in range(3):
        store.save_prediction_arrays(
            prediction, np.arange(3.0) + shift, None, None, np.arange(3) + shift, np.ones(2) * shift
        )
        between(store)
    assert counts(store, *ARRAY_TABLES) == {"prediction_values": 1, "shared_arrays": 2, "shared_indices": 1}


def test_shared_arrays_go_with_the_last_prediction_that_uses_them(store: WorkspaceStore, sweep: Sweep) -> None:
    first, second = (predict_with_arrays(store, sweep, fold_id=fold) for fold in "01")
    assert store.delete_prediction(first)
    assert counts(store, *ARRAY_TABLES) == {"prediction_values": 1, "shared_arrays": 2, "shared_indices": 1}
    assert store.delete_prediction(second)
    assert set(counts(store, "predictions", *ARRAY_TABLES).values()) == {0}


def test_deleting_a_prediction_says_whether_there_was_one(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = predict_with_arrays(store, sweep)
    assert store.delete_prediction(prediction) is True
    assert store.delete_prediction(prediction) is False
    assert store.delete_prediction("unknown") is False
    assert store.get_prediction(prediction) is None
    assert store.get_prediction_arrays(prediction) is None


def test_a_deleted_prediction_can_be_saved_again_and_has_no_arrays(store: WorkspaceStore, sweep: Sweep) -> None:
    prediction = predict_with_arrays(store, sweep)
    store.delete_prediction(prediction)
    assert predict(store, sweep.pipeline, sweep.chain) == prediction
    assert store.get_prediction_arrays(prediction) is None


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, 0.1, float("nan"), float("inf"), -float("inf"), np.float32(0.5), np.float64(1e-300), 3, True]
)
def test_scores_survive_as_doubles(store: WorkspaceStore, sweep: Sweep, value: Any) -> None:
    names = ("val_score", "test_score", "train_score", "exclusion_rate")
    found = store.get_prediction(predict(store, sweep.pipeline, sweep.chain, **dict.fromkeys(names, value)))
    assert found is not None
    assert {repr(found[name]) for name in names} == {repr(None if value is None else float(value))}


def test_every_field_comes_back(store: WorkspaceStore, sweep: Sweep) -> None:
    given = {
        **PREDICTION,
        "scores": {"val": {"rmse": np.float32(0.5), "nan": float("nan")}},
        "best_params": {"n": np.int64(3)},
        "branch_id": 2,
        "branch_name": "left",
        "exclusion_count": np.int64(4),
        "exclusion_rate": 0.25,
        "preprocessings": "SNV>Detr",
        "refit_context": "standalone",
        "n_samples": 5.0,
    }
    found = store.get_prediction(store.save_prediction(sweep.pipeline, sweep.chain, **given))  # type: ignore[arg-type]
    assert found is not None
    assert str(found.pop("scores")) == "{'val': {'rmse': 0.5, 'nan': nan}}"
    assert found.pop("best_params") == {"n": 3}
    assert {name: found[name] for name in given if name in found} == {
        name: value for name, value in given.items() if name not in ("scores", "best_params")
    }
    assert (found["pipeline_id"], found["chain_id"]) == (sweep.pipeline, sweep.chain)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"val_score": "0.5"}, "val_score"),
        ({"test_score": object()}, "test_score"),
        ({"train_score": 1j}, "train_score"),
        ({"n_samples": 2.5}, "n_samples"),
        ({"n_samples": float("nan")}, "n_samples"),
        ({"n_features": 2**31}, "n_features"),
        ({"branch_id": "left"}, "branch_id"),
        ({"exclusion_count": "x"}, "exclusion_count"),
        ({"exclusion_rate": "x"}, "exclusion_rate"),
        ({"dataset_name": None}, "dataset_name"),
        ({"model_name": 5}, "model_name"),
        ({"model_class": None}, "model_class"),
        ({"partition": None}, "partition"),
        ({"metric": 5}, "metric"),
        ({"model_name": "\ud800"}, "model_name"),
        ({"scores": {"a": object()}}, "scores"),
        ({"best_params": b"x"}, "best_params"),
        ({"scores": {"a": "\ud800"}}, "scores"),
        ({"prediction_id": 5}, "prediction_id"),
        ({"preprocessings": 5}, "preprocessings"),
        ({"branch_name": 5}, "branch_name"),
    ],
)
def test_a_wrong_field_is_refused_by_name_and_nothing_is_saved(
    store: WorkspaceStore, sweep: Sweep, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        predict(store, sweep.pipeline, sweep.chain, **changes)
    assert count(store, "predictions") == 0


def test_a_prediction_needs_a_known_pipeline_and_chain(store: WorkspaceStore, sweep: Sweep) -> None:
    with pytest.raises(NotFoundError, match="pipeline 'unknown'"):
        predict(store, "unknown", sweep.chain)
    with pytest.raises(NotFoundError, match="chain 'unknown'"):
        predict(store, sweep.pipeline, "unknown")
    assert count(store, "predictions") == 0


def test_arrays_need_a_known_prediction(store: WorkspaceStore) -> None:
    with pytest.raises(NotFoundError, match="save the prediction before its arrays"):
        store.save_prediction_arrays("unknown", np.zeros(3), np.zeros(3))


def test_many_predictions_flush_by_themselves(store: WorkspaceStore, sweep: Sweep) -> None:
    for index in range(4500):
        predict(store, sweep.pipeline, sweep.chain, model_name=f"m{index}")
    assert count(store, "predictions") == 4500


@pytest.mark.parametrize("changes", [{"prediction_id": ""}, {"scores": "x"}, {"best_params": ["x"]}])
def test_empty_ids_and_scores_that_are_no_dicts_are_refused(store: WorkspaceStore, changes: dict[str, Any]) -> None:
    pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
    arguments: dict[str, Any] = {
        "pipeline_id": pipeline,
        "chain_id": None,
        "dataset_name": "corn",
        "model_name": "m",
        "model_class": "m",
        "fold_id": "0",
        "partition": "val",
        "val_score": 0.1,
        "test_score": 0.1,
        "train_score": 0.1,
        "metric": "rmse",
        "task_type": "regression",
        "n_samples": 1,
        "n_features": 1,
        "scores": {},
        "best_params": {},
        "branch_id": None,
        "branch_name": None,
        "exclusion_count": 0,
        "exclusion_rate": 0.0,
    }
    with pytest.raises(InvalidInputError, match=next(iter(changes))):
        store.save_prediction(**{**arguments, **changes})
    assert len(store.query_predictions()) == 0
