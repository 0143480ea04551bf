"""A store object: left by an exception, copied, pickled for a worker."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import begin_pipeline, begin_sweep, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, StoreClosedError


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
