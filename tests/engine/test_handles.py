"""A store object: left by an exception, copied, pickled for a worker."""

from __future__ import annotations

import copy
import errno
import gc
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import DEADLINE, begin_pipeline, begin_sweep, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, StoreClosedError, StoreMovedError


def test_an_exception_fails_what_the_store_began_and_keeps_what_was_completed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of spectra"), WorkspaceStore(tmp_path) as store:
        with WorkspaceStore(tmp_path) as other:
            elsewhere = begin_sweep(other)
            sweep, done = begin_sweep(store), begin_pipeline(store, elsewhere.run)
            predict(store, done, save_chain(store, done))
            store.complete_pipeline(done, 0.1, 0.1, "rmse", 1)
            predict(store, sweep.pipeline, sweep.chain, val_score=0.0001)
            store.save_artifact(np.zeros(3), "array", "model", "joblib")
            raise_from_inside = RuntimeError("out of spectra")
            other.flush()
        raise raise_from_inside
    with WorkspaceStore(tmp_path) as store:
        failed, kept = store.get_pipeline(sweep.pipeline), store.get_pipeline(done)
        assert failed is not None
        assert kept is not None
        assert (failed["status"], failed["error"]) == ("failed", "RuntimeError: out of spectra")
        assert kept["status"] == "completed"
        runs = {row["run_id"]: (row["status"], row["error"]) for row in store.list_runs().to_dicts()}
        assert runs[sweep.run] == ("failed", "RuntimeError: out of spectra")
        assert runs[elsewhere.run] == ("running", None)  # another store's
        assert store.top_predictions(5)["pipeline_id"].to_list() == [done]


def test_an_exception_in_a_closed_store_or_a_rolled_back_block_is_the_users_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), WorkspaceStore(tmp_path) as store:
        store.close()
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), WorkspaceStore(tmp_path) as store, store.transaction():
        begin_sweep(store)
        _ = 1 / 0
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs().height == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_store_is_not_copied(store: WorkspaceStore, copied: object) -> None:
    with pytest.raises(InvalidInputError, match="open .* again"):
        copied(store)  # type: ignore[operator]
    assert store.list_runs().height == 0


def save_in_worker(store: WorkspaceStore, run: str) -> str:
    with store:
        pipeline = begin_pipeline(store, run)
        predict(store, pipeline, save_chain(store, pipeline))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return pipeline


def test_a_pickled_store_opens_the_workspace_where_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with WorkspaceStore("relative", flush_rows=7) as store:
        run = store.begin_run("run", {}, [])
        store.flush()
        monkeypatch.chdir("/")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pipeline = pool.apply(save_in_worker, (store, run))
        assert store.list_pipelines()["pipeline_id"].to_list() == [pipeline]
        again = pickle.loads(pickle.dumps(store))
        assert again.list_pipelines().height == 1
        again.close()
        assert store.list_runs().height == 1  # closing one does not close the other
        with pytest.raises(StoreClosedError):
            again.list_runs()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the background does."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def threads_of_stores() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("n4a_fast")}


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.parametrize("folder_goes", [False, True], ids=["", "without its folder"])
@pytest.mark.parametrize("in_a_cycle", [False, True], ids=["", "in a cycle"])
def test_a_store_that_nobody_has_any_more_is_closed(
    tmp_path: Path, folder_goes: bool, in_a_cycle: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = threads_of_stores()
    descriptors = set(os.listdir("/dev/fd"))
    stores = [WorkspaceStore(tmp_path / "w") for _ in range(2)]
    for store in stores:
        store.save_artifact([1.0], "list", "model", "joblib")
        store.list_runs()
        store.begin_run("buffered", {}, [])
    if in_a_cycle:
        stores.append(stores)  # type: ignore[arg-type]
    if folder_goes:
        shutil.rmtree(tmp_path / "w")
    del stores, store
    gc.collect()
    until(lambda: threads_of_stores() <= threads)
    assert len(set(os.listdir("/dev/fd")) - descriptors) == 0
    told = capfd.readouterr().err
    assert told.count("a store was never closed, and what it had in memory is lost") == folder_goes
    with WorkspaceStore(tmp_path / "w") as store:
        assert store.list_runs().height == (0 if folder_goes else 2)


def test_a_dropped_store_leaves_the_others_on_its_workspace_open(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        WorkspaceStore(tmp_path).begin_run("of a dropped one", {}, [])
        workspace = store._open()
        until(lambda: workspace.users == 1)
        assert store.list_runs().height == 1
    assert workspace.is_closed


@pytest.mark.long
def test_a_dropped_store_that_cannot_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refused(*_: object) -> None:
        tried.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    threads = threads_of_stores()
    store = WorkspaceStore(tmp_path)
    store.begin_run("buffered", {}, [])
    with monkeypatch.context() as patched:
        patched.setattr("n4a_fast.platform.sync_data", refused)
        del store
        until(lambda: bool(tried))
    until(lambda: threads_of_stores() <= threads)
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs().height == 1


def test_a_store_may_be_closed_twice_at_the_same_moment_and_after_its_file_has_gone(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "w") as other:
        store, start = WorkspaceStore(tmp_path / "w"), threading.Barrier(2)
        workspace = other._open()
        threads = [threading.Thread(target=lambda: (start.wait(), store.close())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert workspace.users == 1
        again = WorkspaceStore(tmp_path / "w")
        (tmp_path / "w").rename(tmp_path / "moved")
        again.begin_run("lost", {}, [])
        with pytest.raises(StoreMovedError):
            again.close()
        again.close()
        assert workspace.users == 1
        (tmp_path / "moved").rename(tmp_path / "w")
