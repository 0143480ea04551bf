"""Questions asked of a hundred thousand predictions (gates) and of a million (reports), beside the same SQL on plain
DuckDB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from harness import Measure, gate, report
from limits import BareFile
from workloads import SAMPLES

from n4a_fast import WorkspaceStore

COLUMNS = (
    "prediction_id, pipeline_id, chain_id, dataset_name, model_name, model_class, fold_id, partition, val_score,"
    " test_score, train_score, metric, task_type, n_samples, n_features, scores, best_params, preprocessings,"
    " branch_id, branch_name, exclusion_count, exclusion_rate, refit_context, created_at"
)
VALUES = "y_pred, y_pred_width, y_proba, y_proba_width, y_true_hash, sample_indices_hash, weights_hash, classes"
RANK = "ORDER BY (val_score IS NULL OR isnan(val_score)), val_score, prediction_id"
BY_ROWID = "plain DuckDB: the y_pred of the same rows by rowid"
on_100k = partial(gate, size=100_000, seed=0, threads="1, and DuckDB's", baseline="the same SQL on plain DuckDB")
on_a_million = partial(
    report, size=1_000_000, seed=0, threads="1, and DuckDB's", baseline="the same SQL on plain DuckDB"
)


class Sides(NamedTuple):
    """A store for reading, plain DuckDB on a copy of its file, and ids of predictions."""

    store: WorkspaceStore
    bare: BareFile
    ids: list[str]


@pytest.fixture(scope="module")
def small(large: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with _sides(large(100_000), tmp_path_factory.mktemp("bare")) as sides:
        yield sides


@pytest.fixture(scope="module")
def million(large: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with _sides(large(1_000_000), tmp_path_factory.mktemp("bare")) as sides:
        yield sides


@contextmanager
def _sides(workspace: Any, folder: Path) -> Iterator[Sides]:
    with (
        WorkspaceStore.open_readonly(workspace.folder) as store,
        BareFile(workspace.folder, folder / "bare.duckdb") as bare,
    ):
        yield Sides(store, bare, workspace.ids)
    (folder / "bare.duckdb").unlink()


@on_100k("top_predictions", workload="top_predictions(10)")
def test_top_predictions(measure: Measure, small: Sides) -> None:
    _top(measure, small)
    assert len(small.store.top_predictions(10)) == 10


@on_a_million("top_predictions_of_a_million", workload="top_predictions(10)")
def test_top_predictions_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="1.2x the bare SQL; 30 ms")
    _top(measure, million)
    assert len(million.store.top_predictions(10)) == 10


def _top(measure: Measure, sides: Sides) -> None:
    bare = f"SELECT {COLUMNS} FROM predictions WHERE partition = 'val' {RANK} LIMIT 10"
    assert (
        sides.store.top_predictions(10)["prediction_id"].to_list() == sides.bare.sql(bare)["prediction_id"].to_pylist()
    )
    measure.ratio(lambda: sides.bare.sql(bare), lambda: sides.store.top_predictions(10), rounds=9)


@on_100k("top_by_group", workload="top_predictions(10, group_by='model_class'), 5 classes")
def test_top_by_group(measure: Measure, small: Sides) -> None:
    _top_by_group(measure, small)
    assert len(small.store.top_predictions(10, group_by="model_class")) == 50


@on_a_million("top_by_group_of_a_million", workload="top_predictions(10, group_by='model_class'), 5 classes")
def test_top_by_group_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="1.2x the bare SQL; 30 ms")
    _top_by_group(measure, million)
    assert len(million.store.top_predictions(10, group_by="model_class")) == 50


def _top_by_group(measure: Measure, sides: Sides) -> None:
    bare = f"""SELECT {COLUMNS} FROM predictions WHERE partition = 'val'
        QUALIFY row_number() OVER (PARTITION BY model_class {RANK}) <= 10 {RANK}"""
    ours = partial(sides.store.top_predictions, 10, group_by="model_class")
    assert ours()["prediction_id"].to_list() == sides.bare.sql(bare)["prediction_id"].to_pylist()
    measure.ratio(lambda: sides.bare.sql(bare), ours, rounds=5)


@on_100k("query_of_a_pipeline", workload="query_predictions(pipeline_id=) of 1,000 rows")
def test_query_of_a_pipeline(measure: Measure, small: Sides) -> None:
    assert _query(measure, small) == 1_000


@on_a_million("query_of_a_pipeline_of_a_million", workload="query_predictions(pipeline_id=) of 1,000 rows")
def test_query_of_a_pipeline_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="1.2x the bare SQL; 30 ms")
    assert _query(measure, million) == 1_000


def _query(measure: Measure, sides: Sides) -> int:
    pipeline = sides.store.get_prediction(sides.ids[len(sides.ids) // 2])["pipeline_id"]  # type: ignore[index]
    bare = (
        f"SELECT {COLUMNS} FROM predictions WHERE pipeline_id = '{pipeline}' ORDER BY created_at DESC, prediction_id"
        " DESC"
    )
    measure.ratio(lambda: sides.bare.sql(bare), lambda: sides.store.query_predictions(pipeline_id=pipeline), rounds=11)
    return len(sides.store.query_predictions(pipeline_id=pipeline))


@on_100k(
    "lookup_with_arrays",
    workload="get_prediction(load_arrays=True) by our own id",
    baseline="the same rows by SQL on plain DuckDB, id as text",
)
def test_lookup_with_arrays(measure: Measure, small: Sides) -> None:
    assert _lookup(measure, small) == SAMPLES


@on_a_million(
    "lookup_with_arrays_of_a_million",
    workload="get_prediction(load_arrays=True) by our own id",
    baseline="the same rows by SQL on plain DuckDB, id as text",
)
def test_lookup_with_arrays_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="3 ms")
    assert _lookup(measure, million) == SAMPLES


@on_100k(
    "lookup_beside_positions",
    workload="get_prediction(load_arrays=True) by our own id, processor time of all threads",
    baseline="plain DuckDB: its row and its arrays by their positions, known beforehand",
)
def test_lookup_beside_positions(measure: Measure, small: Sides) -> None:
    ours, theirs = (iter([each * 2477 % len(small.ids) for each in range(1, 40)]) for _ in range(2))

    def bare() -> list[str]:
        place, of_each = next(theirs), ((COLUMNS, "predictions"), (f"prediction_id, {VALUES}", "prediction_values"))
        found = [small.bare.sql(f"SELECT {columns} FROM {table} WHERE rowid = {place}") for columns, table in of_each]
        return [name for rows in found for name in rows["prediction_id"].to_pylist()]

    assert bare() == [small.ids[next(ours)]] * 2
    get = small.store.get_prediction
    measure.work(bare, lambda: get(small.ids[next(ours)], load_arrays=True), rounds=30, clock=time.process_time)


def _lookup(measure: Measure, sides: Sides) -> int:
    """Both sides ask for another prediction each time, in another row group: none is read ahead."""
    ours, theirs = (iter([sides.ids[each * 2477 % len(sides.ids)] for each in range(1, 40)]) for _ in range(2))

    def bare() -> None:
        one = next(theirs)
        for columns, table in ((COLUMNS, "predictions"), ("*", "prediction_arrays")):
            sides.bare.sql(f"SELECT {columns} FROM {table} WHERE prediction_id = '{one}'")

    measure.ratio(bare, lambda: sides.store.get_prediction(next(ours), load_arrays=True), rounds=21)
    return len(sides.store.get_prediction(next(ours), load_arrays=True)["y_pred"])  # type: ignore[index]


@on_100k("load_contiguous", workload="load_arrays of 10,000 neighbours, y_true and y_pred", baseline=BY_ROWID)
def test_load_contiguous(measure: Measure, small: Sides) -> None:
    assert _load(measure, small, np.arange(50_000, 60_000)) == (10_000, SAMPLES)


@on_100k("load_random", workload="load_arrays of 10,000 random ids, y_true and y_pred", baseline=BY_ROWID)
def test_load_random(measure: Measure, small: Sides) -> None:
    assert _load(measure, small, np.random.default_rng(0).choice(100_000, 10_000, replace=False)) == (10_000, SAMPLES)


@on_a_million(
    "load_contiguous_of_a_million", workload="load_arrays of 10,000 neighbours, y_true and y_pred", baseline=BY_ROWID
)
def test_load_contiguous_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="60 ms")
    assert _load(measure, million, np.arange(500_000, 510_000)) == (10_000, SAMPLES)


@on_a_million(
    "load_random_of_a_million", workload="load_arrays of 10,000 random ids, y_true and y_pred", baseline=BY_ROWID
)
def test_load_random_of_a_million(measure: Measure, million: Sides) -> None:
    measure.note(promise="300 ms")
    assert _load(measure, million, np.random.default_rng(0).choice(1_000_000, 10_000, replace=False)) == (
        10_000,
        SAMPLES,
    )


def _load(measure: Measure, sides: Sides, places: np.ndarray[Any, Any]) -> tuple[int, ...]:
    ids = [sides.ids[place] for place in places]
    bare = f"SELECT y_pred FROM prediction_values WHERE rowid IN ({', '.join(map(str, places))})"
    if np.all(np.diff(places) == 1):
        bare = f"SELECT y_pred FROM prediction_values WHERE rowid BETWEEN {places[0]} AND {places[-1]}"
    measure.ratio(lambda: sides.bare.sql(bare), lambda: sides.store.load_arrays(ids), rounds=5)
    loaded = sides.store.load_arrays(ids)
    assert loaded.prediction_ids == ids
    return loaded.y_pred_2d().shape
