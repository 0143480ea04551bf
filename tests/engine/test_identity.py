"""A workspace is its file, not its path: what happens to the folder of an open store is told before anything is
acknowledged, and the path can be opened again at once.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import DEADLINE, begin_pipeline, begin_sweep, child, count, finish, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreMovedError, StoreUnavailableError

Happening = Callable[[Path, Path], object]  # to the folder of a store, with a backup of it at hand


def removed(folder: Path, _backup: Path) -> None:
    shutil.rmtree(folder)


def made_anew(folder: Path, _backup: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def renamed(folder: Path, _backup: Path) -> None:
    folder.rename(folder.with_name("renamed"))


def restored(folder: Path, backup: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def file_removed(folder: Path, _backup: Path) -> None:
    (folder / "store.duckdb").unlink()


def file_restored(folder: Path, backup: Path) -> None:
    shutil.copy(backup / "store.duckdb", folder / "copy")
    (folder / "copy").replace(folder / "store.duckdb")


HAPPENINGS: dict[str, Happening] = {
    "removed": removed,
    "removed and made anew": made_anew,
    "renamed": renamed,
    "restored": restored,
    "file removed": file_removed,
    "file restored": file_restored,
}
TOLD = {
    "removed": "removed with its folder",
    "removed and made anew": "was removed",
    "renamed": "renamed with its folder",
    "restored": "replaced by another file",
    "file removed": "was removed",
    "file restored": "replaced by another file",
}


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A workspace with one run, to be copied."""
    with WorkspaceStore(tmp_path / "backup") as store:
        begin_sweep(store)
    return tmp_path / "backup"


@pytest.fixture
def folder(tmp_path: Path, backup: Path) -> Path:
    return Path(shutil.copytree(backup, tmp_path / "open"))


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.parametrize("attached", [True, False], ids=["attached", "idle"])
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_nothing_is_acknowledged_once_the_file_has_gone(
    folder: Path, backup: Path, happening: str, attached: bool
) -> None:
    store = WorkspaceStore(folder)
    run = store.list_runs()["run_id"][0]
    if not attached:
        store._open().database.detach()
    HAPPENINGS[happening](folder, backup)
    with pytest.raises(StoreMovedError, match=TOLD[happening]) as raised:
        store.complete_pipeline(begin_pipeline(store, run), 0.1, 0.2, "rmse", 5)
    assert raised.value.path == folder / "store.duckdb"
    store.begin_run("more", {}, [])
    with pytest.raises(StoreMovedError):
        store.flush()
    with pytest.raises(StoreMovedError):
        store.close()


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_the_path_can_be_opened_again_at_once(folder: Path, backup: Path, happening: str) -> None:
    old = WorkspaceStore(folder)
    old.begin_run("lost", {}, [])
    old.list_runs()
    if happening.startswith("file"):
        old._open().database.detach()  # DuckDB's log stays beside a file that is taken away alone
    HAPPENINGS[happening](folder, backup)
    with WorkspaceStore(folder) as store:
        before = {"restored": 1, "file restored": 2}.get(happening, 0)  # the log beside the file has one more
        assert store.list_runs().height == before
        sweep = begin_sweep(store)
        predict_with_arrays(store, sweep)
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
        with pytest.raises(StoreMovedError):
            old.list_runs()
    found = finish(child(READ, folder)).split()
    assert found == [str(1 + before), "1"]


READ = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(store.list_runs().height, store.top_predictions(5).height)
"""


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
def test_a_renamed_folder_is_opened_where_it_is_with_all_that_was_acknowledged(folder: Path) -> None:
    old = WorkspaceStore(folder)
    old.begin_run("acknowledged", {}, [])
    old.flush()
    folder.rename(folder.with_name("renamed"))
    with WorkspaceStore(folder.with_name("renamed")) as store:
        assert "acknowledged" in store.list_runs()["name"].to_list()
        store.begin_run("goes on", {}, [])
    with pytest.raises(StoreMovedError, match="renamed"):
        old.list_runs()


def test_two_spellings_of_a_path_are_one_workspace(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with WorkspaceStore(folder) as store, WorkspaceStore(tmp_path / "link") as other:
        run = store.begin_run("one", {}, [])
        assert run in other.list_runs()["run_id"].to_list()


def test_a_vacuum_by_another_process_is_followed(folder: Path) -> None:
    with WorkspaceStore(folder) as store:
        store.list_runs()
        for number in range(2):
            store._open().database.detach()
            assert finish(child(VACUUM, folder)).strip() == "done"
            run = store.begin_run(f"run {number}", {}, [])
            store.flush()  # the first thing that is asked for after the file was rewritten
            assert run in store.list_runs()["run_id"].to_list()
        store.vacuum()
        store.begin_run("after its own", {}, [])
    with WorkspaceStore(folder) as store:
        assert count(store, "runs") == 4


VACUUM = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    store.vacuum()
print("done")
"""


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
def test_a_transaction_on_a_file_that_has_gone_is_not_committed(folder: Path, backup: Path) -> None:
    with pytest.raises(StoreMovedError), WorkspaceStore(folder) as store, store.transaction():
        begin_sweep(store)
        restored(folder, backup)
    with WorkspaceStore(folder) as store:
        assert count(store, "runs") == 1


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
def test_a_temporary_folder_that_is_gone_at_exit_is_told_in_one_line(tmp_path: Path) -> None:
    code = """
import sys, tempfile
from n4a_fast import WorkspaceStore
with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
    store = WorkspaceStore(folder + "/workspace")
    store.begin_run("run", {}, [])
"""
    process = child(code, tmp_path)
    output, errors = process.communicate(timeout=DEADLINE)
    assert (output, process.returncode) == ("", 0)
    (line,) = errors.splitlines()
    assert "was removed with its folder" in line


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.long
def test_the_idle_thread_of_a_store_does_not_touch_what_has_taken_its_place(folder: Path, backup: Path) -> None:
    store = WorkspaceStore(folder)
    store.list_runs()
    with store.transaction():
        store.list_runs()  # a block that reads is one transaction of DuckDB's
        store.begin_run("in DuckDB's log", {}, [])
    log = folder / "store.duckdb.wal"
    assert log.exists()
    restored(folder, backup)
    log.write_bytes(b"another file's")
    deadline = time.monotonic() + DEADLINE
    while store._open().database.attached and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_bytes() == b"another file's"
    log.unlink()


