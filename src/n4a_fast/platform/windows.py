"""Windows: descriptors, syncs, names and locks, by its documented rules.

A file that is open is renamed or deleted only where all who have it open allow it, one that is mapped is not deleted at
all, and a deleted name stays taken until the last one closes it: so `remove` first renames. A folder with an open file
in it keeps its name. Folders have no locks: a file `.lock` in them stands for them. NTFS logs its names, and there is
no call that syncs a folder; a rename returns when the disk has it. There is no fork.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from n4a_fast.platform import win32

Buffer = bytes | bytearray | memoryview
AnyPath = str | Path

# who has a file attached to DuckDB for writing lets nobody open it, not even for reading
SHUTS_READERS_OUT = True

_LOCK_FILE = ".lock"
_REMOVED = re.compile(r"\.[0-9a-f]{32}\.deleted")
_PATIENCE_SECONDS = 0.5  # virus scanners and indexers open what is new for a moment
_STEP_SECONDS = 0.01
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_RESERVED = frozenset(
    {
        "con",
        "prn",
        "aux",
        "nul",
        "conin$",
        "conout$",
        *(f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789¹²³"),
    }
)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')

# -- files -----------------------------------------------------------------------------------


def temporary_folder() -> Path | None:
    """A folder below the one for temporary files, which is each user's own; None where there is none."""
    folder = Path(tempfile.gettempdir(), "n4a_fast")
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder


