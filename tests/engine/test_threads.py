"""Threads and the order of locks: nobody waits for ever, and a wait for the file is for those alone who need it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, begin_pipeline, begin_sweep, child, finish, predict_with_arrays, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.engine.held_together import held_together
from n4a_fast.engine.lease import Turnstile
from n4a_fast.errors import StoreClosedError, StoreLockedError


def run_all(*works: Callable[[], object]) -> None:
    """Run each in a thread of its own; the first error of one, or a failure when one does not end."""
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if failures:
        raise failures[0]


def test_a_store_opened_inside_a_transaction_and_one_closed_meanwhile_end(tmp_path: Path) -> None:
    first, second = WorkspaceStore(tmp_path / "w"), WorkspaceStore(tmp_path / "w")
    WorkspaceStore(tmp_path / "other").close()
    inside, closing = threading.Event(), threading.Event()

    def opens() -> None:
        with first.transaction():
            inside.set()
            closing.wait()
            time.sleep(0.1)  # the other thread waits for this block
            WorkspaceStore(tmp_path / "other").close()
            with WorkspaceStore(tmp_path / "w") as again:
                again.flush()

    def closes() -> None:
        inside.wait()
        closing.set()
        second.close()

    run_all(opens, closes)
    first.close()


def test_two_workspaces_merged_into_each_other_end(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "a") as a, WorkspaceStore(tmp_path / "b") as b:
        for store, name in ((a, "a"), (b, "b")):
            store.begin_run(name, {}, [])
            store.list_runs()
        start = threading.Barrier(2)
        for _ in range(3):
            run_all(
                lambda: (start.wait(), a.merge(tmp_path / "b")),
                lambda: (start.wait(), b.merge(tmp_path / "a")),
            )
        assert set(a.list_runs()["name"]) == set(b.list_runs()["name"]) == {"a", "b"}


@pytest.mark.parametrize("taken", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("busy", ["a", "b"])
def test_who_needs_two_workspaces_keeps_none_while_it_waits_for_the_other(
    tmp_path: Path, taken: tuple[str, str], busy: str
) -> None:
    """A merge needs two; a block in one of them may open the other one meanwhile."""
    inside, waiting = threading.Event(), threading.Event()
    with WorkspaceStore(tmp_path / "a") as a, WorkspaceStore(tmp_path / "b") as b:
        locks = {"a": a._open(), "b": b._open()}
        (other,) = locks.keys() - {busy}

        def opens() -> None:
            with locks[busy].lock:
                inside.set()
                waiting.wait()
                time.sleep(0.1)
                with locks[other].lock:
                    pass

        def merges() -> None:
            inside.wait()
            waiting.set()
            with held_together(*(locks[name] for name in taken)):
                assert all(workspace.lock.is_mine for workspace in locks.values())

        run_all(opens, merges)
        assert not any(workspace.lock.is_mine for workspace in locks.values())


HOLDS = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    with store.transaction():
        store.list_runs()
        print("held", flush=True)
        sys.stdin.readline()
"""


def test_a_wait_for_the_file_keeps_no_call_that_needs_none(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as store, WorkspaceStore(tmp_path) as other:
        run = begin_sweep(store).run
        pipeline = begin_pipeline(store, run)
        store.flush()
        store.list_runs()
        holder = child(HOLDS, tmp_path)
        assert read_line(holder) == "held"
        reads = [threading.Thread(target=read, daemon=True) for read in (store.list_runs, store.gc_artifacts)]
        for thread in reads:
            thread.start()
        time.sleep(1.5)  # they wait, and the background has found the store idle
        store.log_step(pipeline, 1, "SNV", "start")
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        with store.transaction():
            begin_pipeline(store, run)
        other.close()
        with WorkspaceStore(tmp_path) as third:
            third.begin_run("third", {}, [])
        assert all(thread.is_alive() for thread in reads)  # all of that was done while they waited
        finish(holder)
        for thread in reads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in reads)
        assert store.list_runs().height == 2
        assert store.list_pipelines().height == 3


