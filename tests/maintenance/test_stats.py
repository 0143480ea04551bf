"""What a store says about itself, and the command line beside a running sweep."""

from __future__ import annotations

import os
from pathlib import Path

from helpers import DEADLINE, begin_sweep, child, kill, predict_with_arrays, read_line
from typer.testing import CliRunner

from n4a_fast import WorkspaceStore
from n4a_fast.cli import app

WRITE = """
import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
for fold in range(3):
    predict_with_arrays(store, sweep, fold_id=str(fold))
    store.flush()
print("written", flush=True)
sys.stdin.readline()
store.close()
"""


def test_figures_follow_a_row_from_memory_to_its_table(store: WorkspaceStore) -> None:
    assert set(store.stats().rows.values()) == {0}
    predict_with_arrays(store, begin_sweep(store))
    in_memory = store.stats()
    assert (in_memory.unflushed, in_memory.pending, in_memory.writers, in_memory.rows["runs"]) == (4, 0, (), 0)
    store.flush()
    journaled = store.stats()
    assert (journaled.unflushed, journaled.pending, journaled.rows["runs"]) == (0, 1, 0)
    assert [(writer.pid, writer.is_alive) for writer in journaled.writers] == [(os.getpid(), True)]
    assert journaled.nbytes["log"] > 0
    assert store.list_runs().height == 1
    placed = store.stats()
    assert (placed.unflushed, placed.pending) == (0, 0)
    assert {
        name: placed.rows[name]
        for name in ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
    } == {
        "runs": 1,
        "pipelines": 1,
        "chains": 1,
        "predictions": 1,
        "prediction_arrays": 1,
        "artifacts": 0,
        "logs": 0,
    }
    assert placed.nbytes["database"] == sum(
        path.stat().st_size for path in store.workspace_path.glob("store.duckdb*") if path.name.count("-") == 0
    )


def test_writers_of_other_processes_are_told_dead_or_alive(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    dead, alive = child(WRITE, tmp_path), child(WRITE, tmp_path)
    for writer in (dead, alive):
        assert read_line(writer) == "written"
    kill(dead)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        found = {writer.pid: writer.is_alive for writer in store.stats().writers}
        assert found == {dead.pid: False, alive.pid: True}
        assert store.list_runs().height == 2  # a read brings in what both have flushed
        assert store.stats().rows["predictions"] == 6
        assert [(writer.pid, writer.flushes) for writer in store.stats().writers] == [(alive.pid, 0)]
    alive.communicate("go\n", timeout=DEADLINE)


def test_info_says_of_a_shard_that_its_writer_has_ended(store: WorkspaceStore, tmp_path: Path) -> None:
    with store.shard(tmp_path / "shard").open() as shard:  # closed, it rests in its journal
        predict_with_arrays(shard, begin_sweep(shard))
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "shard")]).output
    assert f"writer {os.getpid()} ended, 1 flushes not yet in the tables" in shown


def test_info_beside_a_sweep_counts_what_is_flushed_and_names_the_writer(tmp_path: Path) -> None:
    writer = child(WRITE, tmp_path)
    assert read_line(writer) == "written"
    shown = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["predictions", "3"] in lines
    assert ["writer", str(writer.pid), "running,"] in [line[:3] for line in lines]
    writer.communicate("go\n", timeout=DEADLINE)
    assert str(writer.pid) not in CliRunner().invoke(app, ["info", str(tmp_path)]).output
