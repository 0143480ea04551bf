"""A sweep as a job array: each task fills a shard of its own, and one merge at the end brings them together.

    python job_array.py begin workspace                prints the id of a new run
    python job_array.py task workspace RUN 3 of 10     one task of the array, on any machine that sees the folder
    python job_array.py merge workspace RUN            absorbs all shards, ends the run, shows the best models

With Slurm, `sbatch --array=0-9` and in the script `python job_array.py task workspace $RUN $SLURM_ARRAY_TASK_ID of 10`.
A task that is killed is submitted again: it starts from an empty shard. A merge that is killed is repeated.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np

from n4a_fast import WorkspaceStore

VARIANTS = [(window, ridge) for window in (1, 3, 5, 9) for ridge in (1e-3, 1e-1, 1e1)]
BEST = """SELECT name, test_score FROM predictions JOIN pipelines USING (pipeline_id)
WHERE run_id = ? AND partition = 'test' ORDER BY test_score, name LIMIT 3"""


def spectra() -> tuple[np.ndarray, np.ndarray]:
    """120 spectra of 60 wavelengths, and the concentration that they were made from."""
    random = np.random.default_rng(0)
    concentration = random.uniform(0.0, 1.0, 120)
    peak = np.exp(-(((np.arange(60) - 30) / 6.0) ** 2))
    return concentration[:, None] * peak + random.normal(0.0, 0.05, (120, 60)), concentration


def fit(x: np.ndarray, y: np.ndarray, window: int, ridge: float) -> np.ndarray:
    """Ridge regression on spectra smoothed over `window` wavelengths: an intercept and the weights."""
    smooth = design(x, window)
    return np.linalg.solve(smooth.T @ smooth + ridge * np.eye(smooth.shape[1]), smooth.T @ y)


def design(x: np.ndarray, window: int) -> np.ndarray:
    smooth = np.apply_along_axis(np.convolve, 1, x, np.ones(window) / window, "same")
    return np.hstack([np.ones((len(x), 1)), smooth])


def begin(workspace: str) -> None:
    with WorkspaceStore(workspace) as store:
        print(store.begin_run("job array", {"variants": len(VARIANTS)}, [{"name": "synthetic"}]))


def task(workspace: str, run: str, number: int, tasks: int) -> None:
    """Every `tasks`-th variant, from the `number`-th on, into a shard of its own."""
    folder = Path(workspace) / "shards" / f"task_{number}"  # give a local disk here if the shared one is slow
    with WorkspaceStore.open_readonly(workspace) as store:
        shard = store.shard(folder, run_id=run)
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier attempt left, now that the run is known
    x, y = spectra()
    train, test = np.arange(0, 80), np.arange(80, 120)
    with shard.open() as store:
        for window, ridge in VARIANTS[number::tasks]:
            start = time.perf_counter()
            pipeline = store.begin_pipeline(
                run, f"window {window}, ridge {ridge:g}", {"window": window, "ridge": ridge}, [], "synthetic", "seed-0"
            )
            weights = fit(x[train], y[train], window, ridge)
            artifact = store.save_artifact(weights, "numpy.ndarray", "model", "joblib")
            steps = [
                {
                    "step_idx": 1,
                    "operator_class": "numpy.ndarray",
                    "params": {"window": window, "ridge": ridge},
                    "artifact_id": artifact,
                }
            ]
            chain = store.save_chain(
                pipeline, steps, 1, "Ridge", f"smooth {window}", "single", {"fold_0": artifact}, {}
            )
            errors = {}
            for partition, rows in (("train", train), ("test", test)):
                found = design(x[rows], window) @ weights
                errors[partition] = float(np.sqrt(np.mean((found - y[rows]) ** 2)))
                prediction = store.save_prediction(
                    pipeline,
                    chain,
                    "synthetic",
                    "Ridge",
                    "Ridge",
                    "0",
                    partition,
                    errors["train"],
                    errors.get("test"),
                    errors["train"],
                    "rmse",
                    "regression",
                    len(rows),
                    x.shape[1],
                    {partition: {"rmse": errors[partition]}},
                    {},
                    None,
                    None,
                    0,
                    0.0,
                )
                store.save_prediction_arrays(prediction, y[rows], found, None, rows)
            store.complete_pipeline(
                pipeline, errors["train"], errors["test"], "rmse", int(1000 * (time.perf_counter() - start))
            )


def merge(workspace: str, run: str) -> None:
    WorkspaceStore.open_readonly(workspace).close()  # raises where no workspace is; the next line would make one
    with WorkspaceStore(workspace, lock_timeout=600.0) as store:
        report = store.merge(progress=lambda path, done, total: print(f"{done}/{total} {path}", file=sys.stderr))
        pipelines = store.list_pipelines(run_id=run).height
        if pipelines < len(VARIANTS):
            sys.exit(
                f"{pipelines} of {len(VARIANTS)} variants are there; submit the tasks that are missing again, then"
                " merge again"
            )
        store.complete_run(run, {"pipelines": pipelines})
        print(
            f"{report.added('predictions')} predictions in {report.added('pipelines')} pipelines from"
            f" {len(report.sources)} shards"
        )
        for name, error in store.sql(BEST, [run]).rows():
            print(f"{error:.4f}  {name}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["begin", workspace]:
            begin(workspace)
        case ["task", workspace, run, number, "of", tasks]:
            task(workspace, run, int(number), int(tasks))
        case ["merge", workspace, run]:
            merge(workspace, run)
        case _:
            sys.exit(__doc__)
