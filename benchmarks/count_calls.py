"""Run in a child with native/counters.c preloaded: what drop-in sweeps and bulk calls ask of DuckDB, the disk and the
heap.

Prints one JSON object. Statements are counted where they leave Python: `duckdb.connect` gives connections that count.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from slower import slow_down
from workloads import SAMPLES, Sweep, fill, folder_bytes

from n4a_fast import WorkspaceStore
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

PIPELINES = 3120  # four drains of the journal into the tables
ROWS = 4096
NEW = 10  # workspaces, after the first one of the process
DELETED = 100  # predictions, of five pipelines, four of which they empty
COUNTERS = ("syncs", "writes", "bytes_written", "large_bytes", "allocations")


def main(folder: Path) -> dict[str, Any]:
    slow_down()
    connect = duckdb.connect
    duckdb.connect = lambda *args, **kwargs: CountedConnection(connect(*args, **kwargs))
    found: dict[str, Any] = {"pipelines": PIPELINES, "predictions": 21 * PIPELINES, "workspaces": NEW}
    with WorkspaceStore(folder / "dropin") as store:
        sweep = Sweep(store)
        sweep.pipeline(), store.flush()
        found["one_pipeline"] = _counted(sweep.pipeline)
        found["sweep"] = _counted(lambda: [sweep.pipeline() for _ in range(PIPELINES)])
        assert len(store.query_predictions()) == 21 * (PIPELINES + 2)
    with WorkspaceStore(folder / "written") as store:
        found["whole"] = _counted(lambda: _whole(store))
    found["whole"]["kept"] = folder_bytes(folder / "written")
    for name, kind in (("deletions", WorkspaceStore), ("deletions_in_1x", Store1x)):
        with kind(folder / "written") as store:
            found[name] = _deletions(store)
    with WorkspaceStore(folder / "bulk") as store:
        found["bulk"] = _bulk(store)
    found["new"] = _counted(lambda: [WorkspaceStore(folder / f"new {each}").close() for each in range(NEW)])
    return found


def _whole(store: WorkspaceStore) -> None:
    """A sweep from the first call to the closed file."""
    sweep = Sweep(store)
    for _ in range(PIPELINES):
        sweep.pipeline()
    store.close()


def _deletions(store: WorkspaceStore) -> dict[str, int]:
    """Single deletions, one after the other, and the read after them, which sees none of them."""
    in_order = "SELECT prediction_id FROM predictions ORDER BY pipeline_id, prediction_id"  # a pipeline after the other
    saved = store.sql(in_order)["prediction_id"].to_list()

    def delete() -> None:
        assert all(store.delete_prediction(each) for each in saved[:DELETED])
        assert store.get_prediction(saved[DELETED]) is not None

    counted = _counted(delete)
    assert store.sql("SELECT count(*) FROM predictions").item() == len(saved) - DELETED
    return counted


def _bulk(store: WorkspaceStore) -> dict[str, float]:
    """Bytes of large blocks asked from the heap over the bytes of the matrix, by its dtype."""
    matrix, found = np.random.default_rng(0).random((ROWS, SAMPLES)), {}
    fill(store, ROWS, matrix)
    for name, values in {
        "float64": matrix,
        "float32": matrix.astype(np.float32),
        "fortran": np.asfortranarray(matrix),
    }.items():
        found[name] = _counted(lambda values=values: fill(store, ROWS, values))["large_bytes"] / matrix.nbytes
    assert len(store.load_arrays(model_class="Bulk")) == 4 * ROWS
    return found


def _counted(work: Callable[[], object]) -> dict[str, int]:
    before = _counters()
    work()
    return {name: count - before[name] for name, count in _counters().items()}


def _counters() -> dict[str, int]:
    library = ctypes.CDLL(None)
    return {name: ctypes.c_long.in_dll(library, f"n4a_{name}").value for name in COUNTERS} | {
        "statements": CountedConnection.statements
    }


class CountedConnection:
    """A DuckDB connection that counts the statements it is given, in whatever thread."""

    statements = 0

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "executemany", "sql", "query"):
            CountedConnection.statements += 1
        found = getattr(self._connection, name)
        return (lambda: CountedConnection(found())) if name == "cursor" else found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
