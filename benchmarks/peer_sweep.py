"""Run by another environment's Python: nirs4all's own store saves the same sweep, one pipeline for each line of stdin.

Version 0.7.1 has the arrays in its database; later ones write those of a pipeline as one batch of Parquet rows.
Predictions that are there before come by SQL into 0.7.1's tables, which would take it a quarter of an hour by its
calls, and by their own calls into later ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nirs4all.pipeline.storage.workspace_store import WorkspaceStore
from workloads import SAMPLES, SCORES, Sweep


class ArraysInBatches:
    """A store without `save_prediction_arrays`: they wait for the end of their pipeline."""

    def __init__(self, store: Any) -> None:
        self._store, self._waiting = store, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def save_prediction_arrays(
        self, prediction_id: str, y_true: Any, y_pred: Any, y_proba: Any, sample_indices: Any
    ) -> None:
        arrays = {"y_true": y_true, "y_pred": y_pred, "y_proba": y_proba, "sample_indices": sample_indices}
        about = {
            "dataset_name": "corn",
            "model_name": "PLS",
            "fold_id": "0",
            "partition": "val",
            "metric": "rmse",
            "val_score": 0.1,
        }
        self._waiting.append({"prediction_id": prediction_id, **about, "task_type": "regression", **arrays})

    def complete_pipeline(self, *values: Any) -> None:
        self._store.complete_pipeline(*values)
        self._store.array_store.save_batch(self._waiting)
        self._waiting.clear()


_THERE = (
    "INSERT INTO pipelines (pipeline_id, run_id, name, dataset_name) VALUES ('there', $run, 'p', 'corn')",
    (
        "INSERT INTO chains (chain_id, pipeline_id, steps, model_step_idx, model_class) VALUES ('there', 'there', '[]',"
        " 1, 'PLS')"
    ),
    """INSERT INTO predictions (prediction_id, pipeline_id, chain_id, dataset_name, model_name, model_class, fold_id,
    partition, val_score, test_score,
        train_score, metric, task_type, n_samples, n_features, scores, best_params)
    SELECT uuid()::VARCHAR, 'there', 'there', 'corn', 'PLS', 'PLS', i::VARCHAR, 'val', 0.1, 0.2, 0.05, 'rmse',
    'regression', $samples, 700, $scores, '{}'
    FROM range($rows) t(i)""",
    """INSERT INTO prediction_arrays (prediction_id, y_true, y_pred, sample_indices)
    SELECT prediction_id, [x FOR x IN range($samples)], [random() FOR x IN range($samples)], [x FOR x IN
    range($samples)] FROM predictions""",
)


def fill_by_sql(connection: Any, run: str, rows: int) -> None:
    """Predictions with arrays in version 0.7.1's tables, as its calls would leave them."""
    values = {"run": run, "rows": rows, "samples": SAMPLES, "scores": json.dumps(SCORES)}
    for statement in _THERE:
        connection.execute(statement, {name: value for name, value in values.items() if f"${name}" in statement})


def main(folder: Path, rows: int) -> None:
    store: Any = WorkspaceStore(folder)
    sweep = Sweep(store if hasattr(store, "save_prediction_arrays") else ArraysInBatches(store))
    if hasattr(store, "save_prediction_arrays"):
        fill_by_sql(store._ensure_open(), sweep.run, rows)
    else:
        while rows > 0:
            rows -= len(sweep.pipeline())
    for _ in sys.stdin:
        print(len(sweep.pipeline()), flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
