"""Files and folders made to survive a power loss.

Many new files are made durable by one `syncfs`, which ends in one commit and one flush of the disk where
each fsync has its own: 183 of them, files and folders, took 15 ms, and up to 100 ms beside other writers; it
takes 1 to 4 ms. It also writes what other programs have left in memory, so it is passed over when that is much,
and where it is not known to flush the disk or to tell errors: then each path is synced, eight at once.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_BACK = getattr(_LIBC, "sync_file_range", None)  # Linux alone has it
_AT_ONCE = 8
_START = 2  # SYNC_FILE_RANGE_WRITE
_SYNCED_AS_A_WHOLE = frozenset({"btrfs", "ext4", "xfs"})
_WAITING_AT_MOST = 64 * 2**10  # kB in memory that are not on the disk yet, ours and others'


def sync(path: Path | str) -> None:
    """fsync a file, or a folder so that the names in it last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path | str], witness: int, *, as_a_whole: bool) -> None:
    """`sync` each that is still there, all on one file system; `witness` is open there since before the first was
    written.
    """
    if as_a_whole:
        _sync_file_system(witness)
        return
    wanted = list(paths)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_sync_what_is_there, wanted))
    except RuntimeError:  # the interpreter ends, and starts no thread any more
        for path in wanted:
            _sync_what_is_there(path)


class Syncing:
    """`sync_all`, begun at once in a thread, which needs no GIL while the disk works."""

    def __init__(self, paths: Collection[str], witness: int) -> None:
        self.paths = frozenset(paths)
        # asked here: a thread that has to ask waits 5 ms for the GIL at each step, while its caller computes
        self._as_a_whole = _is_synced_as_a_whole(os.fstat(witness).st_dev) and _waiting() <= _WAITING_AT_MOST
        self._witness, self._pid, self._is_done = witness, os.getpid(), False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sync, name="n4a_fast-sync", daemon=True)
        with suppress(RuntimeError):  # the interpreter ends, and starts no thread any more: `wait` does it
            self._thread.start()

    def wait(self) -> None:
        """Return when all of it survives a power loss; OSError if something does not."""
        if self._thread.ident is not None and self._pid == os.getpid():  # a forked child has not got the thread
            self._thread.join()
        if not self._is_done:
            self._sync()
        if self._error is not None:
            raise self._error

    def _sync(self) -> None:
        try:
            sync_all(self.paths, self._witness, as_a_whole=self._as_a_whole)
        except OSError as error:
            self._error = error
        self._is_done = True


def start_sync(descriptor: int) -> None:
    """Let the disk begin with an open file, so that `sync` later finds most of it done (0.37 ms a file become 0.12)."""
    if _WRITE_BACK is not None:
        _WRITE_BACK(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _START)


def _sync_what_is_there(path: Path | str) -> None:
    with suppress(FileNotFoundError):
        sync(path)


def _sync_file_system(descriptor: int) -> None:
    """Write all of it; an error of any write since `descriptor` was opened is told once."""
    if _LIBC.syncfs(descriptor):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@lru_cache(maxsize=16)
def _is_synced_as_a_whole(device: int) -> bool:
    """Whether `syncfs` ends with the disk's flush on this file system, and tells of failed writes (Linux 5.8)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return False
    kinds = {fields[fields.index("-") + 1] for fields in mounts if fields[2] == wanted}
    version = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    return version >= (5, 8) and bool(kinds) and kinds <= _SYNCED_AS_A_WHOLE


def _waiting() -> int:
    """How many kB of files are in memory and not on the disk."""
    found = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    return int(found["Dirty:"]) + int(found["Writeback:"])
