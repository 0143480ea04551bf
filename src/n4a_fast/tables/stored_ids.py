"""Which artifacts are stored, known for as long as the file stays attached: nobody else changes them meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from n4a_fast.engine.connection import Database

_IDS = "SELECT artifact_id FROM stored_artifacts LIMIT ?"
_KNOWN_AT_MOST = 100_000
_READ_AT_MOST = 10_000  # in 2 ms; a look-up of a few takes 1.5


class StoredIds:
    """The ids of all stored artifacts, as long as they are few enough."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: set[str] | None = None  # None: too many
        self._as_of = -1  # the attachment during which they were read

    def known(self) -> set[str] | None:
        """All of them, what other processes have logged included; None when memory does not know them."""
        if self._database.in_transaction:
            return None
        if (attachment := self._database.attachment_for_reading()) != self._as_of:
            found = self._database.rows(_IDS, (_READ_AT_MOST,), own=False)
            self._ids, self._as_of = {name for (name,) in found} if len(found) < _READ_AT_MOST else None, attachment
        if self._ids is not None and len(self._ids) > _KNOWN_AT_MOST:
            self._ids = None
        return self._ids

    def add(self, artifact_ids: Iterable[str]) -> None:
        """These are stored, too."""
        if self._ids is not None:
            self._ids.update(artifact_ids)

    def forget(self) -> None:
        """Rows of other processes have come, or some have gone: they must be read anew."""
        self._as_of = -1
