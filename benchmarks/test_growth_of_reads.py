"""Growth: the same question, with a result of the same size, among many predictions and among 10,000."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from harness import Measure, gate, report
from workloads import SAMPLES, chains_with_columns

from n4a_fast import WorkspaceStore

RUN, OF_CHAIN, OF_WHEAT = 10_000, 20, 100  # predictions of a run and of a chain, chains of the run in the middle
ROUNDS = 9
described = {"seed": 0, "threads": "1, and DuckDB's", "baseline": "the same with 10,000 there, processor time"}
grown, grown_to_a_million = partial(gate, size=100_000, **described), partial(report, size=1_000_000, **described)
Question = Callable[["Asked"], int]


class Asked(NamedTuple):
    """A store, and what it is asked for: a run, those of its chains that are of another data set, the pipeline of the
    first one, and ids.
    """

    store: WorkspaceStore
    run: str
    chains: list[str]
    pipeline: str
    ids: list[str]
    single: Iterator[str]  # one from the first half after one from the second: none is read ahead


READS: dict[str, Question] = {
    "load_arrays of ids": lambda asked: len(asked.store.load_arrays(asked.ids)),
    "load_arrays of a run": lambda asked: len(asked.store.load_arrays(run_id=asked.run, columns=["y_pred"])),
    "get_prediction": lambda asked: len(asked.store.get_prediction(next(asked.single), load_arrays=True)["y_pred"]),  # type: ignore[index]
    "leaderboard": lambda asked: asked.store.leaderboard("rmse", n=10).frame.height,
    "query_top_chains": lambda asked: asked.store.query_top_chains("rmse", n=10).height,
    "query_chain_summaries of a page": lambda asked: asked.store.query_chain_summaries(chain_id=asked.chains).height,
    "query_chain_summaries of a run": lambda asked: asked.store.query_chain_summaries(run_id=asked.run).height,
    "query_aggregated_predictions": lambda asked: asked.store.query_aggregated_predictions(run_id=asked.run).height,
    "iter_aggregated_predictions": lambda asked: next(asked.store.iter_aggregated_predictions(batch_size=100)).height,
    "query_predictions": lambda asked: asked.store.query_predictions(pipeline_id=asked.pipeline).height,
    "query_predictions, a page": lambda asked: asked.store.query_predictions(limit=100, offset=1_000).height,
    "get_chain_predictions": lambda asked: asked.store.get_chain_predictions(asked.chains[0]).height,
    "top_predictions": lambda asked: asked.store.top_predictions(10).height,
    "get_chain": lambda asked: len(asked.store.get_chain(asked.chains[0]) or ()),
    "list_runs": lambda asked: asked.store.list_runs(limit=1).height,
}
DELETES: dict[str, Question] = {
    "delete_run": lambda asked: asked.store.delete_run(asked.run, dry_run=True),
    "delete_pipeline": lambda asked: asked.store.delete_pipeline(asked.pipeline, dry_run=True),
    "delete_chain": lambda asked: asked.store.delete_chain(asked.chains[0], dry_run=True),
    "delete_dataset_predictions": lambda asked: asked.store.delete_dataset_predictions("wheat", dry_run=True),
}


# in a process of its own, which has nothing of the file in memory yet: by how much it has grown at most by then
ASKING = """
import json, sys
from itertools import cycle
from pathlib import Path
from n4a_fast import WorkspaceStore
from test_growth_of_reads import DELETES, READS, Asked

def megabytes(name):
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) >> 10

folder, run, chains, pipeline, ids, single = json.load(sys.stdin)
grown = {}
with WorkspaceStore(folder) as store:
    assert store.list_runs(limit=1).height
    asked = Asked(store, run, chains, pipeline, ids, cycle(single))
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    for what, question in {**READS, **DELETES}.items():
        assert question(asked) > 0
        grown[what] = megabytes("VmHWM") - before
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Asked]]:
    with _pair(tmp_path_factory.mktemp("growth"), 100_000) as both:
        yield both


