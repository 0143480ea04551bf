"""Ratios of interleaved runs, checked against floors.toml; see README.md."""

from __future__ import annotations

import statistics
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n4a_fast import WorkspaceStore

FLOORS: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "floors.toml").read_text())
SAMPLES = 200
SCORES = {part: {f"metric_{number}": 0.123456789 * number for number in range(6)} for part in ("train", "val", "test")}
CHECKED: dict[str, float] = {}


def interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Median time of `first` over median time of `second`, the two taking turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, found in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


@pytest.fixture
def gate() -> Callable[[str, Callable[[], float]], None]:
    """Measure a ratio and hold it against its floor; a failing one is measured once more."""

    def check(name: str, measure: Callable[[], float]) -> None:
        floor = FLOORS[name]
        for _ in range(2):
            CHECKED[name] = measure()
            if floor.get("at_least", 0.0) <= CHECKED[name] <= floor.get("at_most", float("inf")):
                return
        pytest.fail(f"{name} is {CHECKED[name]:.3g}, floors.toml asks for {floor} ({floor['why']})")

    return check


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path / "workspace") as opened:
        yield opened


class Sweep:
    """The drop-in calls of one pipeline: 7 folds by 3 partitions, n = 200, arrays, chain and log."""

    def __init__(self, store: WorkspaceStore) -> None:
        self.store = store
        self.run = store.begin_run("sweep", {}, [{"name": "corn"}])
        self.y_pred = np.random.default_rng(0).random(SAMPLES)
        self.y_true, self.indices = np.arange(float(SAMPLES)), np.arange(SAMPLES)

    def pipeline(self) -> list[str]:
        store = self.store
        pipeline = store.begin_pipeline(self.run, "p", {"model": "PLS"}, [], "corn", "h")
        chain = store.save_chain(pipeline, [{"step_idx": 1, "operator_class": "PLS", "params": {}}], 1, "PLS", "", "per_fold", {}, {})
        store.log_step(pipeline, 1, "PLS", "end", 5)
        ids = []
        for fold in range(7):
            for partition in ("train", "val", "test"):
                prediction = store.save_prediction(
                    pipeline, chain, "corn", "PLS", "PLS", str(fold), partition, 0.1, 0.2, 0.05, "rmse", "regression", SAMPLES, 700,
                    SCORES, {}, None, None, 0, 0.0)  # fmt: skip
                store.save_prediction_arrays(prediction, self.y_true, self.y_pred, None, self.indices)
                ids.append(prediction)
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 10)
        return ids


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail when a floor was never checked in a full run; print what was measured."""
    unchecked = sorted(set(FLOORS) - set(CHECKED))
    if unchecked and not session.config.option.keyword and len(session.config.args) < 2 and exitstatus == 0:
        print(f"\nfloors without a benchmark that ran: {', '.join(unchecked)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    for name, found in CHECKED.items():
        limits = ", ".join(f"{key.replace('_', ' ')} {FLOORS[name][key]:g}" for key in ("at_least", "at_most") if key in FLOORS[name])
        print(f"\n  {name}: {found:.3g} ({limits})", end="")
    print()
