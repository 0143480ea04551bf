"""The `artifacts/` folder: content-addressed files, never overwritten, verified on every read.

A file is written under a temporary name and renamed, so a name always holds whole content.
fsync waits for `sync`, which the flush calls once before it commits the rows. Only `unlink`
removes files. Every path from outside is resolved and must stay inside the folder.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from n4a_fast.durable import sync
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, StoreUnavailableError, UnsafePathError


class ArtifactFiles:
    """Files below one root, named by the hash of what they hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._unsynced: dict[Path, None] = {}

    def path(self, relative: str) -> Path:
        """Where a stored relative path is; UnsafePathError when that, or the link it is, leaves the folder."""
        path = self.root / relative
        root = self.root.resolve()
        if not path.resolve().is_relative_to(root) or path.resolve() == root:
            raise UnsafePathError(relative, self.root)
        return path

    def add(self, data: bytes, extension: str) -> tuple[str, bool]:
        """Its content hash, with a suffix in the event of a hash collision, and whether `data` was new and is stored now."""
        content_hash = xxhash.xxh3_128_hexdigest(data)
        name, turn = content_hash, 0
        while (path := self.path(relative_path(name, extension))).exists():
            if self._holds(path, data):
                os.utime(path)  # young again: a collection running elsewhere must not take it for an orphan
                return name, False
            turn += 1
            name = f"{content_hash}-{turn}"
        self._write(path, data)
        return name, True

    def read(self, artifact_id: str, relative: str, content_hash: str) -> bytes:
        """The verified bytes of a file."""
        path = self.path(relative)
        try:
            with path.open("rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise ArtifactMissingError(artifact_id, path) from error
        verify(data, path, content_hash)
        return data

    def sync(self) -> None:
        """Make every file added since the last call survive a power loss."""
        folders = {path.parent for path in self._unsynced}
        for path in (*self._unsynced, *folders, *([self.root] if folders else [])):
            if path.exists():  # collected again before it was ever referred to
                sync(path)
        self._unsynced.clear()

    def unlink(self, relatives: Iterable[str]) -> int:
        """Remove files that no row refers to any more; how many there were."""
        removed = 0
        for relative in relatives:
            path = self.path(relative)
            self._unsynced.pop(path, None)
            if path.is_file():
                path.unlink()
                removed += 1
        return removed

    def older_than(self, seconds: float) -> Iterator[str]:
        """Relative paths of files not touched for that long, drafts included."""
        limit = time.time() - seconds
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_mtime < limit:
                yield path.relative_to(self.root).as_posix()

    def _write(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("wb") as file:
                    file.write(data)
                draft.replace(path)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreUnavailableError(path, str(error)) from error
        self._unsynced[path] = None

    def _holds(self, path: Path, data: bytes) -> bool:
        if path.stat().st_size != len(data):
            return False
        if not data:
            return True
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored:
            return bool(memoryview(stored) == data)


def relative_path(name: str, extension: str) -> str:
    """`ab/<hash>.<extension>`: where content is kept below the artifacts folder."""
    return f"{name[:2]}/{name}.{extension}"


def verify(data: bytes, path: Path, content_hash: str) -> None:
    """ArtifactCorruptError unless `data` has this hash: xxh3-128 (ours), or `sha256:` and 64 digits (nirs4all's)."""
    expected = content_hash.removeprefix("sha256:").partition("-")[0]
    found = hashlib.sha256(data).hexdigest() if len(expected) == 64 else xxhash.xxh3_128_hexdigest(data)
    if found != expected:
        raise ArtifactCorruptError(path, expected, found if data else "empty")
