"""What Linux and macOS differ in: a system that lacks a call gets a stronger one, and every promise stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import finish, started

from n4a_fast import platform
from n4a_fast.platform import posix

LIKE_MACOS = """
import fcntl, os, pathlib, sys

for name in ("fdatasync", "posix_fadvise", "posix_fallocate", "sched_getaffinity", "copy_file_range", "memfd_create"):
    delattr(os, name)
os.process_cpu_count = os.cpu_count  # which asks `sched_getaffinity` where there is one
real = pathlib.Path.read_text


def read_text(self, *arguments, **named):
    if str(self).startswith("/proc"):
        raise FileNotFoundError(2, "no /proc", str(self))
    return real(self, *arguments, **named)


pathlib.Path.read_text = read_text
fcntl.F_FULLFSYNC = 51
synced = []
plain = fcntl.fcntl
fcntl.fcntl = lambda descriptor, call, *rest: synced.append(call) if call == 51 else plain(descriptor, call, *rest)

from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
from n4a_fast.platform import posix

posix._WRITE_BACK = posix._SYNC_FILE_SYSTEM = posix._EXCHANGE = None
with WorkspaceStore(sys.argv[1]) as store:
    sweep = begin_sweep(store)
    predict_with_arrays(store, sweep)
    store.save_artifact({"n": 1}, "dict", "model", "joblib")
    before = len(synced)
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    assert len(synced) > before, "a flush is synced past the drive's cache"
    assert store.top_predictions(5).height == 1
with WorkspaceStore(sys.argv[1]) as store:
    print(store.list_pipelines()["status"].to_list())
"""


@pytest.mark.not_on("macos", reason="it is one already")
def test_a_system_without_the_calls_of_linux_keeps_what_was_saved(tmp_path: Path) -> None:
    assert finish(started("-c", LIKE_MACOS, tmp_path / "workspace")).strip() == "['completed']"


def test_a_disk_that_knows_no_full_sync_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "_FULL_SYNC", 51)  # which Linux refuses
    with (tmp_path / "file").open("w") as file:
        platform.sync_data(file.fileno())
        platform.sync_file(file.fileno())


def test_what_is_no_regular_file_is_opened_without_a_wait_and_links_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.close(platform.open_regular(tmp_path / "pipe"))
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match="symbolic link"):
        platform.open_regular(tmp_path / "link")
