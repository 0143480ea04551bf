"""The switch that proves the gate: N4A_BENCH_SLOWER makes the store worse than it is.

    N4A_BENCH_SLOWER=write:1.5        calls that save take 1.5 times as long
    N4A_BENCH_SLOWER=replay:1.5       replays do
    N4A_BENCH_SLOWER=bytes:2          calls that commit write and keep twice the bytes

Only the benchmarks' conftest reads it; the package knows nothing of it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import n4a_fast
from n4a_fast import WorkspaceStore

_SAVING = (
    "begin_run",
    "begin_pipeline",
    "save_chain",
    "log_step",
    "save_prediction",
    "save_prediction_arrays",
    "save_predictions",
    "save_artifact",
    "complete_pipeline",
    "complete_run",
    "flush",
)
_COMMITTING = ("save_predictions", "complete_pipeline", "complete_run", "flush", "close")


def slow_down() -> None:
    """Wrap the store's methods as N4A_BENCH_SLOWER says; nothing without it."""
    for part in filter(None, os.environ.get("N4A_BENCH_SLOWER", "").split("|")):
        kind, factor = part.split(":")
        wrap = functools.partial({"write": _longer, "replay": _longer, "bytes": _fatter}[kind], factor=float(factor))
        for name in {"write": _SAVING, "replay": ("replay_chain",), "bytes": _COMMITTING}[kind]:
            setattr(WorkspaceStore, name, wrap(getattr(WorkspaceStore, name)))
        if kind == "replay":
            n4a_fast.replay_chain = wrap(n4a_fast.replay_chain)


def _longer(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """The method, then idle computing until both wall and CPU time have grown by the factor."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return method(*args, **kwargs)
        finally:
            wall_until = time.perf_counter() + (factor - 1) * (time.perf_counter() - wall)
            cpu_until = time.thread_time() + (factor - 1) * (time.thread_time() - cpu)
            while time.perf_counter() < wall_until or time.thread_time() < cpu_until:
                pass

    return call


def _fatter(method: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """The method, then as many bytes again as it wrote, beside the store's file."""

    @functools.wraps(method)
    def call(self: WorkspaceStore, *args: Any, **kwargs: Any) -> Any:
        before = written_bytes()
        try:
            return method(self, *args, **kwargs)
        finally:
            with (self.workspace_path / "ballast").open("ab") as ballast:
                ballast.write(b"\0" * int((factor - 1) * (written_bytes() - before)))

    return call


def written_bytes() -> int:
    """Bytes that this process has handed to write calls so far."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["wchar"])
