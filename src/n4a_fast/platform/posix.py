"""Linux and macOS: descriptors, syncs, names and locks.

macOS has no `fdatasync`, its `fsync` leaves the data in the drive's cache (`F_FULLFSYNC` does not), and it has no
`syncfs`. Linux has all of them, and `renameat2`. Every descriptor is closed in programs that this one starts.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

Buffer = bytes | bytearray | memoryview
AnyPath = str | Path

# who has a file attached to DuckDB lets others read it
SHUTS_READERS_OUT = False

_LIBC = ctypes.CDLL(None, use_errno=True)
_WRITE_BACK = getattr(_LIBC, "sync_file_range", None)
_SYNC_FILE_SYSTEM = getattr(_LIBC, "syncfs", None)
_EXCHANGE = getattr(_LIBC, "renameat2", None)
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_START = 2  # SYNC_FILE_RANGE_WRITE
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
_REGULAR = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe put in a file's place must not stop us
_SYNCED_AS_A_WHOLE = frozenset({"btrfs", "ext4", "xfs"})
_WAITING_AT_MOST = 64 * 2**10  # kB in memory that are not on the disk yet, ours and others'
_PIECES_AT_ONCE = min(os.sysconf("SC_IOV_MAX"), 1024)
# of `flock`: EBADF and EINVAL come from disks that lock by byte ranges, and cannot lock what is open for reading
_NO_LOCKS = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL, errno.EREMOTE}
)

# -- files -----------------------------------------------------------------------------------


def temporary_folder() -> Path | None:
    """A folder of this user's below the system's for temporary files, which nobody else can look into; None where there
    is none.
    """
    folder = Path(tempfile.gettempdir(), f"n4a_fast-{os.getuid()}")
    try:
        folder.mkdir(0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_ours = found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return folder if is_ours else None


def open_regular(path: AnyPath, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file itself: a link is refused (`ELOOP`), and nothing in its place makes this wait."""
    return os.open(path, flags | _REGULAR, 0o666)


def open_unshared(path: AnyPath) -> tuple[int, bool] | None:
    """A descriptor of a file that DuckDB has not open for writing, and cannot until it is closed, and whether it may be
    written to; None while DuckDB has it. It holds DuckDB's own lock, which this process loses with the first
    descriptor of the file that it closes.
    """
    try:
        descriptor, writable = os.open(path, os.O_RDWR | os.O_CLOEXEC), True
    except OSError:
        descriptor, writable = os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, writable


def is_in_use(path: AnyPath, refusal: str) -> bool:
    """Whether DuckDB was refused a file because another process has it, by what DuckDB said. It is not asked: to close
    a descriptor would drop a lock of this process.
    """
    del path
    return "Could not set lock" in refusal


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes from `offset` on; fewer at the end of the file."""
    return os.pread(descriptor, size, offset)


def write_at(descriptor: int, data: Buffer, offset: int) -> None:
    """All of `data` at `offset`; an OSError leaves any part of it written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def copy_range(source: int, target: int, begin: int, end: int) -> int:
    """Copy these bytes to the same place of another file without reading them, and let the disk share them where it
    can; up to where that went, which is `begin` where the system does not. Why not, reading and writing tells.
    """
    with suppress(OSError, AttributeError):  # macOS has no such call
        while begin < end and (copied := os.copy_file_range(source, target, end - begin, begin, begin)):
            begin += copied
    return begin


def write_pieces(descriptor: int, pieces: Sequence[Buffer]) -> None:
    """All pieces, one after the other, in as few calls as can be: ext4 takes 250 kB in large folios then, in half the
    time of four calls.
    """
    for first in range(0, len(pieces), _PIECES_AT_ONCE):
        some = pieces[first : first + _PIECES_AT_ONCE]
        written = os.writev(descriptor, some)
        for piece in some:  # a write stops at 2 GB, and where the disk is full
            rest = memoryview(piece)[written:]
            written = max(0, written - len(piece))
            while rest:
                rest = rest[os.write(descriptor, rest) :]


def forget_pages(mapped: mmap.mmap, start: int, length: int) -> None:
    """Whole pages of a mapped file that will not be read again soon need stay in memory no longer."""
    mapped.madvise(mmap.MADV_DONTNEED, start, length)


def identity(path: AnyPath) -> tuple[int, int]:
    """Device and number of a file, which no other one has at the same time; FileNotFoundError for a name of nothing."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def identity_of(descriptor: int) -> tuple[int, int]:
    """`identity` of an open file."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def pin(path: AnyPath) -> int | None:
    """A descriptor that keeps the identity of a file from being given to another one after its removal; None where
    numbers are never given again. To close it lets go of no lock, as closing another descriptor of the file does.
    """
    return os.open(path, os.O_PATH | os.O_CLOEXEC) if hasattr(os, "O_PATH") else None


def mount_point(path: AnyPath) -> Path:
    """The folder at which the disk of `path` begins."""
    folder = Path(os.path.realpath(path))
    while not os.path.ismount(folder):
        folder = folder.parent
    return folder


