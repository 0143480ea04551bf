"""Locks between processes: who gets one, who waits, and what ends it. The holder's end does, and nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from helpers import DEADLINE, child, kill, read_line

from n4a_fast.platform import FileLock, LocksUnsupportedError

HOLD = """
import sys
from pathlib import Path
from n4a_fast.platform import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.acquire(shared=sys.argv[2:] == ["shared"]), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "file":
        (tmp_path / "file").touch()
        return tmp_path / "file"
    return tmp_path


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_a_lock_is_for_one_or_shared_by_many(path: Path) -> None:
    one, other, third = (FileLock(path) for _ in range(3))
    assert one.acquire(0.0)
    assert not other.acquire(0.0)
    assert not other.acquire(0.0, shared=True)
    one.release()
    assert other.acquire(0.0, shared=True)
    assert third.acquire(0.0, shared=True)
    assert not one.acquire(0.01)
    other.release()
    third.release()
    assert one.acquire(DEADLINE)  # the wait that was given up may have it for a moment


def test_a_locked_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "holder"
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "file").touch()
    (folder / "beside").touch()
    lock, late = FileLock(folder), FileLock(folder)
    assert lock.acquire(0.0)
    assert not late.acquire(0.0)  # has it open
    lock.remove_folder()
    late.close()
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        FileLock(folder).acquire(0.0)


def test_no_use_of_another_lock_on_the_path_lets_go_of_a_lock(path: Path) -> None:
    held = FileLock(path)
    assert held.acquire(0.0)
    for shared in (True, False):
        other = FileLock(path)
        assert not other.acquire(0.0, shared=shared)
        other.release()
        other.close()
    assert not FileLock(path).acquire(0.0)
    assert held.is_held


def test_a_held_lock_is_not_taken_again(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquire(0.0)
    with pytest.raises(AssertionError, match="locked already"):
        lock.acquire(0.0, shared=True)


@pytest.mark.parametrize("timeout", [None, DEADLINE])
def test_a_wait_ends_with_the_holder(path: Path, timeout: float | None) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "True"
    lock, got = FileLock(path), []
    waiting = threading.Thread(target=lambda: got.append(lock.acquire(timeout)))
    waiting.start()
    assert not FileLock(path).acquire(0.0)
    kill(holder)
    waiting.join(DEADLINE)
    assert got == [True]


def test_a_forked_child_neither_has_the_lock_nor_ends_it(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquire(0.0)
    if not (forked := os.fork()):
        lock.release()
        lock.forget_after_fork()
        os._exit(lock.is_held or FileLock(path).acquire(0.0))
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert not FileLock(path).acquire(0.0)


def test_a_lock_knows_whether_its_file_still_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    lock = FileLock(path)
    assert lock.acquire(0.0)
    assert lock.is_this_file()
    path.rename(tmp_path / "away")
    assert not lock.is_this_file()
    path.touch()
    assert not lock.is_this_file()


def test_what_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "missing").acquire(0.0)


def test_closed_locks_leave_no_descriptor(path: Path) -> None:
    before = descriptors()
    for _ in range(20):
        one, other = FileLock(path), FileLock(path)
        one.acquire(0.0)
        other.acquire(0.0)
        other.close()
        one.close()
    assert descriptors() == before


@pytest.mark.not_on("macos", reason="O_PATH stands for a disk without locks")
@pytest.mark.not_on("windows", reason="the numbers are those of Linux and macOS")
def test_a_disk_without_locks_is_told_apart_from_a_lock_that_is_held(path: Path) -> None:
    from n4a_fast.platform import posix

    for number in posix._NO_LOCKS:
        assert posix.has_no_locks(OSError(number, os.strerror(number)))
    assert not posix.has_no_locks(BlockingIOError(11, "held"))
    assert not posix.has_no_locks(OSError(5, "Input/output error"))
    lock = FileLock(path)
    lock._descriptor = os.open(path, os.O_PATH)  # the kernel refuses to lock it
    with pytest.raises(LocksUnsupportedError, match=path.name):
        lock.acquire(0.0)
