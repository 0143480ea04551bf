"""The gate itself: green as things are, red when the store gets worse or a benchmark breaks the rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import program

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RULES = """
import pytest
from harness import Measure, gate, report

FACTS = {"workload": "adding", "baseline": "none", "size": 1, "seed": None, "threads": 1}
"""
GOOD = """
@gate("good", **FACTS)
def test_good(measure: Measure) -> None:
    assert measure.value(1, "x") == 1
"""
FLOOR = '\n[{}]\nat_most = {}\nwhy = "a test"\ndate = 2026-11-24\n'


OPTIONS = ("-q", "-p", "no:cacheprovider", "--benchmark-quiet", "-m", "gate")
GATE = "import os, sys, pytest\nos.chdir(sys.argv[1])\nsys.exit(pytest.main(sys.argv[2:]))"


class Done(NamedTuple):
    """How a gate ended, and what it said."""

    returncode: int
    stdout: str


def run_gate(folder: Path, *options: str, slower: str = "") -> Done:
    """`make gate` on the benchmarks of a folder, or on some of them, with the one plugin that it needs."""
    variables = {"N4A_BENCH_SLOWER": slower, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugin = ("-p", "pytest_benchmark.plugin")
    gate = program("-c", folder, *OPTIONS, *plugin, *options, folder, code=GATE, **variables)
    said, errors = gate.communicate(timeout=600)
    return Done(gate.returncode, said + errors)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The gate's machinery with one benchmark that holds its floor."""
    for module in BENCHMARKS.glob("*.py"):
        if not module.name.startswith("test_"):
            shutil.copy(module, tmp_path)
    (tmp_path / "test_own.py").write_text(RULES + GOOD)
    (tmp_path / "floors.toml").write_text(FLOOR.format("good", 2))
    return tmp_path


def add(folder: Path, source: str, *floors: str) -> None:
    (folder / "test_own.py").write_text(RULES + GOOD + source)
    (folder / "floors.toml").write_text(FLOOR.format("good", 2) + "".join(floors))


def failed(done: Done) -> set[str]:
    """Names of the benchmarks that a gate calls red."""
    return set(re.findall(r"^FAILED \S+::test_(\w+)", done.stdout, re.MULTILINE))


# what makes the store worse, and the benchmarks that must tell it
WORSE = {
    "write:1.3": {"save_prediction_work"},
    "replay:1.5": {"replay_work"},
    "bytes:2": {"dropin_bytes_kept", "bytes_written_per_prediction"},
}


@pytest.mark.not_on("macos", "windows", reason="bytes that are written are told by /proc")
def test_the_switch_that_makes_a_store_worse_is_told_by_what_measures_it(own: Path) -> None:
    source = """
from slower import written_bytes

@gate("bytes", **FACTS)
def test_bytes(measure, store):
    before, ballast = written_bytes(), store.workspace_path / "ballast"
    store.begin_run("a run", {}, [])
    store.flush()
    written = written_bytes() - before
    assert measure.value(written / (written - (ballast.stat().st_size if ballast.exists() else 0)), "x")
"""
    add(own, source, FLOOR.format("bytes", 1.5))
    done = run_gate(own, slower="bytes:2")
    assert failed(done) == {"bytes"}, done.stdout
    assert "floors.toml asks for" in done.stdout


@pytest.mark.slow
def test_a_worse_store_turns_the_gate_red() -> None:
    names = set().union(*WORSE.values())
    green, red = (run_gate(BENCHMARKS, "-k", " or ".join(names), slower=switch) for switch in ("", "|".join(WORSE)))
    assert green.returncode == 0, green.stdout
    assert red.returncode == pytest.ExitCode.TESTS_FAILED, red.stdout
    assert failed(red) == names, red.stdout
    assert "measuring it again" in red.stdout
    assert "floors.toml asks for" in red.stdout


def test_a_missed_floor_counts_when_it_is_missed_twice(own: Path) -> None:
    source = """
TURNS = {"twice": [3, 3], "once": [1, 3]}

@gate("twice", **FACTS)
def test_twice(measure: Measure) -> None:
    assert measure.value(TURNS["twice"].pop(), "x")

@gate("once", **FACTS)
def test_once(measure: Measure) -> None:
    assert measure.value(TURNS["once"].pop(), "x")
"""
    add(own, source, FLOOR.format("twice", 2), FLOOR.format("once", 2))
    done = run_gate(own)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert failed(done) == {"twice"}, done.stdout


def test_a_set_that_breaks_the_rules_is_refused_with_every_reason(own: Path) -> None:
    add(
        own,
        """
@gate("bare", **FACTS)
def test_bare(measure): assert measure.value(1, "x")

@report("held", **FACTS)
def test_held(measure): assert measure.value(1, "x")

@gate("good", **FACTS)
@report("good", **FACTS)
def test_both(measure): assert measure.value(1, "x")

@gate("loose", **FACTS)
def test_loose(measure): measure.value(1, "x")

@gate("good", **FACTS)
def test_again(measure): assert measure.value(1, "x")

def test_undeclared(): assert True
""",
        FLOOR.format("nobody", 1),
        FLOOR.format("held", 1),
        FLOOR.format("loose", 1),
    )
    done = run_gate(own)
    assert done.returncode != 0
    for complaint in (
        "nobody: a floor without a benchmark",
        "test_bare: no floor bare",
        "test_held: a report has no floor",
        "test_both: a benchmark is exactly one of",
        "test_undeclared: a benchmark is exactly one of",
        "test_loose: asserts nothing",
        "two benchmarks are called good",
    ):
        assert complaint in done.stdout


def test_a_benchmark_that_comes_to_no_result_is_red(own: Path) -> None:
    add(
        own,
        """
@gate("idle", **FACTS)
def test_idle(measure): assert True

@gate("left", **FACTS)
def test_left(measure):
    pytest.skip("later")
    assert True
""",
        FLOOR.format("idle", 2),
        FLOOR.format("left", 2),
    )
    done = run_gate(own)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "came to no result: idle, left" in done.stdout


def test_an_empty_set_is_red(own: Path) -> None:
    (own / "test_own.py").unlink()
    (own / "floors.toml").write_text("")
    assert run_gate(own).returncode != 0


def test_a_missing_program_skips_with_a_message(own: Path) -> None:
    add(
        own,
        '\n@gate("far", **FACTS, needs=("no-such-program",))\ndef test_far(measure): assert False\n',
        FLOOR.format("far", 2),
    )
    done = run_gate(own, "-rs")
    assert done.returncode == 0, done.stdout
    assert "far needs no-such-program" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is counted as Linux does")
def test_a_store_that_grows_is_asked_what_the_page_shows(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="make bench-10m installs it")
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--rows", "10000", "--folder", str(tmp_path / "scale")]
    run = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    assert run.returncode == 0, run.stdout
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text()
    shown, printed = (re.findall(r"^\| (.+?) \| (.*?) \| [\d.,]+ \|", text, re.M) for text in (page, run.stdout))
    assert len(printed) > 20
    assert [row for row in shown if row in printed] == printed
    assert list(tmp_path.iterdir()) == []
