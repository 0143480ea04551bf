"""A program whose file operations are recorded: `workload place record`, run with the recorder preloaded.

`prepare workload place` makes ready what a workload needs, and is not recorded. All folders lie below `place`, the
first workspace in `workspace`. Marks in the record say what was acknowledged, of which folder. A value is what all
`y_pred` of a pipeline sum up to.
"""

from __future__ import annotations

import ctypes
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from foreign import OLD, unpacked
from helpers import PREDICTION, Sweep, begin_pipeline, plain_rows, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.integrations.workspaces import migrate as migrate_in_place

FOLDS = 4
BULK_ROWS = 1200  # more than a journal takes
_FORMAT_1 = Path(__file__).parents[1] / "data" / "formats" / "format_1.zip"
SUMS = """SELECT pipeline_id, count(*), count(y_pred), sum(list_sum(y_pred)) FROM predictions
LEFT JOIN prediction_arrays USING (prediction_id) GROUP BY ALL"""


class Scribe:
    """Pipelines saved through one folder, and what is said of them."""

    def __init__(self, place: Path, mark: Callable[[str], object]) -> None:
        self.place, self.folder, self.mark = place, place / "workspace", mark

    def open(self) -> WorkspaceStore:
        return WorkspaceStore(self.folder, flush_interval=None)

    def pipeline(self, store: WorkspaceStore, run: str, shift: float) -> None:
        """A small pipeline with an artifact, flushed once."""
        pipeline = begin_pipeline(store, run)
        artifact = store.save_artifact({"of": pipeline, "is": [shift] * 200}, "dict", "model", "joblib")
        chain = save_chain(store, pipeline, fold_artifacts={"fold_0": artifact})
        for fold in range(FOLDS):
            predict_with_arrays(store, Sweep(run, pipeline, chain), shift + fold, fold_id=str(fold))
        store.log_step(pipeline, 1, "SNV", "end")
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        value = sum(5 * (shift + fold) + 10 for fold in range(FOLDS))
        self.saved(store.workspace_path, run, pipeline, FOLDS, value)

    def bulk(self, store: WorkspaceStore, run: str) -> None:
        """A bulk call of more rows than a journal takes."""
        pipeline = begin_pipeline(store, run)
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        columns = {**PREDICTION, "pipeline_id": pipeline, "fold_id": [str(row) for row in range(BULK_ROWS)]}
        values = np.arange(BULK_ROWS * 5.0).reshape(BULK_ROWS, 5)
        store.save_predictions(columns, y_pred=values, y_true=np.arange(5.0))
        self.saved(store.workspace_path, run, pipeline, BULK_ROWS, values.sum())

    def saved(self, folder: Path, run: str, pipeline: str, count: int, value: float) -> None:
        """From now on this must be in a folder."""
        self.mark(f"saved {self.name(folder)} {run} {pipeline} {count} {float(value)!r}")

    def holds(self, folder: Path) -> None:
        """All that a folder holds already must stay in it."""
        for pipeline, count, _, value in plain_rows(folder / "store.duckdb", SUMS):
            self.saved(folder, "old", pipeline, count, float(value))

    def copying(self, source: Path, target: Path, copy: Callable[[], object]) -> None:
        """What must be in one folder must be in another one, too: if it is there, and certainly after the call."""
        self.mark(f"copying {self.name(source)} {self.name(target)}")
        copy()
        self.mark(f"copied {self.name(source)} {self.name(target)}")

    def deleting(self, folder: Path, run: str, delete: Callable[[], object]) -> None:
        """A run need not be there from now on, and must not after the call."""
        self.mark(f"deleting {self.name(folder)} {run}")
        delete()
        self.mark(f"deleted {self.name(folder)} {run}")

    def name(self, folder: Path) -> str:
        return os.path.relpath(folder, self.place)


def drain(scribe: Scribe) -> None:
    """Small flushes, their drain before a read, and the checkpoint when the file is let go: three times."""
    for turn in range(3):
        with scribe.open() as store:
            run = store.begin_run("drain", {}, [])
            for number in range(2):
                scribe.pipeline(store, run, turn + number / 4)
            store.list_runs()
            scribe.pipeline(store, run, turn + 0.75)


def beside(scribe: Scribe) -> None:
    """Drains beside the caller, which logs on meanwhile; what waits behind them moves to the begin of the log."""
    with WorkspaceStore(scribe.folder, flush_interval=None, flush_rows=FOLDS + 1) as store:
        run, workspace = store.begin_run("beside", {}, []), store._open()
        for number in range(13):
            scribe.pipeline(store, run, number)
            if number and number % 5 == 0:  # a drain began with the one before
                with workspace.lock:
                    workspace.database.take_back()


def bulk(scribe: Scribe) -> None:
    """Rows that go straight into the tables."""
    for _ in range(2):
        with scribe.open() as store:
            scribe.bulk(store, store.begin_run("bulk", {}, []))


