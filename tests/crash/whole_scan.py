"""Every state of every program, in as many turns as it takes: `whole_scan.py folder minutes`.

What the programs did and how far they were looked at lies in the folder, below a digest of the sources, so that the
next turn goes on where this one ends. Exit code 1 when something was wrong.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recorded import WORKLOADS
from scan import Checker, Recorded, recorded

SEED = 1
_ROOT = Path(__file__).parents[2]
_AT_ONCE = 2  # processes
_SAVED_EVERY = 20  # states


@dataclass(slots=True)
class Progress:
    """How far the states of one program were looked at."""

    workload: str
    states: int = 0
    looked_at: int = 0
    different: list[str] = field(default_factory=list)  # digests of states
    wrong: list[str] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return self.looked_at == self.states > 0

    def __str__(self) -> str:
        counts = f"{self.looked_at:5} of {self.states:5} states, {len(self.different):5} different ones"
        return "\n    ".join([f"{self.workload:10} {counts}, {len(self.wrong)} problems", *self.wrong[:20]])


def turn(workload: str, folder: Path, deadline: float) -> Progress:
    """Look at states of a program until all are done or the time is over."""
    place = folder / f"{workload}.json"
    progress = Progress(**json.loads(place.read_text())) if place.exists() else Progress(workload)
    if time.monotonic() >= deadline or progress.is_finished:
        return progress
    program = _recorded_once(workload, folder)
    moments = program.moments()
    progress.states, known = len(moments), set(progress.different)
    with tempfile.TemporaryDirectory() as scratch:
        checker = Checker(Path(scratch))
        try:
            for state in program.states(moments[progress.looked_at :], SEED):
                if (digest := state.digest()) not in known:
                    known.add(digest)
                    progress.different.append(digest)
                    progress.wrong += checker.problems(state)
                progress.looked_at += 1
                is_over = time.monotonic() >= deadline
                if is_over or progress.is_finished or progress.looked_at % _SAVED_EVERY == 0:
                    _replace(place, json.dumps(asdict(progress)).encode())
                if is_over:
                    break
        finally:
            checker.close()
    return progress


def _recorded_once(workload: str, folder: Path) -> Recorded:
    place = folder / f"{workload}.record"
    if not place.exists():
        with tempfile.TemporaryDirectory() as scratch:
            program = recorded(workload, Path(scratch))
        _replace(place, pickle.dumps(program))
    program = pickle.loads(place.read_bytes())
    assert isinstance(program, Recorded)
    return program


def _replace(place: Path, content: bytes) -> None:
    draft = place.with_name(f"{place.name}.new")
    draft.write_bytes(content)
    os.replace(draft, place)


def _sources() -> str:
    """A digest of what is tested, and of what tests it."""
    hashed = hashlib.sha256()
    for path in sorted((*_ROOT.glob("src/**/*.py"), *_ROOT.glob("src/_native/*"), *_ROOT.glob("tests/crash/*"))):
        if path.is_file():
            hashed.update(f"{path}\n".encode() + path.read_bytes())
    return hashed.hexdigest()[:16]


def _turns(folder: Path, minutes: float) -> Iterator[Progress]:
    deadline = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(_AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(turn, WORKLOADS, [folder] * len(WORKLOADS), [deadline] * len(WORKLOADS))


def main(folder: str, minutes: str) -> None:
    place = Path(folder) / _sources()
    place.mkdir(parents=True, exist_ok=True)
    total, is_finished = Progress("all"), True
    for progress in _turns(place, float(minutes)):
        print(progress, flush=True)
        is_finished &= progress.is_finished
        total.states, total.looked_at = total.states + progress.states, total.looked_at + progress.looked_at
        total.different += [f"{progress.workload} {digest}" for digest in progress.different]
        total.wrong += progress.wrong
    print(total, "" if is_finished else "(not all yet: another call goes on)")
    sys.exit(bool(total.wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
