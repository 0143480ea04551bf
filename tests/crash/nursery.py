"""Workers to be killed, forked from one interpreter that has imported everything: a start takes milliseconds.

Reads `workload folder acknowledgements seed` from stdin, answers with the worker's process id. What a
worker's call has returned for is appended to the file of acknowledgements by one write each.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from helpers import PREDICTION, Sweep, begin_pipeline, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.merging import merge as merging

Acknowledge = Callable[..., None]
FOLDS, PARTITIONS = 3, ("train", "val")  # of a drop-in pipeline
BULK_ROWS = 40


def drop_in(store: WorkspaceStore, acknowledge: Acknowledge, _dice: random.Random) -> None:
    """Whole pipelines, one after the other."""
    run = store.begin_run("drop-in", {}, [{"name": "corn"}])
    while True:
        acknowledge("pipeline", fill_pipeline(store, run, "drop-in"))


def bulk(store: WorkspaceStore, acknowledge: Acknowledge, _dice: random.Random) -> None:
    """Bulk calls into pipelines that go on; each call is whole or not there."""
    run = store.begin_run("bulk", {}, [])
    while True:
        pipeline = begin_pipeline(store, run, "bulk")
        for call in range(3):
            columns = {**PREDICTION, "pipeline_id": pipeline, "fold_id": [f"{call}-{row}" for row in range(BULK_ROWS)]}
            store.save_predictions(columns, y_pred=np.full((BULK_ROWS, 5), float(call)), y_true=np.arange(5.0))
            acknowledge("bulk", f"{pipeline}/{call}")


def delete(store: WorkspaceStore, acknowledge: Acknowledge, dice: random.Random) -> None:
    """Runs that come and go, whole."""
    while True:
        run = store.begin_run("delete", {}, [])
        for _ in range(2):
            fill_pipeline(store, run, "delete")
        store.complete_run(run, {})
        acknowledge("run", run)
        if dice.random() < 0.8:
            acknowledge("deleting", run)
            store.delete_run(run)
            acknowledge("deleted", run)


def merge(store: WorkspaceStore, acknowledge: Acknowledge, dice: random.Random) -> None:
    """The shards below, those that are not here first, again and again; what is taken from a journal is said before and
    after.
    """
    take = merging.merge_tables

    def take_and_say(target: Any, root: Path, *rest: Any) -> Any:
        acknowledge("taking", root.name)
        merged = take(target, root, *rest)
        acknowledge("taken", root.name)
        return merged

    merging.merge_tables = take_and_say
    while True:
        there = set(store.list_pipelines()["name"])
        store.merge(
            *sorted((store.workspace_path / "shards").iterdir(), key=lambda shard: (shard.name in there, dice.random()))
        )


def fill_pipeline(store: WorkspaceStore, run: str, name: str, shift: float = 0.0) -> str:
    pipeline = begin_pipeline(store, run, name)
    artifact = store.save_artifact({"worker": pipeline}, "dict", "model", "joblib")
    chain = save_chain(store, pipeline, fold_artifacts={"fold_0": artifact})
    for fold in range(FOLDS):
        for partition in PARTITIONS:
            predict_with_arrays(
                store, Sweep(run, pipeline, chain), fold + shift, fold_id=str(fold), partition=partition
            )
    store.log_step(pipeline, 1, "SNV", "end")
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return pipeline


WORKLOADS = {"drop-in": drop_in, "draining": drop_in, "bulk": bulk, "delete": delete, "merge": merge}


def work(workload: str, folder: str, acknowledgements: str, seed: str) -> None:
    target = os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    rows = 20 if workload == "draining" else 4096  # a drain every third pipeline
    store = WorkspaceStore(Path(folder), flush_rows=rows)
    WORKLOADS[workload](
        store, lambda *words: os.write(target, (" ".join(words) + "\n").encode()), random.Random(int(seed))
    )


def main() -> None:
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            work(*line.split())
        print(process, flush=True)
        os.waitpid(process, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
