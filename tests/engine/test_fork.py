"""Forks at bad moments, and the ways in which programs start their workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import child, count, counts, finish, program
from sampling import some

from n4a_fast import WorkspaceStore

IN_TRANSACTION = """
import os, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError

def told(call):
    try:
        call()
    except StoreUnavailableError as error:
        if str(error).endswith("was forked inside a transaction; fork before or after it, or use spawn or loky"):
            return
    os._exit(1)

store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
with store.transaction():
    predict_with_arrays(store, sweep, fold_id="before")
    store.flush()
    child = os.fork()
    if child == 0:
        calls = [store.list_runs, store.flush, lambda: store.begin_run("child", {}, []),
                 lambda: WorkspaceStore(sys.argv[1]).list_runs()]
        for call in calls:
            told(call)
        grandchild = os.fork()
        if grandchild == 0:
            told(store.list_runs)
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1])
    predict_with_arrays(store, sweep, fold_id="after")
    _, status = os.waitpid(child, 0)
assert status == 0, status
print(*sorted(store.query_predictions()["fold_id"]))
store.close()
"""
LEAVING = """
import os, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
try:
    with store.transaction():
        predict_with_arrays(store, sweep, fold_id="before")
        store.flush()
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            raise KeyError("given up")
        if sys.argv[2] == "raising":
            raise StoreUnavailableError("x", "y")
except StoreUnavailableError:
    store.close()
    sys.exit()  # with all that runs at exit
except KeyError:
    pass
assert child
predict_with_arrays(store, sweep, fold_id="after")
print(*store.query_predictions()["fold_id"])
store.close()
"""
# a thread of the parent never stops flushing and reading, so every fork finds it in the middle of something
BUSY = """
import os, sys, threading
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore

def pipeline(name):
    pipeline = begin_pipeline(store, run, name)
    sweep = Sweep(run, pipeline, save_chain(store, pipeline))
    predict_with_arrays(store, sweep)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)

def work():
    while not stop.is_set():
        pipeline("parent")
        written.append(1)
        if len(written) % 5 == 0:
            store.top_predictions(1)

store = WorkspaceStore(sys.argv[1])
run = store.begin_run("forks", {}, [])
store.flush()
stop, written = threading.Event(), []
thread = threading.Thread(target=work)
thread.start()
children = []
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        pipeline("child")
        store.close()
        os._exit(0)
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
stop.set()
thread.join()
assert statuses == [0] * len(children), statuses
store.close()
print(len(written))
"""


def test_a_child_forked_inside_a_transaction_is_told_so_and_harms_nothing(tmp_path: Path) -> None:
    assert finish(child(IN_TRANSACTION, tmp_path)).split() == ["after", "before"]
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "runs", "predictions", "prediction_arrays") == {
            "runs": 1,
            "predictions": 2,
            "prediction_arrays": 2,
        }


@pytest.mark.parametrize("how", ["ending", "raising"])
def test_a_child_that_leaves_the_transaction_it_was_forked_in_commits_nothing(tmp_path: Path, how: str) -> None:
    assert finish(child(LEAVING, tmp_path, how)).split() == ["after"]
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "runs", "predictions", "prediction_arrays") == {
            "runs": 1,
            "predictions": 1,
            "prediction_arrays": 1,
        }


def test_forks_in_the_middle_of_flushes_and_reads_lose_and_double_nothing(tmp_path: Path) -> None:
    written = int(finish(child(BUSY, tmp_path, 6)))
    with WorkspaceStore(tmp_path) as store:
        names = dict(store.list_pipelines().group_by("name").len().rows())
        assert names == {"parent": written, "child": 6}
        assert counts(store, "predictions", "prediction_arrays", "chains") == dict.fromkeys(
            ("predictions", "prediction_arrays", "chains"), written + 6
        )


ENDING = """
import os, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
store.list_runs()
if sys.argv[2] == "closed":  # its connection is kept for the next store
    store.close()
child = os.fork()
if child == 0:
    with WorkspaceStore(sys.argv[1]) as own:
        predict_with_arrays(own, sweep)
    sys.exit()  # as programs end, the interpreter's own end included
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("how", ["open", "closed"])
def test_a_forked_child_ends_well(tmp_path: Path, how: str) -> None:
    assert finish(child(ENDING, tmp_path, how)) == "0\n"
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "predictions") == 1


# module-level functions in a file: spawned workers import them
WORKERS = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
import joblib
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore

def task(path, run, number):
    with WorkspaceStore(path) as store:
        pipeline = begin_pipeline(store, run, f"task {number}")
        sweep = Sweep(run, pipeline, save_chain(store, pipeline))
        predict_with_arrays(store, sweep, number)
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        return os.getpid()

if __name__ == "__main__":
    path, how = sys.argv[1:]
    with WorkspaceStore(path) as store:  # stays open, and in use, all the time
        run = store.begin_run("workers", {}, [])
        store.flush()
        tasks = [(path, run, number) for number in range(6)]
        if how == "loky":
            pids = joblib.Parallel(n_jobs=2)(joblib.delayed(task)(*arguments) for arguments in tasks)
        else:
            with ProcessPoolExecutor(2, multiprocessing.get_context(how)) as pool:
                pids = list(pool.map(task, *zip(*tasks)))
        assert os.getpid() not in pids
        assert store.list_pipelines(run_id=run).height == 6  # while the workers still live
        store.complete_run(run, {})
"""


@pytest.mark.parametrize("how", some(["fork", "loky", "spawn"], 2))
def test_workers_open_the_store_of_their_parent_by_its_path(tmp_path: Path, how: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    finish(program(script, tmp_path / "workspace", how))
    with WorkspaceStore(tmp_path / "workspace") as store:
        assert sorted(store.list_pipelines()["name"]) == [f"task {number}" for number in range(6)]
        assert count(store, "prediction_arrays") == 6
        assert store.list_runs()["status"].to_list() == ["completed"]


AFTER_FRAMES = """
import multiprocessing, sys
import numpy as np
from helpers import begin_pipeline, predict, save_chain
from n4a_fast import WorkspaceStore
from n4a_fast.errors import ForkedProcessError

def child(path, run):
    with WorkspaceStore(path) as store:
        pipeline = begin_pipeline(store, run)  # what gives no frame works
        predict(store, pipeline, save_chain(store, pipeline))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        assert store.get_pipeline(pipeline)["status"] == "completed"
        for read in (store.list_runs, store.query_predictions, lambda: store.top_predictions(3),
                     store.query_chain_summaries, lambda: store.sql("SELECT 1")):
            try:
                read()
            except ForkedProcessError as error:
                assert "spawn" in str(error)
            else:
                sys.exit(f"{read} gave a frame")

with WorkspaceStore(sys.argv[1]) as store:
    run = store.begin_run("run", {}, [])
    store.list_runs()
    worker = multiprocessing.get_context("fork").Process(target=child, args=(sys.argv[1], run))
    worker.start()
    worker.join(300)
    assert worker.exitcode == 0, worker.exitcode
    assert store.list_pipelines().height == 1
"""


def test_a_child_of_a_parent_that_has_read_frames_saves_and_is_told_of_frames_at_once(tmp_path: Path) -> None:
    finish(child(AFTER_FRAMES, tmp_path))
