"""Reports beside other programs, each in an environment of its own that `make peers` builds; skipped without it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from harness import Measure, report
from workloads import Sweep, fill

from n4a_fast import WorkspaceStore

FOLDER = Path(__file__).parent
OLD, NEW = (f".venv-nirs4all-{version}/bin/python" for version in ("0.7.1", "1.4.10"))
THERE = 10_000
ROUNDS = 7
beside = partial(
    report,
    workload="a drop-in pipeline of 21 predictions, n=200, 10,000 predictions there",
    size=THERE,
    seed=0,
    threads=1,
)


@contextmanager
def peer(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A child that saves one pipeline in nirs4all's own store for each line that it gets."""
    command = [str(FOLDER.parent / program), str(FOLDER / "peer_sweep.py"), str(folder), str(THERE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield child
        _pipe(child.stdin).close()


def _turn(child: subprocess.Popen[str]) -> None:
    _pipe(child.stdin).write("pipeline\n")
    _pipe(child.stdin).flush()
    if _pipe(child.stdout).readline().strip() != "21":
        pytest.fail("nirs4all's store has ended")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@beside("dropin_vs_nirs4all_0_7_1", baseline="nirs4all 0.7.1's own store: DuckDB 1.x, row by row", needs=(OLD,))
def test_dropin_vs_nirs4all_0_7_1(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    _compare(measure, store, OLD, tmp_path)
    assert len(store.query_predictions()) == THERE + 21 * (ROUNDS + 1)


@beside(
    "dropin_vs_nirs4all_1_4_10",
    baseline="nirs4all 1.4.10's own store: SQLite, arrays of a pipeline as one Parquet batch",
    needs=(NEW,),
)
def test_dropin_vs_nirs4all_1_4_10(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    _compare(measure, store, NEW, tmp_path)
    assert len(store.query_predictions()) == THERE + 21 * (ROUNDS + 1)


def _compare(measure: Measure, store: WorkspaceStore, program: str, tmp_path: Path) -> None:
    sweep = Sweep(store)
    fill(store, THERE)
    with peer(program, tmp_path / "peer") as child:
        measure.ratio(lambda: _turn(child), sweep.pipeline, rounds=ROUNDS)
