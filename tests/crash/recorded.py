"""A program whose file operations are recorded: `workload folder record`, run with the recorder preloaded.

Marks in the record say what was acknowledged. A value is what all `y_pred` of a pipeline sum up to.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers import PREDICTION, Sweep, begin_pipeline, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore

FOLDS = 4
BULK_ROWS = 1200  # more than a journal takes


class Scribe:
    """Pipelines saved through one folder, and what is said of them."""

    def __init__(self, folder: Path, mark: Callable[[str], object]) -> None:
        self.folder, self.mark = folder, mark

    def open(self) -> WorkspaceStore:
        return WorkspaceStore(self.folder, flush_interval=None)

    def pipeline(self, store: WorkspaceStore, run: str, shift: float, within: str = "") -> None:
        """A small pipeline with an artifact, flushed once."""
        pipeline = begin_pipeline(store, run)
        artifact = store.save_artifact({"of": pipeline, "is": [shift] * 200}, "dict", "model", "joblib")
        chain = save_chain(store, pipeline, fold_artifacts={"fold_0": artifact})
        for fold in range(FOLDS):
            predict_with_arrays(store, Sweep(run, pipeline, chain), shift + fold, fold_id=str(fold))
        store.log_step(pipeline, 1, "SNV", "end")
        value = sum(5 * (shift + fold) + 10 for fold in range(FOLDS))
        self.mark(f"saving {within or run} {pipeline} {FOLDS} {value}")
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        self.mark(f"{'shelved' if within else 'saved'} {within or run} {pipeline} {FOLDS} {value}")

    def bulk(self, store: WorkspaceStore, run: str) -> None:
        """A bulk call of more rows than a journal takes."""
        pipeline = begin_pipeline(store, run)
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        columns = {**PREDICTION, "pipeline_id": pipeline, "fold_id": [str(row) for row in range(BULK_ROWS)]}
        values = np.arange(BULK_ROWS * 5.0).reshape(BULK_ROWS, 5)
        self.mark(f"saving {run} {pipeline} {BULK_ROWS} {values.sum()}")
        store.save_predictions(columns, y_pred=values, y_true=np.arange(5.0))
        self.mark(f"saved {run} {pipeline} {BULK_ROWS} {values.sum()}")


def drain(scribe: Scribe) -> None:
    """Small flushes, their drain before a read, and the checkpoint when the file is let go: three times."""
    for turn in range(3):
        with scribe.open() as store:
            run = store.begin_run("drain", {}, [])
            for number in range(2):
                scribe.pipeline(store, run, turn + number / 4)
            store.list_runs()
            scribe.pipeline(store, run, turn + 0.75)


def bulk(scribe: Scribe) -> None:
    """Rows that go straight into the tables."""
    for _ in range(2):
        with scribe.open() as store:
            scribe.bulk(store, store.begin_run("bulk", {}, []))


def delete(scribe: Scribe) -> None:
    """A run that goes with all its rows and files while another stays."""
    with scribe.open() as store:
        doomed, kept = store.begin_run("doomed", {}, []), store.begin_run("kept", {}, [])
        for run in (doomed, kept):
            scribe.pipeline(store, run, 1.0)
    with scribe.open() as store:
        scribe.mark(f"deleting {doomed}")
        store.delete_run(doomed)
        scribe.mark(f"deleted {doomed}")
        scribe.pipeline(store, kept, 2.0)


def vacuum(scribe: Scribe) -> None:
    """The file copied and replaced, with rows before and after it."""
    with scribe.open() as store:
        run = store.begin_run("vacuum", {}, [])
        scribe.pipeline(store, run, 1.0)
        store.vacuum()
        scribe.pipeline(store, run, 2.0)


def merge(scribe: Scribe) -> None:
    """Two shards absorbed: one that rests in its journal, one with tables."""
    with scribe.open() as store:
        run = store.begin_run("merge", {}, [])
        store.flush()
        for big in (False, True):
            shard = store.shard(run_id=run)
            with shard.open() as inner:
                scribe.pipeline(inner, run, 3.0 + big, within=shard.path.name)
                if big:
                    inner.list_runs()
            scribe.mark(f"merging {shard.path.name} {run}")
            store.merge(shard)
            scribe.mark(f"merged {shard.path.name} {run}")


WORKLOADS = {work.__name__: work for work in (drain, bulk, delete, vacuum, merge)}


def main(workload: str, folder: str, record: str) -> None:
    recorder = ctypes.CDLL(None)
    scribe = Scribe(Path(folder), lambda text: recorder.record_mark(text.encode()))
    if not recorder.record_start(folder.encode(), record.encode()):
        raise OSError(f"{record} cannot be written")
    WORKLOADS[workload](scribe)
    recorder.record_stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
