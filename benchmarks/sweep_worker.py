"""A process that sweeps when told; it answers with the seconds that took.

Each line of its input is a folder, a number of pipelines, whether to close the store, and a pickled shard or "-".
"""

from __future__ import annotations

import pickle
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
            folder, pipelines, closing, shard = line.rsplit(maxsplit=3)
            start = time.perf_counter()
            if folder not in sweeps:
                store = (
                    WorkspaceStore(folder, lock_timeout=120.0)
                    if shard == "-"
                    else pickle.loads(bytes.fromhex(shard)).open()
                )
                sweeps[folder] = Sweep(stores.enter_context(store))
            for _ in range(int(pipelines)):
                sweeps[folder].pipeline()
            if closing == "close":
                sweeps.pop(folder).store.close()
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
