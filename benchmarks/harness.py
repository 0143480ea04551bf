"""What a benchmark declares and how it measures; the conventions are in README.md.

`gate` and `report` mark a benchmark with its name, workload, seed, size and threads. `Measure` times
two sides that take turns, holds a gate's number against its floor, and keeps every number for the page.
A number below its floor raises `FloorMissed`; conftest.py then runs that benchmark once more.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
FLOORS_FILE = FOLDER / "floors.toml"
FLOORS: dict[str, dict[str, Any]] = tomllib.loads(FLOORS_FILE.read_text())
_UNBOUNDED = {"at_least": float("-inf"), "at_most": float("inf")}


class FloorMissed(AssertionError):
    """A gate's number is on the wrong side of its floor."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a benchmark says of itself before it runs."""

    kind: str
    name: str
    workload: str
    baseline: str
    size: int
    seed: int | None
    threads: int | str
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Programs, packages, and files (with a slash; below the repository unless absolute) it cannot run without,
        which this machine has not.
        """
        return [
            name
            for name in self.needs
            if not (Path(FOLDER.parent / name).exists() if "/" in name else shutil.which(name) or find_spec(name))
        ]


@dataclass(slots=True)
class Result:
    """A measured benchmark."""

    declared: Declaration
    capability: str
    value: float = float("nan")
    unit: str = ""
    ours: float | None = None
    theirs: float | None = None
    notes: dict[str, float | str] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Everything as JSON takes it, with the floor."""
        floor = {key: value for key, value in FLOORS.get(self.declared.name, {}).items() if key in (*_UNBOUNDED, "why")}
        return asdict(self) | {"floor": floor}


def as_run(results: Iterable[Result]) -> dict[str, Any]:
    """All numbers of a run, and where they come from."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return {
        "date": date,
        "commit": commit(),
        "machine": machine(),
        "results": [result.as_record() for result in results],
    }


def machine() -> dict[str, Any]:
    """What a number was measured with: the processor, versions, and how busy the machine was."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = {
        package: metadata.version(package)
        for package in ("n4a_fast", "duckdb", "pyarrow", "numpy", "polars", "scikit-learn")
    }
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "load": round(os.getloadavg()[2], 1),
    }


