"""Writers to be killed, forked from one interpreter that has imported everything: a start takes milliseconds.

Reads one JSON object a line from stdin, a plan of what the writer does and how it ends; answers with its process id,
and with its status once it is gone.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from hands import Hands
from ledger import GaveUp, Ledger
from upheaval import upheave

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError

_SHIM = ctypes.CDLL(None)  # preloaded


def refuse(folder: str, seed: int, permille: int, burst: int) -> None:
    _SHIM.crash_refuse(folder.encode(), ctypes.c_uint64(seed), ctypes.c_uint(permille), ctypes.c_uint(burst))


class Writer:
    """One process of a round."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.dice = plan, random.Random(plan["seed"])
        self.ledgers = Path(plan["ledgers"])
        self.main = Ledger(self.ledgers / f"{plan['name']}-main")

    def work(self) -> None:
        plan = self.plan
        if plan["dies"]:
            _SHIM.crash_die(plan["folder"].encode(), ctypes.c_ulong(plan["dies"]))
        if plan["refuses"]:
            refuse(plan["folder"], plan["seed"], plan["refuses"], plan["burst"])
        store = self.opened(self.main)
        threads = [
            threading.Thread(target=self.lend, args=(store, number), daemon=plan["daemons"])
            for number in range(plan["threads"])
        ]
        for thread in threads:
            thread.start()
        Hands(store, self.main, self.dice).work(plan["steps"])
        if plan["forks"] and not threads:
            self.fork(store)
            Hands(store, self.main, self.dice).work(plan["steps"] // 4)
        if not plan["daemons"]:
            for thread in threads:
                thread.join()
        refuse("", 0, 0, 0)
        if plan["upheaval"] and not threads:
            store = upheave(plan["upheaval"], store, self.opened, self.ledgers, plan["name"], self.dice)
            self.main = Ledger(self.ledgers / f"{plan['name']}-end")
        self.end(store)

    def opened(self, ledger: Ledger) -> WorkspaceStore:
        """The store, after some attempts where the disk refuses."""
        for attempt in range(20):
            try:
                return ledger.call("look", self.open)
            except GaveUp:
                if attempt == 5:
                    refuse("", 0, 0, 0)
        ledger.say("wrong", what="the store cannot be opened")
        sys.exit(3)

    def open(self) -> WorkspaceStore:
        plan = self.plan
        return WorkspaceStore(
            plan["folder"], flush_rows=plan["flush_rows"], flush_interval=plan["flush_interval"], lock_timeout=60.0
        )

    def lend(self, store: WorkspaceStore, number: int) -> None:
        """What another thread does with the same store, or with one of its own."""
        ledger = Ledger(self.ledgers / f"{self.plan['name']}-t{number}")
        dice = random.Random(self.plan["seed"] * 31 + number)
        try:
            for _ in range(self.plan["steps"]):
                if dice.random() < 0.1 and self.plan["clock"]:
                    _SHIM.crash_step(ctypes.c_double(dice.choice([1.0, -1.0, 3600.0, -3600.0])))
                if dice.random() < 0.2:
                    with WorkspaceStore(self.plan["folder"], lock_timeout=60.0) as own:
                        Hands(own, ledger, dice).work(2)
                else:
                    Hands(store, ledger, dice).work(1)
        except StoreError as error:
            ledger.say("failed to open", error=type(error).__name__, told=str(error))
        if not self.plan["daemons"]:
            ledger.say("ends with its process")

    def fork(self, store: WorkspaceStore) -> None:
        """A child works on in the parent's store, or is told at once that it cannot."""
        child = os.fork()
        if not child:
            ledger = Ledger(self.ledgers / f"{self.plan['name']}-fork")
            Hands(store, ledger, random.Random(self.plan["seed"] + 1)).work(4)
            if self.dice.random() < 0.5:
                os._exit(0)
            ledger.say("ends", how="exit")
            sys.exit(0)
        deadline = time.monotonic() + 240.0
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                self.main.say("wrong", what="a forked child hangs")
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)

    def end(self, store: WorkspaceStore) -> None:
        """As the plan says; where Python goes on to its end, nothing may be lost."""
        how = self.plan["end"]
        self.main.say("ends", how=how)
        if how == "close":
            store.close()
        elif how == "os._exit":
            os._exit(0)
        elif how == "sys.exit":
            sys.exit(0)
        elif how == "exception":
            raise GaveUp("the end of this writer")
        elif how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        elif how == "pool":
            pool = ThreadPoolExecutor(2)
            try:
                for number in range(10, 14):
                    pool.submit(self.lend, store, number)
            finally:  # interrupted as it begins a thread, the pool would never tell it to end, and Python wait for it
                pool.shutdown(wait=False)
        elif how == "waits":
            while True:
                time.sleep(1.0)


def stop(_signal: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    for line in sys.stdin:
        plan = json.loads(line)
        process = os.fork()
        if not process:
            sys.stdin.close()
            os.setpgid(0, 0)  # its children can be ended with it
            log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            faulthandler.register(signal.SIGUSR1, all_threads=True)
            signal.signal(signal.SIGTERM, stop)
            Writer(plan).work()
            return
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
