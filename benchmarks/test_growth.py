"""Gates on growth: the same work with 4N there and with N, N = 10,000 predictions; 1.0 is no growth at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from harness import Measure, gate
from workloads import SAMPLES, fill

from n4a_fast import WorkspaceStore

PIECE = 1_000  # predictions of a run
ROUNDS = 7
grown = partial(gate, size=40_000, seed=0, threads=1, baseline="the same with 10,000 there")


class Filled(NamedTuple):
    """A store, and the ids of predictions that stay."""

    store: WorkspaceStore
    kept: list[str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Filled, Filled]]:
    """A store with N predictions and one with 4N."""
    folder = tmp_path_factory.mktemp("growth")
    with WorkspaceStore(folder / "n") as small, WorkspaceStore(folder / "4n") as large:
        yield Filled(small, _runs(small, 10)[1]), Filled(large, _runs(large, 40)[1])


def _runs(store: WorkspaceStore, count: int) -> tuple[list[str], list[str]]:
    """New runs of PIECE predictions each, and the ids of these."""
    matrix = np.random.default_rng(0).random((PIECE, SAMPLES))
    runs = [store.begin_run("bulk", {}, []) for _ in range(count)]
    return runs, [prediction for run in runs for prediction in fill(store, PIECE, matrix, run)]


def _in_both(pair: tuple[Filled, Filled], work: Callable[[Filled], Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return (lambda: work(pair[0])), (lambda: work(pair[1]))


@grown("growth_of_delete", workload="delete_run of 1,000 predictions")
def test_growth_of_delete(measure: Measure, pair: tuple[Filled, Filled]) -> None:
    before = [len(filled.store.query_predictions()) for filled in pair]
    runs = {id(filled.store): _runs(filled.store, ROUNDS + 1)[0] for filled in pair}
    measure.growth(*_in_both(pair, lambda filled: filled.store.delete_run(runs[id(filled.store)].pop())), rounds=ROUNDS)
    assert [len(filled.store.query_predictions()) for filled in pair] == before
    assert not any(runs.values())


@grown("growth_of_query", workload="query_predictions(pipeline_id=) of 1,000 rows")
def test_growth_of_query(measure: Measure, pair: tuple[Filled, Filled]) -> None:
    pipeline = {id(filled.store): filled.store.get_prediction(filled.kept[0])["pipeline_id"] for filled in pair}  # type: ignore[index]
    calls = _in_both(pair, lambda filled: filled.store.query_predictions(pipeline_id=pipeline[id(filled.store)]))
    measure.growth(*calls, rounds=21)
    assert [len(call()) for call in calls] == [PIECE, PIECE]


@grown("growth_of_lookup", workload="get_prediction(load_arrays=True) of one")
def test_growth_of_lookup(measure: Measure, pair: tuple[Filled, Filled]) -> None:
    measure.growth(
        *_in_both(pair, lambda filled: filled.store.get_prediction(filled.kept[-1], load_arrays=True)), rounds=41
    )
    assert all(
        len(filled.store.get_prediction(filled.kept[-1], load_arrays=True)["y_pred"]) == SAMPLES for filled in pair
    )  # type: ignore[index]


@grown("growth_of_insert", workload="save_predictions of 1,000, durable")
def test_growth_of_insert(measure: Measure, pair: tuple[Filled, Filled]) -> None:
    matrix = np.random.default_rng(1).random((PIECE, SAMPLES))
    before = [len(filled.store.query_predictions()) for filled in pair]
    measure.growth(*_in_both(pair, lambda filled: fill(filled.store, PIECE, matrix)), rounds=9)
    assert [len(filled.store.query_predictions()) for filled in pair] == [rows + 10 * PIECE for rows in before]


@gate(
    "growth_of_gc",
    workload="gc_artifacts of 20 unused artifacts with 800 used ones there",
    baseline="the same with 200 there",
    size=800,
    seed=0,
    threads=1,
)
def test_growth_of_gc(measure: Measure, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, collected = tmp_path_factory.mktemp("gc"), []
    with WorkspaceStore(folder / "n") as small, WorkspaceStore(folder / "4n") as large:
        calls = []
        for store, used in ((small, 200), (large, 800)):
            pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
            ids = [store.save_artifact(("used", number), "tuple", "model", "joblib") for number in range(used)]
            store.save_chain(
                pipeline,
                [{"step_idx": 1, "operator_class": "tuple", "params": {}}],
                1,
                "M",
                "",
                "per_fold",
                dict(enumerate(ids)),
                {},
            )
            store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
            calls.append(lambda store=store: collected.append(_collect_twenty(store, len(collected))))
        measure.growth(calls[0], calls[1], rounds=7)
    assert collected == [20] * 16


def _collect_twenty(store: WorkspaceStore, turn: int) -> int:
    pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
    for number in range(20):
        store.save_artifact(("unused", turn, number), "tuple", "model", "joblib")
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return store.gc_artifacts()
