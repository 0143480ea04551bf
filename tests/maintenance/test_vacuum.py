"""`vacuum()`: space comes back, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType, SimpleNamespace

import numpy as np
import pytest
from helpers import DEADLINE, begin_pipeline, child, count, finish, names_in, predict_many, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError

ROWS = 4000


def filled(folder: Path) -> tuple[WorkspaceStore, list[str], list[str]]:
    store = WorkspaceStore(folder)
    runs, ids = [], []
    random = np.random.default_rng(0)
    for name in "ab":
        run = store.begin_run(name, {}, [])
        pipeline = begin_pipeline(store, run)
        ids += predict_many(store, pipeline, random.random((ROWS, 200)))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        runs.append(run)
    return store, runs, ids


@pytest.mark.long
def test_vacuum_gives_the_space_of_deleted_rows_back_and_keeps_the_rest(tmp_path: Path) -> None:
    store, runs, ids = filled(tmp_path)
    with store:
        kept = store.load_arrays(ids[ROWS:]).y_pred_2d().copy()
        store.delete_run(runs[0])
        before, after = store.vacuum()
        assert after < 0.6 * before
        assert (tmp_path / "store.duckdb").stat().st_size == after
        assert np.array_equal(store.load_arrays(ids[ROWS:]).y_pred_2d(), kept)
        store.begin_run("still writable", {}, [])
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs()["name"].to_list() == ["still writable", "b"]
        assert np.array_equal(store.load_arrays(ids[ROWS:]).y_pred_2d(), kept)


def test_what_another_process_has_journaled_counts_before_and_after(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    code = (
        "import sys; from helpers import *; s = WorkspaceStore(sys.argv[1]); w = begin_sweep(s)\n"
        + "for fold in range(900): predict_with_arrays(s, w, fold, fold_id=str(fold))\ns.flush(); print('flushed',"
        " flush=True); sys.stdin.readline(); s.close()"
    )
    writer = child(code, tmp_path)
    assert read_line(writer) == "flushed"
    with WorkspaceStore(tmp_path) as store:
        report = store.vacuum()
        assert report.after <= report.before
        assert count(store, "predictions") == 900
    writer.communicate("go\n", timeout=DEADLINE)


def test_a_vacuum_that_the_disk_has_no_room_for_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WorkspaceStore(tmp_path) as store:
        store.complete_run(store.begin_run("r", {}, []), {})
        monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=1))
        with pytest.raises(StoreUnavailableError, match="the disk has 1"):
            store.vacuum()
        assert store.list_runs().height == 1
    assert names_in(tmp_path) == ["artifacts", "store.duckdb"]


SAVES_WHEN_TOLD = """
import sys
from helpers import *
with WorkspaceStore(sys.argv[1], flush_interval=None) as store:
    run = store.begin_run("other", {}, [])
    store.flush()
    print("open", flush=True)
    sys.stdin.readline()
    store.begin_run("meanwhile", {}, [])
    store.flush()
    print("saved", flush=True)
    sys.stdin.readline()
"""


def test_what_another_process_logs_while_a_vacuum_copies_stays_in_its_log(tmp_path: Path) -> None:
    """Put into the file, it would leave a log of DuckDB's that the copy must not meet after a kill."""
    store, _, _ = filled(tmp_path)
    other, logs = child(SAVES_WHEN_TOLD, tmp_path), list[bool]()
    assert read_line(other) == "open"

    def watch(frame: FrameType, event: str, _what: object) -> None:
        if event == "call" and frame.f_code.co_name == "copy_into":
            other.stdin.write("\n")
            other.stdin.flush()
            assert read_line(other) == "saved"
        if event == "call" and frame.f_code.co_name == "open_to_readers":
            logs.append((tmp_path / "store.duckdb.wal").exists())

    sys.setprofile(watch)
    try:
        store.vacuum()
    finally:
        sys.setprofile(None)
    assert logs
    assert not any(logs)
    assert set(store.list_runs()["name"]) == {"a", "b", "other", "meanwhile"}
    store.close()
    finish(other)
