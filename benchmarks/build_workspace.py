"""Run in a child: a workspace of many predictions through the bulk call, and what it took, as JSON.

Runs of 10,000 predictions, each of 10 pipelines with 1,000: 334 folds by 3 partitions, less two. Five model classes,
y_true shared by all; y_pred random, so that nothing compresses that would not in a real sweep.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from slower import slow_down
from workloads import SAMPLES, SCORES

from n4a_fast import WorkspaceStore

RUN, PIPELINE = 10_000, 1_000
MODELS = ("PLS", "Ridge", "SVR", "Forest", "Kriging")


def main(folder: Path, rows: int) -> dict[str, Any]:
    slow_down()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    matrix, curve, start = np.random.default_rng(0).random((RUN, SAMPLES)), [], time.perf_counter()
    with WorkspaceStore(folder) as store:
        for run in range(rows // RUN):
            turn = time.perf_counter()
            save_run(store, matrix + run)
            curve.append(((run + 1) * RUN, time.perf_counter() - turn))
    return {
        "rows": rows,
        "seconds": time.perf_counter() - start,
        "curve": curve,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_before_mb": before / 1024,
    }


def save_run(store: WorkspaceStore, y_pred: np.ndarray[Any, Any]) -> str:
    """A run of RUN predictions, in one durable bulk call."""
    run = store.begin_run("sweep", {"cv": 7}, [{"name": "corn"}])
    pipelines = [store.begin_pipeline(run, f"p{number}", {}, [], "corn", "h") for number in range(RUN // PIPELINE)]
    within = np.arange(RUN) % PIPELINE
    store.save_predictions(
        {
            "pipeline_id": np.repeat(pipelines, PIPELINE).tolist(),
            "dataset_name": "corn",
            "metric": "rmse",
            "task_type": "regression",
            "model_name": [MODELS[place % 5] for place in within],
            "model_class": [MODELS[place % 5] for place in within],
            "fold_id": [str(place // 3) for place in within],
            "partition": [("train", "val", "test")[place % 3] for place in within],
            "val_score": y_pred[:, 0],
            "test_score": y_pred[:, 1],
            "train_score": y_pred[:, 2],
            "n_samples": SAMPLES,
            "n_features": 700,
            "scores": SCORES,
        },
        y_pred=y_pred,
        y_true=np.arange(float(SAMPLES)),
        sample_indices=np.arange(SAMPLES),
    )
    for pipeline in pipelines:
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    store.complete_run(run, {"predictions": RUN})
    return run


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
