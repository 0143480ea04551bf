"""What another process deletes is gone for everyone: nothing comes back, and nothing is left that belonged to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import (
    DEADLINE,
    PREDICTION,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    counts,
    finish,
    names_in,
    predict,
    predict_with_arrays,
    read_line,
    save_chain,
)
from two_processes import Two, two_processes

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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with two_processes(tmp_path_factory.mktemp("two")) as both:
        yield both


def begun(two: Two, moment: str) -> tuple[Sweep, str]:
    """A pipeline with a prediction that is in the tables, in the log, or only in memory."""
    sweep = begin_sweep(two.store)
    two.store.flush()
    prediction = predict_with_arrays(two.store, sweep, fold_id="0")
    if moment != "in memory":
        two.store.flush()
    if moment == "stored":
        two.store.list_runs()
        two.store._open().chains.require(sweep.chain)  # known from now on, whatever another process does
    return sweep, prediction


MOMENTS = ("stored", "logged", "in memory")


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_saved_in_a_deleted_pipeline_goes_with_it(two: Two, moment: str) -> None:
    sweep, _ = begun(two, moment)
    assert two.elsewhere("delete_pipeline", sweep.pipeline) >= 2
    predict_with_arrays(two.store, sweep, fold_id="later")
    save_chain(two.store, sweep.pipeline)
    two.store.log_step(sweep.pipeline, 1, "SNV", "start")
    two.store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert set(two.rows_of(sweep).values()) == {0}
    assert not two.store.verify().findings
    with pytest.raises(NotFoundError, match=sweep.pipeline):
        predict_with_arrays(two.store, sweep, fold_id="last")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("call", ["delete_chain", "fail_pipeline"])
def test_what_is_saved_of_a_deleted_chain_goes_with_it(two: Two, call: str, moment: str) -> None:
    sweep, _ = begun(two, moment)
    two.elsewhere(*((call, sweep.chain) if call == "delete_chain" else (call, sweep.pipeline, "stopped elsewhere")))
    predict_with_arrays(two.store, sweep, fold_id="later")
    kept = sweep._replace(chain=save_chain(two.store, sweep.pipeline))
    predict_with_arrays(two.store, kept, fold_id="later")
    two.store.flush()
    assert two.rows_of(sweep) == {"pipelines": 1, "chains": 1, "predictions": 1, "logs": 0}
    assert not two.store.verify().findings
    with pytest.raises(NotFoundError, match=sweep.chain):
        predict_with_arrays(two.store, sweep, fold_id="last")


WRITER = """
import os, signal, sys
from helpers import begin_pipeline, begin_sweep, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
sweep = begin_sweep(store)
pipeline = begin_pipeline(store, sweep.run)
kept = sweep._replace(pipeline=pipeline, chain=save_chain(store, pipeline))
store.flush()
doomed = predict_with_arrays(store, sweep)
store.flush()
with store._open().lock:
    store._open().database.detach()
    print(doomed if sys.argv[2] == "delete_prediction" else sweep.pipeline, flush=True)
    sys.stdin.readline()
    print(predict_with_arrays(store, kept), flush=True)
    store.flush()
if sys.argv[3] == "False":
    os.kill(os.getpid(), signal.SIGKILL)
store.close()
"""


@pytest.mark.parametrize("call", ["delete_prediction", "fail_pipeline", "delete_pipeline"])
@pytest.mark.parametrize("survivor", [True, False])
def test_contents_that_go_elsewhere_are_in_the_next_record(tmp_path: Path, call: str, survivor: bool) -> None:
    """Another process puts a record into the tables and deletes the only prediction with its y_true: a later record of
    this one has the same, whether this process applies it or is killed and others do.
    """
    process = child(WRITER, tmp_path, call, str(survivor))
    target = read_line(process).strip()
    with WorkspaceStore(tmp_path) as store:
        getattr(store, call)(target, *(["stopped"] if call == "fail_pipeline" else []))
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    later = read_line(process).strip()
    process.communicate(timeout=DEADLINE)
    with WorkspaceStore(tmp_path) as store:
        found = store.get_prediction(later, load_arrays=True)
        assert found is not None
        assert found["y_true"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert found["sample_indices"].tolist() == [0, 1, 2, 3, 4]
        assert not store.verify().findings


def test_another_process_puts_nothing_of_a_deleted_pipeline_into_the_tables(two: Two) -> None:
    sweep, _ = begun(two, "stored")
    two.elsewhere("delete_pipeline", sweep.pipeline)
    predict_with_arrays(two.store, sweep, fold_id="later")
    two.store.flush()
    two.elsewhere("get_pipeline", sweep.pipeline)  # a read, which drains the log of this process
    assert set(two.rows_of(sweep).values()) == {0}


def test_a_bulk_call_asks_again_for_what_another_process_may_have_deleted(two: Two) -> None:
    sweep, _ = begun(two, "stored")
    two.elsewhere("delete_chain", sweep.chain)
    columns = {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, "fold_id": ["a", "b"]}
    with pytest.raises(NotFoundError, match=sweep.chain):
        two.store.save_predictions(columns)
    assert two.rows_of(sweep)["predictions"] == 0


@pytest.mark.parametrize("call", ["delete_prediction", "delete_dataset_predictions"])
def test_arrays_and_metadata_of_a_deleted_prediction_go_with_it(two: Two, call: str) -> None:
    sweep, prediction = begun(two, "stored")
    two.store.save_prediction_arrays(prediction, [1.0], [2.0], sample_metadata={"who": ["a"]})
    two.elsewhere(call, prediction if call == "delete_prediction" else "corn")
    two.store.flush()
    assert two.rows_of(sweep)["predictions"] == 0
    for table in ("prediction_values", "prediction_metadata"):
        assert two.store.sql(f"SELECT count(*) FROM {table} WHERE prediction_id = ?", [prediction]).item() == 0


def test_a_run_belongs_to_no_project_that_another_process_has_deleted(two: Two) -> None:
    project, run = two.store.create_project("wheat"), two.store.begin_run("r", {}, [])
    two.store.flush()
    two.store.list_runs()
    two.store.set_run_project(run, project)
    two.elsewhere("delete_project", project)
    two.store.flush()
    found = two.store.get_run(run)
    assert found is not None
    assert found["project_id"] is None


@pytest.mark.parametrize("how", ["rest", "full"])
def test_a_prediction_saved_again_after_its_deletion_stays(two: Two, how: str) -> None:
    """Whoever puts it into the tables, and though the deletion still waits in the log of the other process."""
    sweep, prediction = begun(two, "stored")
    assert two.elsewhere("delete_prediction", prediction)
    assert predict_with_arrays(two.store, sweep, fold_id="0") == prediction
    database = two.store._open().database
    if how == "full":  # so much goes straight into the tables
        for branch in range(1024):
            predict(two.store, sweep.pipeline, sweep.chain, fold_id="0", branch_id=branch)
    two.store.flush()
    with two.store._open().lock:
        database.rest()
        database.detach()
    two.elsewhere("flush")
    assert two.store.get_prediction_arrays(prediction) is not None
