"""Run in a child: a workspace of many chains with three predictions each, completed pipelines, and one chain that
predicts, the best one; prints the seconds it took.

Twenty models by six preprocessings, 40 samples a prediction; a run has 9,000 chains, saved as one block.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore

OF_RUN, FOLDS, SAMPLES, WIDTH = 9_000, 3, 40, 20
PREPROCESSINGS = ("SNV", "MSC > SG(11,2,1)", "SNV > SG(11,2,1)", "Detrend", "SNV > MinMax", "EMSC > Derivate")
Y_TRUE = np.arange(float(SAMPLES))


def main(folder: Path, chains: int) -> float:
    begun, rng = time.perf_counter(), np.random.default_rng(0)
    with WorkspaceStore(folder) as store:
        _save_the_best(store, rng)
        for first, last in pairwise([*range(0, chains, OF_RUN), chains]):
            with store.transaction():
                _save_run(store, first, last, rng)
    return time.perf_counter() - begun


def _save_the_best(store: WorkspaceStore, rng: np.random.Generator) -> None:
    X = rng.normal(size=(SAMPLES, WIDTH))
    store.save_cross_validation(Ridge(), X, X @ np.full(WIDTH, 1e-3), cv=FOLDS, refit=False, dataset="corn")


def _save_run(store: WorkspaceStore, first: int, last: int, rng: np.random.Generator) -> None:
    run = store.begin_run(f"sweep {first}", {}, [{"name": "corn"}])
    steps, rows = [{"step_idx": 1, "operator_class": "PLS", "params": {}}], FOLDS * (last - first)
    pipelines: list[str] = []
    columns: dict[str, Any] = {name: [] for name in ("pipeline_id", "chain_id", "model_name", "preprocessings")}
    for number in range(first, last):
        pipelines.append(store.begin_pipeline(run, f"p{number}", {}, [], "corn", "h"))
        names = (f"model {number % 20}", PREPROCESSINGS[number % 6])
        chain = store.save_chain(pipelines[-1], steps, 1, names[0], names[1], "per_fold", {}, {})
        for name, value in zip(columns, (pipelines[-1], chain, *names), strict=True):
            columns[name] += [value] * FOLDS
    columns |= {"fold_id": [str(row % FOLDS) for row in range(rows)], "val_score": 1 + rng.random(rows)}
    columns |= {"dataset_name": "corn", "model_class": "PLS", "partition": "val", "metric": "rmse"}
    columns |= {"task_type": "regression", "n_samples": SAMPLES, "scores": {"val": {"rmse": 0.5, "r2": 0.9}}}
    store.save_predictions(columns, y_pred=Y_TRUE + rng.normal(size=(rows, SAMPLES)), y_true=Y_TRUE)
    for pipeline in pipelines:
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    store.complete_run(run, {})


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2])))
