"""New files hashed and synced by a thread, while their caller goes on.

Owns the open files and what was found of them. A hash counts for a file that is still what it was when the
thread began; all else is left to whoever reads the file itself, and tells what is wrong with it. Where
`hashlib` has no OpenSSL behind it, no file is opened here, and each is read by who asks for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Set
from contextlib import suppress
from typing import NamedTuple

from n4a_fast._native.files import sha256_then_sync
from n4a_fast.durable.sync import Syncing
from n4a_fast.platform import open_regular, openssl_sha256

_LARGEST = 16 * 2**20  # a file is read as a whole
_NO_SYNC = -1

State = tuple[int, int, int, int]


class OpenFile(NamedTuple):
    """A file that waits for its hash, as it was when it was opened."""

    descriptor: int
    size: int
    state: State


class Verifying(Syncing):
    """A sync that first takes the SHA-256 of some of its files."""

    def __init__(self, files: dict[str, OpenFile], paths: Set[str], witness: int) -> None:
        self._files, self._hashes = files, dict[str, str | None]()
        self._open = [file.descriptor for file in files.values()]
        super().__init__(paths, witness)

    def holds(self, path: str, digits: str) -> bool:
        """Whether a file had this SHA-256 and is unchanged since; one that has changed does not count as synced
        either.
        """
        if path not in self._files:
            return False
        with suppress(OSError):  # the sync has failed: told to who asks for that
            self.wait()
        if _state_at(path) == self._files[path].state:
            return self._hashes.get(path) == digits
        self.paths -= {path}
        return False

    def _sync(self) -> None:
        wanted = [(file.descriptor, file.size) for file in self._files.values()]
        try:
            found, error = sha256_then_sync(wanted, *_SHA256, self._witness if self._as_a_whole else _NO_SYNC)
            self._hashes = dict(zip(self._files, found, strict=True))
        finally:
            while self._open:
                os.close(self._open.pop())
        if error:
            self._error = OSError(error, os.strerror(error))
        if self._as_a_whole:
            self._is_done = True
        else:
            super()._sync()


def opened(paths: Iterable[str]) -> dict[str, OpenFile]:
    """Those of these files that a thread can hash; the others are missing, large, or no files."""
    found: dict[str, OpenFile] = {}
    for path in dict.fromkeys(paths) if _SHA256[0] else ():
        with suppress(OSError):
            descriptor = open_regular(path)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
                found[path] = OpenFile(descriptor, status.st_size, _state(status))
            else:
                os.close(descriptor)
    return found


def _state_at(path: str) -> State | None:
    with suppress(OSError):
        return _state(os.lstat(path))
    return None


def _state(status: os.stat_result) -> State:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


_SHA256 = openssl_sha256()
