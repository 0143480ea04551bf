"""Run by another environment's Python: nirs4all's own store saves the same sweep, one pipeline for each line of stdin.

Version 0.7.1 has the arrays in its database; later ones write those of a pipeline as one batch of Parquet rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from nirs4all.pipeline.storage.workspace_store import WorkspaceStore
from workloads import Sweep


class ArraysInBatches:
    """A store without `save_prediction_arrays`: they wait for the end of their pipeline."""

    def __init__(self, store: Any) -> None:
        self._store, self._waiting = store, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def save_prediction_arrays(self, prediction_id: str, y_true: Any, y_pred: Any, y_proba: Any, sample_indices: Any) -> None:
        arrays = {"y_true": y_true, "y_pred": y_pred, "y_proba": y_proba, "sample_indices": sample_indices}
        about = {"dataset_name": "corn", "model_name": "PLS", "fold_id": "0", "partition": "val", "metric": "rmse", "val_score": 0.1}
        self._waiting.append({"prediction_id": prediction_id, **about, "task_type": "regression", **arrays})

    def complete_pipeline(self, *values: Any) -> None:
        self._store.complete_pipeline(*values)
        self._store.array_store.save_batch(self._waiting)
        self._waiting.clear()


def main(folder: Path) -> None:
    store: Any = WorkspaceStore(folder)
    sweep = Sweep(store if hasattr(store, "save_prediction_arrays") else ArraysInBatches(store))
    for _ in sys.stdin:
        print(len(sweep.pipeline()), flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
