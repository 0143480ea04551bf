"""What Windows refuses by its documented rules, refused on Linux; the package runs on its own module for Windows.

- A file that is open is renamed or deleted only where everybody who has it open lets others do so, one that is mapped
  is not deleted, and a deleted name stays taken until the last one closes the file.
- Nothing takes the name of a file that is open; `os.rename` takes no name at all that is there.
- A folder in which a file is open keeps its name. A folder cannot be opened.
- A file that DuckDB has open for writing is opened by nobody else, one that it reads is written by nobody else.
- What is only read cannot be synced.
- `A` and `a` are one name; `CON`, `a:b` and names that end in a dot or a space are none.

The calls of the kernel that `n4a_fast.platform.win32` makes are in `win32_calls`, by the same rules.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import open_files

HERE = Path(__file__).parent
IN_USE, DENIED, EXISTS, INVALID_NAME = 32, 5, 183, 123
SEEN = ("/tmp/", "/var/tmp/", "/dev/shm/")  # the rules hold where tests keep their files
_RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}
_pending: dict[str, tuple[int, int]] = {}  # deleted names that are still taken, and whose file's

plain_open, plain_unlink, plain_rename, plain_rmdir = os.open, os.unlink, os.rename, os.rmdir
plain_mkdir, plain_fsync, plain_io_open, plain_stat = os.mkdir, os.fsync, io.open, os.stat
plain_popen, plain_listdir = subprocess.Popen.__init__, os.listdir


def refusal(number: int, path: str, what: str) -> OSError:
    kinds = {EXISTS: FileExistsError, INVALID_NAME: OSError}
    codes = {EXISTS: errno.EEXIST, INVALID_NAME: errno.EINVAL}
    error = kinds.get(number, PermissionError)(codes.get(number, errno.EACCES), what, path)
    error.winerror = number  # type: ignore[attr-defined]
    return error


def is_ruled(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(SEEN)


def as_there(path: Any) -> str:
    """The path as it is spelled on the disk; a name that Windows has not got is refused."""
    text = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(text)
    stem = name.partition(".")[0].rstrip(" ").lower()
    if stem in _RESERVED or set(name) & set('<>:"|?*\\') or name.endswith((".", " ")):
        raise refusal(INVALID_NAME, text, "the name is invalid")
    if not os.path.lexists(text) and os.path.isdir(folder):
        text = next((f"{folder}/{other}" for other in plain_listdir(folder) if other.lower() == name.lower()), text)
    if text in _pending and not any(True for _ in _still_open(text)):
        del _pending[text]
    if text in _pending and not os.path.lexists(text):
        raise refusal(DENIED, text, "a deleted file of this name is still open")
    return text


def _still_open(text: str) -> Any:
    device, number = _pending[text]
    for pid, descriptor in open_files._descriptors():
        try:
            found = plain_stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (device, number):
            yield pid


def require_sharing(text: str, *, writes: bool) -> None:
    """Whether DuckDB, which opens its files for itself alone, lets another one open this file."""
    if not os.path.isfile(text) or ".duckdb" not in os.path.basename(text):
        return
    for found in open_files.of_inode(plain_stat(text)):
        if not found.shares_all and found.path.endswith((".duckdb", ".wal")) and (found.writes or writes):
            raise refusal(IN_USE, text, f"process {found.pid} has the file open")


def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is not None or not is_ruled(path) or flags & os.O_TMPFILE == os.O_TMPFILE:  # a file without a name
        return plain_open(path, flags, mode, dir_fd=dir_fd)
    text = as_there(path)
    if os.path.isdir(text):
        raise refusal(DENIED, text, "folders cannot be opened")
    require_sharing(text, writes=flags & (os.O_WRONLY | os.O_RDWR) != 0)
    return plain_open(text, flags, mode)


def open_stream(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
    if is_ruled(file):
        file = as_there(file)
        require_sharing(file, writes=bool(set(mode) & set("wax+")))
    return plain_io_open(file, mode, *arguments, **options)


def unlink(path: Any, *, dir_fd: int | None = None) -> None:
    if dir_fd is not None or not is_ruled(path):
        return plain_unlink(path, dir_fd=dir_fd)
    text = as_there(path)
    if os.path.isdir(text) and not os.path.islink(text):
        raise refusal(DENIED, text, "it is a folder")
    if os.path.isfile(text):
        status = plain_stat(text)
        require_movable(text, status)
        if open_files.is_mapped(status):
            raise refusal(DENIED, text, "the file is mapped")
        if status.st_nlink == 1 and any(True for _ in open_files.of_inode(status)):
            _pending[text] = (status.st_dev, status.st_ino)
    plain_unlink(text)


def require_movable(text: str, status: os.stat_result) -> None:
    for found in open_files.of_inode(status):
        if not found.shares_all:
            raise refusal(IN_USE, text, f"process {found.pid} has the file open")


def move(path: Any, target: Any, *, replaces: bool) -> None:
    if not is_ruled(path):
        return plain_rename(path, target)
    text, new = as_there(path), os.path.abspath(os.fspath(target))
    there = as_there(target)
    if not os.path.lexists(text):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
    status = os.lstat(text)
    if os.path.isdir(text):
        for found in open_files.below(text):
            raise refusal(DENIED, text, f"process {found.pid} has {found.path} open, which lies in this folder")
    else:
        require_movable(text, status)
    if there != text and os.path.lexists(there):
        if not replaces:
            raise refusal(EXISTS, there, "the name is taken")
        if os.path.isdir(there) or os.path.isdir(text):
            raise refusal(DENIED, there, "a folder is not replaced")
        taken = plain_stat(there)
        if any(True for _ in open_files.of_inode(taken)) or open_files.is_mapped(taken):
            raise refusal(DENIED, there, "the file that would be replaced is open")
    plain_rename(text, there if there != text else new)


def rename(path: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    move(path, target, replaces=False)


def replace(path: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    move(path, target, replaces=True)


def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    plain_mkdir(as_there(path) if is_ruled(path) else path, mode, dir_fd=dir_fd)


def fsync(descriptor: int) -> None:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) == 0:
        raise OSError(errno.EBADF, "what is only read cannot be synced")
    plain_fsync(descriptor)


class _Instead:
    """Finds the module for Windows in the place of that for Linux, and the calls below it in `win32_calls`."""

    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name == "n4a_fast.platform.win32":
            return importlib.util.spec_from_file_location(name, HERE / "win32_calls.py")
        if name == "n4a_fast.platform.posix":
            return importlib.util.spec_from_file_location(name, Path(path[0]) / "windows.py")
        return None


def start(self: Any, command: Any, *arguments: Any, **options: Any) -> None:
    """Helper processes that read no settings of their user obey the rules, too."""
    if isinstance(command, list) and "-I" in command[:3]:
        command = [part for part in command if part not in ("-I", "-S")]
    plain_popen(self, command, *arguments, **options)


def obey() -> None:
    """From now on, in this process and in those that it starts."""
    replaced: dict[str, Callable[..., Any]] = {"open": open_descriptor, "unlink": unlink, "remove": unlink}
    replaced |= {"rename": rename, "replace": replace, "mkdir": mkdir, "fsync": fsync}
    for name, call in replaced.items():
        setattr(os, name, call)
    io.open = builtins.open = open_stream
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    if hasattr(shutil, "_rmtree_impl"):  # from Python 3.14 on chosen when it is imported
        shutil._rmtree_impl = shutil._rmtree_unsafe
    subprocess.Popen.__init__ = start  # type: ignore[method-assign]
    sys.meta_path.insert(0, _Instead())  # type: ignore[arg-type]
