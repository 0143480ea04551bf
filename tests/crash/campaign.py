"""`make crash MINUTES=n [SEED=s]`: writers that end in every way, on disks that refuse; then everything is looked at.

A round has one or two processes with some threads each on one workspace. A seed tells all that a round does, except
how the system schedules it: `python tests/crash/campaign.py --round SEED` repeats one. Before and after each call a
writer says what it is about, outside the workspace; what is there must agree with that.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from expected import Verdict, judge
from found import Found
from helpers import library

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
from n4a_fast.maintenance.verify_indexes import wrong_indexes

HERE = Path(__file__).parent
SHIM = HERE / "shim.c"
KINDS = ("lost", "doubled", "half", "undead", "wrong", "dangling", "unusable", "untyped", "hung")
PATIENCE = 90.0  # seconds without work in which a writer counts as hung, ten times as many whatever it does
WORK = 0.5  # seconds of CPU time: what only looks now and then whether it may go on needs less
TOLD_EVERY = 50  # rounds
MOST_TOLD = 6  # faults of a round
KEPT = 10  # folders of rounds that found something
ROUNDS_OF_A_WORKSPACE = 4


class Nursery:
    """An interpreter that has imported everything, with the shim preloaded; it forks one writer at a time."""

    def __init__(self, shim: Path) -> None:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
            "PYTHONFAULTHANDLER": "1",
        }
        self._process = subprocess.Popen(
            ["nice", sys.executable, "-u", str(HERE / "worker.py")],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.worker = 0

    def start(self, plan: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        self.worker = int(self._line())

    def wait(self) -> int:
        """The writer's exit status, once it is gone."""
        return int(self._line())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10.0)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Patience:
    """How long each writer has not worked: on a busy machine one that gets no turn is not hung."""

    def __init__(self) -> None:
        self._began = self._looked = time.monotonic()
        self._last: dict[int, tuple[float, float]] = {}  # when each was last seen at work, and its CPU time then

    def runs_out(self, worker: int) -> bool:
        now = time.monotonic()
        if worker in self._last and now - self._looked < 1.0:
            return False
        self._looked = now
        used = cpu_seconds(worker)
        since, then = self._last.setdefault(worker, (now, used))
        if used - then > WORK:
            self._last[worker] = now, used
        return now - since > PATIENCE or now - self._began > 10 * PATIENCE