def open_regular(path: AnyPath, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file itself: a link is refused (`ELOOP`). Others may rename and delete it meanwhile."""
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    access = (0 if writes == os.O_WRONLY else win32.READ) | (win32.WRITE if writes else 0)
    text = os.path.abspath(path)
    try:
        descriptor = win32.open_file(text, access, _disposition(flags), writes | (flags & os.O_APPEND) | _BINARY)
    except PermissionError as error:  # what the system says of a folder
        if os.path.isdir(text):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text) from error
        raise
    if os.path.islink(text):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a symbolic link", text)
    return descriptor


def _disposition(flags: int) -> int:
    if flags & os.O_CREAT:
        if flags & os.O_EXCL:
            return win32.CREATE_NEW
        return win32.CREATE_ALWAYS if flags & os.O_TRUNC else win32.OPEN_ALWAYS
    return win32.TRUNCATE_EXISTING if flags & os.O_TRUNC else win32.OPEN_EXISTING


def open_unshared(path: AnyPath) -> tuple[int, bool] | None:
    """A descriptor of a file that nobody has open for writing, and nobody may until it is closed, and whether it may be
    written to; None while DuckDB has the file.
    """
    try:
        both = win32.READ | win32.WRITE
        text = os.path.abspath(path)
        return win32.open_file(text, both, win32.OPEN_EXISTING, os.O_RDWR | _BINARY, win32.UNSHARED), True
    except OSError as error:
        if _number(error) == win32.IN_USE:
            return None
        shared = win32.SHARED_FOR_READING
    return win32.open_file(text, win32.READ, win32.OPEN_EXISTING, os.O_RDONLY | _BINARY, shared), False


def is_in_use(path: AnyPath, refusal: str) -> bool:
    """Whether DuckDB was refused a file because someone has it open; its text is in the language of the system."""
    del refusal
    try:
        found = open_unshared(path)
    except OSError:
        return False
    if found is not None:
        os.close(found[0])
    return found is None


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes from `offset` on; fewer at the end of the file."""
    found = [win32.read_at(descriptor, size, offset)]
    while found[-1] and (done := sum(map(len, found))) < size:
        found.append(win32.read_at(descriptor, size - done, offset + done))
    return b"".join(found)


def write_at(descriptor: int, data: Buffer, offset: int) -> None:
    """All of `data` at `offset`; an OSError leaves any part of it written."""
    view = memoryview(data)
    while view:
        written = win32.write_at(descriptor, view, offset)
        view, offset = view[written:], offset + written


def copy_range(source: int, target: int, begin: int, end: int) -> int:
    """`begin`: there is no such call for open files."""
    del source, target, end
    return begin


def write_pieces(descriptor: int, pieces: Sequence[Buffer]) -> None:
    """All pieces, one after the other."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def forget_pages(mapped: mmap.mmap, start: int, length: int) -> None:
    """There is no such call; nothing is promised."""
    del mapped, start, length


def identity(path: AnyPath) -> tuple[int, int]:
    """Volume and number of a file, which no other one has at the same time; FileNotFoundError for a name of nothing."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def identity_of(descriptor: int) -> tuple[int, int]:
    """`identity` of an open file."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def pin(path: AnyPath) -> int | None:
    """None: NTFS counts in a file's number how often it was given."""
    del path
    return None


def mount_point(path: AnyPath) -> Path:
    """The folder at which the disk of `path` begins."""
    folder = Path(os.path.realpath(path))
    while not os.path.ismount(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def is_writable_folder(path: AnyPath) -> bool:
    """Whether files can be made in a folder, as far as its attributes tell."""
    return os.access(path, os.W_OK)


def is_name(name: str) -> bool:
    """Whether a part of a path means one file of this very name: not a device, a stream, or another name's spelling."""
    stem = name.partition(".")[0].rstrip(" ").lower()
    return not (_FORBIDDEN.search(name) or stem in _RESERVED or name[-1:] in (" ", "."))


# -- syncs -----------------------------------------------------------------------------------


def sync_data(descriptor: int) -> None:
    """The file's content, and what is needed to find it, survive a power loss; `descriptor` may be written to."""
    os.fsync(descriptor)


def sync_file(descriptor: int) -> None:
    """The same: there is one call."""
    os.fsync(descriptor)


def sync_path(path: AnyPath) -> None:
    """`sync_file` of a file; nothing for a folder, whose names NTFS has logged."""
    if os.path.isdir(path):
        return
    descriptor = open_regular(path, os.O_RDWR)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def start_writing(descriptor: int) -> None:
    """There is no such call; nothing is promised."""


def syncs_as_a_whole(descriptor: int) -> bool:
    """No: that of a volume is for administrators."""
    del descriptor
    return False


def sync_file_system(descriptor: int) -> None:
    """Refused, see `syncs_as_a_whole`."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


# -- names -----------------------------------------------------------------------------------


def publish_new(draft: AnyPath, target: AnyPath) -> None:
    """Give a finished file a second name; FileExistsError, and nothing changes, where that is taken."""
    os.link(draft, target)


def replace(draft: AnyPath, target: AnyPath) -> None:
    """Give a finished file or folder its name, in one step, in place of what had it: a file, or an empty folder."""
    if os.path.isdir(target):
        os.rmdir(target)
    _patiently(lambda: win32.move(os.path.abspath(draft), os.path.abspath(target), replaces=True))


def exchange(one: AnyPath, other: AnyPath) -> bool:
    """False: no step lets two folders change places."""
    del one, other
    return False


def remove(path: AnyPath) -> None:
    """Take a file's name away; who has it open or mapped keeps its content. FileNotFoundError when it has gone.

    What cannot be deleted yet has another name meanwhile; `finish_removals` deletes it later.
    """
    _remove_by_way_of(os.path.dirname(os.path.abspath(path)), path)


def _remove_by_way_of(folder: str, path: AnyPath) -> None:
    aside = os.path.join(folder, f".{uuid4().hex}.deleted")
    _patiently(lambda: win32.move(os.path.abspath(path), aside, replaces=False))
    with suppress(PermissionError):
        os.unlink(aside)


def is_removed_name(name: str) -> bool:
    """Whether this is the name of a file that `remove` could not delete yet."""
    return _REMOVED.fullmatch(name) is not None


def finish_removals(folder: AnyPath) -> None:
    """Delete what `remove` could not delete at once in this folder, as far as that can be done now."""
    for name in filter(is_removed_name, os.listdir(folder)):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))


def _patiently(action: Callable[[], None]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_STEP_SECONDS)


# -- threads and processes -------------------------------------------------------------------


def runs_threads_named(pattern: str) -> bool:
    """Asked before a fork, which there is none of: it may have."""
    del pattern
    return True


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Processes are never forked: nothing is ever called."""
    del before, in_parent, in_child


# -- locks -----------------------------------------------------------------------------------


def lock_file(path: AnyPath) -> AnyPath:
    """What is open while `path` is locked: itself, or the file that stands for a folder."""
    return os.path.join(path, _LOCK_FILE) if os.path.isdir(path) else path


def take_lock_out(folder: AnyPath) -> None:
    """Remove the file that stands for a folder, while it is open here: the folder, once it is empty, can go then."""
    _remove_by_way_of(os.path.dirname(os.path.abspath(folder)), lock_file(folder))


def open_to_lock(path: AnyPath) -> int:
    """A descriptor of a file, or of the one that stands for a folder, that `try_lock` takes."""
    if lock_file(path) == path:
        return open_regular(path)
    path = lock_file(path)
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:  # a disk that is only read
        return open_regular(path)


def try_lock(descriptor: int, *, shared: bool) -> bool:
    """Take the lock of what is open here, for this descriptor alone; False when another one has it."""
    return win32.lock(descriptor, shared=shared, waits=False)


def wait_for_lock(descriptor: int, *, shared: bool) -> None:
    """Like `try_lock`, once it can be had; the kernel queues those that wait."""
    win32.lock(descriptor, shared=shared, waits=True)


def unlock(descriptor: int) -> None:
    """Let go of the lock."""
    win32.unlock(descriptor)


def has_no_locks(error: OSError) -> bool:
    """Whether an error of `try_lock` means that this disk has no locks at all."""
    return _number(error) in win32.NOT_SUPPORTED


def _number(error: OSError) -> int | None:
    return getattr(error, "winerror", None)
