"""A ZIP from outside, read whole and with suspicion.

Promises that what is returned has plain names inside the archive, each once, sizes as stated and
checksums as stated, and no more bytes than allowed. Anything else is a BundleError; nothing is
ever extracted to disk. What the members mean is for `reader`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from n4a_fast.errors import BundleError, NotFoundError, StoreUnavailableError
from n4a_fast.values import checks

_ALWAYS_ALLOWED = 256 * 2**20  # bytes unpacked
_EXPANSION = 20  # times the size of the file; models gain a few per cent, text at most ten times
_MOST_MEMBERS = 10_000
_LONGEST_LIST = 256 * _MOST_MEMBERS  # bytes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _File(io.FileIO):
    """The archive, of which at first no more is read at once than the list of its members may have: `zipfile` makes an
    object of each before it tells how many there are.
    """

    most: int | None = _LONGEST_LIST

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, more than {self.most}")
        return super().read(size) or b""


def members_of(path: Path, max_bytes: int | None = None) -> dict[str, bytes]:
    """Content of each file in the archive, in its order."""
    limit = limit_of(path, max_bytes)
    with _told(path), _File(path) as file, zipfile.ZipFile(file) as archive:
        file.most = None
        files = [info for info in archive.infolist() if not info.filename.endswith("/")]
        _check(path, files, limit)
        _require_own_places(archive.infolist())
        return {info.filename: _content(path, archive, info) for info in files}


def limit_of(path: Path, max_bytes: int | None) -> int:
    """How many bytes the archive may unpack to."""
    given = 0 if max_bytes is None else checks.count(max_bytes, "max_bytes")
    with _told(path):
        return given or max(_ALWAYS_ALLOWED, _EXPANSION * path.stat().st_size)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What stands in the way of reading the archive is told by its cause."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("bundle", str(path), "check the path", where="") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise BundleError(path, f"it is no whole ZIP file ({error}); copy it again") from error
    except OSError as error:
        if os.path.isdir(path):  # a `Path` would raise what cannot be read
            raise BundleError(path, "it is a folder; give the path of a .n4a file") from error
        if error.errno == errno.EINVAL:  # the archive points before its own beginning
            raise BundleError(path, "it is no whole ZIP file; copy it again") from error
        raise StoreUnavailableError(path, error.strerror or str(error)) from error


def _require_own_places(members: list[zipfile.ZipInfo]) -> None:
    """`zipfile` reads one where another one lies, and at best warns of it, as of Python 3.14."""
    if len({info.header_offset for info in members}) < len(members):
        raise zipfile.BadZipFile("two of its members lie in one place")


def _check(path: Path, files: list[zipfile.ZipInfo], limit: int) -> None:
    if len(files) > _MOST_MEMBERS:
        raise BundleError(path, f"it holds {len(files)} files, more than the {_MOST_MEMBERS} that are read")
    twice = [name for name, times in Counter(info.filename for info in files).items() if times > 1]
    if twice:
        raise BundleError(path, f"it holds {twice[0]} more than once, and only one of them can be meant")
    for info in files:
        _check_one(path, info)
    total = sum(info.file_size for info in files)
    if total > limit:
        raise BundleError(
            path,
            f"it would unpack to {total} bytes, more than the {limit} allowed; give a larger max_bytes if you trust it",
        )


def _check_one(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    if not name:
        raise BundleError(path, "one of its members has no name")
    if (
        PurePosixPath(name).is_absolute()
        or ".." in PurePosixPath(name).parts
        or "\\" in name
        or ":" in name
        or not name.isprintable()
    ):
        raise BundleError(path, f"its member {name!r} would lie outside of it")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise BundleError(path, f"its member {name} is a link")
    if info.flag_bits & 1:
        raise BundleError(path, f"its member {name} is encrypted")
    if info.compress_type not in _METHODS:
        raise BundleError(path, f"its member {name} is compressed by method {info.compress_type}; bundles are deflated")


def _content(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        data = member.read(info.file_size)
        if len(data) != info.file_size or member.read(1):
            raise BundleError(
                path, f"its member {info.filename} does not have the {info.file_size} bytes that it states"
            )
    return data