class Campaign:
    """Rounds on one workspace after the other."""

    def __init__(self, nurseries: list[Nursery], place: Path, *, keeps: int) -> None:
        self._nurseries, self._place, self._keeps, self._kept = nurseries, place, keeps, 0
        self.rounds, self.counts, self.looked_at = 0, Counter[str](), Counter[str]()
        self._fresh()

    def _fresh(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self.folder, self.ledgers = self._place / "workspace", self._place / "ledgers"
        self.ledgers.mkdir(parents=True)

    def round(self, seed: int, number: int) -> list[tuple[str, str]]:
        """Let writers work and end; what is wrong afterwards, by kind."""
        dice = random.Random(seed)
        plans = [self._plan(dice, f"{number}-{seed}-{letter}") for letter in "ab"[: dice.randint(1, 2)]]
        if len(plans) > 1:
            plans = [{**plan, "upheaval": ""} for plan in plans]
        for nursery, plan in zip(self._nurseries, plans, strict=False):
            nursery.start(plan)
        verdict = Verdict()
        self._wait_or_kill(plans, dice, verdict)
        self._look(verdict, plans)
        self.rounds += 1
        self.counts.update(kind for kind, _ in verdict.faults)
        self.looked_at.update(verdict.looked_at)
        if verdict.faults and self._kept < self._keeps:
            self._kept += 1
            kept = Path(tempfile.mkdtemp(prefix=f"crash-{seed}-", dir=os.environ.get("CRASH_KEEP"))) / "round"
            shutil.copytree(self._place, kept)
            (kept / "plans.json").write_text(json.dumps(plans, indent=1))
            verdict.faults.append(("", f"kept in {kept}"))
        return verdict.faults

    def _plan(self, dice: random.Random, name: str) -> dict[str, Any]:
        threads = dice.choice([0, 0, 1, 2])
        ends = ["close", "return", "sys.exit", "exception", "SIGTERM", "os._exit", "pool", "waits", "waits", "waits"]
        return {
            "name": name,
            "folder": str(self.folder),
            "ledgers": str(self.ledgers),
            "log": str(self.ledgers / f"{name}.log"),
            "seed": dice.randrange(2**31),
            "threads": threads,
            "daemons": threads > 0 and dice.random() < 0.4,
            "steps": dice.choice([3, 8, 20]),
            "forks": dice.random() < 0.3,
            "flush_rows": dice.choice([4, 20, 4096]),
            "flush_interval": dice.choice([0.05, 5.0]),
            "clock": dice.random() < 0.3,
            "dies": dice.choice([0, 0, dice.randint(1, 60), dice.randint(1, 2000)]),
            "refuses": dice.choice([0, 0, 5, 30]),
            "burst": dice.choice([0, 3, 30]),
            "upheaval": dice.choice(["", "", "", "rename", "remove", "replace"]),
            "end": dice.choice(ends),
            "killed_after": dice.choice([None, dice.random() * 3.0]),
            "interrupted_after": dice.choice([None, None, dice.random() * 2.0]),
        }

    def _wait_or_kill(self, plans: list[dict[str, Any]], dice: random.Random, verdict: Verdict) -> None:
        began = time.monotonic()
        patience = Patience()
        waiting = dict(zip((nursery.worker for nursery in self._nurseries), plans, strict=False))
        moments = sorted(
            [(plan["killed_after"], signal.SIGKILL, worker) for worker, plan in waiting.items() if plan["killed_after"]]
            + [
                (plan["interrupted_after"], signal.SIGINT, worker)
                for worker, plan in waiting.items()
                if plan["interrupted_after"]
            ]
        )
        while any(alive(worker) for worker in waiting):
            while moments and time.monotonic() - began > moments[0][0]:
                _, told, worker = moments.pop(0)
                tell_process(worker, told)
            for worker, plan in waiting.items():
                if plan["end"] == "waits" and alive(worker) and has_ended(plan):
                    tell_process(worker, signal.SIGKILL)
            if any(patience.runs_out(worker) for worker in waiting if alive(worker)):
                self._end_what_hangs(waiting, verdict)
            time.sleep(0.005)
        for nursery in self._nurseries[: len(plans)]:
            nursery.wait()
            tell_process(nursery.worker, signal.SIGKILL, os.killpg)  # what it forked

    def _end_what_hangs(self, waiting: dict[int, dict[str, Any]], verdict: Verdict) -> None:
        for worker, plan in waiting.items():
            if alive(worker):
                verdict.fault("hung", f"{plan['name']}: see {plan['log']}")
                tell_process(worker, signal.SIGUSR1, os.killpg)  # where each thread is, into its log
                time.sleep(1.0)
                tell_process(worker, signal.SIGKILL)
        time.sleep(1.0)

    def _look(self, verdict: Verdict, plans: list[dict[str, Any]]) -> None:
        faulthandler.dump_traceback_later(600.0, exit=True)
        if not (self.folder / "store.duckdb").exists():
            return
        try:
            with WorkspaceStore(self.folder, lock_timeout=60.0) as store:
                found = Found(store)
                for kind, told in found.faults:
                    verdict.fault(kind, told)
                judge(sorted(path for path in self.ledgers.iterdir() if path.suffix != ".log"), found, verdict)
                store.gc_artifacts()
                report = store.verify_artifacts()
                if not report:
                    verdict.fault("dangling", str(report))
                for finding in wrong_indexes(store._open().database):
                    verdict.fault("dangling", str(finding))
        except StoreError as error:
            verdict.fault("unusable", f"{type(error).__name__}: {error}")
        except Exception as error:
            verdict.fault("untyped", f"on looking: {type(error).__name__}: {error}")
        faulthandler.cancel_dump_traceback_later()
        for plan in plans:
            judge_log(Path(plan["log"]), verdict)

    def tell(self) -> None:
        """What was looked at so far, and what was wrong."""
        print(f"{self.rounds} rounds, acknowledged: {dict(self.looked_at)}")
        print(", ".join(f"{self.counts[kind]} {kind}" for kind in KINDS), flush=True)

    def renew(self) -> None:
        """The next round has a workspace of its own."""
        self._fresh()


def judge_log(log: Path, verdict: Verdict) -> None:
    """What a writer printed: tracebacks of this package's errors and of the writer's own end, nothing else."""
    if not log.exists():
        return
    lines = [line for line in log.read_text(errors="replace").splitlines() if line]
    for line, following in zip(lines, [*lines, ""][1:], strict=True):
        kind = line.split(":")[0]
        is_cause = following.startswith(("The above exception was", "During handling of"))
        is_error = kind.endswith("Error") and " " not in kind and not kind.startswith("n4a_fast.") and not is_cause
        if is_error or kind.startswith("Fatal Python error"):
            verdict.fault("untyped", f"{log.name}: {line}")


def alive(process: int) -> bool:
    return tell_process(process, 0)


def tell_process(process: int, told: int, send: Callable[[int, int], None] = os.kill) -> bool:
    """Send a signal; whether the process was still there to get it: it may end between any look and the signal."""
    try:
        send(process, told)
    except ProcessLookupError:
        return False
    return True


def cpu_seconds(process: int) -> float:
    """CPU time of a process and those that it has forked, with that for which they were ready and got none."""
    used = 0.0
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(process)
        for each in (found, *found.children(recursive=True)):
            times = each.cpu_times()
            used += times.user + times.system
            for turns in Path(f"/proc/{each.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # the thread has ended
                    used += int(turns.read_text().split()[1]) / 1e9
    return used


def has_ended(plan: dict[str, Any]) -> bool:
    """Whether a writer has come to its end, where it waits to be killed."""
    last = (Path(plan["ledgers"]) / f"{plan['name']}-{part}" for part in ("main", "end"))  # after an upheaval: end
    return any(path.exists() and '"ends"' in path.read_text() for path in last)


def main() -> int:
    options = _options()
    until = time.monotonic() + 60.0 * options.minutes
    with tempfile.TemporaryDirectory(prefix="crash-") as place:
        shim = library(SHIM)
        campaign = Campaign([Nursery(shim), Nursery(shim)], Path(place) / "rounds", keeps=KEPT)
        first = options.round if options.round is not None else options.seed
        seeds = iter([first] * 3) if options.round is not None else iter(range(first, first + 10**9))
        print(f"crash: seed {first}", flush=True)
        for number, seed in enumerate(seeds):
            if options.round is None and time.monotonic() > until:
                break
            faults = campaign.round(seed, number)
            _tell(seed, faults)
            if campaign.rounds % TOLD_EVERY == 0:
                campaign.tell()
            if faults or options.round is not None or number % ROUNDS_OF_A_WORKSPACE == ROUNDS_OF_A_WORKSPACE - 1:
                campaign.renew()
    campaign.tell()
    return 1 if campaign.counts.total() else 0


def _tell(seed: int, faults: list[tuple[str, str]]) -> None:
    for kind, told in faults[:MOST_TOLD]:
        print(f"round {seed}: {kind} {told}"[:500], flush=True)
    if len(faults) > MOST_TOLD:
        print(f"round {seed}: and {len(faults) - MOST_TOLD} more; {faults[-1][1]}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--round", type=int, default=None, help="repeat the round of this seed, three times")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
