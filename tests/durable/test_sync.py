"""Files that are said to be on the disk are, whatever becomes of threads: the kernel is asked which of their pages are
still to be written.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from n4a_fast.durable import sync
from n4a_fast.durable.sync import Syncing
from n4a_fast.platform import posix

_CACHESTAT = 451  # of Linux 6.5, the same on all its machines


class _Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Pages(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cached", "dirty", "writing", "evicted", "lately_evicted")]


def unwritten(path: Path) -> int:
    """Pages of a file that are in memory alone."""
    descriptor, found = os.open(path, os.O_RDONLY), _Pages()
    try:
        if ctypes.CDLL(None, use_errno=True).syscall(
            _CACHESTAT, descriptor, ctypes.byref(_Range(0, 0)), ctypes.byref(found), 0
        ):
            pytest.skip("this kernel does not tell which pages are unwritten")
    finally:
        os.close(descriptor)
    return int(found.dirty + found.writing)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    if not posix._is_synced_as_a_whole(os.fstat(descriptor).st_dev):
        pytest.skip("this file system is never synced as a whole")
    yield descriptor
    os.close(descriptor)


def written(folder: Path, files: int) -> list[Path]:
    """New files that the disk does not have yet."""
    paths = [folder / str(number) for number in range(files)]
    for path in paths:
        path.write_bytes(content := os.urandom(50_000))
        while not unwritten(path):  # the system has written it of its own accord
            path.write_bytes(content)
    return paths


def test_many_files_are_written_together(tmp_path: Path, witness: int) -> None:
    paths = written(tmp_path, 20)
    sync.sync_all([*paths, tmp_path / "gone", tmp_path], witness, as_a_whole=True)
    assert not any(unwritten(path) for path in paths)


def test_where_much_waits_in_memory_the_files_are_written_alone(
    tmp_path: Path, witness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(tmp_path, 20)
    monkeypatch.setattr(posix, "_WAITING_AT_MOST", -1)  # how much waits depends on other programs, too
    monkeypatch.setattr(
        posix, "_SYNC_FILE_SYSTEM", lambda _witness: pytest.fail("would wait for what other programs have left")
    )
    Syncing([*map(str, paths), str(tmp_path / "gone"), str(tmp_path)], witness).wait()
    assert not any(unwritten(path) for path in paths)


def test_a_file_system_that_is_not_known_is_synced_file_by_file() -> None:
    assert not posix._is_synced_as_a_whole(os.makedev(4095, 1))
    assert not posix._is_synced_as_a_whole(os.stat("/proc").st_dev)


def test_a_sync_that_was_begun_is_whole_once_it_was_waited_for(tmp_path: Path, witness: int) -> None:
    paths = written(tmp_path, 20)
    Syncing([*map(str, paths), str(tmp_path / "gone"), str(tmp_path)], witness).wait()
    assert not any(unwritten(path) for path in paths)


def test_the_disk_has_been_asked_when_the_caller_goes_on(
    tmp_path: Path, witness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(posix, "_SYNC_FILE_SYSTEM", lambda descriptor: asked.append(descriptor) or time.sleep(0.1))
    monkeypatch.setattr(posix, "_WAITING_AT_MOST", 2**40)
    patience = sys.getswitchinterval()
    sys.setswitchinterval(60.0)  # a thread that lets go of the GIL does not get it back while its caller computes
    try:
        syncing = Syncing([str(tmp_path)], witness)
        assert asked == [witness]
    finally:
        sys.setswitchinterval(patience)
    syncing.wait()


def test_what_cannot_be_synced_is_told_to_who_waits(
    tmp_path: Path, witness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "_WAITING_AT_MOST", -1)  # file by file, and fsync refuses a device
    syncing = Syncing([str(tmp_path), "/dev/null"], witness)
    with pytest.raises(OSError, match="Invalid argument"):
        syncing.wait()


def test_without_threads_the_one_who_waits_does_it(
    tmp_path: Path, witness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    paths = written(tmp_path, 3)
    Syncing([str(path) for path in paths], witness).wait()
    assert not any(unwritten(path) for path in paths)


def test_a_forked_child_does_it_itself(tmp_path: Path, witness: int, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, parent, real = threading.Event(), os.getpid(), sync.sync_all
    monkeypatch.setattr(
        sync, "sync_all", lambda *how, **rest: go_on.wait() if os.getpid() == parent else real(*how, **rest)
    )
    paths = written(tmp_path, 3)
    syncing = Syncing([str(path) for path in paths], witness)
    if not (child := os.fork()):
        syncing.wait()
        os._exit(any(unwritten(path) for path in paths))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    syncing.wait()
