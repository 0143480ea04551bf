"""`kill -9`: what was acknowledged is whole, nothing is there by half or twice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from helpers import DEADLINE, begin_sweep, child, counts, finish, kill, plain_rows, predict_with_arrays, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError

PER_PIPELINE = {"chains": 1, "predictions": 6, "prediction_arrays": 6, "logs": 2}

# prints the id of each pipeline once complete_pipeline has returned
WORKER = """
import sys
from helpers import begin_pipeline, predict_with_arrays, save_chain, Sweep
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("crash", {}, [{"name": "corn"}])
for number in range(int(sys.argv[2])):
    pipeline = begin_pipeline(store, run)
    artifact = store.save_artifact({"number": number, "worker": run}, "dict", "model", "joblib")
    chain = save_chain(store, pipeline, fold_artifacts={"fold_0": artifact})
    for fold in range(3):
        for partition in ("train", "val"):
            predict_with_arrays(store, Sweep(run, pipeline, chain), number, fold_id=str(fold), partition=partition)
    for event in ("start", "end"):
        store.log_step(pipeline, 1, "SNV", event)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    print(pipeline, flush=True)
print("done", flush=True)
sys.stdin.readline()
"""


def check_whole(store: WorkspaceStore, acknowledged: list[str]) -> None:
    """Every pipeline in the store is whole, and every acknowledged one is in the store."""
    pipelines = store.list_pipelines()
    assert set(acknowledged) <= set(pipelines["pipeline_id"])
    assert pipelines["status"].to_list() == ["completed"] * pipelines.height
    of = {
        "chains": "SELECT pipeline_id, count(*) AS n FROM chains GROUP BY ALL",
        "predictions": "SELECT pipeline_id, count(*) AS n FROM predictions GROUP BY ALL",
        "prediction_arrays": (
            "SELECT pipeline_id, count(*) AS n FROM predictions JOIN prediction_arrays USING (prediction_id)"
            " WHERE len(y_pred) = 5 GROUP BY ALL"
        ),
        "logs": "SELECT pipeline_id, count(*) AS n FROM logs GROUP BY ALL",
    }
    for table, sql in of.items():
        assert dict(store.sql(sql).rows()) == dict.fromkeys(pipelines["pipeline_id"], PER_PIPELINE[table]), table
    assert store.sql("SELECT count(*) AS n FROM prediction_arrays")["n"][0] == 6 * pipelines.height
    for artifact in store.sql("SELECT artifact_id FROM artifacts")["artifact_id"]:
        assert store.load_artifact(artifact)["worker"]


def test_everything_of_a_completed_pipeline_survives(tmp_path: Path) -> None:
    worker = child(WORKER, tmp_path, 1)
    pipeline = read_line(worker)
    assert read_line(worker) == "done"
    kill(worker)
    with WorkspaceStore(tmp_path) as store:
        check_whole(store, [pipeline])
        assert counts(store, "runs", "pipelines", "artifacts") == {"runs": 1, "pipelines": 1, "artifacts": 1}


def test_kills_at_any_moment_leave_whole_pipelines(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for trial in range(10):
        worker = child(WORKER, tmp_path, 10_000)
        acknowledged += [read_line(worker) for _ in range(1 + trial)]
        acknowledged += kill(worker).split()  # whenever that is: the worker is busy with a later one
    with WorkspaceStore(tmp_path) as store:
        check_whole(store, acknowledged)
        assert store.list_runs().height == 10


def test_a_reader_finishes_what_a_killed_writer_left(tmp_path: Path) -> None:
    worker = child(WORKER, tmp_path, 3)
    acknowledged = [read_line(worker) for _ in range(3)]
    kill(worker)
    with WorkspaceStore.open_readonly(tmp_path) as store:
        check_whole(store, acknowledged)
    assert plain_rows(tmp_path / "store.duckdb", "SELECT count(*) FROM predictions") == [(18,)]


BUFFERED = """
import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
kept = predict_with_arrays(store, sweep)
store.flush()
predict_with_arrays(store, sweep, fold_id="later")
print(kept, flush=True)
sys.stdin.readline()
"""


def test_a_flush_survives_and_what_came_after_it_is_gone(tmp_path: Path) -> None:
    worker = child(BUFFERED, tmp_path)
    kept = read_line(worker)
    kill(worker)
    with WorkspaceStore(tmp_path) as store:
        assert store.query_predictions()["prediction_id"].to_list() == [kept]
        assert counts(store, "prediction_arrays", "prediction_values") == {
            "prediction_arrays": 1,
            "prediction_values": 1,
        }


FORGETFUL = """
import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
predict_with_arrays(store, begin_sweep(store))
"""


def test_a_process_that_ends_without_close_loses_nothing(tmp_path: Path) -> None:
    finish(child(FORGETFUL, tmp_path))
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "runs", "predictions", "prediction_arrays") == {
            "runs": 1,
            "predictions": 1,
            "prediction_arrays": 1,
        }


DELETER = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for run in store.list_runs()["run_id"]:
    print(run, flush=True)
    store.delete_run(run)
"""


