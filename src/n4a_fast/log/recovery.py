"""The segments of all processes beside a store: which there are, what they hold, and which nobody writes to any more.

A segment is a regular file of exactly the name that a session gives it, with records of this store in it. Anything
else, copies and conflicted copies, folders, files of other programs, is left alone. A segment of another store is
told by a warning, one that may not be read by an error: its rows would be missed. Journals of format 1 are read in a
store that began as one; a lock on the file itself tells whether its process lives.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.engine.identity import StoreIdentity
from n4a_fast.engine.session import ID, Session
from n4a_fast.errors import NewerFormatError, StoreUnavailableError
from n4a_fast.log import record
from n4a_fast.platform import FileLock
from n4a_fast.schema.versions import FORMAT_VERSION

_NAME = re.compile(rf"(?P<old>\.journal-{ID}-(?P<pid>\d+))|\.log-(?P<session>{ID})")
_UNREADABLE = "make it readable for this user, or run this as one who may read it"


class Found(NamedTuple):
    """A segment beside a store."""

    path: Path
    session: str  # empty for a journal of format 1
    pid: int  # of format 1, whose names tell it


class Waiting(NamedTuple):
    """Records of another process that are not in the tables."""

    found: Found
    records: Sequence[record.Record]
    is_dead: bool  # nothing can have been added since

    @property
    def last(self) -> int:
        return self.records[-1].number


class Segments:
    """All segments beside one store."""

    def __init__(self, identity: StoreIdentity, session: Session) -> None:
        self._identity, self._session = identity, session
        self._folder, self._store_name = identity.path.parent, identity.path.name
        self._told: set[Path] = set()  # of which it was said that they belong to another store

    def path_of(self, session: str) -> Path:
        return self._folder / f"{self._store_name}.log-{session}"

    def listed(self) -> Iterator[Found]:
        """Oldest first."""
        for name in sorted(os.listdir(self._folder)):
            match = _NAME.fullmatch(name, len(self._store_name)) if name.startswith(self._store_name) else None
            if match is None or not _is_file(path := self._folder / name):  # each read looks: no path of what is passed
                continue
            if match["old"] is None or self._identity.began_as == 1:
                yield Found(path, match["session"] or "", int(match["pid"] or 0))

    def is_dead(self, found: Found) -> bool:
        """Whether its process has ended: nothing is added to the segment from now on."""
        if found.session:
            return not self._session.is_alive(found.session)
        lock = FileLock(found.path)
        try:
            return lock.acquire(0.0, shared=True)
        except OSError:  # gone, or another user's
            return False
        finally:
            lock.close()

    def read_after(self, found: Found, number: int, *, complete: bool, salvage: bool = False) -> list[record.Record]:
        """The records of this store in a segment; StoreUnavailableError when it may not be read, NewerFormatError when
        this release does not know all of their columns.
        """
        store_id = self._identity.store_id if found.session else None
        try:
            records = record.read_after(found.path, number, store_id, complete=complete, salvage=salvage)
        except OSError as error:
            raise StoreUnavailableError(found.path, error.strerror or str(error), _UNREADABLE) from error
        newest = max((each.schema for each in records), default=0)
        if newest > FORMAT_VERSION:
            raise NewerFormatError(found.path, newest, FORMAT_VERSION, "")
        return records

    def remove(self, found: Found) -> None:
        """Take a dead segment away, all of whose records are in the tables."""
        with suppress(OSError):  # another process was faster, or it is another user's: it is passed over from now on
            platform.remove(found.path)

    def is_ours(self, found: Found) -> bool:
        """Whether a dead segment without a record to apply is this store's: one of another store is told."""
        try:
            return self._is_ours(found)
        except OSError:  # gone meanwhile
            return False

    def _is_ours(self, found: Found) -> bool:
        if not found.session:
            return True
        store_id = record.store_of(found.path)
        if store_id is not None and store_id != self._identity.store_id and found.path not in self._told:
            self._told.add(found.path)
            warnings.warn(
                f"{found.path} holds rows of another store ({store_id}), which are left where they are: put the file"
                " beside its store, or remove it",
                stacklevel=2,
            )
        return store_id == self._identity.store_id or (store_id is None and record.is_torn_at_once(found.path))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:  # gone meanwhile
        return False
