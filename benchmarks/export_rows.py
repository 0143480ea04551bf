"""Run as a process of its own: exports predictions, and prints by how much memory it grew.

python export_rows.py workspace target arrays     # prints {"megabytes": ..., "seconds": ...}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from n4a_fast import WorkspaceStore


def resident() -> float:
    """Largest memory of this process so far, in MB; getrusage would begin with that of the parent."""
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) / 1024


if __name__ == "__main__":
    workspace, target, arrays = sys.argv[1:]
    with WorkspaceStore.open_readonly(workspace) as store:
        store.sql("SELECT 1")
        before, start = resident(), time.perf_counter()
        store.export_predictions_parquet(target, arrays=bool(int(arrays)))
        print(json.dumps({"megabytes": resident() - before, "seconds": time.perf_counter() - start}))
