"""The report and the commands: a gate on the report's memory at 100,000 predictions, reports at a million of 333,333
chains, whose promise is 20 s, 1 GB and 3 MB.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from build_chains import WIDTH
from children import build_chains
from harness import Measure, gate, report

PROGRAM = """
import json, sys, time
from n4a_fast import WorkspaceStore
with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    page = store.report(sys.argv[2])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(json.dumps({"bytes": page.nbytes, "cpu": time.process_time(), "mb": int(peak) / 1024, "seconds": page.seconds}))
"""
LOOKS = (
    "runs WS", "top WS", "show WS @last", "show WS @best", "compare WS A B", "info WS", "watch WS --once", "tail WS",
    "doctor WS", "sql WS QUERY", "plot WS scatter @best -o OUT.svg",
    "plot WS heatmap -o OUT.svg", "plot WS timeline -o OUT.svg", "report WS -o OUT.html", "predict WS @best X.npy",
    "export WS @best -o OUT.n4a", "export WS -o OUT.parquet", "export WS -o OUT.csv", "extract WS @last OUT",
    "verify WS --quick", "verify WS --sample 1%", "backup WS BACKUP", "restore BACKUP COPY",
)  # fmt: skip
CHANGES = (
    "delete COPY @last --yes", "gc COPY", "vacuum COPY", "import COPY OUT.n4a", "merge COPY OUT --dry-run",
)  # fmt: skip


@pytest.fixture(scope="session")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Workspaces by their number of chains, of three predictions each, built once."""

    @functools.cache
    def of(chains: int) -> Path:
        folder = tmp_path_factory.mktemp("chained") / str(chains)
        build_chains(folder, chains)
        return folder

    return of


def drawn(folder: Path) -> dict[str, float]:
    """What the report of a workspace that is only read took, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, folder.with_suffix(".html")],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


@gate(
    "report_memory_growth",
    workload="peak memory of the report's process, 100,000 predictions of 33,333 chains",
    baseline="25,000 predictions of 8,333 chains",
    size=100_000,
    seed=0,
    threads="1, and DuckDB's",
    needs=("vl_convert",),
)
def test_report_memory_growth(measure: Measure, chained: Callable[[int], Path]) -> None:
    small, large = drawn(chained(8_333)), drawn(chained(33_333))
    measure.value(large["mb"] / small["mb"], "x")
    measure.note(peak_mb=round(large["mb"]), page_kb=round(large["bytes"] / 1000), cpu_s=round(large["cpu"], 1))
    assert 100_000 < large["bytes"] < 1.2 * small["bytes"]


@report(
    "report_of_a_million",
    workload="seconds of a report of 1,000,000 predictions of 333,333 chains that nobody has ranked",
    baseline="none: the promise is 20 s, 1 GB and 3 MB",
    size=1_000_000,
    seed=0,
    threads="1, and DuckDB's",
    needs=("vl_convert",),
)
def test_report_of_a_million(measure: Measure, chained: Callable[[int], Path]) -> None:
    found = drawn(chained(333_333))
    measure.value(found["seconds"], "s")
    measure.note(peak_mb=round(found["mb"]), page_kb=round(found["bytes"] / 1000), cpu_s=round(found["cpu"], 1))
    assert found["mb"] < 1_000
    assert 100_000 < found["bytes"] < 3_000_000


@report(
    "commands_at_a_million",
    workload="the slowest of all commands, 1,000,000 predictions of 333,333 chains",
    baseline="none",
    size=1_000_000,
    seed=0,
    threads="1, and DuckDB's",
    needs=("vl_convert",),
)
def test_commands_at_a_million(measure: Measure, chained: Callable[[int], Path], tmp_path: Path) -> None:
    folder = chained(333_333)
    np.save(tmp_path / "X.npy", np.zeros((3, WIDTH)))
    best = json.loads(run(["top", str(folder), "-n", "2", "--json"])[1])["rows"]
    query = "SELECT partition, count(*), avg(val_score) FROM predictions GROUP BY partition"
    places = {"WS": str(folder), "QUERY": query, "A": best[0]["chain_id"], "B": best[1]["chain_id"]}
    seconds: dict[str, float] = {}
    for typed in (*LOOKS, *CHANGES):
        words = [
            places.get(word) or str(tmp_path / word) if word.isupper() or "." in word else word
            for word in typed.split()
        ]
        seconds[typed], told = run(words)
        assert told.strip() or typed.startswith(("tail", "delete")), typed
    measure.value(max(seconds.values()), "s")
    measure.note(**{typed.replace(" ", "_"): round(taken, 1) for typed, taken in seconds.items()})
    shutil.rmtree(tmp_path / "COPY")


def run(words: list[str]) -> tuple[float, str]:
    """How many seconds a command took, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "n4a_fast", *words], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, (words, done.stderr)
    return time.perf_counter() - begun, done.stdout