def checkpoints(scribe: Scribe) -> None:
    """Several while the file is attached, asked for and since DuckDB's log is long."""
    with WorkspaceStore(scribe.folder, flush_interval=None, memory_limit="64MB") as store:
        run = store.begin_run("checkpoints", {}, [])
        for number in range(3):
            scribe.pipeline(store, run, number)
            with store._open().database.reading():
                store._open().database.checkpoint()
        for number in range(2):
            store.log_step(begin_pipeline(store, run), 1, "SNV", "end", details={"text": "a" * 8_100_000})
            store.list_runs()
            scribe.pipeline(store, run, 3 + number)
            store.list_runs()


def delete(scribe: Scribe) -> None:
    """A run that goes with all its rows and files while another stays."""
    with scribe.open() as store:
        doomed, kept = store.begin_run("doomed", {}, []), store.begin_run("kept", {}, [])
        for run in (doomed, kept):
            scribe.pipeline(store, run, 1.0)
    with scribe.open() as store:
        scribe.deleting(scribe.folder, doomed, lambda: store.delete_run(doomed))
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
                scribe.pipeline(inner, run, 3.0 + big)
                if big:
                    inner.list_runs()
            store.merge(shard)
            scribe.mark(f"copied {scribe.name(shard.path)} workspace")


def collect(scribe: Scribe) -> None:
    """Artifacts that are claimed, held, used and collected; a pipeline that fails, and a transaction given up."""
    with scribe.open() as store:
        run = store.begin_run("collect", {}, [])
        unused = store.save_artifact({"unused": 1}, "dict", "model", "joblib")
        scribe.pipeline(store, run, 1.0)
        failing = begin_pipeline(store, run)
        chain = save_chain(store, failing, fold_artifacts={"fold_0": unused})
        predict_with_arrays(store, Sweep(run, failing, chain))
        store.list_runs()
        store.fail_pipeline(failing, "as planned")
        store.gc_artifacts()
        scribe.pipeline(store, run, 2.0)


def backup(scribe: Scribe) -> None:
    """A backup, one that takes its place, and a workspace made of it."""
    with scribe.open() as store:
        run = store.begin_run("backup", {}, [])
        for shift in (1.0, 2.0):
            scribe.pipeline(store, run, shift)
            scribe.copying(scribe.folder, scribe.place / "backup", lambda: store.backup(scribe.place / "backup"))
    target = scribe.place / "restored"
    scribe.copying(scribe.place / "backup", target, lambda: WorkspaceStore.restore(scribe.place / "backup", target))


def restore(scribe: Scribe) -> None:
    """A workspace replaced by its backup, and kept under another name."""
    with scribe.open() as store:
        scribe.pipeline(store, store.begin_run("kept", {}, []), 1.0)
        store.backup(scribe.place / "backup")
        later = store.begin_run("later", {}, [])
        scribe.pipeline(store, later, 2.0)
    scribe.deleting(scribe.folder, later, lambda: restored(scribe))
    (replaced,) = scribe.place.glob("workspace.replaced-*")
    scribe.holds(replaced)
    with WorkspaceStore(replaced) as store:
        scribe.pipeline(store, later, 3.0)


def restored(scribe: Scribe) -> None:
    WorkspaceStore.restore(scribe.place / "backup", scribe.folder, replace=True)


def extract(scribe: Scribe) -> None:
    """A run made a workspace of its own, which another one absorbs."""
    target, other = scribe.place / "extracted", scribe.place / "other"
    with scribe.open() as store:
        run = store.begin_run("extract", {}, [])
        scribe.pipeline(store, run, 1.0)
        scribe.copying(scribe.folder, target, lambda: store.extract([run], target))
    with WorkspaceStore(other, flush_interval=None) as store:
        store.merge(target)
        scribe.mark("copied extracted other")


def upgrade(scribe: Scribe) -> None:
    """A workspace of an older format, with the logs of killed processes, opened and used."""
    folder = scribe.place / "older"
    scribe.holds(folder)
    with WorkspaceStore(folder) as store:
        scribe.pipeline(store, store.begin_run("upgrade", {}, []), 1.0)


def migrate(scribe: Scribe) -> None:
    """A workspace of nirs4all made ours in place."""
    folder = scribe.place / "foreign"
    scribe.holds(folder)
    migrate_in_place(folder)


def prepare(workload: str, place: Path) -> None:
    """What a workload finds beside the workspace that was used before."""
    if workload == "upgrade":
        with zipfile.ZipFile(_FORMAT_1) as archive:
            archive.extractall(place / "older")
    elif workload == "migrate":
        unpacked(OLD, place).rename(place / "foreign")


WORKLOADS = {
    work.__name__: work
    for work in (
        drain,
        beside,
        bulk,
        checkpoints,
        delete,
        vacuum,
        merge,
        collect,
        backup,
        restore,
        extract,
        upgrade,
        migrate,
    )
}


def main(workload: str, place: str, record: str = "") -> None:
    if not record:
        WORKLOADS[workload](Scribe(Path(place), lambda _: None))
        return
    recorder = ctypes.CDLL(None)
    os.environ |= {"RECORD_FOLDER": place, "RECORD_FILE": record}  # of helpers that it starts
    if not recorder.record_start(place.encode(), record.encode()):
        raise OSError(f"{record} cannot be written")
    WORKLOADS[workload](Scribe(Path(place), lambda text: recorder.record_mark(text.encode())))
    recorder.record_stop()


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*sys.argv[1:])