@pytest.mark.not_on("windows", reason="a file that DuckDB has open is neither read nor removed")
def test_the_log_of_a_file_that_was_taken_away_alone_is_put_aside(folder: Path) -> None:
    store = WorkspaceStore(folder)
    with store.transaction():
        store.list_runs()  # a block that reads is one transaction of DuckDB's
        store.begin_run("in DuckDB's log", {}, [])
    log = (folder / "store.duckdb.wal").read_bytes()
    (folder / "store.duckdb").unlink()
    with WorkspaceStore(folder) as store:
        assert count(store, "runs") == 0
    assert (folder / "store.duckdb.wal.orphaned").read_bytes() == log


@pytest.mark.not_on("windows", reason="a file that DuckDB has open is neither read nor removed")
def test_the_log_of_another_file_is_told_by_name(folder: Path, backup: Path) -> None:
    with WorkspaceStore(backup) as other:
        with other.transaction():
            other.list_runs()  # a block that reads is one transaction of DuckDB's
            begin_sweep(other)
        other._open().database.checkpoint()
        with other.transaction():
            other.list_runs()  # a block that reads is one transaction of DuckDB's
            begin_sweep(other)
        shutil.copy(backup / "store.duckdb.wal", folder)
    with pytest.raises(StoreUnavailableError, match="wal cannot be used: it is the log of another file"):
        WorkspaceStore(folder)
    (folder / "store.duckdb.wal").unlink()
    with WorkspaceStore(folder) as store:
        assert count(store, "runs") == 1


def no_longer_listed(folder: Path) -> None:
    """What a clean-up of hidden or unknown files leaves of a running process's log."""
    (log,) = folder.glob("store.duckdb.log-*")
    log.unlink()


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.parametrize("nested", [False, True], ids=["a block", "a block in a block"])
@pytest.mark.parametrize("happening", ["renamed for a while", "log removed"])
def test_a_block_that_is_given_up_takes_nothing_acknowledged_along(folder: Path, happening: str, nested: bool) -> None:
    away = folder.with_name("away")
    with WorkspaceStore(folder, flush_interval=None) as store:
        sweep = begin_sweep(store)
        predict_with_arrays(store, sweep)
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)  # in the log, and in memory
        outer = store.transaction() if nested else contextlib.nullcontext()
        with contextlib.suppress(StoreMovedError), outer:
            no_longer_listed(folder) if happening == "log removed" else folder.rename(away)
            with contextlib.suppress(LookupError), store.transaction():
                store.begin_run("given up", {}, [])
                raise LookupError
            if away.exists():
                away.rename(folder)
    with WorkspaceStore(folder) as store:
        assert "given up" not in store.list_runs()["name"].to_list()
        assert "completed" in store.list_pipelines()["status"].to_list()
        assert count(store, "prediction_arrays") == 1


LEAVES_A_LOG = """
import os, sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
store.begin_run("of a killed writer", {}, [])
store.flush()
os._exit(0)  # as killed: it is in the log alone
"""


def test_what_a_restored_backup_has_in_a_log_is_not_taken_for_applied(folder: Path, backup: Path) -> None:
    shutil.rmtree(backup)
    finish(child(LEAVES_A_LOG, folder))
    shutil.copytree(folder, backup)
    store = WorkspaceStore(folder)
    assert "of a killed writer" in store.list_runs()["name"].to_list()  # applied here, and not in the backup
    restored(folder, backup)
    with contextlib.suppress(StoreMovedError):
        store.list_runs()
    with WorkspaceStore(folder) as anew:
        assert "of a killed writer" in anew.list_runs()["name"].to_list()