def test_a_transaction_keeps_other_threads_out_until_its_end(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        inside, started = threading.Event(), threading.Event()

        def save() -> None:
            inside.wait()
            started.set()
            store.begin_run("other", {}, [])

        def roll_back() -> None:
            with pytest.raises(ZeroDivisionError), store.transaction():
                store.begin_run("given up", {}, [])
                inside.set()
                started.wait()
                time.sleep(0.05)
                raise ZeroDivisionError

        run_all(save, roll_back)
        assert store.list_runs()["name"].to_list() == ["other"]


LEAVES_A_LOG = """
import os, sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
store.begin_run("of a killed writer", {}, [])
store.flush()
os._exit(0)  # as killed: it is in the log alone
"""


def test_a_reader_that_puts_a_killed_writers_rows_in_place_leaves_a_writer_of_its_process_writable(
    tmp_path: Path,
) -> None:
    WorkspaceStore(tmp_path).close()
    for _ in range(3):
        finish(child(LEAVES_A_LOG, tmp_path))
        with WorkspaceStore.open_readonly(tmp_path) as reader:
            reading = threading.Thread(target=reader.list_runs)
            reading.start()
            with WorkspaceStore(tmp_path) as writer:
                reading.join()
                reader.list_runs()
                writer._open().database.detach()
                (run,) = writer.list_runs()["run_id"]
                assert writer.delete_run(run) == 1


def test_two_blocks_that_use_each_others_workspace_end(tmp_path: Path) -> None:
    both, refused = threading.Barrier(2), []
    with WorkspaceStore(tmp_path / "a", lock_timeout=0.2) as a, WorkspaceStore(tmp_path / "b", lock_timeout=0.2) as b:

        def cross(one: WorkspaceStore, other: WorkspaceStore) -> None:
            try:
                with one.transaction():
                    one.begin_run("of a block", {}, [])
                    both.wait()
                    other.begin_run("of another thread's workspace", {}, [])
                    other.flush()
            except StoreLockedError as error:
                refused.append((error.path, str(error)))

        run_all(lambda: cross(a, b), lambda: cross(b, a))
        assert refused
        assert all("transaction() of another thread" in text for _, text in refused)
        given_up = [{str(a.workspace_path): b, str(b.workspace_path): a}[str(path.parent)] for path, _ in refused]
        assert all("of a block" not in store.list_runs()["name"].to_list() for store in given_up)


def in_turn(folder: Path) -> Turnstile:
    """Has the file of a workspace, as another process would."""
    turnstile = Turnstile(folder, folder / "artifacts")
    assert turnstile.enter(DEADLINE, shared=False)
    return turnstile


def until_awaited(turnstile: Turnstile) -> None:
    while not turnstile.is_awaited():
        time.sleep(0.001)


def test_a_thread_that_saves_while_another_closes_the_store_is_refused_when_it_is_closed(tmp_path: Path) -> None:
    """The one that closes waits for the file: the other must not save into what nobody will write."""
    store = WorkspaceStore(tmp_path, flush_interval=None)
    kept, outcome = store.begin_run("before", {}, []), list[object]()
    store._open().flush()
    store._open().database.detach()
    other_process = in_turn(tmp_path)
    closing = threading.Thread(target=store.close)
    closing.start()
    until_awaited(other_process)

    def save() -> None:
        try:
            outcome.append(store.begin_run("beside", {}, []))
        except StoreClosedError as error:
            outcome.append(error)

    saving = threading.Thread(target=save)
    saving.start()
    saving.join(0.2)  # it waits
    other_process.close()
    for thread in (closing, saving):
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert [type(each) for each in outcome] == [StoreClosedError]
    with WorkspaceStore(tmp_path) as again:
        assert again.list_runs()["run_id"].to_list() == [kept]


def test_a_call_that_waited_for_the_end_of_the_store_does_not_say_that_it_saved(tmp_path: Path) -> None:
    store = WorkspaceStore(tmp_path, flush_interval=None)
    outcome: list[object] = []

    def save() -> None:
        try:
            outcome.append(store.begin_run("late", {}, []))
        except StoreClosedError as error:
            outcome.append(error)

    saving = threading.Thread(target=save)
    with store._open().lock:
        saving.start()
        saving.join(0.05)  # it waits for the lock
        store.close()
    saving.join(DEADLINE)
    assert [type(each) for each in outcome] == [StoreClosedError]


@pytest.mark.long
def test_a_prediction_is_found_that_leaves_memory_while_the_tables_are_asked_about_it(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        prediction = predict_with_arrays(store, sweep)
    store = WorkspaceStore(tmp_path, flush_interval=None)
    found: list[dict[str, Any] | None] = []
    for round_ in range(8):
        assert predict_with_arrays(store, sweep, val_score=float(round_)) == prediction
        store._open().flush()
        store._open().database.detach()
        other_process = in_turn(tmp_path)
        draining = threading.Thread(target=store.list_runs)
        draining.start()
        until_awaited(other_process)
        reading = threading.Thread(target=lambda: found.append(store.get_prediction(prediction, load_arrays=True)))
        reading.start()
        reading.join(0.02)
        other_process.close()
        for thread in (draining, reading):
            thread.join(DEADLINE)
    store.close()
    assert [each["val_score"] for each in found if each is not None] == [float(round_) for round_ in range(8)]


VACUUM = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    store.vacuum()
"""


LISTED = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(*sorted(store.list_runs()["run_id"]))
"""


def test_what_two_threads_save_after_a_vacuum_by_another_process_is_kept(tmp_path: Path) -> None:
    """The first one waits for the file in the middle of its record, to see whether it is still the same."""
    store = WorkspaceStore(tmp_path, flush_interval=None)
    saved = [store.begin_run("before", {}, [])]
    store.flush()
    store._open().database.detach()
    finish(child(VACUUM, tmp_path))
    other_process = in_turn(tmp_path)

    def save(name: str, then: Callable[[], object] = lambda: None) -> None:
        saved.append(store.begin_run(name, {}, []))
        then()

    threads = [threading.Thread(target=save, args=each) for each in (("first", store.flush), ("second",))]
    threads[0].start()
    until_awaited(other_process)
    threads[1].start()
    threads[1].join(0.2)
    other_process.close()
    for thread in threads:
        thread.join(DEADLINE)
    store.flush()
    assert finish(child(LISTED, tmp_path)).split() == sorted(saved)  # another process finds what is in the log
    store.close()
    with WorkspaceStore(tmp_path) as again:
        assert sorted(again.list_runs()["run_id"]) == sorted(saved)
