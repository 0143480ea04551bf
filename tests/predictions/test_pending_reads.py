"""A prediction that is still in memory is read there, and is what the tables give once it has come to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from helpers import Sweep, begin_sweep, examples, predict, predict_with_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from n4a_fast import WorkspaceStore
from n4a_fast.schema.columns import PREDICTIONS
from n4a_fast.tables.predictions.logged import tables_of
from n4a_fast.tables.predictions.pending import PredictionBatch
from n4a_fast.values import ids

STEPS = st.tuples(
    st.sampled_from(["row", "arrays", "metadata", "own id", "drain", "pipeline"]),
    st.integers(0, 3),  # fold
    st.sampled_from(["mine", "yours"]),
)


def held(store: WorkspaceStore) -> int:
    return len(store._open().predictions.batch)


def require_equal(found: dict[str, Any] | None, wanted: dict[str, Any] | None) -> None:
    np.testing.assert_equal(found, wanted)
    if found is not None and wanted is not None:
        assert list(found) == list(wanted)
        assert {name: type(value) for name, value in found.items()} == {n: type(value) for n, value in wanted.items()}


def test_saving_and_getting_one_prediction_after_another_drains_nothing(store: WorkspaceStore, sweep: Sweep) -> None:
    for fold in range(5):
        saved = predict_with_arrays(store, sweep, fold_id=str(fold))
        found = store.get_prediction(saved, load_arrays=True)
        assert found is not None
        np.testing.assert_array_equal(found["y_pred"], np.arange(5.0))
        assert held(store) == fold + 1
        assert store.get_prediction_arrays(saved) is not None
    assert held(store) == 5


@pytest.mark.long
@settings(max_examples=examples(25))
@given(st.lists(STEPS, min_size=1, max_size=10))
def test_what_memory_gives_is_what_the_tables_give(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    with WorkspaceStore(tmp_path_factory.mktemp("pending")) as store:
        sweep, saved = begin_sweep(store), set[str]()
        for number, (what, fold, name) in enumerate(steps):
            known = {"prediction_id": name} if what == "own id" else {}
            if what == "drain":
                store.list_runs()
            elif what == "pipeline":
                sweep = begin_sweep(store)
            else:
                changes = {"branch_id": fold or None, "scores": {"val": {"rmse": number}}, "val_score": number / 3}
                identifier = predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), **changes, **known)
                saved.add(identifier)
                if what in ("arrays", "metadata"):
                    y = np.arange(6.0).reshape(3, 2) + number
                    more = {"sample_metadata": {"number": number}} if what == "metadata" else {}
                    store.save_prediction_arrays(identifier, y, y, y / 9, [1, 2, fold], np.ones(fold), **more)
        ids = [*saved, "mine", "yours", "nobody"]
        found = [(store.get_prediction(each), store.get_prediction(each, load_arrays=True)) for each in ids]
        arrays = [store.get_prediction_arrays(each) for each in ids]
        store.list_runs()
        assert held(store) == 0
        for each, (row, whole), held_arrays in zip(ids, found, arrays, strict=True):
            require_equal(row, store.get_prediction(each))
            require_equal(whole, store.get_prediction(each, load_arrays=True))
            require_equal(held_arrays, store.get_prediction_arrays(each))


def test_times_of_a_record_may_be_text_as_an_earlier_version_wrote_them() -> None:
    batch, key = PredictionBatch(), ids.natural_key("p", "c", "0", "val", "PLS", None)
    row = dict.fromkeys(PREDICTIONS.names) | {"prediction_id": "a", "pipeline_id": "p", "chain_id": "c"}
    row |= {"fold_id": "0", "partition": "val", "model_name": "PLS", "scores": "{}", "best_params": "{}"}
    row |= {"created_at": 1_764_000_000_123_456, "nk": ids.nk(key), "id_key": ids.id_key("a")}
    batch.put(tuple(row.values()), key)
    number, text = (msgpack.decode(msgpack.encode(batch.fresh())) for _ in range(2))
    text["predictions"][1]["created_at"] = "2025-11-24T16:00:00.123456"
    other = text["predictions"][1] | {"prediction_id": "b", "fold_id": "1", "created_at": "2025-11-24T16:00:00"}
    times = [datetime(2025, 11, 24, 16, 0, 0, 123456), datetime(2025, 11, 24, 16)]
    for contents in ([number], [text], [number, {"predictions": (1, other)}], [{"predictions": (1, other)}, text]):
        replayed = PredictionBatch()
        for content in contents:
            replayed.replay(content)
        found = replayed.pending()["predictions"]["created_at"].to_pylist()
        assert found == tables_of(contents)["predictions"]["created_at"].to_pylist()
        assert sorted(found, reverse=True) == times[: len(found)]
