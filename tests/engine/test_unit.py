"""Units of work: what spans several tables is there before or after, wherever it is killed, and nothing in use goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    DEADLINE,
    begin_pipeline,
    begin_sweep,
    child,
    examples,
    finish,
    predict,
    predict_with_arrays,
    read_line,
    save_chain,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreLockedError

# A workspace with two runs; then, in forked children, one unit of work on copies of it, each killed at another call.
KILLED = """
import os, shutil, sys
from pathlib import Path
from helpers import begin_pipeline, predict, save_chain
from n4a_fast import WorkspaceStore

def chain_of(store, pipeline, obj, fold):
    artifact = store.save_artifact(obj, "X", "model", "joblib")
    unused = store.save_artifact([obj], "X", "model", "joblib")  # no prediction is of this fold
    return artifact, save_chain(store, pipeline, fold_artifacts={fold: artifact, "9": unused})

def fill(store):
    ids = {"run": store.begin_run("a", {}, [{"name": "corn"}])}
    for name in ("one", "two"):
        pipeline = begin_pipeline(store, ids["run"])
        ids[name] = pipeline
        ids[name + " artifact"], ids[name + " chain"] = chain_of(store, pipeline, {name: list(range(500))}, "0")
        for fold in ("0", "1"):
            prediction = ids["prediction"] = predict(store, pipeline, ids[name + " chain"], fold_id=fold)
            store.save_prediction_arrays(prediction, [1.0, 2, 3], [1.0, 2, 3], sample_metadata={"fold": fold})
        if name == "one":
            store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return ids

WORK = {
    "fail_pipeline": lambda s, i: s.fail_pipeline(i["two"], "boom"),
    "delete_run": lambda s, i: s.delete_run(i["run"]),
    "delete_dataset": lambda s, i: s.delete_dataset_predictions("corn"),
    "rename_artifacts": lambda s, i: s._open().rename_artifacts(i["one chain"], {i["one artifact"]: i["two artifact"]}),
    "delete_prediction": lambda s, i: s.delete_prediction(i["prediction"]),
    "cleanup_transient": lambda s, i: s.cleanup_transient_artifacts(i["run"], "corn", [i["one"]]),
}

def killed(folder, ids, name, number):
    calls = 0
    def count(frame, event, argument):
        nonlocal calls
        if event == "call":
            calls += 1
            if calls == number:
                os._exit(9)
    store = WorkspaceStore(folder, flush_interval=None)
    sys.setprofile(count)
    WORK[name](store, ids)
    sys.setprofile(None)
    (folder / "calls").write_text(str(calls))
    os._exit(0)

def in_a_child(work, *arguments):
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def fill_and_leave():
    store = WorkspaceStore(root / "original")
    (root / "ids").write_text(repr(fill(store)))
    store.flush()
    os._exit(0)  # as killed: some of it is in the log alone

def kill_at(number):
    folder = root / str(number)
    shutil.copytree(root / "original", folder)
    return in_a_child(killed, folder, ids, name, number)

