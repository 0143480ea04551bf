"""Random schedules of everything that locks, by threads of several processes on two workspaces; processes are killed
meanwhile. `make schedules MINUTES=n [SEED=s]` runs one after another.

Calls that wait for ever show their stacks: a worker in which a thread has not moved for a minute dumps all of them,
and so do the others then. Before a run is saved, and when it is completed or deleted, its worker says so outside the
workspaces; in the end all that was acknowledged must be there, and nothing that was given up.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import Sweep, begin_sweep, predict_with_arrays, program

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreLockedError, StoreMovedError

NAMES = ("a", "b")
PATIENCE = float(os.environ.get("N4A_PATIENCE", "60"))  # seconds without a step of a thread: it waits for ever
LOCK_TIMEOUT = PATIENCE / 12  # two blocks that each wait for what the other one has end so
HUNG = 3


class Ledger:
    """What one thread says of its runs, a line each, written at once: `+` is acknowledged, `-` may be gone, `!` was
    given up.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, what: str, workspace: str, run: str) -> None:
        os.write(self._file, f"{what} {workspace} {run}\n".encode())


class GivenUp(Exception):
    """Leaves a block, so that nothing of it stays."""


class Schedule:
    """The calls of one thread."""

    def __init__(self, folder: Path, ledger: Ledger, seed: str) -> None:
        self._folder, self._ledger, self._chance = folder, ledger, random.Random(seed)
        self._own: dict[str, list[str]] = {name: [] for name in NAMES}  # runs that this thread may delete
        self.doing, self.since = "opening", time.monotonic()

    def run(self, steps: int) -> None:
        self._store = self._opened()
        saves = [self.save, self.block, self.block_with_another, self.nested, self.give_up]
        opens = [self.reopen, self.open_together, self.drop]
        others = [self.merge, self.collect, self.delete, self.look, self.back_up, self.verify, self.shard, self.vacuum]
        for _ in range(steps):
            step = self._chance.choice([*saves, *saves, *opens, *opens, *others])
            self.doing, self.since = step.__name__, time.monotonic()
            # two blocks wait for what the other one has, or a shard is removed that is read just now
            with suppress(StoreLockedError, StoreMovedError):
                step()
        self.doing, self.since = "closing", time.monotonic()
        self._store.close()
        self.doing = "done"

    # -- saving ----------------------------------------------------------------------------

    def save(self) -> None:
        sweep = self._begun(self._store)
        self._store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
        self._acknowledged(sweep)

    def block(self) -> None:
        with self._store.transaction():
            sweep = self._begun(self._store)
            if self._chance.random() < 0.5:
                self._store.list_runs()
        self._acknowledged(sweep)

    def block_with_another(self) -> None:
        """Inside a block of one workspace, use the other one, or this one by another handle."""
        with self._store.transaction():
            sweep = self._begun(self._store)
            with self._opened() as other:
                other.list_runs()
        self._acknowledged(sweep)

    def nested(self) -> None:
        with self._store.transaction():
            sweep = self._begun(self._store)
            with suppress(GivenUp), self._store.transaction():
                self._given_up(self._begun(self._store))
                raise GivenUp
        self._acknowledged(sweep)

    def give_up(self) -> None:
        with suppress(GivenUp), self._store.transaction():
            self._given_up(self._begun(self._store))
            self._chance.choice([self._store.list_runs, self._store.gc_artifacts, lambda: None])()
            raise GivenUp

    def _begun(self, store: WorkspaceStore) -> Sweep:
        sweep = begin_sweep(store)
        artifact = store.save_artifact([self._chance.random()], "builtins.list", "model", "joblib")
        store.save_chain(sweep.pipeline, [], 1, "m", "", "shared", {"0": artifact}, {})
        predict_with_arrays(store, sweep, self._chance.random())
        return sweep

    def _acknowledged(self, sweep: Sweep) -> None:
        name = self._store.workspace_path.name
        self._ledger.say("+", name, sweep.run)
        self._own[name].append(sweep.run)

    def _given_up(self, sweep: Sweep) -> None:
        self._ledger.say("!", self._store.workspace_path.name, sweep.run)

    # -- opening ---------------------------------------------------------------------------

    def reopen(self) -> None:
        left, self._store = self._store, self._opened()
        left.close()

    def open_together(self) -> None:
        """Several threads open one path at the same moment, to read or to write, and close it again."""
        path, start = self._folder / self._chance.choice(NAMES), threading.Barrier(3)
        failed: list[BaseException] = []

        def open_at_once(is_reader: bool) -> None:
            start.wait()
            try:
                with (WorkspaceStore.open_readonly if is_reader else WorkspaceStore)(
                    path, lock_timeout=LOCK_TIMEOUT
                ) as store:
                    store.list_runs()
            except BaseException as error:  # told by the thread that waits
                failed.append(error)

        readers = [self._chance.random() < 0.5 for _ in range(3)]
        threads = [threading.Thread(target=open_at_once, args=(each,), daemon=True) for each in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def drop(self) -> None:
        """Leave a store without closing it."""
        self._begun(self._opened())

    def _opened(self) -> WorkspaceStore:
        return WorkspaceStore(self._folder / self._chance.choice(NAMES), lock_timeout=LOCK_TIMEOUT)

    # -- everything else -------------------------------------------------------------------

    def merge(self) -> None:
        (other,) = set(NAMES) - {self._store.workspace_path.name}
        self._store.merge(self._folder / other)

    def shard(self) -> None:
        shard = self._store.shard()
        with shard.open() as store:
            begin_sweep(store)
        self._store.merge(shard)
        if self._chance.random() < 0.8:  # few are left: each is verified and backed up, too
            shutil.rmtree(shard.path)

    def collect(self) -> None:
        self._store.gc_artifacts()

    def delete(self) -> None:
        if own := self._own[self._store.workspace_path.name]:
            run = own.pop(self._chance.randrange(len(own)))
            self._ledger.say("-", self._store.workspace_path.name, run)
            self._store.delete_run(run)

    def look(self) -> None:
        self._chance.choice([self._store.list_runs, self._store.leaderboard, self._store.stats, self._store.flush])()

    def back_up(self) -> None:
        self._store.backup(
            self._folder / f"backup-{os.getpid()}-{threading.get_ident()}" / self._store.workspace_path.name
        )

    def verify(self) -> None:
        report = self._store.verify(quick=self._chance.random() < 0.5)
        assert report, [str(each) for each in report.findings]

    def vacuum(self) -> None:
        self._store.vacuum()


def work(folder: Path, seed: str, threads: int, steps: int) -> None:
    """A worker: so many threads; it ends at once, with all stacks, when one does not move."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    failed: list[BaseException] = []
    schedules: list[Schedule] = []

    def run(number: int) -> None:
        try:
            ledger = Ledger(folder / f"ledger-{seed}-{number}".replace(" ", "-"))
            schedule = Schedule(folder, ledger, f"{seed} {number}")
            schedules.append(schedule)
            schedule.run(steps)
        except BaseException as error:  # told by the main thread
            failed.append(error)

    running = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    while any(thread.is_alive() for thread in running):
        time.sleep(0.05)
        if failed:
            raise failed[0]
        if any(each.doing != "done" and time.monotonic() - each.since > PATIENCE for each in list(schedules)):
            print("hung:", [(each.doing, round(time.monotonic() - each.since)) for each in schedules], file=sys.stderr)
            faulthandler.dump_traceback(all_threads=True)
            os._exit(HUNG)
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    if failed:
        raise failed[0]


def play(folder: Path, seed: int, *, workers: int = 2, victims: int = 2, threads: int = 3, steps: int = 20) -> None:
    """One schedule; AssertionError when a worker fails or waits for ever, or what is there is not what was said."""
    for name in NAMES:
        WorkspaceStore(folder / name).close()
    with _victims(folder, seed, victims, threads):
        processes = [_worker(folder, f"{seed} {number}", threads, steps) for number in range(workers)]
        try:
            _wait(processes)
        finally:
            for process in processes:
                process.kill()
    told = [process.communicate()[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(told)
    _judge(folder)


def _worker(folder: Path, seed: str, threads: int, steps: int) -> object:
    return program(__file__, "--work", folder, "--seed", seed, "--threads", threads, "--steps", steps)


def _wait(processes: list) -> None:
    """Until all have ended; once one has not ended well, the others show where they are."""
    while any(process.poll() is None for process in processes):
        time.sleep(0.1)
        if any(process.poll() not in (None, 0) for process in processes):
            for process in processes:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGUSR1)
            time.sleep(1.0)
            return


@contextmanager
def _victims(folder: Path, seed: int, count: int, threads: int) -> Iterator[None]:
    """Workers that are killed at random moments, and begin again."""
    ended = threading.Event()

    def kill_again_and_again(number: int) -> None:
        chance = random.Random(f"{seed} victim {number}")
        for again in itertools.count():
            process = _worker(folder, f"{seed} victim {number} {again}", threads, 1000)
            ended.wait(chance.uniform(0.3, 3.0))
            process.kill()
            _, errors = process.communicate()
            if process.returncode not in (0, -9):
                failed.append(errors)
            if ended.is_set() or failed:
                return

    failed: list[str] = []
    killers = [threading.Thread(target=kill_again_and_again, args=(number,)) for number in range(count)]
    for killer in killers:
        killer.start()
    try:
        yield
    finally:
        ended.set()
        for killer in killers:
            killer.join()
    assert not failed, failed[0]


def _judge(folder: Path) -> None:
    lines = [line.split() for ledger in folder.glob("ledger-*") for line in ledger.read_text().splitlines()]
    for name in NAMES:
        said = {what: {run for kind, where, run in lines if kind == what and where == name} for what in "+-!"}
        with WorkspaceStore(folder / name) as store:
            there = set(store.list_runs(limit=10**6)["run_id"])
            assert not (lost := said["+"] - said["-"] - there), f"{name}: {lost} were acknowledged"
            assert not (undead := said["!"] & there), f"{name}: {undead} were given up"
            report = store.verify()
            assert report, [str(each) for each in report.findings]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--work", type=Path)
    options.add_argument("--seed", default="1")
    options.add_argument("--threads", type=int, default=3)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--minutes", type=float, default=1.0)
    given = options.parse_args()
    if given.work is not None:
        work(given.work, given.seed, given.threads, given.steps)
        return
    end = time.monotonic() + 60 * given.minutes
    for seed in itertools.count(int(given.seed)):
        folder = Path(tempfile.mkdtemp(prefix="n4a_fast-schedule-"))
        print(f"seed {seed} in {folder}", flush=True)
        play(folder, seed, threads=given.threads, steps=given.steps)
        shutil.rmtree(folder)
        if time.monotonic() > end:
            return


if __name__ == "__main__":
    main()
