"""Gate: writing. Workloads are in the functions; seed 0, one caller thread, DuckDB's default threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from conftest import SAMPLES, SCORES, Sweep, interleaved
from reference import RowByRowStore

from n4a_fast import WorkspaceStore

Gate = Callable[[str, Callable[[], float]], None]
ROWS = 16_384


def test_dropin_pipeline_vs_row_by_row(gate: Gate, store: WorkspaceStore, tmp_path: Path) -> None:
    sweep, reference = Sweep(store), RowByRowStore(tmp_path)
    reference.fill(10_000, SAMPLES)
    fill(store, 10_000)

    def plain() -> None:
        pipeline = reference.begin_pipeline()
        for fold in range(7):
            for partition in ("train", "val", "test"):
                reference.save(pipeline, str(fold), partition, 0.1, SCORES, (sweep.y_true, sweep.y_pred, sweep.indices))

    gate("dropin_pipeline_vs_row_by_row", lambda: interleaved(plain, sweep.pipeline, 7))
    stored = store.sql("SELECT count(*) AS n FROM prediction_arrays WHERE len(y_pred) = 200 AND len(y_true) = 200")["n"][0]
    assert stored == reference.count() > 10_000
    reference.close()


def test_dropin_growth(gate: Gate, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "empty") as empty, WorkspaceStore(tmp_path / "full") as full:
        fill(full, 40_000)
        small, large = Sweep(empty), Sweep(full)
        gate("dropin_growth", lambda: interleaved(small.pipeline, large.pipeline, 40))
        assert len(full.query_predictions(model_class="PLS")) == len(empty.query_predictions()) > 0


def test_bulk_vs_bare_insert(gate: Gate, store: WorkspaceStore, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).random((ROWS, SAMPLES))
    values = pa.ListArray.from_arrays(pa.array(np.arange(ROWS + 1, dtype=np.int32) * SAMPLES), pa.array(matrix.reshape(-1)))
    batch = pa.table({"prediction_id": [str(row) for row in range(ROWS)], "y_pred": values})
    bare = duckdb.connect(str(tmp_path / "bare.duckdb"))
    bare.execute("CREATE TABLE bare (prediction_id VARCHAR, y_pred DOUBLE[])")
    bare.register("batch", batch)

    gate("bulk_vs_bare_insert", lambda: interleaved(lambda: bare.execute("INSERT INTO bare SELECT * FROM batch"), lambda: fill(store, ROWS, matrix), 5))
    stored = store.load_arrays(pipeline_id=store.list_pipelines()["pipeline_id"][0], columns=("y_pred",))
    assert np.array_equal(np.sort(stored.y_pred_2d(), axis=0), np.sort(matrix, axis=0))
    bare.close()


def test_bytes_kept_per_prediction(gate: Gate, tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        fill(store, ROWS)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert len(store.query_predictions()) == ROWS
    gate("bytes_kept_per_prediction", lambda: (tmp_path / "store.duckdb").stat().st_size / ROWS)


def fill(store: WorkspaceStore, rows: int, matrix: np.ndarray[Any, Any] | None = None) -> list[str]:
    """One pipeline of `rows` predictions through the bulk call."""
    pipeline = store.begin_pipeline(store.begin_run("bulk", {}, []), "p", {}, [], "corn", "h")
    matrix = np.random.default_rng(0).random((rows, SAMPLES)) if matrix is None else matrix
    columns = {
        "pipeline_id": pipeline, "dataset_name": "corn", "model_name": "PLS", "model_class": "Bulk", "partition": "val",
        "fold_id": [str(row) for row in range(rows)], "val_score": matrix[:, 0], "scores": SCORES,
    }  # fmt: skip
    ids = store.save_predictions(columns, y_pred=matrix, y_true=np.arange(float(SAMPLES)))
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return ids
