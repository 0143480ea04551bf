"""Several processes on one store file: nobody is starved, and an error says who is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import DEADLINE, begin_pipeline, begin_sweep, child, count, finish, kill, predict, read_line, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError, StoreLockedError

BUSY = """
import sys
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("busy", {}, [])
print("ready", flush=True)
while True:  # never pauses
    pipeline = begin_pipeline(store, run)
    sweep = Sweep(run, pipeline, save_chain(store, pipeline))
    for fold in range(3):
        predict_with_arrays(store, sweep, fold_id=str(fold))
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
"""
IN_TRANSACTION = """
import sys
from helpers import begin_sweep
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
with store.transaction():
    store.get_run(begin_sweep(store).run)
    print("held", flush=True)
    sys.stdin.readline()
store.close()
"""


def test_a_writer_that_never_pauses_lets_others_write_and_read(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    writers = [child(BUSY, tmp_path) for _ in range(2)]
    for writer in writers:
        assert read_line(writer) == "ready"
    with WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as store:
        for number in range(3):
            sweep = begin_sweep(store)
            predict(store, sweep.pipeline, sweep.chain)
            store.complete_run(sweep.run, {})
            assert count(store, "runs") == number + 3
            assert store.top_predictions(1).height == 1
    for writer in writers:
        kill(writer)


def test_a_timeout_names_the_process_in_turn(tmp_path: Path) -> None:
    holder = child(IN_TRANSACTION, tmp_path)
    assert read_line(holder) == "held"
    with pytest.raises(StoreLockedError, match=f"process {holder.pid}") as caught:
        WorkspaceStore(tmp_path, lock_timeout=0.05)
    assert caught.value.pid == holder.pid
    with pytest.raises(StoreLockedError):
        WorkspaceStore.open_readonly(tmp_path, lock_timeout=0.05)
    holder.communicate("go\n", timeout=DEADLINE)
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "runs") == 1


SAVES_BESIDE = """
import sys
from helpers import begin_pipeline
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreLockedError
store = WorkspaceStore(sys.argv[1], lock_timeout=0.3)
pipeline = begin_pipeline(store, sys.argv[2])
store._open().database.detach()
print("open", flush=True)
sys.stdin.readline()
store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
print("durable", flush=True)
try:
    store.list_runs()
except StoreLockedError:
    print("waited", flush=True)
sys.stdin.readline()
print(store.get_pipeline(pipeline)["status"])
"""


def test_a_save_beside_a_long_transaction_is_durable_at_once_and_a_read_ends(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        run = begin_sweep(store).run
        store.flush()
        store._open().database.detach()
        other = child(SAVES_BESIDE, tmp_path, run)
        assert read_line(other) == "open"
        assert other.stdin is not None
        with store.transaction():
            store.begin_run("in the block", {}, [])
            store.list_runs()
            other.stdin.write("\n")
            other.stdin.flush()
            assert [read_line(other), read_line(other)] == ["durable", "waited"]
        store._open().database.detach()
        assert other.communicate("\n", timeout=DEADLINE)[0].split() == ["completed"]


def test_a_killed_holder_is_in_nobodys_way_and_its_transaction_is_gone(tmp_path: Path) -> None:
    holder = child(IN_TRANSACTION, tmp_path)
    assert read_line(holder) == "held"
    kill(holder)
    with WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as store:
        assert count(store, "runs") == 0


def test_each_of_two_stores_on_a_path_keeps_its_own_timeout(tmp_path: Path) -> None:
    with (
        WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as patient,
        WorkspaceStore(tmp_path, lock_timeout=0.05) as hasty,
    ):
        patient.list_runs()
        holder = child(IN_TRANSACTION, tmp_path)
        assert read_line(holder) == "held"
        with pytest.raises(StoreLockedError):
            hasty.list_runs()
        assert holder.stdin is not None
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert patient.list_runs().height == 1
        finish(holder)


PLAIN_CLIENT = """
import sys, duckdb
with duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading") as connection:
    print("held", flush=True)
    sys.stdin.readline()
"""
STOPPED_WRITER = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
store.begin_run("stopped", {}, [])
store.flush()
print("flushed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["reading", "writing"])
def test_a_reader_that_must_finish_the_work_of_a_stopped_writer_names_who_is_in_the_way(
    tmp_path: Path, how: str
) -> None:
    writer = child(STOPPED_WRITER, tmp_path)
    assert read_line(writer) == "flushed"
    kill(writer)
    with WorkspaceStore.open_readonly(tmp_path, lock_timeout=0.1) as store:
        store._open().database.detach()
        holder = child(PLAIN_CLIENT, tmp_path / "store.duckdb", how)
        assert read_line(holder) == "held"
        with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
            store.list_runs()
        holder.communicate("go\n", timeout=DEADLINE)
        assert store.list_runs()["name"].to_list() == ["stopped"]


BEGINNING = """
import sys
from helpers import begin_pipeline
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
run = store.begin_run("theirs", {}, [])
print(run, begin_pipeline(store, run), flush=True)
sys.stdin.readline()
store.flush()
print("flushed", flush=True)
sys.stdin.readline()
"""


def test_what_another_process_began_is_unknown_until_it_flushes_and_the_error_says_so(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as store:
        other = child(BEGINNING, tmp_path)
        run, pipeline = read_line(other).split()
        for call in (lambda: begin_pipeline(store, run), lambda: save_chain(store, pipeline)):
            with pytest.raises(NotFoundError, match=r"if another process began it, that process must flush\(\) first$"):
                call()
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
        assert read_line(other) == "flushed"
        begin_pipeline(store, run)
        save_chain(store, pipeline)
        other.communicate("go\n", timeout=DEADLINE)
