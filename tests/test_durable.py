"""Files made durable in threads: all of them, whatever becomes of the threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from n4a_fast import durable
from n4a_fast.durable import Syncing

NOT_TO_BE_SYNCED = "/dev/null"  # fsync refuses it, so an error tells that it was tried


@pytest.mark.parametrize("count", [1, 24, 200])
def test_every_path_is_synced_and_those_that_are_gone_are_left_out(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    native = durable.disk.sync
    monkeypatch.setattr(durable.disk, "sync", lambda paths: synced.extend(paths) or native(paths))
    paths = [str(tmp_path), *(str(tmp_path / f"{number}") for number in range(count))]
    for path in paths[1::2]:
        Path(path).write_bytes(b"x")
    Syncing(paths).wait()
    assert sorted(synced) == sorted(os.fsencode(path) for path in paths)


def test_what_cannot_be_synced_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=NOT_TO_BE_SYNCED):
        Syncing([str(tmp_path), NOT_TO_BE_SYNCED]).wait()


def test_without_threads_the_one_who_waits_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match=NOT_TO_BE_SYNCED):
        Syncing([NOT_TO_BE_SYNCED]).wait()


def test_a_forked_child_does_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, native = threading.Event(), durable.disk.sync
    monkeypatch.setattr(durable.disk, "sync", lambda paths: [0] * len(paths) if go_on.wait() else [])
    syncing = Syncing([NOT_TO_BE_SYNCED])
    if not (child := os.fork()):
        durable.disk.sync = native
        try:
            syncing.wait()
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    go_on.set()
    syncing.wait()