def commit() -> str:
    """The commit that was measured, with a + when files differ from it; empty outside a repository."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def gate(
    name: str,
    *,
    workload: str,
    baseline: str,
    size: int,
    seed: int | None,
    threads: int | str,
    needs: tuple[str, ...] = (),
) -> pytest.MarkDecorator:
    """A benchmark that fails below the floor `name` of floors.toml.

    `size`: rows, or whatever the workload counts; `seed`: of all random data, None without any; `threads`: that
    the caller uses, and what else is no default; `needs`: programs and packages without which it is skipped with a
    message.
    """
    return pytest.mark.gate(Declaration("gate", name, workload, baseline, size, seed, threads, needs))


def report(
    name: str,
    *,
    workload: str,
    baseline: str,
    size: int,
    seed: int | None,
    threads: int | str,
    needs: tuple[str, ...] = (),
) -> pytest.MarkDecorator:
    """Like `gate`, for sizes and comparisons too long for every change: `make bench` runs it, no floor holds it."""
    return pytest.mark.report(Declaration("report", name, workload, baseline, size, seed, threads, needs))


class Measure:
    """The measuring of one benchmark: one of `ratio`, `growth`, `work` or `value`, and any number of notes and
    curves.
    """

    def __init__(self, result: Result, request: pytest.FixtureRequest) -> None:
        self._result, self._request = result, request
        self.done = False

    def ratio(
        self,
        baseline: Callable[[], object],
        ours: Callable[[], object],
        *,
        rounds: int = 7,
        warmup: int = 1,
        scale: float = 1.0,
        calls: int = 1,
    ) -> float:
        """How many times faster `ours` is than `baseline`: the median over pairs of runs that take turns.

        `scale` is how many times more work `ours` does, where the whole of it would take a slow baseline too long.
        `calls` is how often each is called in a turn, where one call is too short for it; the seconds are those of one.
        """
        return self._conclude(
            scale
            * _median_ratio(*self._pairs(_repeated(baseline, calls), _repeated(ours, calls), rounds, warmup, calls)),
            "x",
        )

    def growth(
        self, small: Callable[[], object], large: Callable[[], object], *, rounds: int = 7, warmup: int = 1
    ) -> float:
        """How many times as long `large` takes as `small`, the same work on more data; held by an `at_most` floor."""
        return self._conclude(1.0 / _median_ratio(*self._pairs(small, large, rounds, warmup)), "times as long")

    def work(
        self,
        baseline: Callable[[], object],
        ours: Callable[[], object],
        *,
        rounds: int = 30,
        clock: Callable[[], float] = time.thread_time,
    ) -> float:
        """Like `ratio`, tight enough for a floor at 0.85 of what was measured: the lower quartile of the CPU time of
        this thread over many rounds, or of all threads by `time.process_time`; the least of them is a matter of luck.

        For calls of microseconds to a few milliseconds that only compute; waiting for disk or other threads is not
        seen.
        """
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for seconds, call in zip(taken, (baseline, ours), strict=True):
                start = clock()
                call()
                seconds.append(clock() - start)
        before, after = (sorted(seconds)[rounds // 4] for seconds in taken)
        self._result.theirs, self._result.ours = before, after
        return self._conclude(before / after, "x")

    def value(self, number: float, unit: str, *, ours: float | None = None, theirs: float | None = None) -> float:
        """A counter or a size: exact where it can be, so its floor is tight. `ours` and `theirs` are seconds for the
        page.
        """
        self._result.ours, self._result.theirs = ours, theirs
        return self._conclude(float(number), unit)

    def note(self, **numbers: float | str) -> None:
        """Numbers that the page shows beside the result, by name and unit: `seconds=1.2`."""
        self._result.notes.update(numbers)

    def curve(self, label: str, points: Sequence[tuple[float, float]]) -> None:
        """A line of the growth chart: (rows, seconds) points."""
        self._result.curves[label] = [(float(x), float(y)) for x, y in points]

    def _pairs(
        self, theirs: Callable[[], object], ours: Callable[[], object], rounds: int, warmup: int, calls: int = 1
    ) -> tuple[list[float], list[float]]:
        """Seconds of both sides; pytest-benchmark times ours, and its set-up step before each round is the other's
        turn.
        """
        for _ in range(warmup):
            theirs(), ours()
        before: list[float] = []

        def other_side() -> None:
            start = time.perf_counter()
            theirs()
            before.append(time.perf_counter() - start)

        benchmark = self._request.getfixturevalue("benchmark")
        benchmark.pedantic(ours, setup=other_side, rounds=rounds, iterations=1)
        after = list(benchmark.stats.stats.data)
        self._result.theirs, self._result.ours = statistics.median(before) / calls, statistics.median(after) / calls
        return before, after

    def _conclude(self, value: float, unit: str) -> float:
        self._result.value, self._result.unit = value, unit
        self.done = True
        limits = _UNBOUNDED | FLOORS.get(self._result.declared.name, {})
        if not limits["at_least"] <= value <= limits["at_most"]:
            raise FloorMissed(
                f"{self._result.declared.name} is {value:.4g} {unit}; {described(self._result.declared.name)}"
            )
        return value


def described(name: str) -> str:
    """A floor in words."""
    floor = FLOORS[name]
    limits = " and ".join(f"{key.replace('_', ' ')} {floor[key]:g}" for key in _UNBOUNDED if key in floor)
    return f"floors.toml asks for {limits}: {floor['why']}"


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(times):
            call()

    return call if times == 1 else repeated


def _median_ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(left / right for left, right in zip(theirs, ours, strict=True))
