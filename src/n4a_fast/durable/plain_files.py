"""Files read and copied as what they are: a link is not followed, and what is no file is not read.

A workspace may be a stranger's. A link in it could bring in any file that its reader has, and a pipe or a device has
content without an end.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from n4a_fast import platform
from n4a_fast.errors import StoreUnavailableError, UnsafePathError

_AT_ONCE = 2**20  # bytes


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read; UnsafePathError for a link, and for what is no file."""
    try:
        descriptor = platform.open_regular(path)
    except IsADirectoryError as error:  # where a folder cannot be opened
        raise UnsafePathError(path, path.parent, "is no file") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePathError(path, path.parent, "is a link") from error
        raise
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafePathError(path, path.parent, "is no file")
        yield file


def require_no_link(path: Path) -> None:
    """StoreUnavailableError for a store file that is a link: what replaces it would leave the file it means behind."""
    if path.is_symlink():
        raise StoreUnavailableError(
            path,
            f"it is a link to {os.readlink(path)}, while its logs and artifacts lie here",
            "put the file itself in its place, or a link in that of the whole folder, then try again",
        )


def read_text(path: Path) -> str:
    """The content of a file as UTF-8; errors as in `opened`, and UnicodeDecodeError."""
    with opened(path) as file:
        return file.read().decode()


def copy_file(source: Path, target: Path) -> None:
    """Make `target` a file with the content of another one; errors as in `opened`."""
    with opened(source) as content, open(target, "wb") as copy:
        shutil.copyfileobj(content, copy, _AT_ONCE)


def copy_folder(source: Path, target: Path, *, hidden: bool = True) -> None:
    """All files below a folder, in a folder that is there or new; `hidden`: those, too, whose names begin with a dot.
    UnsafePathError, before anything is copied, for a link, a device or a pipe.
    """
    require_plain_files(source)
    for at, folders, files in os.walk(source):
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        place = target / os.path.relpath(at, source)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            if hidden or not name.startswith("."):
                copy_file(Path(at, name), place / name)


def copy_links_and_files(source: Path, target: Path) -> int:
    """Copy a file, a link as a link, or a folder of such; how many files that was. Other things are left out."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
        return 0
    if source.is_dir():
        target.mkdir()
        return sum(copy_links_and_files(entry, target / entry.name) for entry in sorted(source.iterdir()))
    if not source.is_file():
        return 0
    copy_file(source, target)
    shutil.copystat(source, target)
    return 1


def require_plain_files(folder: Path) -> None:
    """UnsafePathError for a link at or below `folder`, and for what is neither file nor folder."""
    for place in (folder, *(Path(at, name) for at, *names in os.walk(folder) for name in (*names[0], *names[1]))):
        if place.is_symlink():
            raise UnsafePathError(place, folder, "is a link")
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise UnsafePathError(place, folder, "is no file")
