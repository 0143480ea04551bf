"""Which file an open store is about: its device and number, and the id stored in it. Its path is only where it lies.

A vacuum by another process gives the path to a new file with the same id and a higher count of rewrites, which is
followed. A backup that was put back has the same id and a count that is not higher: it is another file.
"""

from __future__ import annotations

import os
from pathlib import Path

from n4a_fast import platform
from n4a_fast.engine.session import Session
from n4a_fast.errors import StoreMovedError, StoreUnavailableError

REPLACED = "replaced by another file"


class StoreIdentity:
    """The file of one store, once it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store_id = ""
        self.file: tuple[int, int] | None = None
        self.rewrites = 0
        self.began_as = 0  # the format that it was made with
        self.session: Session | None = None  # of a workspace: its file tells what became of the folder
        self._abandoned = ""  # what happened
        self._pin: int | None = None

    @property
    def is_known(self) -> bool:
        return self.file is not None

    def note(self, file: tuple[int, int], store_id: str, rewrites: int, began_as: int) -> None:
        """The path means this file."""
        self._keep_pinned()
        self.file, self.store_id, self.rewrites, self.began_as = file, store_id, rewrites, began_as

    def is_here(self) -> bool:
        """Whether the path means this file still, and not another one; StoreMovedError when it means none."""
        if self._abandoned:
            raise StoreMovedError(self.path, self._abandoned)
        try:
            return platform.identity(self.path) == self.file
        except (FileNotFoundError, NotADirectoryError):
            raise StoreMovedError(self.path, self._what_happened()) from None
        except OSError as error:
            raise StoreUnavailableError(self.path, error.strerror or str(error)) from error

    def follow(self, file: tuple[int, int], store_id: str, rewrites: int) -> None:
        """The path means another file, of this id and count: a vacuum's, or StoreMovedError."""
        if store_id != self.store_id or rewrites <= self.rewrites:
            raise StoreMovedError(self.path, REPLACED)
        self._keep_pinned()
        self.file, self.rewrites = file, rewrites

    def close(self) -> None:
        """Nobody asks any more."""
        if self._pin is not None:
            os.close(self._pin)
        self._pin = None

    def _keep_pinned(self) -> None:
        """A removed file's number would soon be another one's: a backup that is put back would pass for it."""
        self.close()
        self._pin = platform.pin(self.path)

    def abandon(self, happened: str) -> None:
        """The path is used for another file from now on: every question about this one raises StoreMovedError."""
        self._abandoned = self._abandoned or happened

    def _what_happened(self) -> str:
        if self.path.parent.is_dir():
            return "removed"
        return (
            "removed with its folder" if self.session is None or self.session.is_gone() else "renamed with its folder"
        )
