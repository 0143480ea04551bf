"""Workloads that several benchmarks share: a sweep's drop-in calls, and many predictions at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the sweep also runs on other stores, where n4a_fast is not installed
    from n4a_fast import WorkspaceStore

SAMPLES = 200
SCORES = {part: {f"metric_{number}": 0.123456789 * number for number in range(6)} for part in ("train", "val", "test")}


class Sweep:
    """The drop-in calls of one pipeline: 7 folds by 3 partitions, n = 200, arrays, chain and log."""

    def __init__(self, store: WorkspaceStore) -> None:
        self.store = store
        self.run = store.begin_run("sweep", {}, [{"name": "corn"}])
        self.y_pred = np.random.default_rng(0).random(SAMPLES)
        self.y_true, self.indices = np.arange(float(SAMPLES)), np.arange(SAMPLES)

    def pipeline(self) -> list[str]:
        store = self.store
        pipeline = store.begin_pipeline(self.run, "p", {"model": "PLS"}, [], "corn", "h")
        chain = store.save_chain(
            pipeline, [{"step_idx": 1, "operator_class": "PLS", "params": {}}], 1, "PLS", "", "per_fold", {}, {}
        )
        store.log_step(pipeline, 1, "PLS", "end", 5)
        ids = []
        for fold in range(7):
            for partition in ("train", "val", "test"):
                prediction = store.save_prediction(
                    pipeline,
                    chain,
                    "corn",
                    "PLS",
                    "PLS",
                    str(fold),
                    partition,
                    0.1,
                    0.2,
                    0.05,
                    "rmse",
                    "regression",
                    SAMPLES,
                    700,
                    SCORES,
                    {},
                    None,
                    None,
                    0,
                    0.0,
                )
                store.save_prediction_arrays(prediction, self.y_true, self.y_pred, None, self.indices)
                ids.append(prediction)
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 10)
        return ids


def fill(
    store: WorkspaceStore, rows: int, matrix: np.ndarray[Any, Any] | None = None, run: str | None = None
) -> list[str]:
    """One pipeline of `rows` predictions through the bulk call, in a run of its own unless given."""
    pipeline = store.begin_pipeline(run or store.begin_run("bulk", {}, []), "p", {}, [], "corn", "h")
    matrix = np.random.default_rng(0).random((rows, SAMPLES)) if matrix is None else matrix
    ids = store.save_predictions(fill_columns(pipeline, matrix), y_pred=matrix, y_true=np.arange(float(SAMPLES)))
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return ids


def fill_columns(pipeline: str, matrix: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Columns of a bulk call: a prediction of one pipeline for each row of the matrix."""
    return {
        "pipeline_id": pipeline,
        "dataset_name": "corn",
        "model_name": "PLS",
        "model_class": "Bulk",
        "partition": "val",
        "fold_id": [str(row) for row in range(len(matrix))],
        "val_score": matrix[:, 0],
        "scores": SCORES,
    }


def chains_with_columns(
    store: WorkspaceStore, run: str, chains: int, of_chain: int
) -> tuple[list[str], dict[str, Any]]:
    """New pipelines of one chain each, and columns of a bulk call for `of_chain` predictions of each, up to 20: five
    folds by partitions and branches. Scores are the caller's.
    """
    pipelines = [store.begin_pipeline(run, "p", {}, [], "corn", "h") for _ in range(chains)]
    steps = [{"step_idx": 1, "operator_class": "PLS", "params": {}}]
    ids = [store.save_chain(each, steps, 1, "PLS", "SNV", "per_fold", {}, {}) for each in pipelines]
    place, number = np.repeat(np.arange(chains), of_chain), np.tile(np.arange(of_chain), chains)
    columns = {
        "pipeline_id": [pipelines[each] for each in place],
        "chain_id": [ids[each] for each in place],
        "dataset_name": "corn",
        "model_name": "PLS",
        "model_class": "PLS",
        "fold_id": [str(each % 5) for each in number],
        "partition": [("val", "test", "train", "val")[each // 5] for each in number],
        "branch_id": (number // 15).tolist(),
        "metric": "rmse",
    }
    return pipelines, columns


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
