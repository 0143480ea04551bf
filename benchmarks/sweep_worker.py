"""A process that sweeps when told: each line of its input is a folder and a number of pipelines; it answers with the seconds they took."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from workloads import Sweep

from n4a_fast import WorkspaceStore


def main() -> None:
    with ExitStack() as stores:
        sweeps: dict[str, Sweep] = {}
        print("ready", flush=True)
        for line in sys.stdin:
            folder, pipelines, closing = line.rsplit(maxsplit=2)
            start = time.perf_counter()
            if folder not in sweeps:
                sweeps[folder] = Sweep(stores.enter_context(WorkspaceStore(folder, lock_timeout=120.0)))
            for _ in range(int(pipelines)):
                sweeps[folder].pipeline()
            if closing == "close":
                sweeps.pop(folder).store.close()
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
