"""Each call of `n4a_fast.platform` does what it promises, on this system and by the rules of each other one."""

from __future__ import annotations

import ast
import errno
import gc
import mmap
import os
import re
import weakref
from pathlib import Path

import pytest
from helpers import child, kill, read_line

from n4a_fast import platform
from n4a_fast.platform import locks

SOURCES = Path(locks.__file__).parent
HOLD = """
import sys
from n4a_fast import platform
held = platform.open_unshared(sys.argv[1])
print(held is not None, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"0123456789" * 1000)
    return path


def test_bytes_are_read_and_written_at_their_place(file: Path) -> None:
    descriptor = platform.open_regular(file, os.O_RDWR)
    try:
        platform.write_at(descriptor, memoryview(b"xyz"), 4)
        assert platform.read_at(descriptor, 8, 2) == b"23xyz789"
        assert platform.read_at(descriptor, 100, 9_995) == b"56789"  # the end of the file
        platform.start_writing(descriptor)
    finally:
        os.close(descriptor)


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    descriptor = platform.open_regular(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        platform.write_pieces(descriptor, [b"ab", memoryview(b"c")] * 2000)
        assert platform.read_at(descriptor, 10_000, 0) == b"abc" * 2000
    finally:
        os.close(descriptor)


def test_a_range_is_copied_as_far_as_the_system_goes(file: Path, tmp_path: Path) -> None:
    source, target = platform.open_regular(file), platform.open_regular(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    try:
        end = platform.copy_range(source, target, 4096, 8192)
        assert end in (4096, 8192)
        assert platform.read_at(target, 4096, 4096) == file.read_bytes()[4096:end]
        assert platform.copy_range(target, source, 0, 100) == 0  # which may not be written to: writing tells why
    finally:
        os.close(source)
        os.close(target)


def test_a_file_is_known_by_its_identity(file: Path) -> None:
    other = file.with_name("other")
    other.touch()
    descriptor = platform.open_regular(file)
    assert platform.identity(file) == platform.identity_of(descriptor) != platform.identity(other)
    os.close(descriptor)
    with pytest.raises(FileNotFoundError):
        platform.identity(file.with_name("nothing"))


def test_the_identity_of_a_pinned_file_is_given_to_no_other(file: Path) -> None:
    before, pin = platform.identity(file), platform.pin(file)
    if pin is None:
        pytest.skip("the disks of this system never give a number twice")
    platform.remove(file)
    file.touch()
    assert platform.identity(file) != before
    os.close(pin)


def test_a_file_that_is_opened_unshared_is_in_use(file: Path) -> None:
    holder = child(HOLD, file)
    assert read_line(holder) == "True"
    assert platform.open_unshared(file) is None
    assert platform.is_in_use(file, "IO Error: Could not set lock on file")
    kill(holder)
    opened = platform.open_unshared(file)
    assert opened is not None
    os.close(opened[0])
    assert opened[1]  # it may be written to
    assert not platform.is_in_use(file, "IO Error: No such file")


def test_what_is_synced_stays_readable(file: Path) -> None:
    descriptor = platform.open_regular(file, os.O_RDWR)
    try:
        platform.sync_data(descriptor)
        platform.sync_file(descriptor)
        if platform.syncs_as_a_whole(descriptor):
            platform.sync_file_system(descriptor)
        else:
            try:
                platform.sync_file_system(descriptor)
            except OSError as error:
                assert error.errno == errno.ENOSYS  # noqa: PT017
    finally:
        os.close(descriptor)
    platform.sync_path(file)
    platform.sync_path(file.parent)
    assert file.stat().st_size == 10_000


def test_a_taken_name_is_not_published_over(tmp_path: Path) -> None:
    draft, other, target = (tmp_path / name for name in ("draft", "other", "target"))
    draft.write_text("first")
    other.write_text("second")
    platform.publish_new(draft, target)
    with pytest.raises(FileExistsError):
        platform.publish_new(other, target)
    assert target.read_text() == "first"
    assert platform.identity(target) == platform.identity(draft)
    platform.replace(other, target)
    assert target.read_text() == "second"
    assert not other.exists()


def test_two_folders_change_places_or_stay(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    exchanged = platform.exchange(one, other)
    assert [path.name for path in one.iterdir()] == ["other" if exchanged else "one"]
    assert [path.name for path in other.iterdir()] == ["one" if exchanged else "other"]


def test_a_removed_file_is_kept_by_who_has_it_mapped_and_its_name_is_free(file: Path) -> None:
    descriptor = platform.open_regular(file)
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
        platform.remove(file)
        assert all(platform.is_removed_name(name) for name in os.listdir(file.parent))
        file.write_text("next")
        platform.forget_pages(mapped, 0, mmap.ALLOCATIONGRANULARITY)
        assert mapped[:] == b"0123456789" * 1000
    os.close(descriptor)
    platform.finish_removals(file.parent)
    assert os.listdir(file.parent) == ["file"]
    assert not platform.is_removed_name("file")
    platform.remove(file)
    with pytest.raises(FileNotFoundError):
        platform.remove(file)


def test_a_name_that_means_something_else_is_none() -> None:
    assert platform.is_name("model.joblib")
    assert not platform.is_name("a/b")
    windows = platform.SHUTS_READERS_OUT
    assert [platform.is_name(name) for name in ("CON", "nul.txt", "a:b", "end.", "a\\b")] == [not windows] * 5


def test_folders_are_asked_where_they_lie_and_whether_they_take_files(tmp_path: Path) -> None:
    place = platform.mount_point(tmp_path)
    assert os.path.ismount(place)
    assert Path(os.path.realpath(tmp_path)).is_relative_to(place)
    assert platform.is_writable_folder(tmp_path)
    temporary = platform.temporary_folder()
    assert temporary is not None
    assert platform.is_writable_folder(temporary)


class Kept:
    pass


def test_what_only_the_interpreter_tells() -> None:
    kept = Kept()
    seen = weakref.ref(kept)
    platform.keep_for_ever(kept)
    del kept
    gc.collect()
    assert seen() is not None
    call, digest = platform.openssl_sha256()
    assert bool(call) == bool(digest)
    assert isinstance(platform.runs_threads_named("of no thread"), bool)
    platform.at_fork(in_child=bool)  # does no harm; tests of the engine fork


def test_no_call_is_left_out() -> None:
    called = set(re.findall(r"\bplatform\.(\w+)", Path(__file__).read_text(encoding="utf-8")))
    in_test_locks = {"FileLock", "LocksUnsupportedError"}
    assert set(platform.__all__) - called == in_test_locks


def test_each_system_has_the_same_calls_of_the_same_arguments() -> None:
    posix, windows = (
        {
            node.name: ast.unparse(node.args)
            for node in ast.parse((SOURCES / f"{system}.py").read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        }
        for system in ("posix", "windows")
    )
    assert posix == windows
