"""Reads and writes at any size, beside SQLite and h5py by hand, as a table: make bench-10m, or

    python benchmarks/scale.py --rows 1000000 --folder /tmp/scale

Runs of 10,000 predictions in 500 chains of 20, 200 samples each, the same rows on both sides: SQLite has a table of
predictions with their arrays as BLOBs, its primary key the id, and an index on the run; h5py one data set for each of
some runs. Ten million take about 35 GB and half an hour. Nothing is left in the folder.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from n4a_fast import WorkspaceStore

SAMPLES, OF_RUN, OF_CHAIN = 200, 10_000, 20
TABLE = """CREATE TABLE predictions (id TEXT PRIMARY KEY, run TEXT, chain TEXT, model TEXT, fold TEXT, part TEXT,
val REAL, test REAL, train REAL, metric TEXT, scores TEXT, y_pred BLOB, y_true BLOB) WITHOUT ROWID"""
INSERT = f"INSERT INTO predictions VALUES ({', '.join('?' * 13)})"
SCORES = '{"val":{"rmse":0.5,"r2":0.9},"test":{"rmse":0.6,"r2":0.8}}'
Y_TRUE = np.arange(float(SAMPLES))


class Sides:
    """The same predictions in a store of ours and in SQLite."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows, self.names = folder, rows, count()
        self.rng = np.random.default_rng(0)
        self.matrix = self.rng.random((OF_RUN, SAMPLES))
        self.store = WorkspaceStore(folder / "ours")
        self.sqlite = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
        self.sqlite.execute("PRAGMA journal_mode = WAL")
        self.sqlite.execute("PRAGMA synchronous = FULL")
        self.sqlite.execute(TABLE)
        self.sqlite.execute("CREATE INDEX of_run ON predictions (run)")
        self.ids: list[str] = []
        self.runs: list[str] = []
        self.seconds = {"ours": 0.0, "SQLite": 0.0}

    def fill(self) -> None:
        for _ in range(max(1, self.rows // OF_RUN)):
            self.add_run()
        self.store.flush()

    def add_run(self) -> str:
        store, begun = self.store, time.perf_counter()
        run = store.begin_run("sweep", {}, [{"name": "corn"}])
        pipelines = [store.begin_pipeline(run, "p", {}, [], "corn", "h") for _ in range(OF_RUN // OF_CHAIN)]
        chains = [self._chain(each) for each in pipelines]
        place, scores = np.arange(OF_RUN) // OF_CHAIN, self.rng.random((3, OF_RUN))
        columns = {
            "pipeline_id": [pipelines[each] for each in place],
            "chain_id": [chains[each] for each in place],
            "dataset_name": "corn",
            "model_name": "PLS",
            "model_class": "PLS",
            "fold_id": [str(each % 5) for each in range(OF_RUN)],
            "partition": [("val", "test", "train", "val")[each // 5 % 4] for each in range(OF_RUN)],
            "branch_id": [each // 5 % 4 for each in range(OF_RUN)],
            **dict(zip(("val_score", "test_score", "train_score"), scores, strict=True)),
            "metric": "rmse",
            "scores": SCORES,
        }
        ids = store.save_predictions(columns, y_pred=self.matrix, y_true=Y_TRUE)
        for each in pipelines:
            store.complete_pipeline(each, 0.1, 0.1, "rmse", 1)
        self.seconds["ours"] += time.perf_counter() - begun
        begun = time.perf_counter()
        true = Y_TRUE.tobytes()
        rows = (
            (name, run, columns["chain_id"][row], "PLS", columns["fold_id"][row], columns["partition"][row],
             *scores[:, row].tolist(), "rmse", SCORES, self.matrix[row].tobytes(), true)
            for row, name in enumerate(ids)
        )  # fmt: skip
        self._insert(rows)
        self.seconds["SQLite"] += time.perf_counter() - begun
        self.ids += ids
        self.runs.append(run)
        return run

    def _chain(self, pipeline: str) -> str:
        steps = [{"step_idx": 1, "operator_class": "PLS", "params": {}}]
        return self.store.save_chain(pipeline, steps, 1, "PLS", "SNV", "per_fold", {}, {})

    def _insert(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self.sqlite.execute("BEGIN")
        self.sqlite.executemany(INSERT, rows)
        self.sqlite.execute("COMMIT")

    def pipeline(self) -> None:
        """21 durable predictions by the drop-in calls."""
        pipeline = self.store.begin_pipeline(self.runs[-1], "p", {}, [], "corn", "h")
        chain, y = self._chain(pipeline), self.matrix[next(self.names) % OF_RUN]
        for row in range(21):
            given = (f"m{row}", "PLS", "0", "val", 0.1, 0.2, 0.3, "rmse", "regression", SAMPLES, 700)
            name = self.store.save_prediction(
                pipeline, chain, "corn", *given, {"val": {"rmse": 0.5}}, {}, None, None, 0, 0.0
            )
            self.store.save_prediction_arrays(name, Y_TRUE, y)
        self.store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)

    def pipeline_by_hand(self) -> None:
        y, true, number = self.matrix[0].tobytes(), Y_TRUE.tobytes(), next(self.names)
        self._insert(
            (f"ffff-{number}-{row}", "r", f"c{number}", f"m{row}", "0", "val", 0.1, 0.2, 0.3, "rmse", SCORES, y, true)
            for row in range(21)
        )

    def arrays_by_hand(self, ids: list[str]) -> int:
        found = 0
        for first in range(0, len(ids), 500):
            part = ids[first : first + 500]
            sql = f"SELECT y_pred, y_true FROM predictions WHERE id IN ({', '.join('?' * len(part))})"
            found += sum(len(np.frombuffer(y)) > 0 for y, _ in self.sqlite.execute(sql, part))
        return found

    def row_by_hand(self, name: str) -> np.ndarray[Any, Any]:
        row = self.sqlite.execute("SELECT * FROM predictions WHERE id = ?", (name,)).fetchone()
        return np.frombuffer(row[11])


def median(call: Callable[[], object], rounds: int) -> float:
    """Milliseconds of a call."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def measured(sides: Sides) -> Iterator[tuple[str, float, float | None]]:
    """What is asked, our milliseconds and those by hand, one after the other."""
    store, ids, sqlite = sides.store, sides.ids, sides.sqlite
    third = len(ids) // 3
    near = [name for part in range(3) for name in ids[part * third :][:1667]][:5000]
    far = [ids[each] for each in sides.rng.choice(len(ids), min(5000, len(ids)), replace=False)]
    draw = [ids[each] for each in sides.rng.integers(0, len(ids), 400)]
    random, neighbours = iter(draw), iter(ids[third : third + 400])
    of_chains = "SELECT chain, avg(val) FROM predictions WHERE part = 'val' GROUP BY chain ORDER BY 2 LIMIT 10"
    begun = time.perf_counter()
    store.leaderboard("rmse", n=10)
    yield "first leaderboard: scores of all chains are computed", 1e3 * (time.perf_counter() - begun), None

    def both(what: str, ours: Callable[[], object], theirs: Callable[[], object] | None = None, rounds: int = 5) -> Any:
        return what, median(ours, rounds), median(theirs, min(rounds, 5)) if theirs else None

    for what, wanted in (("three places", near), ("all over", far)):
        asked = (lambda w=wanted: store.load_arrays(w)), (lambda w=wanted: sides.arrays_by_hand(w))
        yield both(f"load_arrays of {len(wanted):,} ids, {what}", *asked)
    get = (
        (lambda names: store.get_prediction(next(names), load_arrays=True)),
        (lambda names: sides.row_by_hand(next(names))),
    )
    yield both("get_prediction with arrays, any id", lambda: get[0](random), lambda: get[1](random), 41)
    yield both("get_prediction with arrays, neighbours", lambda: get[0](neighbours), lambda: get[1](neighbours), 41)
    by_hand = lambda: sqlite.execute(of_chains).fetchall()  # noqa: E731
    yield both("leaderboard(n=10), asked again", lambda: store.leaderboard("rmse", n=10), by_hand, 9)
    yield board_after_a_commit(sides)
    yield both("query_top_chains(n=10)", lambda: store.query_top_chains("rmse", n=10), None, 9)
    page = store.query_chain_summaries(run_id=sides.runs[0])["chain_id"].to_list()[:100]
    yield both("query_chain_summaries of 100 chains", lambda: store.query_chain_summaries(chain_id=page), None, 9)
    yield both("query_chain_summaries of all chains", store.query_chain_summaries, None, 3)
    first_page = lambda: next(store.iter_aggregated_predictions(batch_size=100))  # noqa: E731
    yield both("iter_aggregated_predictions, first page of 100 chains", first_page, None, 3)
    yield arrays_of_a_run(sides)
    yield saved_and_read(sides)
    yield both("drop-in pipeline of 21, durable", sides.pipeline, sides.pipeline_by_hand, 400)
    gone, delete = iter(sides.runs[1:4]), "DELETE FROM predictions WHERE run = ?"
    gone_by_hand = iter(sides.runs[1:4])
    ours, theirs = lambda: store.delete_run(next(gone)), lambda: sqlite.execute(delete, (next(gone_by_hand),))
    yield both("delete_run of 10,000", ours, theirs, min(3, len(sides.runs) - 1) or 1)


def board_after_a_commit(sides: Sides) -> tuple[str, float, float | None]:
    times = []
    for _ in range(9):
        sides.store.set_metric_direction("rmse", higher_is_better=False)
        begun = time.perf_counter()
        sides.store.leaderboard("rmse", n=10)
        times.append(1e3 * (time.perf_counter() - begun))
    return "leaderboard(n=10), the first after a commit", statistics.median(times), None


def arrays_of_a_run(sides: Sides) -> tuple[str, float, float | None]:
    import h5py

    run, path = sides.runs[len(sides.runs) // 2], sides.folder / "run.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("y_pred", data=sides.matrix)

    def by_hand() -> None:
        with h5py.File(path) as file:
            assert file["y_pred"][:].shape == (OF_RUN, SAMPLES)

    def ours() -> None:
        assert sides.store.load_arrays(run_id=run, columns=["y_pred"]).y_pred_2d().shape == (OF_RUN, SAMPLES)

    return "load_arrays(run_id=) of 10,000, beside h5py", median(ours, 7), median(by_hand, 7)


def saved_and_read(sides: Sides) -> tuple[str, float, float | None]:
    store, y = sides.store, sides.matrix[0]
    pipeline = store.begin_pipeline(sides.runs[-1], "p", {}, [], "corn", "h")
    chain, times = sides._chain(pipeline), []
    for number in range(200):
        given = (f"m{number}", "PLS", "0", "val", 0.1, 0.2, 0.3, "rmse", "regression", SAMPLES, 700)
        name = store.save_prediction(pipeline, chain, "corn", *given, {}, {}, None, None, 0, 0.0)
        store.save_prediction_arrays(name, Y_TRUE, y)
        begun = time.perf_counter()
        assert store.get_prediction(name, load_arrays=True) is not None
        times.append(1e3 * (time.perf_counter() - begun))
    return "get_prediction of what was saved just now", statistics.median(times), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    try:
        sides = Sides(given.folder, given.rows)
        with closing(sides.store), closing(sides.sqlite):
            sides.fill()
            size = (given.folder / "ours" / "store.duckdb").stat().st_size
            rates = ", ".join(f"{name} {len(sides.ids) / took:,.0f} a second" for name, took in sides.seconds.items())
            print(f"{len(sides.ids):,} predictions: {rates}; ours {size / len(sides.ids):,.0f} bytes each\n")
            print("| n=200 | ours | by hand |\n|---|---|---|")
            for what, ours, theirs in measured(sides):
                print(f"| {what} | {ours:,.3g} ms | {'' if theirs is None else f'{theirs:,.3g} ms'} |", flush=True)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"\npeak memory {peak:.2f} GB")
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
