"""Gate: writing. Workloads are in the functions; seed 0, one caller thread, DuckDB's default threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from harness import Measure, gate
from limits import BareTables
from reference import RowByRowStore
from sqlite_by_hand import SqliteByHand
from workloads import SAMPLES, SCORES, Sweep, fill, fill_columns, folder_bytes

from n4a_fast import WorkspaceStore
from n4a_fast.tables.predictions import bulk

ROWS = 16_384
BULK_ROWS = 4 * ROWS
PIPELINES = 800  # 16,800 predictions: once in so many, what gathered in memory goes into the tables


@gate(
    "dropin_pipeline_vs_row_by_row",
    workload="21 durable predictions with arrays, chain and log by the drop-in calls, n=200",
    baseline="one insert per row into keyed tables, 10,000 rows there",
    size=10_000,
    seed=0,
    threads=1,
)
def test_dropin_pipeline_vs_row_by_row(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    sweep, reference = Sweep(store), RowByRowStore(tmp_path)
    reference.fill(10_000, SAMPLES)
    fill(store, 10_000)

    def plain() -> None:
        pipeline = reference.begin_pipeline()
        for fold in range(7):
            for partition in ("train", "val", "test"):
                reference.save(pipeline, str(fold), partition, 0.1, SCORES, (sweep.y_true, sweep.y_pred, sweep.indices))

    measure.ratio(plain, sweep.pipeline, rounds=7)
    stored = store.sql("SELECT count(*) AS n FROM prediction_arrays WHERE len(y_pred) = 200 AND len(y_true) = 200")[
        "n"
    ][0]
    assert stored == reference.count() > 10_000
    reference.close()


@gate(
    "pipeline_in_transaction_vs_alone",
    workload="a drop-in pipeline of 21 predictions in a transaction() block of its own",
    baseline="the same without the block",
    size=21,
    seed=0,
    threads=1,
)
def test_pipeline_in_transaction_vs_alone(measure: Measure, store: WorkspaceStore) -> None:
    sweep = Sweep(store)

    def in_block() -> None:
        with store.transaction():
            sweep.pipeline()

    measure.work(sweep.pipeline, in_block, rounds=60)  # of elapsed time most is one sync of either
    assert store.query_predictions().height > 40 * 21


@gate(
    "blocks_in_one_block",
    workload="120 drop-in pipelines of 21 predictions in one transaction() block, each in a block of its own in it",
    baseline="the same in the one block alone",
    size=2_520,
    seed=0,
    threads=1,
)
def test_blocks_in_one_block(measure: Measure, store: WorkspaceStore) -> None:
    sweep = Sweep(store)

    def in_one(around: Callable[[], AbstractContextManager[None]]) -> None:
        with store.transaction():
            for _ in range(120):
                with around():
                    sweep.pipeline()

    measure.work(lambda: in_one(nullcontext), lambda: in_one(store.transaction), rounds=4)
    assert store.query_predictions().height >= 2 * 4 * 120 * 21


@gate(
    "dropin_growth",
    workload="a drop-in pipeline with 40,000 predictions there",
    baseline="the same with none there",
    size=40_000,
    seed=0,
    threads=1,
)
def test_dropin_growth(measure: Measure, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "empty") as empty, WorkspaceStore(tmp_path / "full") as full:
        fill(full, 40_000)
        small, large = Sweep(empty), Sweep(full)
        measure.ratio(small.pipeline, large.pipeline, rounds=40)
        assert len(full.query_predictions(model_class="PLS")) == len(empty.query_predictions()) > 0


@gate(
    "bulk_vs_bare_insert",
    workload="save_predictions of 65,536, n=200, durable",
    baseline="DuckDB inserting the same Arrow tables (rows and arrays) into bare tables, in one transaction",
    size=BULK_ROWS,
    seed=0,
    threads="1, and DuckDB's",
)
def test_bulk_vs_bare_insert(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    assert _beside_bare_insert(store, tmp_path, partial(measure.ratio, rounds=3)) == 4 * BULK_ROWS


@gate(
    "bulk_work_vs_bare_insert",
    workload="save_predictions of 65,536, n=200, durable, processor time of all threads",
    baseline="DuckDB inserting the same Arrow tables (rows and arrays) into bare tables, in one transaction",
    size=BULK_ROWS,
    seed=0,
    threads="1, and DuckDB's",
)
def test_bulk_work_vs_bare_insert(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    measured = partial(measure.work, rounds=4, clock=time.process_time)
    assert _beside_bare_insert(store, tmp_path, measured) == 4 * BULK_ROWS


def _beside_bare_insert(
    store: WorkspaceStore, tmp_path: Path, measured: Callable[[Callable[[], object], Callable[[], object]], float]
) -> int:
    """How many rows plain DuckDB has at the end; ours are looked at."""
    matrix = np.random.default_rng(0).random((BULK_ROWS, SAMPLES))
    columns = fill_columns("0" * 36, matrix)
    slices = [
        tables
        for _, tables in bulk.slices(bulk.checked(columns, {"y_pred": matrix, "y_true": np.arange(float(SAMPLES))}))
    ]
    with BareTables(tmp_path / "bare.duckdb", slices) as bare:
        measured(bare.insert, lambda: fill(store, BULK_ROWS, matrix))
        inserted = bare.rows()
    stored = store.load_arrays(pipeline_id=store.list_pipelines()["pipeline_id"][0], columns=("y_pred",))
    assert np.array_equal(np.sort(stored.y_pred_2d(), axis=0), np.sort(matrix, axis=0))
    return inserted


@gate(
    "bytes_kept_per_prediction",
    workload="save_predictions of 16,384, n=200, y_true shared, 0.4 kB of scores, then close",
    baseline="none: bytes of the workspace per prediction",
    size=ROWS,
    seed=0,
    threads=1,
)
def test_bytes_kept_per_prediction(measure: Measure, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        fill(store, ROWS)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert len(store.query_predictions()) == ROWS
    measure.value(folder_bytes(tmp_path) / ROWS, "bytes")


@gate(
    "bytes_kept_with_scores",
    workload="save_predictions of 65,536, n=200, 1.2 kB of scores, 30 numbers that differ, then close",
    baseline="none: bytes of the workspace per prediction",
    size=BULK_ROWS,
    seed=0,
    threads=1,
)
def test_bytes_kept_with_scores(measure: Measure, tmp_path: Path) -> None:
    numbers, matrix = np.random.default_rng(1), np.random.default_rng(0).random((BULK_ROWS, SAMPLES))
    names = [f"name_of_a_metric_{number}" for number in range(10)]
    scores = [
        {part: dict(zip(names, numbers.random(10).tolist(), strict=True)) for part in ("train", "val", "test")}
        for _ in range(BULK_ROWS)
    ]
    with WorkspaceStore(tmp_path) as store:
        pipeline = store.begin_pipeline(store.begin_run("bulk", {}, []), "p", {}, [], "corn", "h")
        ids = store.save_predictions(fill_columns(pipeline, matrix) | {"scores": scores}, y_pred=matrix)
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert store.get_prediction(ids[7])["scores"] == scores[7]  # type: ignore[index]
    measure.value(folder_bytes(tmp_path) / BULK_ROWS, "bytes")


by_hand = partial(
    gate,
    workload=f"{PIPELINES} durable drop-in pipelines of 21 predictions with arrays, chain and log, n=200, the drain"
    " counted in",
    baseline="SQLite by hand: WAL, one commit a pipeline, arrays as BLOBs, three indexes",
    seed=0,
    threads=1,
)


@by_hand("dropin_vs_sqlite", size=0)
def test_dropin_vs_sqlite(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    assert _beside_sqlite(measure, store, tmp_path, 0, rounds=3) == 4 * PIPELINES * 21


@by_hand("dropin_vs_sqlite_100k", size=100_000)
def test_dropin_vs_sqlite_100k(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    assert _beside_sqlite(measure, store, tmp_path, 100_000, rounds=3) == 4 * PIPELINES * 21


def _beside_sqlite(measure: Measure, store: WorkspaceStore, tmp_path: Path, there: int, rounds: int) -> int:
    """How many predictions each side has saved, in turns, beside so many."""
    by_hand, sweep = SqliteByHand(tmp_path / "by_hand.db"), Sweep(store)
    if there:
        fill(store, there)
        by_hand.fill(there)
    before = len(by_hand)
    measure.ratio(by_hand.pipeline, sweep.pipeline, rounds=rounds, calls=PIPELINES)
    saved = len(store.load_arrays(run_id=sweep.run, columns=["y_pred"]).y_pred_2d())
    assert saved == len(by_hand) - before
    by_hand.close()
    return saved
