"""Processes that save pipelines on demand (sweep_worker.py)."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import psutil
from harness import FOLDER

from n4a_fast import WorkspaceStore
from n4a_fast.merging.shards import Shard


class Worker:
    """A process that waits for work."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, FOLDER / "sweep_worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"

    def begin(
        self, folder: Path, pipelines: int, *, close: bool = False, shard: Shard[WorkspaceStore] | None = None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(
            f"{folder} {pipelines} {'close' if close else 'stay'} {pickle.dumps(shard).hex() if shard else '-'}\n"
        )
        self._process.stdin.flush()

    def seconds(self) -> float:
        """How long the work took, once it is done."""
        return float(self._answer())

    def processor_time(self) -> float:
        """Seconds that the process and its threads have had."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        self._process.communicate(timeout=120)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
