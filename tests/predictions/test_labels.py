"""Targets of text are stored as places among their classes, and come back as they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import PREDICTION, Sweep, child, examples, finish, predict
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.tables.predictions import labels

TRUE, PRED = np.array(["soja", "blé", "maïs"]), np.array(["blé", "blé", "maïs"])
CODES = {"y_true": [2.0, 0.0, 1.0], "y_pred": [0.0, 0.0, 1.0]}


def columns(sweep: Sweep, **changes: Any) -> dict[str, Any]:
    return {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, **changes}


def assert_labelled(store: WorkspaceStore, identifier: str) -> None:
    """Every way of reading gives the labels of TRUE and PRED, and without `labels` their places."""
    for labelled, expected in ((True, {"y_true": TRUE, "y_pred": PRED}), (False, CODES)):
        one, arrays = (
            store.get_prediction(identifier, True, labels=labelled),
            store.load_arrays([identifier], labels=labelled),
        )
        (piece,) = store.iter_arrays([identifier], labels=labelled)
        assert one is not None
        for name, values in expected.items():
            each = (one[name], getattr(arrays, name)[0], getattr(piece, name)[0], getattr(arrays, name).to_2d()[0])
            assert [list(found) for found in each] == [list(values)] * 4
    row = store.sql(f"SELECT * FROM prediction_labels WHERE prediction_id = '{identifier}'").row(0, named=True)
    assert row["classes"] == ["blé", "maïs", "soja"]
    assert (row["y_true"], row["y_pred"]) == (TRUE.tolist(), PRED.tolist())


FORMS = {
    "text": lambda values: values,
    "object": lambda values: values.astype(object),
    "bytes": lambda values: np.array([one.encode() for one in values]),
    "list": lambda values: values.tolist(),
    "pandas": pd.Series,
    "categories": lambda values: pd.Series(values, dtype="category"),
    "polars": pl.Series,
    "one column": lambda values: values[:, None],
}
if hasattr(np.dtypes, "StringDType"):  # since numpy 2
    FORMS["StringDType"] = lambda values: values.astype(np.dtypes.StringDType())


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_any_form_come_back_as_text(store: WorkspaceStore, sweep: Sweep, form: str) -> None:
    identifier = predict(store, sweep.pipeline, sweep.chain)
    store.save_prediction_arrays(identifier, FORMS[form](TRUE), FORMS[form](PRED))
    assert_labelled(store, identifier)


def test_labels_come_through_the_log_of_another_process(tmp_path: Path, empty_workspace: Path) -> None:
    shutil.copytree(empty_workspace, tmp_path / "ws")
    code = """
