"""What lies beside a store: segments of its own log are read by their exact names; all else is left alone, or told."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import IS_ROOT, child, count, finish, kill, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.errors import LogDamagedError, StoreUnavailableError

WRITE = """
import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
for number in range(int(sys.argv[2])):
    sweep = begin_sweep(store)
    predict_with_arrays(store, sweep)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
print("flushed", flush=True)
sys.stdin.readline()
"""


def killed_writer(folder: Path, flushes: int = 2) -> Path:
    """A workspace whose only rows are in the log of a killed process; its segment."""
    WorkspaceStore(folder).close()
    writer = child(WRITE, folder, flushes)
    read_line(writer)
    kill(writer)
    (segment,) = segments(folder)
    return segment


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("store.duckdb.log-*"))


def runs(folder: Path) -> int:
    with WorkspaceStore(folder) as store:
        return count(store, "runs")


@pytest.mark.parametrize(
    "stray",
    [
        "{segment}.bak",
        "{segment} (conflicted copy 2026-11-25)",
        "._{segment}",
        "store.duckdb.log-notes",
        "store.duckdb.log-x",
        "store.duckdb.journal-notes",
        "store.duckdb.1.2.new",
        "old store.duckdb.log-{session}",
    ],
)
def test_copies_and_files_of_others_are_left_alone(tmp_path: Path, stray: str) -> None:
    segment = killed_writer(tmp_path)
    path = tmp_path / stray.format(segment=segment.name, session=segment.name.partition("log-")[2])
    shutil.copy(segment, path)
    content = path.read_bytes()
    for _ in range(2):
        with WorkspaceStore(tmp_path) as store:
            assert count(store, "runs") == 2
            store.gc_artifacts()
            store.vacuum()
            assert store.stats().pending == 0
    assert path.read_bytes() == content
    assert not segment.exists()


def test_a_folder_or_a_link_with_the_name_of_a_segment_is_none(tmp_path: Path) -> None:
    segment = killed_writer(tmp_path)
    (folder,) = [segment.with_name(segment.name[:-1] + ("0" if segment.name[-1] != "0" else "1"))]
    folder.mkdir()
    link = segment.with_name(segment.name[:-2] + "ff")
    link.symlink_to(tmp_path / "elsewhere")
    assert runs(tmp_path) == 2
    assert folder.is_dir()
    assert link.is_symlink()


@pytest.mark.parametrize("content", [b"my notes", b"\0\5\x16\7" * 50])
def test_a_file_of_something_else_under_the_name_of_a_segment_stays(tmp_path: Path, content: bytes) -> None:
    segment = killed_writer(tmp_path)
    stray = segment.with_name(segment.name[:-1] + ("0" if segment.name[-1] != "0" else "1"))
    stray.write_bytes(content)
    assert runs(tmp_path) == 2
    assert stray.read_bytes() == content


def test_an_empty_segment_of_a_dead_process_goes(tmp_path: Path) -> None:
    segment = killed_writer(tmp_path)
    empty = segment.with_name(segment.name[:-1] + ("0" if segment.name[-1] != "0" else "1"))
    empty.touch()
    assert runs(tmp_path) == 2
    assert segments(tmp_path) == []


def test_the_log_of_another_store_is_told_and_never_applied(tmp_path: Path) -> None:
    segment = killed_writer(tmp_path)
    content = segment.read_bytes()
    (tmp_path / "store.duckdb").unlink()
    with pytest.warns(UserWarning, match=f"{segment.name} holds rows of another store"):
        assert runs(tmp_path) == 0
    assert segment.read_bytes() == content


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that any user may enter; those of pytest are shut to others again by each session that begins."""
    with tempfile.TemporaryDirectory(prefix="n4a_fast-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.not_on("windows", reason="another user of a test's files takes an administrator")
@pytest.mark.skipif(not IS_ROOT, reason="takes a second user")
def test_a_segment_that_may_not_be_read_is_told_by_name(open_to_all: Path) -> None:
    folder = open_to_all / "workspace"
    segment = killed_writer(folder)
    segment.chmod(0o600)
    code = """
import os, sys
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError
os.seteuid(65534)
try:
    WorkspaceStore.open_readonly(sys.argv[1]).list_runs()
except StoreUnavailableError as error:
    print(error)
"""
    told = finish(child(code, folder))
    assert segment.name in told
    assert "make it readable" in told
    assert issubclass(StoreUnavailableError, OSError)
    assert runs(folder) == 2


def test_damage_before_a_whole_record_is_told_and_the_store_can_be_opened_without_it(tmp_path: Path) -> None:
    segment = killed_writer(tmp_path)
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    with WorkspaceStore(tmp_path) as store:
        with pytest.raises(LogDamagedError, match="record 1 is damaged or missing, and record 2 follows") as raised:
            store.list_runs()
        assert raised.value.path == segment
        segment.rename(tmp_path / "damaged")
        assert store.list_runs().height == 0


@pytest.mark.parametrize("bit", [0, 70, 130, 200, 300, 500])
def test_a_flipped_bit_in_an_applied_record_loses_nothing(tmp_path: Path, bit: int) -> None:
    WorkspaceStore(tmp_path).close()
    writer = child(
        WRITE.replace("store.complete", "sys.stdin.readline() if number else None; store.complete"), tmp_path, 2
    )
    with WorkspaceStore(tmp_path) as store:
        while not count(store, "runs"):  # it is applied by this process, or by the writer once that is idle
            assert writer.poll() is None
            time.sleep(0.01)
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    read_line(writer)
    kill(writer)
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    segment.write_bytes(data)
    assert runs(tmp_path) == 2
    assert segments(tmp_path) == []


def test_users_files_below_the_artifacts_are_not_collected(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    mine = [
        tmp_path / "artifacts" / name
        for name in ("readme.txt", "zz/deep/mine.joblib", "ab/model.joblib", ".saving/n.txt")
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    orphan = tmp_path / "artifacts" / "ab" / "ab00112233445566778899aabbccddee.joblib"
    orphan.write_text("left by a killed save")
    os.utime(orphan, (0, 0))
    with WorkspaceStore(tmp_path) as store:
        assert store.gc_artifacts() == 1
    assert all(path.exists() for path in mine)
    assert not orphan.exists()


def test_a_log_of_format_1_is_finished_after_the_migration(tmp_path: Path) -> None:
    """Two journals of killed processes: one with a frame that is in the tables, one with none."""
    shutil.unpack_archive(Path(__file__).parents[1] / "data" / "formats" / "format_1.zip", tmp_path)
    with WorkspaceStore(tmp_path) as store:
        assert sorted(store.list_pipelines().select("dataset_name", "name").rows()) == [
            ("corn", "0001_pls"),
            ("partly", "0001_pls"),
            ("partly", "0002"),
            ("waiting", "0001_pls"),
        ]
        assert (count(store, "predictions"), count(store, "prediction_arrays"), count(store, "logs")) == (7, 7, 1)
    assert list(tmp_path.glob("store.duckdb.journal-*")) == []
    assert (tmp_path / "store.duckdb.v1").exists()


def test_a_journal_of_format_1_beside_a_new_store_is_not_its_log(tmp_path: Path) -> None:
    shutil.unpack_archive(Path(__file__).parents[1] / "data" / "formats" / "format_1.zip", tmp_path / "old")
    WorkspaceStore(tmp_path / "new").close()
    (journal, *_) = (tmp_path / "old").glob("store.duckdb.journal-*")
    shutil.copy(journal, tmp_path / "new")
    assert runs(tmp_path / "new") == 0
    assert (tmp_path / "new" / journal.name).exists()
