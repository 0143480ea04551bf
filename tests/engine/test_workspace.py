"""One workspace per folder and process: shared by its stores, refused where it cannot be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import (
    DEADLINE,
    IS_ROOT,
    Sweep,
    begin_pipeline,
    begin_sweep,
    child,
    count,
    counts,
    finish,
    names_in,
    plain_rows,
    predict,
    predict_with_arrays,
    read_line,
    save_chain,
)

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError, ReadOnlyError, StoreLockedError, StoreUnavailableError

# -- several stores in one process -----------------------------------------------------------


def test_stores_on_one_path_see_each_other_at_once(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as one, WorkspaceStore(tmp_path / "." / "x" / "..") as other:
        sweep = begin_sweep(one)
        prediction = predict(other, sweep.pipeline, sweep.chain)
        one.save_prediction_arrays(prediction, None, [1.0])  # type: ignore[arg-type]
        assert other.get_prediction_arrays(prediction) is not None
        assert count(one, "predictions") == 1


def test_a_link_to_the_folder_is_the_same_workspace(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with WorkspaceStore(tmp_path / "real") as one, WorkspaceStore(tmp_path / "link") as other:
        run = one.begin_run("r", {}, [])
        assert other.get_run(run) is not None


def test_the_first_to_close_leaves_the_other_working(tmp_path: Path) -> None:
    one, other = WorkspaceStore(tmp_path), WorkspaceStore(tmp_path)
    sweep = begin_sweep(one)
    one.close()
    predict(other, sweep.pipeline, sweep.chain)
    other.close()
    assert plain_rows(tmp_path / "store.duckdb", "SELECT count(*) FROM predictions") == [(1,)]


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_reader_and_a_writer_live_side_by_side(tmp_path: Path, reader_first: bool) -> None:
    WorkspaceStore(tmp_path).close()
    makers = [WorkspaceStore.open_readonly, WorkspaceStore]
    first, second = (maker(tmp_path) for maker in (makers if reader_first else makers[::-1]))
    reader, writer = (first, second) if reader_first else (second, first)
    sweep = begin_sweep(writer)
    predict_with_arrays(writer, sweep)
    assert reader.get_run(sweep.run) is not None
    assert count(reader, "prediction_arrays") == 1
    with pytest.raises(ReadOnlyError):
        reader.begin_run("r", {}, [])
    writer.close()
    assert count(reader, "predictions") == 1
    with pytest.raises(ReadOnlyError):
        reader.begin_run("r", {}, [])
    reader.close()
    assert plain_rows(tmp_path / "store.duckdb", "SELECT count(*) FROM predictions") == [(1,)]


# -- places that cannot hold a workspace -----------------------------------------------------


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("not a folder")
    return folder / "file" / "workspace"


def the_file_itself(folder: Path) -> Path:
    (folder / "file").write_text("not a folder")
    return folder / "file"


def artifacts_is_a_file(folder: Path) -> Path:
    (folder / "artifacts").write_text("not a folder")
    return folder


def kernel_folder(folder: Path) -> Path:
    return Path("/proc/self/workspace")


def not_permitted(folder: Path) -> Path:
    if IS_ROOT:
        pytest.skip("root may write everywhere")
    (folder / "closed").mkdir(mode=0o555)
    return folder / "closed"


OF_THE_KERNEL = pytest.param(kernel_folder, marks=pytest.mark.not_on("macos", reason="there is no /proc"))


@pytest.mark.parametrize("place", [below_a_file, the_file_itself, artifacts_is_a_file, OF_THE_KERNEL, not_permitted])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    with pytest.raises(StoreUnavailableError, match="cannot be used") as caught:
        WorkspaceStore(path)
    assert str(caught.value.path).startswith(str(Path(os.path.realpath(path))))


@pytest.mark.parametrize("place", [below_a_file, the_file_itself])
def test_a_reader_creates_nothing(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((NotFoundError, StoreUnavailableError)):
        WorkspaceStore.open_readonly(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("opened", [WorkspaceStore, WorkspaceStore.open_readonly])
def test_the_file_in_place_of_its_folder_is_told_with_the_folder(
    tmp_path: Path, opened: Callable[[Path], WorkspaceStore]
) -> None:
    WorkspaceStore(tmp_path).close()
    with pytest.raises(
        StoreUnavailableError, match=re.escape(f"it is a file; give the folder {str(tmp_path.resolve())!r}") + "$"
    ):
        opened(tmp_path / "store.duckdb")
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(StoreUnavailableError, match="it is a file; give the folder of the workspace$"):
        opened(tmp_path / "other.txt")


def test_a_refused_place_can_be_opened_once_it_is_mended(tmp_path: Path) -> None:
    path = the_file_itself(tmp_path)
    with pytest.raises(StoreUnavailableError):
        WorkspaceStore(path)
    path.unlink()
    with WorkspaceStore(path) as store:
        assert count(store, "runs") == 0


# -- other processes -------------------------------------------------------------------------

HOLD = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
with store.transaction():
    run = store.begin_run("held", {}, [])
    store.get_run(run)
    print("held", flush=True)
    sys.stdin.readline()
store.close()
"""
IDLE = """
import sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
store.begin_run("idle", {}, [])
store.flush()
print("idle", flush=True)
sys.stdin.readline()
print(store.list_runs().height, flush=True)
store.close()
"""
READ = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    print(store.list_runs().height, flush=True)
"""


@pytest.mark.parametrize("maker", [WorkspaceStore, WorkspaceStore.open_readonly])
def test_a_busy_process_is_named_when_the_patience_ends(tmp_path: Path, maker: Callable[..., WorkspaceStore]) -> None:
    WorkspaceStore(tmp_path).close()
    holder = child(HOLD, tmp_path)
    assert read_line(holder) == "held"
    with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
        maker(tmp_path, lock_timeout=0.1)
    holder.communicate("go\n", timeout=DEADLINE)
    with maker(tmp_path, lock_timeout=DEADLINE) as store:
        assert store.list_runs()["name"].to_list() == ["held"]


def test_a_flush_needs_no_turn_and_a_read_says_who_is_in_the_way(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, lock_timeout=0.1) as store:
        sweep = begin_sweep(store)
        store.flush()
        store.list_runs()
        holder = child(HOLD, tmp_path)
        assert read_line(holder) == "held"
        predict_with_arrays(store, sweep)
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
        with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
            store.list_runs()
        holder.communicate("go\n", timeout=DEADLINE)
        assert counts(store, "runs", "predictions", "prediction_arrays") == {
            "runs": 2,
            "predictions": 1,
            "prediction_arrays": 1,
        }


def complete_a_pipeline(store: WorkspaceStore, run: str) -> None:
    pipeline = begin_pipeline(store, run)
    sweep = Sweep(run, pipeline, save_chain(store, pipeline))
    for fold in range(3):
        predict_with_arrays(store, sweep, fold_id=str(fold))
    store.complete_pipeline(pipeline, 0.1, None, "rmse", 5)


def test_a_full_buffer_waits_for_nobody_until_it_is_twice_full(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_rows=6, lock_timeout=0.2) as store:
        run = store.begin_run("sweep", {}, [])
        holder = child(HOLD, tmp_path)
        assert read_line(holder) == "held"
        for _ in range(15):
            complete_a_pipeline(store, run)
        with pytest.raises(StoreLockedError):
            complete_a_pipeline(store, run)
        finish(holder)
        assert counts(store, "pipelines", "predictions") == {"pipelines": 16, "predictions": 48}


def test_what_has_waited_for_long_goes_into_the_tables_in_smaller_parts(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_rows=6, flush_interval=None) as store:
        run, workspace = store.begin_run("sweep", {}, []), store._open()
        for held in (3, 6):
            complete_a_pipeline(store, run)
            workspace.buffer._waits_since = time.monotonic()
            assert len(workspace.predictions) == held
        workspace.buffer._waits_since = time.monotonic() - 3
        complete_a_pipeline(store, run)
        assert len(workspace.predictions) == 0
        complete_a_pipeline(store, run)
        assert len(workspace.predictions) == 3
        assert counts(store, "predictions") == {"predictions": 12}


def test_what_a_reader_has_put_in_the_tables_is_not_put_there_again_when_the_buffer_is_full(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, flush_rows=6) as store:
        run = store.begin_run("sweep", {}, [])
        for _ in range(7):
            complete_a_pipeline(store, run)
        assert finish(child(READ, tmp_path)) == "1\n"  # a run; it puts in the tables what is flushed
        complete_a_pipeline(store, run)
        assert len(store._open().predictions) == 3
        assert counts(store, "pipelines", "predictions") == {"pipelines": 8, "predictions": 24}


def test_a_large_flush_that_cannot_have_the_file_keeps_its_rows(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, lock_timeout=0.1) as store:
        sweep = begin_sweep(store)
        store.list_runs()
        holder = child(HOLD, tmp_path)
        assert read_line(holder) == "held"
        for fold in range(1100):
            predict_with_arrays(store, sweep, fold_id=str(fold))
        with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
            store.flush()
        holder.communicate("go\n", timeout=DEADLINE)
        store.flush()
        assert counts(store, "predictions", "prediction_arrays") == {"predictions": 1100, "prediction_arrays": 1100}


def test_a_store_closed_while_another_process_holds_the_file_loses_nothing(tmp_path: Path) -> None:
    store = WorkspaceStore(tmp_path, lock_timeout=0.1)
    sweep = begin_sweep(store)
    store.list_runs()
    holder = child(HOLD, tmp_path)
    assert read_line(holder) == "held"
    predict_with_arrays(store, sweep)
    store.close()
    holder.communicate("go\n", timeout=DEADLINE)
    with WorkspaceStore.open_readonly(tmp_path) as reader:
        assert counts(reader, "runs", "predictions", "prediction_arrays") == {
            "runs": 2,
            "predictions": 1,
            "prediction_arrays": 1,
        }


def test_a_store_that_is_open_but_idle_locks_nobody_out(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    idle = child(IDLE, tmp_path)
    assert read_line(idle) == "idle"
    with WorkspaceStore(tmp_path, lock_timeout=DEADLINE) as store:
        store.begin_run("mine", {}, [])
    assert finish(child(READ, tmp_path)).split() == ["2"]
    assert idle.communicate("go\n", timeout=DEADLINE)[0].split() == ["2"]


def test_processes_that_create_a_workspace_together_share_it(tmp_path: Path) -> None:
    workers = [child(IDLE, tmp_path / "new") for _ in range(3)]
    for worker in workers:
        assert read_line(worker) == "idle"
    for worker in workers:
        assert worker.communicate("go\n", timeout=DEADLINE)[0].split() == ["3"]
    assert names_in(tmp_path / "new") == ["artifacts", "store.duckdb"]


def test_a_store_that_nobody_closed_is_written_when_the_program_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from n4a_fast import WorkspaceStore; WorkspaceStore(sys.argv[1]).begin_run('left open', {}, [])"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert ended.stderr == ""
    assert not (tmp_path / "store.duckdb.wal").exists()
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert store.list_runs()["name"].to_list() == ["left open"]
