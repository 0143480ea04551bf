"""Questions about five thousand chains of a hundred thousand predictions, and about one prediction after the other."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from harness import Measure, gate
from workloads import SAMPLES, SCORES, chains_with_columns

from n4a_fast import WorkspaceStore
from n4a_fast.schema.chain_scores import summaries_of

CHAINS, OF_CHAIN = 5_000, 20
HAND = "SQLite by hand: the row by its key, its arrays as BLOBs"
TABLE = """CREATE TABLE predictions (id TEXT PRIMARY KEY, chain TEXT, part TEXT, val REAL, scores TEXT, y BLOB,
    y_true BLOB)"""
BEST = "SELECT chain, avg(val) FROM predictions WHERE part = 'val' GROUP BY chain ORDER BY 2, 1 LIMIT 10"
on_100k = partial(gate, size=CHAINS * OF_CHAIN, seed=0, threads="1, and DuckDB's")


class Ranked(NamedTuple):
    """A store, and the same scores in SQLite."""

    store: WorkspaceStore
    sqlite: sqlite3.Connection


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranked]:
    folder = tmp_path_factory.mktemp("ranked")
    with WorkspaceStore(folder / "store") as store, closing(sqlite3.connect(folder / "by_hand.db")) as by_hand:
        run = store.begin_run("sweep", {}, [{"name": "corn"}])
        pipelines, columns = chains_with_columns(store, run, CHAINS, OF_CHAIN)
        columns |= {"val_score": np.random.default_rng(0).random(CHAINS * OF_CHAIN), "scores": SCORES}
        ids = store.save_predictions(columns)
        for each in pipelines:
            store.complete_pipeline(each, 0.1, 0.1, "rmse", 1)
        by_hand.execute(TABLE)
        rows = zip(ids, columns["chain_id"], columns["partition"], columns["val_score"].tolist(), strict=True)
        by_hand.executemany("INSERT INTO predictions (id, chain, part, val) VALUES (?, ?, ?, ?)", rows)
        by_hand.commit()
        store.leaderboard()
        yield Ranked(store, by_hand)


@on_100k(
    "leaderboard",
    workload="leaderboard(n=10) of 5,000 chains, asked again",
    baseline="SQLite by hand: means by GROUP BY",
)
def test_leaderboard(measure: Measure, ranked: Ranked) -> None:
    assert ranked.store.leaderboard(n=10).frame.height == len(ranked.sqlite.execute(BEST).fetchall()) == 10
    measure.ratio(lambda: ranked.sqlite.execute(BEST).fetchall(), lambda: ranked.store.leaderboard(n=10), rounds=9)


@on_100k("top_chains", workload="query_top_chains(n=10) of 5,000", baseline="SQLite by hand: means by GROUP BY")
def test_top_chains(measure: Measure, ranked: Ranked) -> None:
    ours = partial(ranked.store.query_top_chains, "rmse", n=10)
    assert ours().height == 10
    measure.ratio(lambda: ranked.sqlite.execute(BEST).fetchall(), ours, rounds=9)


@on_100k(
    "chain_summaries_vs_computed",
    workload="query_chain_summaries() of 5,000 chains",
    baseline="their definition computed from 100,000 predictions",
)
def test_chain_summaries(measure: Measure, ranked: Ranked) -> None:
    database, sql = ranked.store._open().database, f"{summaries_of('FROM predictions')} ORDER BY chain_id"
    assert ranked.store.query_chain_summaries().height == database.arrow(sql).num_rows == CHAINS
    measure.ratio(lambda: database.arrow(sql), ranked.store.query_chain_summaries, rounds=5)


@on_100k(
    "chain_summaries_page_vs_computed",
    workload="query_chain_summaries of 100 chains of 5,000",
    baseline="their definition computed from the predictions of these chains",
)
def test_chain_summaries_page(measure: Measure, ranked: Ranked) -> None:
    page = ranked.store.query_chain_summaries()["chain_id"].to_list()[2_000:2_100]
    database, these = ranked.store._open().database, ", ".join(f"'{chain}'" for chain in page)
    sql = f"{summaries_of(f'FROM predictions WHERE chain_id IN ({these})')} ORDER BY chain_id"
    ours = partial(ranked.store.query_chain_summaries, chain_id=page)
    assert sorted(ours()["chain_id"]) == database.arrow(sql)["chain_id"].to_pylist() == sorted(page)
    measure.ratio(lambda: database.arrow(sql), ours, rounds=9)


@on_100k(
    "leaderboard_after_commit",
    workload="a durable commit, then the first leaderboard(n=10) of 5,000 chains",
    baseline="SQLite by hand: a durable commit, then means by GROUP BY",
)
def test_leaderboard_after_commit(measure: Measure, ranked: Ranked) -> None:
    def by_hand() -> int:
        with ranked.sqlite as sqlite:
            sqlite.execute("UPDATE predictions SET val = val WHERE rowid = 1")
        return len(ranked.sqlite.execute(BEST).fetchall())

    def ours() -> int:
        ranked.store.set_metric_direction("rmse", higher_is_better=False)
        return ranked.store.leaderboard(n=10).frame.height

    assert by_hand() == ours() == 10
    measure.ratio(by_hand, ours, rounds=9)


@on_100k(
    "aggregated_page_vs_all",
    workload="a first page of 100 chains by iter_aggregated_predictions, of 5,000",
    baseline="query_aggregated_predictions of all of them",
)
def test_aggregated_page(measure: Measure, ranked: Ranked) -> None:
    whole = ranked.store.query_aggregated_predictions

    def page() -> pl.DataFrame:
        return next(ranked.store.iter_aggregated_predictions(batch_size=100))

    assert page().equals(whole().head(100))
    measure.ratio(whole, page, rounds=5)


@on_100k(
    "load_run",
    workload="load_arrays(run_id=) of 10,000 among 100,000, as a matrix",
    baseline="numpy.load of it, processor time",
)
def test_load_run(measure: Measure, large: Callable[[int], Any], tmp_path: Path) -> None:
    with WorkspaceStore.open_readonly(large(100_000).folder) as store:
        run = store.list_runs()["run_id"][5]

        def ours() -> np.ndarray[Any, Any]:
            return store.load_arrays(run_id=run, columns=["y_pred"]).y_pred_2d()

        np.save(tmp_path / "run.npy", ours())
        # what elapsed tells how long two threads wait for each other beside other jobs
        measure.work(lambda: np.load(tmp_path / "run.npy"), ours, rounds=9, clock=time.process_time)
        assert np.array_equal(np.load(tmp_path / "run.npy"), ours())


@on_100k("load_three_places", workload="load_arrays of 5,000 ids out of three places among 100,000", baseline=HAND)
def test_load_three_places(measure: Measure, large: Callable[[int], Any], tmp_path: Path) -> None:
    workspace = large(100_000)
    ids = [name for first in (0, 50_000, 95_000) for name in workspace.ids[first:][:1_667]]
    with (
        WorkspaceStore.open_readonly(workspace.folder) as store,
        closing(sqlite3.connect(tmp_path / "by_hand.db")) as by_hand,
    ):
        _fill_by_hand(by_hand, ids, np.arange(float(SAMPLES)))

        def theirs() -> int:
            parts = [ids[first : first + 500] for first in range(0, len(ids), 500)]
            wanted = (
                (f"SELECT y, y_true FROM predictions WHERE id IN ({','.join('?' * len(part))})", part) for part in parts
            )
            return sum(
                len(np.frombuffer(y)) + len(np.frombuffer(true)) for ask in wanted for y, true in by_hand.execute(*ask)
            )

        assert store.load_arrays(ids).y_pred_2d().size * 2 == theirs() == 2 * SAMPLES * len(ids)
        measure.ratio(theirs, lambda: store.load_arrays(ids), rounds=7)


@gate(
    "get_what_was_saved",
    workload="get_prediction(load_arrays=True) of the one that was saved last, n=200",
    baseline=HAND,
    size=1_000,
    seed=0,
    threads=1,
)
def test_get_what_was_saved(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    run = store.begin_run("sweep", {}, [])
    pipeline, y = store.begin_pipeline(run, "p", {}, [], "corn", "h"), np.arange(float(SAMPLES))
    ids = []
    for number in range(1_000):
        given = (f"m{number}", "PLS", "0", "val", 0.1, 0.2, 0.3, "rmse", "regression", SAMPLES, 700)
        ids.append(store.save_prediction(pipeline, None, "corn", *given, SCORES, {}, None, None, 0, 0.0))
        store.save_prediction_arrays(ids[-1], y, y)
    with closing(sqlite3.connect(tmp_path / "by_hand.db")) as by_hand:
        theirs, ours = _one_after_the_other(by_hand, store, ids, y)
        measure.ratio(theirs, ours, rounds=15)
    assert len(store._open().predictions.batch) == 1_000


@on_100k("get_neighbours", workload="get_prediction(load_arrays=True) of 1,000 neighbours among 100,000", baseline=HAND)
def test_get_neighbours(measure: Measure, large: Callable[[int], Any], tmp_path: Path) -> None:
    workspace = large(100_000)
    with (
        WorkspaceStore.open_readonly(workspace.folder) as store,
        closing(sqlite3.connect(tmp_path / "by_hand.db")) as by_hand,
    ):
        ids = workspace.ids[50_000:51_000]
        assert store.get_prediction(ids[0], load_arrays=True) is not None
        measure.ratio(*_one_after_the_other(by_hand, store, ids, np.arange(float(SAMPLES))), rounds=5)


def _one_after_the_other(
    by_hand: sqlite3.Connection, store: WorkspaceStore, ids: list[str], y: np.ndarray[Any, Any]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """All of these predictions, from SQLite and from the store."""
    _fill_by_hand(by_hand, ids, y)

    def theirs() -> None:
        for name in ids:
            found = by_hand.execute("SELECT * FROM predictions WHERE id = ?", (name,)).fetchone()
            assert len(np.frombuffer(found[5])) == len(np.frombuffer(found[6])) == SAMPLES

    def ours() -> None:
        for name in ids:
            found = store.get_prediction(name, load_arrays=True)
            assert found is not None
            assert len(found["y_pred"]) == len(found["y_true"]) == SAMPLES

    return theirs, ours


def _fill_by_hand(by_hand: sqlite3.Connection, ids: list[str], y: np.ndarray[Any, Any]) -> None:
    by_hand.execute(TABLE)
    row = (None, "val", 0.1, str(SCORES), y.tobytes(), y.tobytes())
    by_hand.executemany("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?)", ((name, *row) for name in ids))
    by_hand.commit()
