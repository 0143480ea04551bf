"""How programs end, and what is in their stores then: nothing acknowledged is lost, and nothing buffered where Python
code still ran.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import DEADLINE, child, counts, finish, names_in, program, read_line
from sampling import some

from n4a_fast import WorkspaceStore

SAVES = """
import os, signal, sys, threading, time
from helpers import begin_pipeline, begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
sweep = begin_sweep(store)
predict_with_arrays(store, sweep)
"""
ENDS = {
    "return": "",
    "exception": "raise ValueError('a bug')",
    "sys.exit": "sys.exit(3)",
    "a handled SIGTERM": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); os.kill(os.getpid(), signal.SIGTERM)",
    "Ctrl-C": "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    "sys.exit in a forked child": "sys.exit() if os.fork() == 0 else os.wait()",
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_buffered_is_kept_however_a_program_ends(tmp_path: Path, end: str) -> None:
    child(SAVES + ENDS[end], tmp_path).communicate(timeout=DEADLINE)
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "runs", "pipelines", "predictions", "prediction_arrays") == {
            "runs": 1,
            "pipelines": 1,
            "predictions": 1,
            "prediction_arrays": 1,
        }


WORKERS = """
import multiprocessing, sys, threading
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore

def work(path, run):  # never closes its store
    store = WorkspaceStore(path, flush_interval=None)
    pipeline = begin_pipeline(store, run)
    sweep = Sweep(run, pipeline, save_chain(store, pipeline))
    predict_with_arrays(store, sweep)
    threading.Thread(target=lambda: (saved.wait(0.2), predict_with_arrays(store, sweep, fold_id="thread"))).start()

saved = threading.Event()
if __name__ == "__main__":
    path, method = sys.argv[1:]
    with WorkspaceStore(path) as store:
        run = store.begin_run("workers", {}, [])
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=work, args=(path, run)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
"""


@pytest.mark.parametrize("method", some(["fork", "spawn", "forkserver"], 2))
def test_workers_of_multiprocessing_that_close_nothing_lose_nothing(tmp_path: Path, method: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    finish(program(script, tmp_path / "w", method))
    with WorkspaceStore(tmp_path / "w") as store:
        assert counts(store, "pipelines", "predictions") == {"pipelines": 2, "predictions": 4}


# Threads that never stop saving, and write down what was acknowledged; the main thread ends in between.
STILL_SAVING = """
import os, sys, threading, time
from multiprocessing.pool import ThreadPool
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreClosedError
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("r", {}, [])
store.flush()
acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
enough = threading.Event()

def work(_=None):
    try:
        for number in range(10**6):
            pipeline = store.begin_pipeline(run, "p", {}, [], dataset_name="c", dataset_hash="")
            store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
            os.write(acknowledged, (pipeline + "\\n").encode())
            if number == 5:
                enough.set()
    except StoreClosedError:
        pass

if sys.argv[3] == "daemon":
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
else:
    pool = ThreadPool(2)
    pool.map_async(work, range(2))
enough.wait()
"""


@pytest.mark.parametrize("threads", ["daemon", "pool"])
def test_threads_that_still_save_when_the_program_ends_lose_nothing_acknowledged(tmp_path: Path, threads: str) -> None:
    for number in range(3):
        folder, told = tmp_path / str(number), tmp_path / f"{number}.txt"
        child(STILL_SAVING, folder, told, threads).communicate(timeout=DEADLINE)
        with WorkspaceStore(folder) as store:
            stored = set(store.list_pipelines()["pipeline_id"])
        acknowledged = set(told.read_text().split())
        assert acknowledged
        assert acknowledged <= stored


TWO = """
import shutil, sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
first, second = WorkspaceStore(sys.argv[1], flush_interval=None), WorkspaceStore(sys.argv[2], flush_interval=None)
for store in (first, second):
    predict_with_arrays(store, begin_sweep(store))
shutil.rmtree(sys.argv[1])
"""


def test_a_store_that_cannot_be_closed_at_exit_is_told_and_hinders_no_other(tmp_path: Path) -> None:
    ended = child(TWO, tmp_path / "gone", tmp_path / "kept")
    _, errors = ended.communicate(timeout=DEADLINE)
    assert ended.returncode == 0
    assert "gone" in errors
    assert "Traceback" not in errors
    with WorkspaceStore(tmp_path / "kept") as store:
        assert counts(store, "predictions", "prediction_arrays") == {"predictions": 1, "prediction_arrays": 1}


HANGS = """
import sys, threading, time
from n4a_fast import WorkspaceStore
import n4a_fast.engine.connection.attachment
n4a_fast.engine.connection.attachment._EXIT_SECONDS = 0.2
stuck, other = WorkspaceStore(sys.argv[1]), WorkspaceStore(sys.argv[2], flush_interval=None)
inside = threading.Event()

