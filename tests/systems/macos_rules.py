"""What macOS lacks, taken away on Linux: calls of Linux alone, `/proc`, fork as the default; `A` and `a` are one name.

It has `F_FULLFSYNC`, which is a plain sync here, and is noted: a flush without one would be lost with the power.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import multiprocessing
import os
import sys
from types import FrameType
from typing import Any

FULL_SYNC = 51
SEEN = ("/tmp/", "/dev/shm/")  # names are one where tests keep their files
_OF_LINUX = frozenset({"renameat2", "sync_file_range", "syncfs"})
_MISSING = ("O_PATH", "copy_file_range", "fdatasync", "memfd_create", "posix_fadvise", "posix_fallocate")
_plain_fcntl, _plain_open, _plain_listdir, _plain_io_open = fcntl.fcntl, os.open, os.listdir, io.open


class _Library(ctypes.CDLL):
    def __getattr__(self, name: str) -> Any:
        if name in _OF_LINUX:
            raise AttributeError(name)
        return super().__getattr__(name)


def _fcntl(descriptor: Any, call: int, *arguments: Any) -> Any:
    return os.fsync(descriptor) if call == FULL_SYNC else _plain_fcntl(descriptor, call, *arguments)


def _asks_the_kernel_there() -> bool:
    """Whether psutil or threadpoolctl reads `/proc`: they have other ways on macOS."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("psutil", "threadpoolctl"):
            return True
        frame = frame.f_back
    return False


def _as_there(path: Any) -> Any:
    if not isinstance(path, str | os.PathLike):
        return path
    text = os.path.abspath(os.fspath(path))
    if text.startswith("/proc/") and not _asks_the_kernel_there():
        raise FileNotFoundError(errno.ENOENT, "there is no /proc", text)
    folder, name = os.path.split(text)
    if text.startswith(SEEN) and not os.path.lexists(text) and os.path.isdir(folder):
        return next((f"{folder}/{other}" for other in _plain_listdir(folder) if other.lower() == name.lower()), text)
    return path


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    return _plain_open(path if dir_fd is not None else _as_there(path), flags, mode, dir_fd=dir_fd)


def _io_open(file: Any, *arguments: Any, **options: Any) -> Any:
    return _plain_io_open(_as_there(file), *arguments, **options)


def _listdir(path: Any = ".") -> list[str]:
    if str(path).startswith("/proc/") and not _asks_the_kernel_there():
        raise FileNotFoundError(errno.ENOENT, "there is no /proc", path)
    return _plain_listdir(path)


def obey() -> None:
    """From now on, in this process and in those that it starts."""
    for name in _MISSING:
        if hasattr(os, name):
            delattr(os, name)
    fcntl.F_FULLFSYNC = FULL_SYNC  # type: ignore[attr-defined]
    fcntl.fcntl, os.open, os.listdir = _fcntl, _open, _listdir  # type: ignore[assignment]
    io.open = builtins.open = _io_open
    ctypes.CDLL = _Library  # type: ignore[misc]
    multiprocessing.set_start_method("spawn")
