"""Inside nirs4all 1.x, what is read one by one, or answered from memory, is what is read together and anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import begin_pipeline, child, finish, predict, save_chain

from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

TOP = "SELECT * FROM v_chain_summary WHERE metric = ? ORDER BY (cv_val_score IS NULL), cv_val_score ASC LIMIT ?"
DELETED = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    assert store.delete_prediction(sys.argv[2])
"""
RANKED = """
import sys
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
with Store1x(sys.argv[1]) as store:
    assert len(store._fetch_pl(sys.argv[2], ["rmse", 10])) == 2
    assert len(store._fetch_pl("SELECT * FROM v_chain_summary ORDER BY chain_id ASC")) == 2
    assert len(store._fetch_pl("SELECT * FROM predictions WHERE partition = ? ORDER BY created_at DESC", ["val"]))
assert "sqlglot" not in sys.modules
"""
TASKS = ("regression", "multiclass_classification")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store1x]:
    with Store1x(tmp_path / "w") as opened:
        yield opened


def arrays_at_random(random: np.random.Generator) -> dict[str, Any]:
    """The arrays of one prediction, some of them missing, of any kind that nirs4all saves."""
    count = int(random.integers(1, 6))
    shape = (count, int(random.integers(2, 4))) if random.random() < 0.3 else (count,)
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: random.normal(size=shape),
        lambda: random.integers(0, 3, size=shape),
        lambda: np.array(["rye", "oat", "maize"])[random.integers(0, 3, size=count)],
    )
    targets = kinds[int(random.integers(3))]
    made = {
        "y_true": targets(),
        "y_pred": targets(),
        "y_proba": random.random((count, 3)),
        "sample_indices": random.integers(0, 99, size=count),
        "weights": random.random(count),
        "X": random.normal(size=(count, 4)),
        "sample_metadata": {"site": ["a"] * count},
        "result_metadata": {"n": count},
    }
    return {name: value for name, value in made.items() if random.random() < 0.6}


def filled(store: Store1x, seed: int, pipelines: int = 2) -> list[str]:
    """Predictions with arrays of every kind, some without any, and places in relations beside some."""
    random, found = np.random.default_rng(seed), []
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    for number in range(pipelines):
        pipeline = begin_pipeline(store, run, f"pipeline {number}")
        chain = save_chain(store, pipeline)
        for fold in range(12):
            more = {"prediction_level": "sample"} if random.random() < 0.3 else {}
            prediction = predict(store, pipeline, chain, fold_id=str(fold), val_score=random.random(), **more)
            if fold != 5 and (arrays := arrays_at_random(random)):
                record = {"prediction_id": prediction, "dataset_name": "corn", "task_type": TASKS[fold % 2], **arrays}
                store.array_store.save_batch([record])
            found.append(prediction)
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return found


def assert_same(found: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    assert (found is None) == (expected is None)
    for name in found.keys() | expected.keys() if found is not None and expected is not None else ():
        assert isinstance(found, dict)
        assert isinstance(expected, dict)
        one, other = found[name], expected[name]
        assert type(one) is type(other), name
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape, one.flags.writeable) == (other.dtype, other.shape, other.flags.writeable)
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            assert one == other, name


@pytest.mark.parametrize("seed", range(4))
def test_one_prediction_s_arrays_are_those_that_many_are_read_with(store: Store1x, seed: int) -> None:
    predictions = filled(store, seed)
    if seed % 2:
        store.close()
        store = Store1x(store.workspace_path)
    together = store.array_store.load_batch([*predictions, "unknown"])
    assert 0 < len(together) < len(predictions)
    order = [*predictions, *np.random.default_rng(seed).permutation(predictions).tolist(), "unknown"]
    for each in order:  # neighbours are read ahead, others are not
        assert_same(store.array_store.load_single(each), together.get(each))
    for each in order[:-1]:
        plain = store.get_prediction(each) or {}
        assert_same(store.get_prediction(each, load_arrays=True), {**plain, **together.get(each, {})})
    store.close()


def test_a_prediction_in_memory_is_told_as_the_tables_tell_it(store: Store1x) -> None:
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    prediction = predict(store, pipeline, save_chain(store, pipeline), prediction_level="sample")
    arrays = {"y_true": np.array(["rye", "oat"]), "y_pred": np.array(["oat", "oat"]), "sample_metadata": {"s": [1, 2]}}
    store.array_store.save_batch([{"prediction_id": prediction, "task_type": "binary", **arrays}])
    in_memory = store.get_prediction(prediction, load_arrays=True)
    store.close()
    with Store1x(store.workspace_path) as later:
        assert_same(in_memory, later.get_prediction(prediction, load_arrays=True))


def board(store: Store1x) -> pl.DataFrame:
    return store._fetch_pl(TOP, ["rmse", 5])


def changes(store: Store1x, predictions: list[str]) -> Iterator[Callable[[], object]]:
    """What may change a ranking: a save, a delete, a block, and another process."""
    row = store.get_prediction(predictions[0]) or {}
    yield lambda: predict(store, row["pipeline_id"], row["chain_id"], fold_id="0", val_score=-1.0)
    yield lambda: store.delete_prediction(predictions[1])

    def in_a_block() -> None:
        with store.transaction():
            predict(store, row["pipeline_id"], row["chain_id"], fold_id="3", val_score=-9.0)
            inside = board(store)
        assert_frames_equal(inside, board(store))

    yield in_a_block
    yield lambda: finish(child(DELETED, store.workspace_path, predictions[2]))


def assert_frames_equal(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert one.equals(other)
    assert one.schema == other.schema


def test_summaries_that_are_kept_are_those_of_another_handle_after_every_change(store: Store1x) -> None:
    predictions = filled(store, 7)
    earlier = board(store)
    assert board(store) is earlier  # from memory
    for change in changes(store, predictions):
        change()
        now = board(store)
        assert not now.equals(earlier)
        with Store1x(store.workspace_path) as other:
            assert_frames_equal(now, board(other))
        earlier = now


@pytest.mark.parametrize("text", ["datetime('now')", "random()", "CURRENT_TIMESTAMP"])
def test_what_differs_from_call_to_call_is_not_kept(store: Store1x, text: str) -> None:
    filled(store, 7, pipelines=1)
    query = f"SELECT chain_id, {text} AS made FROM v_chain_summary"
    assert store._fetch_pl(query) is not store._fetch_pl(query)


def test_manifests_that_come_later_are_told(store: Store1x) -> None:
    filled(store, 7, pipelines=1)
    assert board(store)["relation_replay_fingerprint"].to_list() == [None]
    run = store.begin_run("more", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    chain = save_chain(store, pipeline, relation_replay_manifest={"version": 2, "fingerprint": "f"})
    predict(store, pipeline, chain, val_score=-5.0)
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    assert board(store)["relation_replay_fingerprint"].to_list() == ["f", None]
    assert store.get_chain(chain)["relation_replay_version"] == 2


def test_a_ranking_does_not_wait_for_the_translator_to_be_imported(tmp_path: Path) -> None:
    with Store1x(tmp_path / "w") as store:
        run = store.begin_run("sweep", {}, [{"name": "corn"}])
        for number in range(2):
            pipeline = begin_pipeline(store, run, f"pipeline {number}")
            predict(store, pipeline, save_chain(store, pipeline))
    finish(child(RANKED, tmp_path / "w", TOP))
