"""Reads and writes of a store that grows, beside SQLite and h5py by hand, as a table: make bench-10m, or

    python benchmarks/scale.py --rows 1000000 --folder /tmp/scale

Runs of 10,000 predictions in 500 chains of 20, 200 samples each. It stops at 10,000 rows, 100,000, a million and at the
end to ask the same questions. SQLite has the same rows, as one would do it by hand: runs and chains by number, arrays
as BLOBs, y_true once, its primary key the id, indexes on the run and for means of chains; h5py has one run, and DuckDB
without keys takes what a bulk call writes. Ten million take about 36 GB and half an hour; `--by-hand 1000000` gives
SQLite no more rows, and takes half of that. The disk keeps 3 GB free: what is there by then is measured.
Growth is of processor time, memory by how much the process grew at most, both sides. Nothing is left in the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from limits import BareTables
from workloads import SAMPLES, chains_with_columns, fill, fill_columns

from n4a_fast import WorkspaceStore
from n4a_fast.tables.predictions import bulk

OF_RUN, OF_CHAIN = 10_000, 20
PLACES = (5_000, 100)  # ids of one call, predictions saved and read one by one
RESERVE = 3 * 2**30  # bytes that the disk keeps free: what is there then is what is measured
BLOCK = 2**18  # of DuckDB's file
TABLES = """PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE contents (number INTEGER PRIMARY KEY, y BLOB);
CREATE TABLE predictions (id TEXT PRIMARY KEY, run INTEGER, chain INTEGER, model TEXT, fold TEXT, part TEXT, val REAL,
    test REAL, train REAL, metric TEXT, scores TEXT, y_pred BLOB, y_true INTEGER REFERENCES contents);
CREATE INDEX of_run ON predictions (run);
CREATE INDEX of_chain ON predictions (part, chain, val)"""
INSERT = f"INSERT INTO predictions VALUES ({', '.join('?' * 13)})"
ARRAYS = "SELECT y_pred, y FROM predictions JOIN contents ON y_true = number WHERE id IN ({})"
ONE = "SELECT * FROM predictions JOIN contents ON y_true = number WHERE id = ?"
BEST = "SELECT chain, avg(val) FROM predictions WHERE part = 'val' GROUP BY chain ORDER BY 2 LIMIT 10"
SCORES = '{"val":{"rmse":0.5,"r2":0.9},"test":{"rmse":0.6,"r2":0.8}}'
Y_TRUE = np.arange(float(SAMPLES))


class Question(NamedTuple):
    """Something that is asked at each size: what, what was wished for at ten million, our call and that by hand."""

    what: str
    goal: str
    ours: Callable[[], object]
    by_hand: Callable[[], object] | None = None
    rounds: int = 5


class Run(NamedTuple):
    """10,000 predictions: our id of the run, SQLite's number, the ids of its predictions, and whether SQLite has it."""

    run: str
    number: int
    ids: np.ndarray[Any, Any]
    is_by_hand: bool


class Answer(NamedTuple):
    """Milliseconds: ours, our processor time (of all threads), and by hand."""

    what: str
    goal: str
    ours: float
    work: float
    by_hand: float | None

    @property
    def cell(self) -> str:
        return shown(self.ours) + ("" if self.by_hand is None else f" ({shown(self.by_hand)})")


