"""Two installed releases of this package on the same work, turn by turn, each in a new process: processor time.

    python benchmarks/two_releases.py BEFORE/bin/python AFTER/bin/python [--rounds 5]

Prints a table: for each kind of work the least processor time of either, of all threads, and how many times as long the
second takes. What the work gave is compared, too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from workloads import SAMPLES, Sweep, chains_with_columns, fill

PIPELINES, BULK, CHAINS, OF_CHAIN, LOADED = 800, 65_536, 2_000, 10, 10_000

Times = dict[str, float]


class Clock:
    """Processor seconds of this process, by what was done."""

    def __init__(self) -> None:
        self.seconds: Times = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """The block does it."""
        begun = time.process_time()
        yield
        self.seconds[what] = time.process_time() - begun


def work(folder: Path) -> tuple[Times, dict[str, Any]]:
    """All kinds of work in new workspaces: what each took, and what tells that it was done."""
    clock, done = Clock(), dict[str, Any]()
    with clock.of("a program that imports, saves a pipeline and lists runs"):
        from n4a_fast import WorkspaceStore

        with WorkspaceStore(folder / "first") as store:
            Sweep(store).pipeline()
            done["runs"] = store.list_runs().height
    store = WorkspaceStore(folder / "sweep")
    with clock.of(f"{PIPELINES} drop-in pipelines"):
        sweep = Sweep(store)
        done["drop-in"] = sum(len(sweep.pipeline()) for _ in range(PIPELINES))
    with clock.of("the close after them"):
        store.close()
    matrix = np.random.default_rng(0).random((BULK, SAMPLES))
    with WorkspaceStore(folder / "bulk") as store:
        with clock.of(f"a bulk call of {BULK:,}"):
            ids = fill(store, BULK, matrix)
        done["bulk"] = len(ids)
        store.load_arrays(ids[:1])
        with clock.of(f"load_arrays of {LOADED:,} neighbours"):
            loaded = store.load_arrays(ids[:LOADED])
        done["loaded"] = float(loaded.y_pred[LOADED - 1].sum())
        some = [ids[place] for place in np.random.default_rng(1).permutation(BULK)[:1_000]]
        with clock.of("load_arrays of 1,000 scattered"):
            done["scattered"] = float(store.load_arrays(some).y_pred[999].sum())
        with clock.of("get_prediction with arrays, 100 of any id"):
            done["one"] = sum(store.get_prediction(each, load_arrays=True) is not None for each in some[:100])
    with WorkspaceStore(folder / "chains") as store:
        _rank(store, clock, done)
    return clock.seconds, done


def _rank(store: Any, clock: Clock, done: dict[str, Any]) -> None:
    """Rankings among many chains: the first one after a save, and those that follow it."""
    run = store.begin_run("ranked", {}, [{"name": "corn"}])
    pipelines, columns = chains_with_columns(store, run, CHAINS, OF_CHAIN)
    columns["val_score"] = np.random.default_rng(2).random(CHAINS * OF_CHAIN)
    store.save_predictions(columns)
    for pipeline in pipelines:
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 1)
    store.list_runs()
    with clock.of("query_top_chains, first"):
        done["ranked"] = store.query_top_chains(n=10).height
    with clock.of("query_top_chains, 20 more"):
        for _ in range(20):
            store.query_top_chains(n=10)
    with clock.of("top_predictions, 20 times"):
        for _ in range(20):
            done["top"] = store.top_predictions(10).height


def _worked(python: str) -> tuple[Times, dict[str, Any]]:
    """A process of this interpreter that works in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="n4a_fast-two-releases-")
    try:
        told = subprocess.run([python, __file__, "--work", folder], check=True, capture_output=True, text=True).stdout
    finally:
        shutil.rmtree(folder)
    times, done = json.loads(told)
    return times, done


def main(before: str, after: str, rounds: int) -> None:
    pairs = [(_worked(before), _worked(after)) for _ in range(rounds)]
    for (_, earlier), (_, later) in pairs:
        assert earlier == later, (earlier, later)
    print("| Processor time | Before | After | After / before |\n|---|---|---|---|")
    for what in pairs[0][0][0]:
        earlier, later = (min(taken[what] for taken, _ in of_release) for of_release in zip(*pairs, strict=True))
        print(f"| {what} | {1e3 * earlier:,.1f} ms | {1e3 * later:,.1f} ms | {later / earlier:.2f} |")


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        print(json.dumps(work(Path(sys.argv[2]))))
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[4]) if sys.argv[3:4] == ["--rounds"] else 5)