root, name = Path(sys.argv[1]), sys.argv[2]
assert in_a_child(fill_and_leave) == 0
ids = eval((root / "ids").read_text())
assert kill_at(10**9) == 0
calls = int((root / str(10**9) / "calls").read_text())
points = (1, calls // 3, calls // 2, calls * 2 // 3, calls * 4 // 5, calls * 9 // 10, calls - 20)
assert [kill_at(point) for point in points] == [9] * len(points)
print(*points)
"""
STATE = """SELECT
    (SELECT list(struct_pack(status, error, pipeline_id) ORDER BY pipeline_id) FROM pipelines) AS pipelines,
    (SELECT list(prediction_id ORDER BY prediction_id) FROM predictions) AS predictions,
    (SELECT count(*) FROM prediction_arrays) AS arrays, (SELECT count(*) FROM prediction_metadata) AS metadata,
    (SELECT list(struct_pack(chain_id, fold_artifacts) ORDER BY chain_id) FROM chains) AS chains,
    (SELECT list(struct_pack(chain_id, artifact_id, released) ORDER BY chain_id, artifact_id)
        FROM chain_artifacts) AS links,
    (SELECT count(*) FROM logs) AS logs, (SELECT count(*) FROM runs) AS runs"""


def state_of(folder: Path) -> dict[str, object]:
    """All that a unit may change, after a look at every artifact that a chain refers to."""
    with WorkspaceStore(folder) as store:
        store.gc_artifacts()
        kept = "SELECT DISTINCT artifact_id FROM chain_artifacts WHERE released IS NOT TRUE"
        for (artifact,) in store.sql(kept).rows():
            assert store.load_artifact(artifact)
        return dict(store.sql(STATE).row(0, named=True))


@pytest.mark.parametrize(
    "name",
    some(
        ["fail_pipeline", "delete_run", "delete_dataset", "rename_artifacts", "delete_prediction", "cleanup_transient"],
        2,
    ),
)
def test_a_kill_anywhere_in_a_unit_leaves_before_or_after(tmp_path: Path, name: str) -> None:
    points = finish(child(KILLED, tmp_path, name)).split()
    before, after = state_of(tmp_path / points[0]), state_of(tmp_path / str(10**9))
    assert before != after
    for point in points[1:]:
        assert state_of(tmp_path / point) in (before, after), point


def artifact_and_chain(store: WorkspaceStore, run: str, obj: object) -> tuple[str, str]:
    pipeline = begin_pipeline(store, run)
    artifact = store.save_artifact(obj, "X", "model", "joblib")
    save_chain(store, pipeline, fold_artifacts={"0": artifact})
    return artifact, pipeline


def test_an_object_that_is_saved_again_in_the_transaction_that_deletes_it_stays(tmp_path: Path) -> None:
    obj = {"weights": list(range(1000))}
    with WorkspaceStore(tmp_path) as store:
        first = begin_sweep(store)
        artifact, pipeline = artifact_and_chain(store, first.run, obj)
        store.complete_pipeline(pipeline, 0, 0, "rmse", 1)
        with store.transaction():
            store.delete_run(first.run)
            again, pipeline = artifact_and_chain(store, begin_sweep(store).run, obj)
            store.complete_pipeline(pipeline, 0, 0, "rmse", 1)
        assert again == artifact
        assert store.load_artifact(artifact) == obj
        assert store.verify_artifacts()


RESAVES = """
import sys
from helpers import begin_pipeline, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("b", {}, [])
pipeline = begin_pipeline(store, run)
store.flush()
print("open", flush=True)
sys.stdin.readline()
artifact = store.save_artifact({"weights": list(range(1000))}, "X", "model", "joblib")
save_chain(store, pipeline, fold_artifacts={"0": artifact})
store.complete_pipeline(pipeline, 0, 0, "rmse", 1)
print("durable", flush=True)
sys.stdin.readline()
store.close()
"""


def test_an_object_that_another_process_saves_while_a_transaction_deletes_it_stays(tmp_path: Path) -> None:
    obj = {"weights": list(range(1000))}
    with WorkspaceStore(tmp_path) as store:
        run = begin_sweep(store).run
        artifact, pipeline = artifact_and_chain(store, run, obj)
        store.complete_pipeline(pipeline, 0, 0, "rmse", 1)
        other = child(RESAVES, tmp_path)
        assert read_line(other) == "open"
        with store.transaction():
            store.delete_run(run)
            store.save_artifact({"another": 1}, "X", "model", "joblib")
            assert other.stdin is not None
            other.stdin.write("\n")
            other.stdin.flush()
            assert read_line(other) == "durable"
        other.communicate("\n", timeout=DEADLINE)
        assert store.load_artifact(artifact) == obj
        store.gc_artifacts()
        assert store.load_artifact(artifact) == obj


def test_a_collection_in_a_transaction_tells_what_goes_and_goes_at_its_end(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        store.save_artifact({"unused": 1}, "X", "model", "joblib")
        sweep = begin_sweep(store)
        store.complete_pipeline(sweep.pipeline, 0, 0, "rmse", 1)
        with pytest.raises(ZeroDivisionError), store.transaction():
            assert store.gc_artifacts() == 1
            raise ZeroDivisionError
        with store.transaction():
            assert store.gc_artifacts() == 1
        assert store.gc_artifacts() == 0


def test_a_unit_that_only_saves_is_one_record_of_the_log(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        run = begin_sweep(store).run
        store.list_runs()
        for _ in range(3):
            with store.transaction():
                pipeline = begin_pipeline(store, run)
                predict_with_arrays(store, begin_sweep(store))
                store.complete_pipeline(pipeline, 0, 0, "rmse", 1)
                store.log_step(pipeline, 1, "SNV", "end")
        assert store.stats().pending == 3


HOLDS_THE_FILE = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_block_that_is_durable_does_not_fail_for_a_file_that_another_program_holds(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_rows=10, lock_timeout=0.1) as store:
        sweep = begin_sweep(store)
        store.flush()
        store._open().database.detach()
        holder = child(HOLDS_THE_FILE, tmp_path / "store.duckdb")
        assert read_line(holder) == "held"
        for block in range(2):  # together more than the buffer holds: it is time for the tables
            with store.transaction():
                for fold in range(8):
                    predict(store, sweep.pipeline, sweep.chain, fold_id=f"{block} {fold}")
        with pytest.raises(StoreLockedError):
            store.list_runs()
        finish(holder)
        assert store.query_predictions().height == 16


# what a block does: save a fold, or begin an inner block, which may raise at its end
BLOCKS = st.recursive(
    st.lists(st.integers(0, 5), max_size=4),
    lambda inner: st.lists(st.integers(0, 5) | st.tuples(st.booleans(), inner), max_size=5),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def nesting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path_factory.mktemp("nesting"), flush_interval=None) as store:
        yield store


@given(block=BLOCKS, before=st.integers(0, 3), ends_well=st.booleans())
@settings(max_examples=examples(20), deadline=None)
def test_blocks_in_blocks_leave_what_those_saved_that_did_not_raise(
    nesting: WorkspaceStore, block: list[Any], before: int, ends_well: bool
) -> None:
    store, sweep = nesting, begin_sweep(nesting)
    model, scores = {}, count(1.0)

    def work(steps: list[Any]) -> None:
        for step in steps:
            if isinstance(step, int):
                model[str(step)] = next(scores)
                predict_with_arrays(store, sweep, model[str(step)], fold_id=str(step), val_score=model[str(step)])
            else:
                within(*step)

    def within(raises: bool, steps: list[Any]) -> None:
        outer = dict(model)
        with suppress(KeyError), store.transaction():
            work(steps)
            if raises:
                model.clear()
                model.update(outer)
                raise KeyError

    work(list(range(before)))
    within(not ends_well, block)
    found = store.query_predictions(pipeline_id=sweep.pipeline)
    assert dict(found.select("fold_id", "val_score").rows()) == model
    loaded = store.load_arrays(found["prediction_id"].to_list())
    assert [float(values[0]) for values in loaded.y_pred] == found["val_score"].to_list()


def test_many_blocks_in_one_are_one_record_and_do_not_keep_more_in_memory_than_one_does(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_interval=None, flush_rows=8) as store:
        workspace, sweep = store._open(), begin_sweep(store)
        store.flush()
        for many in (5, 100):
            appended = workspace.database.log._segment.last
            with store.transaction():
                for number in range(many):
                    with store.transaction():
                        predict(store, sweep.pipeline, sweep.chain, fold_id=str(number), branch_id=many)
                    assert workspace.buffer.held_rows <= 20
            assert workspace.database.log._segment.last == appended + (many < 16)  # or it went into the tables
        assert store.query_predictions().height == 105


@pytest.mark.parametrize("flushed", [True, False], ids=["all logged", "some in memory alone"])
def test_a_change_behind_saves_finds_them_in_memory_and_reads_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    with WorkspaceStore(tmp_path / "w", flush_interval=None) as store:
        first, second = begin_sweep(store), begin_sweep(store)
        for sweep in (first, second):
            predict(store, sweep.pipeline, sweep.chain)
        if flushed:
            store.flush()
        log, read = store._open().database.log, []
        own_waiting = log.own_waiting
        monkeypatch.setattr(log, "own_waiting", lambda: read.append(1) or own_waiting())
        store.delete_run(first.run)
        assert not read
        assert store.query_predictions()["pipeline_id"].to_list() == [second.pipeline]
