"""A run that another process deletes: it is gone for everyone, and nothing of it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import (
    DEADLINE,
    begin_pipeline,
    begin_sweep,
    child,
    counts,
    finish,
    names_in,
    predict_with_arrays,
    save_chain,
)

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError

DELETE = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(store.delete_run(sys.argv[2]))
"""
TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "prediction_values", "logs")


def test_what_is_saved_in_a_deleted_run_goes_with_it(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        kept, doomed = begin_sweep(store), begin_sweep(store)
        for sweep in (kept, doomed):
            predict_with_arrays(store, sweep)
        store.log_step(doomed.pipeline, 1, "SNV", "start")
        store.flush()
        workspace = store._open()
        with workspace.lock:  # or the thread that watches for idleness might learn of the deletion in between
            workspace.database.detach()
            finish(child(DELETE, tmp_path, doomed.run))
            predict_with_arrays(store, doomed, fold_id="later")  # nothing has told this process yet
            late = begin_pipeline(store, doomed.run)
            save_chain(store, late)
            store.complete_pipeline(doomed.pipeline, 0.1, 0.2, "rmse", 5)
        predict_with_arrays(store, kept, fold_id="later")
        store.complete_pipeline(kept.pipeline, 0.1, 0.2, "rmse", 5)
        assert counts(store, *TABLES) == {
            "runs": 1,
            "pipelines": 1,
            "chains": 1,
            "predictions": 2,
            "prediction_arrays": 2,
            "prediction_values": 2,
            "logs": 0,
        }
        assert store.list_runs()["run_id"].to_list() == [kept.run]
        for pipeline in (doomed.pipeline, late):
            with pytest.raises(NotFoundError, match=pipeline):
                store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        with pytest.raises(NotFoundError, match=doomed.run):
            begin_pipeline(store, doomed.run)
        with pytest.raises(NotFoundError, match=doomed.run):
            store.complete_run(doomed.run, {})
        store.complete_run(kept.run, {})
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, *TABLES)["predictions"] == 2


def test_a_deletion_takes_what_its_writer_journaled_and_then_died(tmp_path: Path) -> None:
    writer = """
import os, signal, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
predict_with_arrays(store, sweep)
store.flush()
print(sweep.run, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = child(writer, tmp_path).communicate(timeout=DEADLINE)[0].strip()
    assert finish(child(DELETE, tmp_path, run)).strip() == "5"
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, *TABLES) == dict.fromkeys(TABLES, 0)
    assert names_in(tmp_path) == ["artifacts", "store.duckdb"]
