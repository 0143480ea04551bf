"""Files and folders made to survive a power loss.

Many new files are made durable by one `syncfs`, which ends in one commit and one flush of the disk where
each fsync has its own: 183 of them, files and folders, took 15 ms, and up to 100 ms beside other writers; it
takes 1 to 4 ms. It also writes what other programs have left in memory, so it is passed over when that is much,
and where it is not known to flush the disk or to tell errors: then each path is synced, eight at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from n4a_fast import platform
from n4a_fast.errors import StoreError, StoreUnavailableError
from n4a_fast.platform.interrupts import start

sync = platform.sync_path
start_sync = platform.start_writing  # so that a sync later finds most of a file done (0.37 ms become 0.12)
_AT_ONCE = 8


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """What a disk refuses in the block, as StoreUnavailableError of the file or folder that the block is about."""
    try:
        yield
    except StoreError:  # some are OSErrors too, and say more
        raise
    except OSError as error:
        raise StoreUnavailableError(path, error.strerror or str(error)) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing; their names survive a power loss."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync_all(paths: Iterable[Path | str], witness: int, *, as_a_whole: bool) -> None:
    """`sync` each that is still there, all on one file system; `witness` is open there since before the first was
    written.
    """
    if as_a_whole:
        platform.sync_file_system(witness)
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
        self._as_a_whole = platform.syncs_as_a_whole(witness)
        self._witness, self._pid, self._is_done = witness, os.getpid(), False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sync, name="n4a_fast-sync", daemon=True)
        start(self._thread)  # or `wait` does it

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


def _sync_what_is_there(path: Path | str) -> None:
    with suppress(FileNotFoundError):
        sync(path)