def hang():
    with stuck.transaction():
        stuck.begin_run("never", {}, [])
        inside.set()
        time.sleep(1000)

threading.Thread(target=hang, daemon=True).start()
inside.wait()
other.begin_run("kept", {}, [])
"""


def test_a_transaction_that_a_thread_never_ends_does_not_keep_the_program(tmp_path: Path) -> None:
    ended = child(HANGS, tmp_path / "stuck", tmp_path / "other")
    _, errors = ended.communicate(timeout=DEADLINE)
    assert "stuck" in errors
    assert ended.returncode == 0
    with WorkspaceStore(tmp_path / "other") as store, WorkspaceStore(tmp_path / "stuck") as stuck:
        assert store.list_runs()["name"].to_list() == ["kept"]
        assert stuck.list_runs().height == 0


def test_a_program_that_is_terminated_unhandled_keeps_what_it_had_acknowledged(tmp_path: Path) -> None:
    ended = child(SAVES + "store.flush(); print('flushed', flush=True); time.sleep(99)", tmp_path)
    assert read_line(ended) == "flushed"
    ended.send_signal(signal.SIGTERM)
    ended.communicate(timeout=DEADLINE)
    with WorkspaceStore(tmp_path) as store:
        assert counts(store, "predictions") == {"predictions": 1}


# Threads that open, read and close without an end: some are inside DuckDB whenever the main thread ends.
STILL_READING = """
import sys, threading
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreClosedError
inside = threading.Barrier(4)

def work(folder):
    for number in range(10**6):
        try:
            with WorkspaceStore(folder) as store:
                store.begin_run("r", {}, [])
                store.list_runs()
        except StoreClosedError:
            return
        if number == 1:
            inside.wait()

for number in range(3):
    threading.Thread(target=work, args=(f"{sys.argv[1]}/{number % 2}",), daemon=True).start()
inside.wait()
"""


def test_no_thread_is_inside_duckdb_when_the_program_ends(tmp_path: Path) -> None:
    for number in range(2):
        ended = child(STILL_READING, tmp_path / str(number))
        assert (*ended.communicate(timeout=DEADLINE), ended.returncode) == ("", "", 0)
        for folder in (tmp_path / str(number)).iterdir():
            assert names_in(folder) == ["artifacts", "store.duckdb"]


SLOW = """
import sys, threading, time
import n4a_fast.engine.connection.attachment
from n4a_fast import WorkspaceStore
n4a_fast.engine.connection.attachment._EXIT_SECONDS = 0.5
store = WorkspaceStore(sys.argv[1], flush_interval=None)
store.begin_run("kept", {}, [])
store.flush()
query = "SELECT sum(a.range * b.range % 7) AS n FROM range(10000000) a, range(1000000) b"
threading.Thread(target=lambda: store.sql(query), daemon=True).start()
while not store._open().database.attached:
    time.sleep(0.01)
time.sleep(0.3)
"""


def test_a_long_query_of_a_thread_is_interrupted_when_the_program_ends(tmp_path: Path) -> None:
    ended = child(SLOW, tmp_path)
    ended.communicate(timeout=DEADLINE)
    assert ended.returncode == 0
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs()["name"].to_list() == ["kept"]


# No thread can be started, as at the end of an interpreter: each would take more addresses than there are.
NO_THREAD = """
import sys, threading
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore

threading.stack_size(2**46)
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    raise SystemExit("a thread was started")
with WorkspaceStore(sys.argv[1]) as store:
    print("waits", flush=True)
    assert store.list_runs()["name"].to_list() == ["of the parent"]
    sweep = begin_sweep(store)
    prediction = predict_with_arrays(store, sweep)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert store.sql("SELECT prediction_id FROM predictions").item() == prediction
    assert store.load_arrays([prediction]).y_pred[0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    store.vacuum()
"""


def test_a_program_that_gets_no_thread_waits_writes_and_reads(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        with store.transaction():
            store.begin_run("of the parent", {}, [])
            ended = child(NO_THREAD, tmp_path)
            assert read_line(ended) == "waits"
        assert finish(ended) == ""
        assert counts(store, "runs", "predictions") == {"runs": 2, "predictions": 1}
