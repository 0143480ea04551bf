"""Who has a file open or mapped, in this process and in those of the same session, told by Linux.

A file that is opened so that others may rename and delete it is marked by `O_NOATIME`, which every process can see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

SHARES_ALL = os.O_NOATIME
_SIDES = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_LISTDIR, _STAT, _OPEN, _READ, _CLOSE = os.listdir, os.stat, os.open, os.read, os.close  # before they are replaced


class Open(NamedTuple):
    """One descriptor of a file."""

    pid: int
    path: str
    writes: bool
    shares_all: bool


def of_inode(status: os.stat_result) -> Iterator[Open]:
    """Every descriptor of a file."""
    for pid, descriptor in _descriptors():
        with suppress(OSError):
            found = _STAT(f"/proc/{pid}/fd/{descriptor}")
            if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                yield _described(pid, descriptor)


def below(folder: str) -> Iterator[Open]:
    """Every descriptor of a file in a folder, however deep."""
    for pid, descriptor in _descriptors():
        with suppress(OSError):
            path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if path.startswith(folder + "/") and not path.endswith(" (deleted)"):
                yield _described(pid, descriptor)


def is_mapped(status: os.stat_result) -> bool:
    """Whether a process has the file in its memory."""
    wanted = f" {os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} ".encode()
    for pid in _processes():
        with suppress(OSError):
            if wanted in _content(f"/proc/{pid}/maps"):
                return True
    return False


def _described(pid: int, descriptor: str) -> Open:
    lines = _content(f"/proc/{pid}/fdinfo/{descriptor}").split(b"\n")
    flags = int(next(line for line in lines if line.startswith(b"flags:")).split()[1], 8)
    path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    return Open(pid, path, flags & _SIDES != os.O_RDONLY, bool(flags & SHARES_ALL))


def _descriptors() -> Iterator[tuple[int, str]]:
    for pid in _processes():
        with suppress(OSError):
            for descriptor in _LISTDIR(f"/proc/{pid}/fd"):
                yield pid, descriptor


def _processes() -> Iterator[int]:
    session = os.getsid(0)
    for name in _LISTDIR("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.getsid(int(name)) == session:
                yield int(name)


def _content(path: str) -> bytes:
    descriptor = _OPEN(path, os.O_RDONLY)
    try:
        found = b""
        while piece := _READ(descriptor, 2**20):
            found += piece
        return found
    finally:
        _CLOSE(descriptor)