@contextmanager
def _pair(folder: Path, rows: int) -> Iterator[tuple[Asked, Asked]]:
    """A store with 10,000 predictions and one with more; the run that is asked for lies in the middle."""
    with WorkspaceStore(folder / "small") as small, WorkspaceStore(folder / "large") as large:
        yield _filled(small, 1), _filled(large, rows // RUN)


def _filled(store: WorkspaceStore, runs: int) -> Asked:
    numbers, middle = np.random.default_rng(0), runs // 2
    matrix, found = numbers.random((RUN, SAMPLES)), []
    for number in range(runs):
        with store.transaction():
            run = store.begin_run("sweep", {}, [])
            pipelines, columns = chains_with_columns(store, run, RUN // OF_CHAIN, OF_CHAIN)
            of_data_set = ["wheat"] * (OF_WHEAT * OF_CHAIN) if number == middle else []
            names = [*of_data_set, *["corn"] * (RUN - len(of_data_set))]
            columns |= {"val_score": numbers.random(RUN), "dataset_name": names}
            ids = store.save_predictions(columns, y_pred=matrix, y_true=np.arange(float(SAMPLES)))
            for each in pipelines:
                store.complete_pipeline(each, 0.1, 0.1, "rmse", 1)
        found.append((run, columns["chain_id"][: OF_WHEAT * OF_CHAIN : OF_CHAIN], pipelines[0], ids))
    store.leaderboard()
    run, chains, pipeline, ids = found[middle]
    single = [each for pair in zip(found[0][3][:50], found[-1][3][-50:], strict=True) for each in pair]
    three_places = [*found[0][3][:1_667], *ids[4_000:5_667], *found[-1][3][-1_667:]]
    return Asked(store, run, chains, pipeline, three_places, cycle(single))


def _worst_growth(measure: Measure, pair: tuple[Asked, Asked], questions: dict[str, Question]) -> None:
    """The worst of all questions; each by the least processor time of its rounds, which take turns."""
    growth = {}
    for what, question in questions.items():
        least, results = [float("inf")] * 2, set()
        for _ in range(ROUNDS):
            for side, asked in enumerate(pair):
                begun = time.process_time()
                results.add(question(asked))
                least[side] = min(least[side], time.process_time() - begun)
        assert len(results) == 1, f"{what} gives other results among more predictions: {results}"
        assert results.pop() > 0
        growth[what] = least[1] / least[0]
    worst = max(growth, key=growth.__getitem__)
    measure.note(worst=worst, **{what.replace(" ", "_").replace(",", ""): times for what, times in growth.items()})
    measure.value(growth[worst], "times as long")


@grown("growth_of_reads", workload="each documented read, and the one that grows most")
def test_growth_of_reads(measure: Measure, pair: tuple[Asked, Asked]) -> None:
    _worst_growth(measure, pair, READS)
    assert len(pair[1].store.query_predictions()) == 100_000


@grown("growth_of_deletes", workload="dry runs of each deletion, and the one that grows most")
def test_growth_of_deletes(measure: Measure, pair: tuple[Asked, Asked]) -> None:
    _worst_growth(measure, pair, DELETES)
    assert len(pair[1].store.query_predictions()) == 100_000


@gate(
    "memory_of_reads",
    workload="megabytes by which a process grows that asks each documented read and deletion, results included",
    baseline="none: the promise is 512 MB",
    size=100_000,
    seed=0,
    threads="1, and DuckDB's",
)
def test_memory_of_reads(measure: Measure, pair: tuple[Asked, Asked]) -> None:
    store, *given, single = pair[1]
    told = [str(store.workspace_path), *given, [next(single) for _ in range(4)]]
    program, folder = [sys.executable, "-c", ASKING], Path(__file__).parent
    done = subprocess.run(
        program, input=json.dumps(told), text=True, check=True, stdout=subprocess.PIPE, cwd=folder, timeout=300
    )
    grown_by = json.loads(done.stdout)
    assert grown_by.keys() == READS.keys() | DELETES.keys()
    measure.note(**{what.replace(" ", "_").replace(",", ""): megabytes for what, megabytes in grown_by.items()})
    measure.value(max(grown_by.values()), "MB")


@grown_to_a_million("growth_to_a_million", workload="each documented read, and the one that grows most")
def test_growth_to_a_million(measure: Measure, tmp_path: Path) -> None:
    measure.note(promise="1.5 to ten million")
    with _pair(tmp_path, 1_000_000) as pair:
        _worst_growth(measure, pair, READS)
        assert pair[1].store.query_predictions(limit=1, offset=999_999).height == 1