import os, sys
import numpy as np
from helpers import begin_sweep, predict
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
identifier = predict(store, sweep.pipeline, sweep.chain)
store.save_prediction_arrays(identifier, np.array(["soja", "blé", "maïs"]), np.array(["blé", "blé", "maïs"]))
store.flush()
print(identifier, flush=True)
os._exit(0)
"""
    identifier = finish(child(code, tmp_path / "ws")).strip()
    with WorkspaceStore(tmp_path / "ws") as store:
        assert_labelled(store, identifier)


@pytest.mark.parametrize(
    ("y_true", "y_pred"),
    [
        (TRUE, PRED[None, :].repeat(2, axis=0)),
        (TRUE.astype(object), [PRED, PRED.astype(object)]),
        (pa.array([TRUE.tolist()] * 2), pa.array([PRED.tolist()] * 2)),
    ],
)
def test_the_bulk_call_takes_labels_in_every_form_of_arrays(
    store: WorkspaceStore, sweep: Sweep, y_true: Any, y_pred: Any
) -> None:
    for identifier in store.save_predictions(columns(sweep, fold_id=["0", "1"]), y_true=y_true, y_pred=y_pred):
        assert_labelled(store, identifier)


def test_the_predictions_of_a_bulk_call_share_their_classes(store: WorkspaceStore, sweep: Sweep) -> None:
    rows = [np.array(["b", "a"]), np.array(["c", "a", "b"]), None]
    ids = store.save_predictions(columns(sweep, fold_id=["0", "1", "2"]), y_true=rows, y_pred=rows)
    assert [None if one is None else one.tolist() for one in store.load_arrays(ids).y_pred] == [[1, 0], [2, 0, 1], None]
    assert [None if one is None else one.tolist() for one in store.load_arrays(ids, labels=True).y_true] == [
        ["b", "a"],
        ["c", "a", "b"],
        None,
    ]


def test_a_bulk_call_that_replaces_its_own_rows_keeps_the_last_labels(store: WorkspaceStore, sweep: Sweep) -> None:
    ids = store.save_predictions(columns(sweep, fold_id=["0", "0"]), y_pred=np.array([["a", "b"], ["b", "b"]]))
    assert store.get_prediction_arrays(ids[0], labels=True)["y_pred"].tolist() == ["b", "b"]  # type: ignore[index]


def test_classes_that_are_named_give_the_order_and_refuse_others(store: WorkspaceStore, sweep: Sweep) -> None:
    identifier = predict(store, sweep.pipeline, sweep.chain)
    classes = ["soja", "maïs", "blé", "riz"]
    store.save_prediction_arrays(identifier, TRUE, np.array([2, 2, 1]), classes=classes)
    assert store.get_prediction_arrays(identifier)["y_true"].tolist() == [0.0, 2.0, 1.0]  # type: ignore[index]
    found = store.get_prediction_arrays(identifier, labels=True)
    assert found is not None
    assert (found["y_true"].tolist(), found["y_pred"].tolist()) == (TRUE.tolist(), PRED.tolist())


def test_a_missing_label_is_none_and_not_the_text_nan(store: WorkspaceStore, sweep: Sweep) -> None:
    identifier = predict(store, sweep.pipeline, sweep.chain)
    store.save_prediction_arrays(identifier, ["nan", None, "a", np.nan], np.array(["a", "nan", None, None], object))
    found = store.get_prediction(identifier, labels=True)
    assert found is not None
    assert (found["y_true"].tolist(), found["y_pred"].tolist()) == (["nan", None, "a", None], ["a", "nan", None, None])
    assert store.sql("SELECT y_true FROM prediction_labels").row(0) == (["nan", None, "a", None],)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "classes", "told"),
    [
        (["a", 1], ["a", "a"], None, "y_true holds labels and what is none"),
        (["a", "b"], [0.0, 1.0], None, "labels and numbers"),
        (["a", "b"], ["a", "c"], ["a", "b"], "y_pred holds the label 'c'"),
        ([0.0, 2.0], None, ["a", "b"], "y_true holds 2, and there are 2 classes"),
        ([0.0, 0.5], None, ["a", "b"], "y_true holds 0.5"),
        (["a"], None, ["a", "a"], "names a label twice"),
        (["a"], None, "ab", "sequence of texts"),
        ([b"\xff"], None, None, "y_true holds labels and what is none"),
        (np.ma.array(["a", "b"], mask=[True, False]), None, None, "masked"),
        (["a", "b"], ["a"], None, "one row per sample"),
    ],
)
def test_what_is_no_label_is_refused_before_anything_is_kept(
    store: WorkspaceStore, sweep: Sweep, y_true: Any, y_pred: Any, classes: Any, told: str
) -> None:
    identifier = predict(store, sweep.pipeline, sweep.chain)
    with pytest.raises(InvalidInputError, match=told):
        store.save_prediction_arrays(identifier, y_true, y_pred, classes=classes)
    with pytest.raises(InvalidInputError):
        store.save_predictions(
            columns(sweep, fold_id=["7"]), y_true=[y_true], y_pred=None if y_pred is None else [y_pred], classes=classes
        )
    assert store.get_prediction_arrays(identifier) is None
    assert store.query_predictions(fold_id="7").is_empty()


def test_a_save_again_brings_its_own_classes_or_none(store: WorkspaceStore, sweep: Sweep) -> None:
    identifier = predict(store, sweep.pipeline, sweep.chain)
    for y in (["x", "y"], ["b", "a"], [5.0, 6.0]):
        store.save_prediction_arrays(identifier, y, y)
        store.flush()
        assert store.get_prediction_arrays(identifier, labels=True)["y_pred"].tolist() == y  # type: ignore[index]
    assert store.sql("FROM prediction_labels").is_empty()
    store.save_prediction_arrays(identifier, ["b", "a"], None)
    renamed = predict(store, sweep.pipeline, sweep.chain, prediction_id="of-my-own")
    assert store.get_prediction(renamed, labels=True)["y_true"].tolist() == ["b", "a"]  # type: ignore[index]


def test_exports_and_arrow_have_numbers_and_labels_side_by_side(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    ids = store.save_predictions(columns(sweep, fold_id=["0"]), y_true=TRUE, y_pred=PRED)
    ids += store.save_predictions(columns(sweep, fold_id=["1"]), y_true=np.arange(3.0), y_pred=np.arange(3.0))
    file = store.export_predictions_parquet(tmp_path / "all.parquet", labels=True)
    for table in (pq.read_table(file), store.load_arrays(ids, labels=True).to_arrow()):
        assert table["y_true"].to_pylist() == [CODES["y_true"], [0.0, 1.0, 2.0]]
        assert table["y_true_labels"].to_pylist() == [TRUE.tolist(), None]
        assert table["y_pred_labels"].to_pylist() == [PRED.tolist(), None]
    mixed = store.load_arrays(ids, labels=True).y_true.to_2d()
    assert mixed.tolist() == [TRUE.tolist(), [0.0, 1.0, 2.0]]
    plain = pq.read_table(store.export_predictions_parquet(tmp_path / "numbers.parquet", arrays=True))
    assert "y_true_labels" not in plain.column_names


@pytest.mark.long
def test_merges_and_extracts_keep_labels(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    (identifier,) = store.save_predictions(columns(sweep, fold_id=["0"]), y_true=TRUE, y_pred=PRED)
    store.extract([sweep.run], tmp_path / "part")
    with WorkspaceStore(tmp_path / "part") as part:
        assert_labelled(part, identifier)
    with WorkspaceStore(tmp_path / "whole") as whole:
        whole.merge(tmp_path / "part")
        assert_labelled(whole, identifier)


_LABELS = st.one_of(st.none(), st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=3))


@given(st.lists(st.tuples(_LABELS, _LABELS), min_size=1, max_size=8))
@settings(max_examples=examples(200))
def test_any_labels_come_back(pairs: list[tuple[str | None, str | None]]) -> None:
    targets = {name: np.array([pair[turn] for pair in pairs], object) for turn, name in enumerate(("y_true", "y_pred"))}
    numbers, stored = labels.coded(targets, None)
    texts = {label for pair in pairs for label in pair if label is not None}
    if not texts:
        assert stored is None
        return
    assert stored is not None
    assert labels.classes_of(stored).tolist() == [*sorted(texts), None]
    for name, values in targets.items():
        assert labels.texts_of(numbers[name], stored).tolist() == values.tolist()  # type: ignore[union-attr]