def test_a_killed_delete_has_removed_whole_runs_or_nothing_of_them(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        for _ in range(6):
            sweep = begin_sweep(store)
            for fold in range(20):
                predict_with_arrays(store, sweep, fold_id=str(fold))
    deleter = child(DELETER, tmp_path)
    read_line(deleter)
    assert deleter.stdin is not None
    deleter.stdin.write("go\n")
    deleter.stdin.flush()
    for _ in range(3):
        read_line(deleter)
    kill(deleter)
    with WorkspaceStore(tmp_path) as store:
        left = set(store.list_runs()["run_id"])
        assert len(left) <= 4
        assert set(store.list_pipelines()["run_id"]) == left
        expected = {"runs": len(left), "pipelines": len(left), "chains": len(left)}
        expected.update(predictions=20 * len(left), prediction_arrays=20 * len(left), prediction_values=20 * len(left))
        assert counts(store, *expected) == expected


# a full disk, without filling one: the process may not let any file grow past a size
FULL_DISK = """
import resource, sys
from pathlib import Path
from helpers import begin_pipeline, predict_with_arrays, save_chain, Sweep
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("full", {}, [])
pipeline, failing = begin_pipeline(store, run), begin_pipeline(store, run)
store.flush()
store.list_runs()  # the journal is empty from here on
chain = save_chain(store, pipeline)
for fold in range(int(sys.argv[3])):
    predict_with_arrays(store, Sweep(run, pipeline, chain), fold, fold_id=str(fold))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
ways = {
    "flush": store.flush, "complete": lambda: store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5),
    "fail": lambda: store.fail_pipeline(failing, "boom"), "close": store.close, "read": store.list_runs,
}
try:
    ways[sys.argv[2]]()
except StoreError as error:
    print(type(error).__name__, flush=True)
else:
    print("nothing raised", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
ways[sys.argv[2]]()
store.close()
"""


@pytest.mark.parametrize("predictions", [5, 1500], ids=["journaled", "direct"])
@pytest.mark.parametrize("way", ["flush", "complete", "fail", "close", "read"])
def test_a_full_disk_is_reported_and_the_call_can_be_repeated(tmp_path: Path, way: str, predictions: int) -> None:
    assert finish(child(FULL_DISK, tmp_path, way, predictions)).split() == [StoreUnavailableError.__name__]
    with WorkspaceStore(tmp_path) as store:
        expected = {"predictions": predictions, "prediction_arrays": predictions, "chains": 1, "pipelines": 2}
        assert counts(store, *expected) == expected
        status = dict(store.list_pipelines().group_by("status").len().rows())
        assert status == {"complete": {"completed": 1, "running": 1}, "fail": {"failed": 1, "running": 1}}.get(
            way, {"running": 2}
        )


FORK = """
import os, sys
from helpers import begin_sweep, counts, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
store.flush()
predict_with_arrays(store, sweep, fold_id="parent-before")
child = os.fork()
if child == 0:
    predict_with_arrays(store, sweep, fold_id="child")
    store.flush()
    os._exit(0 if store.query_predictions()["fold_id"].to_list().count("child") == 1 else 1)
predict_with_arrays(store, sweep, fold_id="parent-after")
store.flush()
_, status = os.waitpid(child, 0)
assert status == 0, status
print(*sorted(store.query_predictions()["fold_id"]))
store.close()
"""


def test_a_forked_child_and_its_parent_both_write_and_nothing_is_doubled(tmp_path: Path) -> None:
    assert finish(child(FORK, tmp_path)).split() == ["child", "parent-after", "parent-before"]
    assert plain_rows(tmp_path / "store.duckdb", "SELECT count(*) FROM prediction_arrays") == [(3,)]


def test_workers_in_several_processes_share_one_store(tmp_path: Path) -> None:
    workers = [child(WORKER, tmp_path, 5) for _ in range(3)]
    outputs: list[str] = [""] * 3
    threads = [
        threading.Thread(target=lambda i=i, w=w: outputs.__setitem__(i, w.communicate("go\n", timeout=DEADLINE)[0]))
        for i, w in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    with WorkspaceStore(tmp_path) as store:
        check_whole(store, [line for output in outputs for line in output.split() if line != "done"])
        assert counts(store, "runs", "pipelines") == {"runs": 3, "pipelines": 15}
