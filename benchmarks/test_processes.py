"""Gate: many processes. One process is the baseline; both sides end with everything in the tables of one workspace."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import numpy as np
import pytest
from harness import Measure, gate, report
from workers import Worker
from workloads import SAMPLES, Sweep, fill

from n4a_fast import WorkspaceStore

PIPELINES = 240  # of 21 predictions
Team = Callable[[int], list[Worker]]


@pytest.fixture
def team() -> Iterator[Team]:
    """So many workers, started and idle."""
    workers: list[Worker] = []

    def started(number: int) -> list[Worker]:
        workers.extend(made := [Worker() for _ in range(number)])
        return made

    yield started
    for worker in workers:
        worker.end()


def sweep(workers: Sequence[Worker], folder: Path) -> list[float]:
    """All pipelines, an equal share for each worker, and a read that finds them in the tables; the seconds of each."""
    for worker in workers:
        worker.begin(folder, PIPELINES // len(workers))
    seconds = [worker.seconds() for worker in workers]
    with WorkspaceStore.open_readonly(folder, lock_timeout=120.0) as store:
        assert store.top_predictions(1).height == 1
    return seconds


def total_against_one(measure: Measure, team: Team, folder: Path, writers: int) -> None:
    (one,), many = team(1), team(writers)
    for name in ("one", "many"):
        WorkspaceStore(folder / name).close()
    seconds: list[list[float]] = []
    measure.ratio(lambda: sweep([one], folder / "one"), lambda: seconds.append(sweep(many, folder / "many")), rounds=3)
    rates = [statistics.fmean(share) / max(share) for share in seconds]
    measure.note(slowest_of_mean=round(min(rates), 2))
    assert min(rates) > 0.3  # nobody is starved
    with WorkspaceStore.open_readonly(folder / "many") as store:
        assert len(store.list_pipelines()) == len(seconds) * PIPELINES
        assert store.list_runs().height == writers


@gate(
    "writers_4_vs_1",
    workload="240 durable pipelines of 21 predictions by the drop-in calls, 60 in each of 4 processes on one workspace",
    baseline="the same by one process",
    size=PIPELINES * 21,
    seed=0,
    threads="4 processes",
)
def test_writers_4_vs_1(measure: Measure, team: Team, tmp_path: Path) -> None:
    total_against_one(measure, team, tmp_path, 4)
    assert measure.done


@gate(
    "writers_8_vs_1",
    workload="240 durable pipelines of 21 predictions by the drop-in calls, 30 in each of 8 processes on one workspace",
    baseline="the same by one process",
    size=PIPELINES * 21,
    seed=0,
    threads="8 processes",
)
def test_writers_8_vs_1(measure: Measure, team: Team, tmp_path: Path) -> None:
    total_against_one(measure, team, tmp_path, 8)
    assert measure.done


def shards_against_one(measure: Measure, team: Team, folder: Path, pipelines: int, rounds: int) -> None:
    workers, turns = team(2), count()
    predictions = pipelines * 21
    added: list[int] = []
    one: list[float] = []
    filling: list[float] = []
    bulk: list[float] = []
    matrix = np.random.default_rng(0).random((predictions, SAMPLES))

    def alone() -> None:
        workers[0].begin(folder / f"one_{next(turns)}", pipelines, close=True)
        one.append(workers[0].seconds())

    def on_shards() -> None:
        with WorkspaceStore(folder / f"shards_{next(turns)}") as store:
            shards = [store.shard() for _ in workers]
            for worker, shard in zip(workers, shards, strict=True):
                worker.begin(shard.path, pipelines // 2, close=True, shard=shard)
            filling.append(max(worker.seconds() for worker in workers))
            added.append(store.merge(*shards).added("predictions"))

    def by_the_bulk_call() -> None:
        with WorkspaceStore(folder / f"bulk_{next(turns)}") as store:
            start = time.perf_counter()
            fill(store, predictions, matrix)
            bulk.append(time.perf_counter() - start)

    measure.ratio(alone, on_shards, rounds=rounds)
    for _ in range(rounds):
        by_the_bulk_call()
    seconds, filled, saved = map(statistics.median, (one, filling, bulk))
    measure.note(
        filling_ms=round(1000 * filled), bulk_ms=round(1000 * saved), limit=round(seconds / (filled + saved), 2)
    )  # were a merge a bulk save
    assert added == [predictions] * (rounds + 1)


@gate(
    "shards_2_and_merge_vs_1",
    workload="480 durable pipelines, 240 in each of 2 processes on a shard of its own, closed and merged",
    baseline="the same by one process, closed",
    size=2 * PIPELINES * 21,
    seed=0,
    threads="2 processes",
)
def test_shards_2_and_merge_vs_1(measure: Measure, team: Team, tmp_path: Path) -> None:
    shards_against_one(measure, team, tmp_path, 2 * PIPELINES, 3)
    assert measure.done


@report(
    "shards_2_of_100k_and_merge_vs_1",
    workload="4,800 durable pipelines, 2,400 in each of 2 processes on a shard of its own, closed and merged",
    baseline="the same by one process, closed",
    size=4800 * 21,
    seed=0,
    threads="2 processes",
)
def test_shards_2_of_100k_and_merge_vs_1(measure: Measure, team: Team, tmp_path: Path) -> None:
    shards_against_one(measure, team, tmp_path, 4800, 2)
    assert measure.done


def merge_against_bulk(measure: Measure, folder: Path, shards: int, rows: int, rounds: int) -> None:
    matrix = np.random.default_rng(0).random((shards * rows, SAMPLES))
    paths = [folder / f"shard_{number}" for number in range(shards)]
    for number, path in enumerate(paths):
        with WorkspaceStore(path) as store:
            fill(store, rows, matrix[number * rows : (number + 1) * rows])
    turns = count()

    def bulk() -> None:
        with WorkspaceStore(folder / f"bulk_{next(turns)}") as store:
            fill(store, shards * rows, matrix)

    def merge() -> None:
        with WorkspaceStore(folder / f"merged_{next(turns)}") as store:
            assert store.merge(*paths).added("predictions") == shards * rows

    measure.ratio(bulk, merge, rounds=rounds, warmup=int(rounds > 1))
    with WorkspaceStore.open_readonly(folder / f"merged_{next(turns) - 1}") as store:
        found = store.load_arrays(columns=("y_pred",), model_class="Bulk").y_pred_2d()
        assert found.shape == matrix.shape
        assert found.sum() == pytest.approx(matrix.sum())
    again = time.perf_counter()
    with WorkspaceStore(folder / f"merged_{next(turns) - 2}") as store:
        assert store.merge(*paths).added("predictions") == 0
    measure.note(seconds_again=round(time.perf_counter() - again, 2))


@gate(
    "merge_vs_bulk",
    workload="merge of 4 shards of 4,096 predictions, n=200",
    baseline="save_predictions of all of them at once",
    size=16_384,
    seed=0,
    threads=1,
)
def test_merge_vs_bulk(measure: Measure, tmp_path: Path) -> None:
    merge_against_bulk(measure, tmp_path, 4, 4096, 3)
    assert measure.done


@report(
    "merge_of_100_shards_vs_bulk",
    workload="merge of 100 shards of 10,000 predictions, n=200",
    baseline="save_predictions of 1,000,000",
    size=1_000_000,
    seed=0,
    threads=1,
)
def test_merge_of_100_shards_vs_bulk(measure: Measure, tmp_path: Path) -> None:
    merge_against_bulk(measure, tmp_path, 100, 10_000, 1)
    assert measure.done


@gate(
    "reader_beside_writer",
    workload="top_predictions(10) of a reader beside a writer that never pauses",
    baseline="a pipeline saved and top_predictions(10) in one process without company",
    size=30,
    seed=0,
    threads="2 processes",
)
def test_reader_beside_writer(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    alone, writer, folder = Sweep(store), Worker(), tmp_path / "busy"
    WorkspaceStore(folder).close()
    writer.begin(folder, 1_000_000)
    alone.pipeline()
    seconds: list[float] = []
    heights: list[int] = []

    def save_and_read() -> None:
        alone.pipeline()
        assert store.top_predictions(10).height == 10

    def read() -> None:
        start = time.perf_counter()
        heights.append(reader.top_predictions(10).height)
        seconds.append(time.perf_counter() - start)

    with WorkspaceStore.open_readonly(folder, lock_timeout=120.0) as reader:
        while reader.list_pipelines().height < 3:
            time.sleep(0.01)
        try:
            measure.ratio(save_and_read, read, rounds=30)
        finally:
            writer.kill()
        stored = reader.list_pipelines()
    measure.note(median_ms=round(1000 * statistics.median(seconds), 1), worst_ms=round(1000 * max(seconds), 1))
    assert heights == [10] * len(heights)
    assert max(seconds) < 3.0  # the promise is 1 s, of which a busy disk alone has taken half
    assert stored.filter(stored["status"] == "completed").height >= 30


@gate(
    "looked_at_sweep",
    workload="3,000 durable pipelines of 21 predictions by the drop-in calls, an open page's look after each 250",
    baseline="the same by another process while nobody looks: processor time of the sweeping processes",
    size=3000 * 21,
    seed=0,
    threads="2 processes",
    needs=("starlette", "vl_convert"),
)
def test_looked_at_sweep(measure: Measure, team: Team, tmp_path: Path) -> None:
    from n4a_fast.report.live import Look

    workers = dict(zip(("alone", "watched"), team(2), strict=True))
    for name in workers:
        WorkspaceStore(tmp_path / name).close()
    before = {name: worker.processor_time() for name, worker in workers.items()}
    looks: list[float] = []
    with WorkspaceStore.open_readonly(tmp_path / "watched", lock_timeout=120.0, trusted="none") as store:
        page = Look(store)
        for place in range(12):
            for name, worker in workers.items():
                worker.begin(tmp_path / name, 250, close=place == 11)
                worker.seconds()
            page._next_look = 0.0
            page._next_drawing = math.inf if place % 4 else 0.0  # an open page has one drawing for five looks
            looks.append(_processor_time(lambda: asyncio.run(page.seen())))
    after = {name: worker.processor_time() for name, worker in workers.items()}
    measure.note(look_s=round(statistics.median(looks), 3), drawing_s=round(statistics.median(looks[4::4]), 3))
    measure.value((after["alone"] - before["alone"]) / (after["watched"] - before["watched"]), "of the rate")
    assert (page._seen.number, "refreshes" in page._seen.state) == (3, True)
    assert "3,000 done" in page._seen.now


def _processor_time(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


@contextmanager
def open_page(folder: Path) -> Iterator[list[int]]:
    """A page of `n4a-fast ui` that follows the folder, as a browser keeps it open; lengths of the sections it got."""
    command = [sys.executable, "-m", "n4a_fast", "ui", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, got = json.loads(server.stdout.readline())["url"], []

        def follow() -> None:
            with suppress(OSError, ValueError), urlopen(f"{url}events") as news:  # until the server ends
                number = None
                for line in news:
                    if line.startswith(b"data:") and (told := json.loads(line[5:])["number"]) != number:
                        number = told
                        got.append(len(urlopen(f"{url}sections").read()))

        page = Thread(target=follow, daemon=True)
        page.start()
        try:
            yield got
        finally:
            server.kill()
            page.join(10)


@report(
    "sweep_beside_open_page",
    workload="1,500 durable pipelines of 21 predictions by the drop-in calls, beside an open page of `n4a-fast ui`",
    baseline="the same without a page",
    size=1500 * 21,
    seed=0,
    threads="2 processes",
)
def test_sweep_beside_open_page(measure: Measure, team: Team, tmp_path: Path) -> None:
    worker, watched = team(2)
    for name in ("alone", "watched"):
        WorkspaceStore(tmp_path / name).close()

    def swept(process: Worker, name: str) -> float:
        process.begin(tmp_path / name, 1500)
        return process.seconds()

    swept(worker, "alone"), swept(watched, "watched")
    with open_page(tmp_path / "watched") as got:
        while not got:
            time.sleep(0.1)
        measure.ratio(lambda: swept(worker, "alone"), lambda: swept(watched, "watched"), rounds=3, warmup=0)
    measure.note(drawings=len(got))
    assert len(got) >= 3  # it was drawn anew while the sweep ran
    assert min(got) > 10_000


@gate(
    "one_process_pays",
    workload="a drop-in pipeline, CPU time of the thread",
    baseline="the same call without a look for others, and without letting the file go",
    size=21,
    seed=0,
    threads=1,
)
def test_one_process_pays(measure: Measure, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        workspace, sweep = store._open(), Sweep(store)
        store.list_runs()  # attached

        def pipeline(yield_turn: Callable[[], None], look_after: Callable[[], float | None]) -> None:
            workspace.database.yield_turn, workspace.look_after = yield_turn, look_after  # type: ignore[method-assign]
            sweep.pipeline()

        measure.work(
            partial(pipeline, lambda: None, lambda: 60.0),
            partial(pipeline, workspace.database.yield_turn, workspace.look_after),
            rounds=300,
        )
        assert len(store.list_pipelines()) == 600