def is_writable_folder(path: AnyPath) -> bool:
    """Whether files can be made in a folder, as far as its permissions tell."""
    return os.access(path, os.W_OK)


def is_name(name: str) -> bool:
    """Whether a part of a path means one file of this very name."""
    return "/" not in name and "\0" not in name


# -- syncs -----------------------------------------------------------------------------------


def sync_data(descriptor: int) -> None:
    """The file's content, and what is needed to find it, survive a power loss."""
    if _FULL_SYNC is not None:
        _full_sync(descriptor)
    else:
        os.fdatasync(descriptor)


def sync_file(descriptor: int) -> None:
    """Like `sync_data`, and its times and permissions too."""
    if _FULL_SYNC is not None:
        _full_sync(descriptor)
    else:
        os.fsync(descriptor)


def sync_path(path: AnyPath) -> None:
    """`sync_file` of a file; of a folder, so that the names in it last. Where folders need no sync, nothing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def start_writing(descriptor: int) -> None:
    """Let the disk begin with an open file; nothing is promised."""
    if _WRITE_BACK is not None:
        _WRITE_BACK(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _START)


def syncs_as_a_whole(descriptor: int) -> bool:
    """Whether `sync_file_system` is known to flush the disk and to tell of failed writes here, and has little of other
    programs to write.
    """
    return _is_synced_as_a_whole(os.fstat(descriptor).st_dev) and _waiting() <= _WAITING_AT_MOST


def sync_file_system(descriptor: int) -> None:
    """Write all of the file system; an error of any write since `descriptor` was opened is told once."""
    if _SYNC_FILE_SYSTEM is None or _SYNC_FILE_SYSTEM(descriptor):
        error = ctypes.get_errno() or errno.ENOSYS
        raise OSError(error, os.strerror(error))


def _full_sync(descriptor: int) -> None:
    """To the medium, past the drive's cache; a disk that does not know this (a network's) has its own `fsync`."""
    assert _FULL_SYNC is not None
    try:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
            raise
        os.fsync(descriptor)


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
    return version >= (5, 8) and bool(kinds) and kinds <= _SYNCED_AS_A_WHOLE and _SYNC_FILE_SYSTEM is not None


def _waiting() -> int:
    """How many kB of files are in memory and not on the disk."""
    found = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    return int(found["Dirty:"]) + int(found["Writeback:"])


# -- names -----------------------------------------------------------------------------------


def publish_new(draft: AnyPath, target: AnyPath) -> None:
    """Give a finished file a second name; FileExistsError, and nothing changes, where that is taken."""
    os.link(draft, target)


def replace(draft: AnyPath, target: AnyPath) -> None:
    """Give a finished file its name, in one step, in place of what had it."""
    os.replace(draft, target)


def exchange(one: AnyPath, other: AnyPath) -> bool:
    """Let two folders change places in one step; False where the system, or the disk, cannot."""
    return (
        _EXCHANGE is not None and _EXCHANGE(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0
    )


def remove(path: AnyPath) -> None:
    """Take a file's name away; who has it open or mapped keeps its content. FileNotFoundError when it has gone."""
    os.unlink(path)


def is_removed_name(name: str) -> bool:
    """No name: what is removed is gone at once."""
    del name
    return False


def finish_removals(folder: AnyPath) -> None:
    """Nothing is left to be deleted."""
    del folder


# -- threads and processes -------------------------------------------------------------------


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Call these around every fork of this process from now on."""
    wanted = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
    os.register_at_fork(**{name: call for name, call in wanted.items() if call is not None})


def runs_threads_named(pattern: str) -> bool:
    """Whether this process has a thread whose whole name matches a regular expression. Where names cannot be read
    (macOS), it may have: yes.
    """
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        return True
    for task in tasks:
        with suppress(OSError):  # it has ended
            if re.fullmatch(pattern, Path(f"/proc/self/task/{task}/comm").read_text().strip()):
                return True
    return False


# -- locks -----------------------------------------------------------------------------------


def lock_file(path: AnyPath) -> AnyPath:
    """What is open while `path` is locked: itself."""
    return path


def take_lock_out(folder: AnyPath) -> None:
    """Nothing: the folder is locked itself."""
    del folder


def open_to_lock(path: AnyPath) -> int:
    """A descriptor of a file or a folder that `try_lock` takes; a pipe in its place is not waited for."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def try_lock(descriptor: int, *, shared: bool) -> bool:
    """Take the lock of what is open here, for this descriptor alone; False when another one has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, *, shared: bool) -> None:
    """Like `try_lock`, once it can be had; the kernel queues those that wait."""
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def unlock(descriptor: int) -> None:
    """Let go of the lock; a copy of the descriptor in a forked child does not hold it any longer."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def has_no_locks(error: OSError) -> bool:
    """Whether an error of `try_lock` means that this disk has no locks at all."""
    return error.errno in _NO_LOCKS
