"""The `artifacts/` folder: content-addressed files, never overwritten, verified on every read.

A file is written under a temporary name and linked to its own, so a name always holds whole
content and never gets another. fsync waits for `sync`, which the flush calls once before it commits
the rows; the disk starts on each file at once. Only `unlink` removes files. Paths from outside must
be plain and stay inside the folder; links are not followed. Before a file is looked at by a save it
is claimed (see `claims`), so no collection elsewhere takes it away again.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
import xxhash

from n4a_fast import platform
from n4a_fast.artifacts.claims import SAVING, Claims
from n4a_fast.artifacts.codec import EXTENSIONS
from n4a_fast.artifacts.pickles import room_for
from n4a_fast.artifacts.verifying import Verifying, opened
from n4a_fast.durable.sync import Syncing, disk_errors_told, start_sync
from n4a_fast.engine.session import Session
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, StoreUnavailableError, UnsafePathError

Content = bytes | memoryview
ZSTD = ".zst"
_DRAFT = ".draft"
_ENDINGS = tuple(dict.fromkeys(extension + form for extension in EXTENSIONS.values() for form in ("", ZSTD)))
# what content is stored under, here and by nirs4all: a hash, in the folder of its first two digits; and drafts
_OURS = re.compile(
    r"(?P<folder>[0-9a-f]{2})/((?P=folder)[0-9a-f]{6,62}(-\d+)?(\.[a-z0-9]+){1,2}|\.[^/]+\.\d+\.draft)"
    rf"|{re.escape(SAVING)}/[^/]+\.\d+{re.escape(_DRAFT)}"
)
_CONTENT_ID = re.compile(r"[0-9a-f]{32}(-\d+)?")
_MAPPED_FROM = 2**20  # reading is faster than mapping below this
_PIECE = 2**18
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class ArtifactFiles:
    """Files below one root, named by the hash of what they hold."""

    def __init__(self, root: Path, session: Session | None = None) -> None:
        """Who only reads needs no session."""
        self.root, self._root, self.session = root, str(root), session or Session(root)
        self.claims = Claims(root / SAVING, self.session)
        self._unsynced: dict[str, None] = {}
        self._synced: set[str] = set()  # bounded
        self._syncing: Syncing | None = None
        self._folders: set[str] = set()  # those that are there: at most 256

    def path(self, relative: str) -> Path:
        """Where a stored relative path is; UnsafePathError when it leaves the folder, is not plain, or goes through a
        link.
        """
        return Path(self._place(relative))

    def add(self, pieces: Sequence[Content], extension: str, *, compress: bool = False) -> tuple[str, str, bool]:
        """Content hash, with a suffix in the event of a hash collision, relative path, and whether the content was new
        and is stored now.

        Content that is there under another ending (compressed or not, another format) stays as it is. What would be
        packed more tightly than `decompressed` takes is stored as it is.
        """
        name, turn = (content_hash := _hash_of(pieces)), 0
        folder = self._place(content_hash[:2])
        ending = extension
        stored: Sequence[Content] = ()
        while True:
            self.claims.claim(name)
            found = next((found for found in _ENDINGS if os.path.lexists(f"{folder}/{name}.{found}")), None)
            if found is None:
                if not stored:
                    packed = compressed(pieces) if compress else None
                    stored, ending = (pieces, extension) if packed is None else ([packed], extension + ZSTD)
                if self._write(f"{folder}/{name}.{ending}", stored):
                    return name, relative_path(name, ending), True
            elif self._holds(f"{folder}/{name}.{found}", pieces):
                self._remember_unsynced(f"{folder}/{name}.{found}")  # another process may have written it a moment ago
                return name, relative_path(name, found), False
            else:
                turn += 1
                name = f"{content_hash}-{turn}"

    def read(self, artifact_id: str, relative: str, content_hash: str) -> Content:
        """The verified content of a file; a large one is mapped, not copied."""
        path = self._place(relative)
        try:
            return self.read_at(path, artifact_id, relative, content_hash)
        except FileNotFoundError as error:
            raise ArtifactMissingError(artifact_id, Path(path)) from error
        except ArtifactCorruptError:
            raise
        except OSError as error:
            raise StoreUnavailableError(Path(path), error.strerror or str(error)) from error

    def read_at(self, path: str, artifact_id: str, relative: str, content_hash: str) -> Content:
        """The same of a file that is to have this place, and has another name still."""
        place = f"{self._root}/{relative}"
        if not names_its_content(artifact_id, content_hash, relative):  # a row that somebody else has written
            raise ArtifactCorruptError(Path(place), str(artifact_id), str(content_hash))
        return verified(content_at(path, is_packed=relative.endswith(ZSTD)), place, content_hash)

    def holds_another(self, theirs: ArtifactFiles, relative: str, their_relative: str, row: tuple[str, str]) -> bool:
        """Whether both folders have a sound file for this id and hash, and these differ: two contents with one hash can
        be made.
        """
        try:
            ours, other = self.read(row[0], relative, row[1]), theirs.read(row[0], their_relative, row[1])
        except (ArtifactMissingError, ArtifactCorruptError):
            return False
        return not pa.py_buffer(ours).equals(pa.py_buffer(other))

    def adopt(self, relative: str) -> None:
        """A file that someone else wrote: it is to survive a power loss with the next flush, too."""
        path = self._place(relative)
        with disk_errors_told(Path(path)), open(path, "rb") as file:
            start_sync(file.fileno())
        self._remember_unsynced(path)

    def adopt_verified(self, artifact_id: str, relative: str, content_hash: str) -> None:
        """Like `adopt`, once the content is verified; `begin_sync` starts the disk on many of these together."""
        path, digits = (
            f"{self._root}/{relative}",
            content_hash.removeprefix("sha256:"),
        )  # one that a thread has was placed before
        if not (isinstance(self._syncing, Verifying) and self._syncing.holds(path, digits)):
            self.read(artifact_id, relative, content_hash)
        self._remember_unsynced(path)

    def begin_verifying(self, relatives: Iterable[str]) -> None:
        """Begin in a thread with what `adopt_verified` of these files and then `sync` will be asked for; what cannot be
        read is left to them.
        """
        if self._syncing is None:
            places = []
            for relative in relatives:
                with suppress(UnsafePathError):
                    places.append(self._place(relative))
            files = opened(path for path in places if not path.endswith(ZSTD))
            if files:
                self._syncing = Verifying(files, self._with_folders({*self._unsynced, *files}), self.claims.descriptor)

    def begin_sync(self) -> None:
        """Begin in a thread with what `sync` will be asked for, if that is anything."""
        if self._unsynced and self._syncing is None:
            self._syncing = Syncing(self._with_folders(set(self._unsynced)), self.claims.descriptor)

    def _with_folders(self, paths: set[str]) -> set[str]:
        return {*paths, *map(os.path.dirname, paths), self._root}

    def sync(self) -> None:
        """Make every file added since the last call survive a power loss."""
        while self._unsynced:
            self.begin_sync()
            syncing, self._syncing = self._syncing, None
            assert syncing is not None
            try:
                syncing.wait()
            except OSError as error:
                raise StoreUnavailableError(self.root, error.strerror or str(error)) from error
            if len(self._synced) > 2**17:
                self._synced.clear()
            self._synced.update(syncing.paths & self._unsynced.keys())
            for path in syncing.paths:
                self._unsynced.pop(path, None)

    def unlink(self, relatives: Iterable[str]) -> int:
        """Remove files, as `listed` names them, that no row refers to any more; how many there were."""
        removed, self._syncing = 0, None  # a file that comes back under the name of one of these is another one
        for relative in relatives:
            path = f"{self.root}/{relative}"
            self._unsynced.pop(path, None)
            self._synced.discard(path)
            try:
                platform.remove(path)
            except OSError:  # gone, or what the disk refuses now: nothing names it, so the next collection takes it
                continue
            removed += 1
        return removed

    def listed(self) -> Iterator[str]:
        """Relative paths of all files that can be ours by their names, drafts included; links, and what lies behind
        them, and the users' own files are not.
        """
        folders = [""]
        while folders:
            folder = folders.pop()
            with suppress(FileNotFoundError), os.scandir(self.root / folder) as entries:  # not copied along, or gone
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{folder}{entry.name}/")
                    elif entry.is_file(follow_symlinks=False) and _is_ours(f"{folder}{entry.name}", entry.name):
                        yield f"{folder}{entry.name}"

    def holds(self, relative: str) -> bool:
        """Whether a file of the folder has this path, as a row says: none that leads elsewhere, or over a link."""
        try:
            return self.is_there(relative)
        except UnsafePathError:
            return False

    def is_there(self, relative: str) -> bool:
        """Whether there is a file at a path, as `path` takes it."""
        return os.path.lexists(self._place(relative))

    def changed_at(self, relative: str) -> float:
        """When a file was last written; 0 for one that has gone."""
        try:
            return os.lstat(f"{self._root}/{relative}").st_mtime
        except FileNotFoundError:
            return 0.0

    def _place(self, relative: str) -> str:
        """`path` as text: 8,000 loads a second leave no time for Path."""
        if not isinstance(relative, str):  # a row that somebody else has written
            raise UnsafePathError(str(relative), self.root)
        parts = relative.split("/")
        is_plain = posixpath.normpath(relative) == relative and parts[0] not in ("", ".", "..", SAVING)
        if not is_plain or not all(map(platform.is_name, parts)):
            raise UnsafePathError(relative, self.root)
        path = self._root
        for part in parts:
            path = f"{path}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    raise UnsafePathError(relative, self.root)
            except FileNotFoundError:
                return f"{self._root}/{relative}"
            except NotADirectoryError:
                break
            except OSError as error:  # longer than any name
                raise UnsafePathError(f"{relative[:80]}...", self.root) from error
        return path

    def _write(self, path: str, stored: Sequence[Content]) -> bool:
        """Whether the file is there now; False when another process was faster."""
        # all drafts in one folder: ext4 finds room for a new file three times faster there than in one of 256
        draft = f"{self.root}/{SAVING}/{os.path.basename(path)}.{os.getpid()}{_DRAFT}"
        try:
            try:
                _write_draft(draft, stored)
                return self._publish(draft, path)
            finally:
                with suppress(OSError):
                    os.unlink(draft)
        except OSError as error:
            raise StoreUnavailableError(Path(path), error.strerror or str(error)) from error

    def _publish(self, draft: str, path: str) -> bool:
        folder = os.path.dirname(path)
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        try:
            platform.publish_new(draft, path)
        except FileExistsError:
            if os.path.lexists(path):
                return False
            raise
        self._unsynced[path] = None
        return True

    def _holds(self, path: str, pieces: Sequence[Content]) -> bool:
        """Whether a stored file has this very content."""
        try:
            content = pa.py_buffer(
                content_at(path, is_packed=path.endswith(ZSTD))
            )  # compares like memcmp; memoryviews go byte by byte, numpy makes an array of bools
        except (FileNotFoundError, ArtifactCorruptError):
            return False
        ends = list(accumulate(map(len, pieces), initial=0))
        parts = zip(pairwise(ends), pieces, strict=True)
        return content.size == ends[-1] and all(
            content.slice(start, end - start).equals(pa.py_buffer(piece)) for (start, end), piece in parts
        )

    def _remember_unsynced(self, path: str) -> None:
        if path not in self._synced:
            self._unsynced[path] = None


def _is_ours(relative: str, name: str) -> bool:
    return _OURS.fullmatch(relative) is not None or platform.is_removed_name(name)


def relative_path(name: str, ending: str) -> str:
    """`ab/<hash>.<ending>`: where content is kept below the artifacts folder."""
    return f"{name[:2]}/{name}.{ending}"


def names_its_content(artifact_id: str, content_hash: str, relative: str) -> bool:
    """Whether an id that looks like the hash of a content belongs to that content, at its address, where a save finds
    it and compares the bytes; other ids may name anything.
    """
    if not isinstance(artifact_id, str):
        return False
    place, _, ending = relative.partition(".")
    if content_hash == artifact_id and place == f"{artifact_id[:2]}/{artifact_id}" and ending in _ENDINGS:
        return True
    return _CONTENT_ID.fullmatch(artifact_id) is None


def content_at(path: str, *, is_packed: bool) -> Content:
    """What a file holds, unpacked where it is packed, not verified; a large file is mapped."""
    try:
        descriptor = platform.open_regular(path)
    except IsADirectoryError as error:
        raise ArtifactCorruptError(Path(path), "a file", "a folder") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePathError(path, Path(path).parent) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactCorruptError(Path(path), "a file", "something else")
        data = _mapped(descriptor) if status.st_size >= _MAPPED_FROM else os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)
    return decompressed(data, path) if is_packed else data


def verified(data: Content, path: str, content_hash: str) -> Content:
    """`data` again; ArtifactCorruptError unless it has this hash: xxh3-128 (ours), or `sha256:` and 64 digits
    (nirs4all's).
    """
    if not isinstance(content_hash, str):  # a row that somebody else has written
        raise ArtifactCorruptError(Path(path), "nothing", "not to be told")
    expected = content_hash.removeprefix("sha256:").partition("-")[0]
    found = hashlib.sha256(data).hexdigest() if len(expected) == 64 else xxhash.xxh3_128_hexdigest(data)
    if found != expected:
        raise ArtifactCorruptError(Path(path), expected, found if len(data) else "empty")
    return data


def compressed(pieces: Sequence[Content]) -> bytes | None:
    """One zstd frame, as the `zstd` program reads it; None for one that `decompressed` would not take."""
    packed = bytes(pa.compress(b"".join(pieces), codec="zstd", asbytes=True))
    return packed if sum(map(len, pieces)) <= room_for(len(packed)) else None


def decompressed(data: Content, path: str) -> Content:
    """What is in a zstd file, 256 MiB or 20 times its size at most: somebody else may have written it."""
    pieces, left = list[bytes](), room_for(len(data))
    try:
        with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
            while left >= 0 and (piece := stream.read(min(_PIECE, left + 1))):
                pieces.append(piece)
                left -= len(piece)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactCorruptError(Path(path), "a zstd file", f"damaged ({error})") from error
    if left < 0:
        raise ArtifactCorruptError(Path(path), "one of its size", f"more than {room_for(len(data))} bytes, unpacked")
    return memoryview(b"".join(pieces))


def _write_draft(path: str, stored: Sequence[Content]) -> None:
    descriptor = platform.open_regular(path, _WRITE)
    try:
        platform.write_pieces(descriptor, stored)
        start_sync(descriptor)
    finally:
        os.close(descriptor)


def _mapped(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _hash_of(pieces: Sequence[Content]) -> str:
    found = xxhash.xxh3_128()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()