def shown(number: float) -> str:
    """Three digits, and never a power of ten."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


class Sides:
    """The same predictions in a store of ours and in SQLite."""

    def __init__(self, folder: Path, by_hand: int) -> None:
        self.by_hand = by_hand  # rows that SQLite has at most
        self.folder, self.numbers, self.rng = folder, count(), np.random.default_rng(0)
        self.matrix = self.rng.random((OF_RUN, SAMPLES))
        self.store = WorkspaceStore(folder / "ours")
        self.sqlite = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
        self.sqlite.executescript(TABLES)
        self.sqlite.execute("INSERT INTO contents VALUES (1, ?)", (Y_TRUE.tobytes(),))
        self.runs: list[Run] = []
        self.of_add: dict[str, list[float]] = {"ours": [], "work": [], "by hand": []}

    def __len__(self) -> int:
        return OF_RUN * len(self.runs)

    def fill(self, rows: int) -> None:
        """Grow to so many rows, or as far as the disk allows."""
        while len(self) < rows and shutil.disk_usage(self.folder).free > RESERVE:
            self.add_run()
        self.store.flush()

    def add_run(self) -> None:
        store, number, begun, worked = self.store, next(self.numbers), time.perf_counter(), time.process_time()
        with store.transaction():
            run = store.begin_run("sweep", {}, [{"name": "corn"}])
            pipelines, columns = chains_with_columns(store, run, OF_RUN // OF_CHAIN, OF_CHAIN)
            scores = {name: self.rng.random(OF_RUN) for name in ("val_score", "test_score", "train_score")}
            columns |= scores | {"scores": SCORES}
            ids = store.save_predictions(columns, y_pred=self.matrix, y_true=Y_TRUE)
            for each in pipelines:
                store.complete_pipeline(each, 0.1, 0.1, "rmse", 1)
        self.of_add["ours"].append(time.perf_counter() - begun)
        self.of_add["work"].append(time.process_time() - worked)
        is_by_hand = OF_RUN * len(self.in_both) < self.by_hand
        if is_by_hand:
            begun, values = time.perf_counter(), np.column_stack(list(scores.values())).tolist()
            folds, parts, first = columns["fold_id"], columns["partition"], number * OF_RUN
            self._insert(
                (name, number, first + row // OF_CHAIN, "PLS", folds[row], parts[row], *values[row], "rmse", SCORES,
                 self.matrix[row].tobytes(), 1)
                for row, name in enumerate(ids)
            )  # fmt: skip
            self.of_add["by hand"].append(time.perf_counter() - begun)
        self.runs.append(Run(run, number, np.array(ids, dtype="S36"), is_by_hand))

    def _insert(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self.sqlite.execute("BEGIN")
        self.sqlite.executemany(INSERT, rows)
        self.sqlite.execute("COMMIT")

    # -- what is asked ----------------------------------------------------------------------

    @property
    def in_both(self) -> list[Run]:
        """The runs that SQLite has, too."""
        return [run for run in self.runs if run.is_by_hand]

    def near(self, runs: list[Run]) -> list[str]:
        """5,000 ids out of three places among these runs."""
        part, places = -(-PLACES[0] // 3), [runs[place * (len(runs) - 1) // 2].ids for place in range(3)]
        return [name.decode() for place, ids in enumerate(places) for name in ids[place * part :][:part]][: PLACES[0]]

    def drawn(self, number: int, runs: list[Run]) -> list[str]:
        """Ids from all over these runs, one from the first half after one from the second: no two are neighbours."""
        half, row = max(1, len(runs) // 2), self.rng.permutation(OF_RUN)[:number]
        drawn = [int(self.rng.integers(0, half)) + (each % 2) * (len(runs) - half) for each in range(number)]
        return [runs[run].ids[place].decode() for run, place in zip(drawn, row.tolist(), strict=True)]

    def arrays_by_hand(self, ids: list[str]) -> None:
        found = 0
        for first in range(0, len(ids), 500):
            part = ids[first : first + 500]
            rows = self.sqlite.execute(ARRAYS.format(", ".join("?" * len(part))), part)
            found += sum(len(np.frombuffer(y)) == len(np.frombuffer(true)) for y, true in rows)
        assert found == len(ids)

    def arrays(self, ids: list[str]) -> None:
        assert self.store.load_arrays(ids).y_pred_2d().shape == (len(ids), SAMPLES)

    def random_blocks(self) -> None:
        """As many blocks of our file as there are ids: what the bytes of scattered arrays cost the disk."""
        path = self.folder / "ours" / "store.duckdb"
        with path.open("rb") as file:
            for place in self.rng.integers(0, path.stat().st_size // BLOCK, PLACES[0]).tolist():
                os.pread(file.fileno(), BLOCK, place * BLOCK)

    @contextmanager
    def bulk(self) -> Iterator[Question]:
        """Bulk calls beside DuckDB without keys, which inserts the same Arrow tables; they go again."""
        run = self.store.begin_run("bulk", {}, [])
        checked = bulk.checked(fill_columns("0" * 36, self.matrix), {"y_pred": self.matrix, "y_true": Y_TRUE})
        with BareTables(self.folder / "bare.duckdb", [tables for _, tables in bulk.slices(checked)]) as bare:
            ours, what = partial(fill, self.store, OF_RUN, self.matrix, run), "`save_predictions` of 10,000"
            yield Question(f"{what}; by hand: DuckDB without keys", "1.1 of by hand", ours, bare.insert)
        (self.folder / "bare.duckdb").unlink()
        self.store.delete_run(run)

    def get(self, ids: Iterator[str]) -> None:
        assert self.store.get_prediction(next(ids), load_arrays=True)["y_pred"].shape == (SAMPLES,)  # type: ignore[index]

    def get_by_hand(self, ids: Iterator[str]) -> None:
        row = self.sqlite.execute(ONE, (next(ids),)).fetchone()
        assert len(np.frombuffer(row[11])) == SAMPLES

    def pipeline(self) -> None:
        """21 durable predictions by the drop-in calls."""
        pipeline, chain = self.begun()
        for row in range(21):
            self.save(pipeline, chain, row)
        self.store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)

    def begun(self) -> tuple[str, str]:
        """A new pipeline and its chain."""
        (pipeline,), columns = chains_with_columns(self.store, self.runs[-1].run, 1, 1)
        return pipeline, columns["chain_id"][0]

    def save(self, pipeline: str, chain: str, number: int) -> str:
        given = (f"m{number}", "PLS", "0", "val", 0.1, 0.2, 0.3, "rmse", "regression", SAMPLES, 700)
        scores = {"val": {"rmse": 0.5}}
        name = self.store.save_prediction(pipeline, chain, "corn", *given, scores, {}, None, None, 0, 0.0)
        self.store.save_prediction_arrays(name, Y_TRUE, self.matrix[number])
        return name

    def pipeline_by_hand(self) -> None:
        number = next(self.numbers)
        self._insert(
            (f"ffff-{number}-{row}", -1, -number, f"m{row}", "0", "val", 0.1, 0.2, 0.3, "rmse", SCORES,
             self.matrix[row].tobytes(), 1)
            for row in range(21)
        )  # fmt: skip

    def arrays_of(self, run: str) -> None:
        assert self.store.load_arrays(run_id=run, columns=["y_pred"]).y_pred_2d().shape == (OF_RUN, SAMPLES)

    def arrays_by_h5py(self) -> None:
        with h5py.File(self.folder / "run.h5") as file:
            assert file["y_pred"][:].shape == (OF_RUN, SAMPLES)

    def delete_run(self) -> None:
        self.store.delete_run(self.runs[0].run)

    def delete_by_hand(self) -> None:
        self.sqlite.execute("DELETE FROM predictions WHERE run = ?", (self.runs.pop(0).number,))


def reads(sides: Sides) -> Iterator[Question]:
    store, everywhere, both = sides.store, sides.runs, sides.in_both
    near, near_by_hand, far = sides.near(everywhere), sides.near(both), lambda runs: sides.drawn(PLACES[0], runs)
    middle, _, of_middle, _ = everywhere[len(everywhere) // 2]
    page = store.query_chain_summaries(run_id=middle)["chain_id"].to_list()[:100]
    pipeline = store.get_chain(page[0])["pipeline_id"]  # type: ignore[index]
    by_place = {
        "any id": (iter(sides.drawn(100, everywhere)), iter(sides.drawn(100, both))),
        "neighbours of the last one": (iter([name.decode() for name in of_middle[:100]]), iter(near_by_hand)),
    }
    best = lambda: sides.sqlite.execute(BEST).fetchall()  # noqa: E731
    ask = Question
    yield ask("`load_arrays` of 5,000 ids, three places", "60", lambda: sides.arrays(near),
              lambda: sides.arrays_by_hand(near_by_hand))  # fmt: skip
    yield ask("`load_arrays` of 5,000 ids from all over; by hand: as many blocks of the file", "as by hand",
              lambda: sides.arrays(far(everywhere)), sides.random_blocks, 3)  # fmt: skip
    yield ask("the same; by hand: SQLite", "", lambda: sides.arrays(far(everywhere)),
              lambda: sides.arrays_by_hand(far(both)), 3)  # fmt: skip
    for (where, (ids, ids_by_hand)), goal in zip(by_place.items(), ("2.5", "0.3"), strict=True):
        yield ask(f"`get_prediction` with arrays, {where}", goal, partial(sides.get, ids),
                  partial(sides.get_by_hand, ids_by_hand), 41)  # fmt: skip
    yield ask("`leaderboard(n=10)`, asked again", "20", lambda: store.leaderboard("rmse", n=10), best, 9)
    yield ask("`query_top_chains(n=10)`", "20", lambda: store.query_top_chains("rmse", n=10), best, 9)
    summaries, aggregates = store.query_chain_summaries, store.query_aggregated_predictions
    yield ask("`query_chain_summaries` of 100 chains", "20", lambda: summaries(chain_id=page), None, 9)
    yield ask("`query_chain_summaries` of a run", "", lambda: summaries(run_id=middle), None, 9)
    yield ask("`query_aggregated_predictions` of a run", "", lambda: aggregates(run_id=middle))
    yield ask("`iter_aggregated_predictions`, the first 100 chains", "200",
              lambda: next(store.iter_aggregated_predictions(batch_size=100)))  # fmt: skip
    yield ask("`query_predictions` of a pipeline", "", lambda: store.query_predictions(pipeline_id=pipeline), None, 9)
    yield ask("`query_predictions`, 100 at offset 1,000", "", lambda: store.query_predictions(limit=100, offset=1000))
    yield ask("`get_chain_predictions`", "", lambda: store.get_chain_predictions(page[0]))
    yield ask("`top_predictions(10)`", "", lambda: store.top_predictions(10))
    yield ask("`get_chain`", "", lambda: store.get_chain(page[0]), None, 9)
    yield ask("`list_runs(limit=1)`", "", lambda: store.list_runs(limit=1), None, 9)
    yield ask("`load_arrays(run_id=)` of 10,000; by hand: h5py", "1.1 of by hand", partial(sides.arrays_of, middle),
              sides.arrays_by_h5py, 7)  # fmt: skip
    yield ask("`query_chain_summaries` of all chains", "250 of 50,000", summaries, None, 3)


def measured(question: Question, before: Callable[[], object] | None = None) -> Answer:
    """Both sides take turns; medians, of fewer rounds where one takes seconds."""
    ours, by_hand, work = list[float](), list[float](), list[float]()
    begun = time.perf_counter()
    for _ in range(question.rounds):
        if before is not None:
            before()
        start, worked = time.perf_counter(), time.process_time()
        question.ours()
        ours.append(time.perf_counter() - start)
        work.append(time.process_time() - worked)
        if question.by_hand is not None:
            start = time.perf_counter()
            question.by_hand()
            by_hand.append(time.perf_counter() - start)
        if time.perf_counter() - begun > 20.0:
            break
    ours_ms, work_ms = (1e3 * statistics.median(times) for times in (ours, work))
    return Answer(question.what, question.goal, ours_ms, work_ms, 1e3 * statistics.median(by_hand) if by_hand else None)


def asked(sides: Sides) -> Iterator[Answer]:
    """All questions with their goals and answers at the present size."""
    board = partial(sides.store.leaderboard, "rmse", n=10)
    yield measured(Question("the first `leaderboard` after filling: new chains are computed", "", board, None, 1))
    for question in list(reads(sides)):
        yield measured(question)
    commit = lambda: sides.store.set_metric_direction("rmse", higher_is_better=False)  # noqa: E731
    yield measured(Question("`leaderboard(n=10)`, the first after a commit", "20", board, None, 9), commit)
    yield saved_and_read(sides)
    yield drop_in(sides)
    ours, work, by_hand = (1e3 * statistics.median(times[-10:]) for times in sides.of_add.values())
    yield Answer("a run of 10,000 with 500 pipelines and chains, as one durable block", "", ours, work,
                 by_hand if len(sides.in_both) == len(sides.runs) else None)  # fmt: skip
    with sides.bulk() as question:
        yield measured(question)
    delete = Question("`delete_run` of 10,000", "60", sides.delete_run, sides.delete_by_hand, 3)
    yield measured(delete, sides.add_run)


def drop_in(sides: Sides, pipelines: int = 300) -> Answer:
    """Means of both sides, drains and all: they take turns of 50 pipelines."""
    taken, work = [0.0, 0.0], 0.0
    for _ in range(pipelines // 50):
        for side, call in enumerate((sides.pipeline, sides.pipeline_by_hand)):
            begun, worked = time.perf_counter(), time.process_time()
            for _ in range(50):
                call()
            taken[side] += time.perf_counter() - begun
            work += 0.0 if side else time.process_time() - worked
    ours, by_hand, work = (1e3 * seconds / pipelines for seconds in (*taken, work))
    return Answer("drop-in pipeline of 21, durable", "0.84, then 0.53", ours, work, by_hand)


def saved_and_read(sides: Sides) -> Answer:
    store, times, (pipeline, chain) = sides.store, [], sides.begun()
    for number in range(PLACES[1]):
        name = sides.save(pipeline, chain, number)
        begun = time.perf_counter()
        assert store.get_prediction(name, load_arrays=True) is not None
        times.append(1e3 * (time.perf_counter() - begun))
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    middle = statistics.median(times)
    return Answer("`get_prediction` of what was saved just now", "0.1", middle, middle, None)


def memory(name: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**10


def grown(folder: Path, sizes: list[int], by_hand: int) -> None:
    """Fill, ask, and print as it goes; the table comes last."""
    sides, table, grown_by = Sides(folder, by_hand), dict[str, dict[int, Answer]](), dict[str, float]()
    with closing(sides.store), closing(sides.sqlite):
        for size in sizes:
            sides.fill(size)
            size = len(sides)
            before, kept = counted_anew(), (folder / "ours" / "store.duckdb").stat().st_size / size
            print(f"\n{size:,} predictions, {kept:,.0f} bytes each, SQLite {OF_RUN * len(sides.in_both):,}", flush=True)
            for answer in asked(sides):
                table.setdefault(answer.what, {})[size] = answer
                grown_by[answer.what] = max(0.0, memory("VmHWM") - before)
                print(f"{answer.cell:>20} {shown(answer.work):>8}  {answer.what}", flush=True)
                before = counted_anew()
    print("\n" + "\n".join(lines(table, grown_by)))


def counted_anew() -> float:
    """Megabytes of this process now; the most of them is counted from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def lines(table: dict[str, dict[int, Answer]], grown_by: dict[str, float]) -> Iterator[str]:
    """Markdown: what was asked, its goal, our processor time at each size; at the largest what elapsed, and memory."""
    sizes = list(next(iter(table.values())))
    sized = " | ".join(f"{size:,}" for size in sizes)
    yield f"| Processor time, ms | Goal | {sized} | Growth | Elapsed at {sizes[-1]:,} (by hand) | MB |"
    yield "|---|---|" + "---|" * (len(sizes) + 3)
    for what, found in table.items():
        first, largest = found[sizes[0]], found[sizes[-1]]
        cells = " | ".join(shown(found[size].work) for size in sizes)
        growth = f"{shown(largest.work / first.work)} | {largest.cell} | {grown_by[what]:,.0f}"
        yield f"| {what} | {first.goal} | {cells} | {growth} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--by-hand", type=int, help="rows that SQLite has at most")
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    try:
        with h5py.File(given.folder / "run.h5", "w") as file:
            file.create_dataset("y_pred", data=np.random.default_rng(0).random((OF_RUN, SAMPLES)))
        sizes = [size for size in (10_000, 100_000, 1_000_000) if size < given.rows]
        grown(given.folder, [*sizes, given.rows], given.by_hand or given.rows + 10 * OF_RUN)
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
