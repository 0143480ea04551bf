"""Reports: how long single calls take with ten thousand, a hundred thousand and a million predictions there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from build_workspace import RUN, save_run
from harness import Measure, report
from workloads import SAMPLES, Sweep, fill

from n4a_fast import WorkspaceStore

SIZES = (10_000, 100_000, 1_000_000)
curve = partial(report, baseline="the same with 10,000 there", size=SIZES[-1], seed=0, threads="1, and DuckDB's")


class Filled(NamedTuple):
    """A store that may be changed, the ids of the predictions it began with, and a sweep of drop-in calls."""

    store: WorkspaceStore
    ids: list[str]
    sweep: Sweep


@pytest.fixture(scope="module")
def stores(large: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Filled]]:
    folder = tmp_path_factory.mktemp("curves")
    with ExitStack() as open_stores:
        found = {}
        for rows in SIZES:
            store = open_stores.enter_context(WorkspaceStore(large(rows).copy(folder / str(rows))))
            found[rows] = Filled(store, large(rows).ids, Sweep(store))
        yield found


def _draw(
    measure: Measure, stores: dict[int, Filled], label: str, call: Callable[[Filled], object], rounds: int
) -> dict[int, float]:
    """Seconds of a call at each size, in turns; the number is the time at a million over that at ten thousand."""
    times: dict[int, list[float]] = {rows: [] for rows in SIZES}
    for turn in range(rounds + 1):
        for rows, filled in stores.items():
            start = time.perf_counter()
            call(filled)
            if turn:  # the first attaches and warms up
                times[rows].append(time.perf_counter() - start)
    medians = {rows: statistics.median(times[rows]) for rows in SIZES}
    measure.curve(label, list(medians.items()))
    measure.value(
        medians[SIZES[-1]] / medians[SIZES[0]], "times as long", ours=medians[SIZES[-1]], theirs=medians[SIZES[0]]
    )
    return medians


def _rows(filled: Filled) -> int:
    return int(filled.store.sql("SELECT count(*) AS n FROM predictions")["n"][0])


@curve("curve_of_dropin", workload="a durable drop-in pipeline of 21 predictions")
def test_curve_of_dropin(measure: Measure, stores: dict[int, Filled]) -> None:
    _draw(measure, stores, "drop-in pipeline of 21", lambda filled: filled.sweep.pipeline(), 30)
    assert all(len(filled.store.query_predictions(run_id=filled.sweep.run)) == 31 * 21 for filled in stores.values())


@curve("dropin_sustained", workload="800 durable drop-in pipelines of 21 predictions in a row, draining counted in")
def test_dropin_sustained(measure: Measure, stores: dict[int, Filled]) -> None:
    pipelines, rounds, before = 800, 3, {rows: _rows(filled) for rows, filled in stores.items()}
    seconds = _draw(
        measure,
        stores,
        "800 drop-in pipelines",
        lambda filled: [filled.sweep.pipeline() for _ in range(pipelines)],
        rounds,
    )
    measure.note(
        **{f"predictions_a_second_at_{rows:,}": 21 * pipelines / found for rows, found in seconds.items()},
        promise="12,000/s; at a million 0.9 of it",
    )
    assert all(_rows(filled) == before[rows] + (rounds + 1) * pipelines * 21 for rows, filled in stores.items())


@curve("curve_of_bulk", workload="save_predictions of 1,000, durable")
def test_curve_of_bulk(measure: Measure, stores: dict[int, Filled]) -> None:
    matrix, saved = np.random.default_rng(1).random((1_000, SAMPLES)), []
    _draw(measure, stores, "bulk save of 1,000", lambda filled: saved.extend(fill(filled.store, 1_000, matrix)), 9)
    assert len(set(saved)) == 30_000


@curve("curve_of_lookup", workload="get_prediction(load_arrays=True) by our own id")
def test_curve_of_lookup(measure: Measure, stores: dict[int, Filled]) -> None:
    def find(filled: Filled) -> Any:
        return filled.store.get_prediction(filled.ids[len(filled.ids) // 2], load_arrays=True)

    _draw(measure, stores, "one prediction with arrays", find, 21)
    assert all(len(find(filled)["y_pred"]) == SAMPLES for filled in stores.values())


@curve("curve_of_query", workload="query_predictions(pipeline_id=) of 1,000 rows")
def test_curve_of_query(measure: Measure, stores: dict[int, Filled]) -> None:
    pipelines = {id(filled): filled.store.get_prediction(filled.ids[-1])["pipeline_id"] for filled in stores.values()}  # type: ignore[index]
    _draw(
        measure,
        stores,
        "a pipeline's 1,000 rows",
        lambda filled: filled.store.query_predictions(pipeline_id=pipelines[id(filled)]),
        9,
    )
    assert all(
        len(filled.store.query_predictions(pipeline_id=pipelines[id(filled)])) == 1_000 for filled in stores.values()
    )


@curve("curve_of_top", workload="top_predictions(10)")
def test_curve_of_top(measure: Measure, stores: dict[int, Filled]) -> None:
    _draw(measure, stores, "the 10 best of all", lambda filled: filled.store.top_predictions(10), 9)
    assert all(len(filled.store.top_predictions(10)) == 10 for filled in stores.values())


@curve("curve_of_load", workload="load_arrays of 10,000 neighbours")
def test_curve_of_load(measure: Measure, stores: dict[int, Filled]) -> None:
    _draw(measure, stores, "arrays of 10,000", lambda filled: filled.store.load_arrays(filled.ids[-10_000:]), 5)
    assert all(
        filled.store.load_arrays(filled.ids[-10_000:]).y_pred_2d().shape == (10_000, SAMPLES)
        for filled in stores.values()
    )


@curve("curve_of_delete", workload="delete_run of 10,000 predictions saved last")
def test_curve_of_delete(measure: Measure, stores: dict[int, Filled]) -> None:
    matrix = np.random.default_rng(2).random((RUN, SAMPLES))
    runs = {id(filled): [save_run(filled.store, matrix) for _ in range(4)] for filled in stores.values()}
    _draw(measure, stores, "delete a run of 10,000", lambda filled: filled.store.delete_run(runs[id(filled)].pop()), 3)
    assert not any(runs.values())


@curve("curve_of_open", workload="open a store, list its runs, close it")
def test_curve_of_open(measure: Measure, large: Callable[[int], Any]) -> None:
    def open_and_close(rows: int) -> int:
        with WorkspaceStore.open_readonly(large(rows).folder) as store:
            return len(store.list_runs())

    stores: dict[int, Any] = {rows: rows for rows in SIZES}
    _draw(measure, stores, "open and close", open_and_close, 7)
    assert [open_and_close(rows) for rows in SIZES] == [rows // RUN for rows in SIZES]
