"""The functions of `n4a_fast.platform.win32`, on Linux, by Windows' rules."""

from __future__ import annotations

import errno
import fcntl
import os

import open_files
import windows_rules as rules

SHARED, UNSHARED, SHARED_FOR_READING = 7, 0, 1
READ, WRITE = 0x8000_0000, 0x4000_0000
CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING = 1, 2, 3, 4, 5
IN_USE = rules.IN_USE
NOT_SUPPORTED = frozenset({1, 50, 120})
_CREATION = {
    CREATE_NEW: os.O_CREAT | os.O_EXCL,
    CREATE_ALWAYS: os.O_CREAT | os.O_TRUNC,
    OPEN_EXISTING: 0,
    OPEN_ALWAYS: os.O_CREAT,
    TRUNCATE_EXISTING: os.O_TRUNC,
}


def open_file(path: str, access: int, disposition: int, flags: int, shared: int = SHARED) -> int:
    text = rules.as_there(path)
    if os.path.isdir(text):
        raise rules.refusal(rules.DENIED, text, "folders cannot be opened")
    writes = bool(access & WRITE)
    rules.require_sharing(text, writes=writes)
    if shared != SHARED and os.path.isfile(text):
        for found in open_files.of_inode(os.stat(text)):
            if shared == UNSHARED or found.writes:
                raise rules.refusal(rules.IN_USE, text, f"process {found.pid} has the file open")
    side = os.O_RDONLY if not writes else os.O_RDWR if access & READ else os.O_WRONLY
    mark = open_files.SHARES_ALL if shared == SHARED else 0
    known = flags & os.O_APPEND
    return rules.plain_open(text, side | known | _CREATION[disposition] | mark | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    return os.pread(descriptor, size, offset)


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    return os.pwrite(descriptor, data, offset)


def lock(descriptor: int, *, shared: bool, waits: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def move(path: str, target: str, *, replaces: bool) -> None:
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    rules.move(path, target, replaces=replaces)
