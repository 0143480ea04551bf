"""Ids of deleted runs, and of pipelines that had not ended: another process may hold rows of them that are not in the
tables yet.

Each commit that a checkpoint follows begins a row group, and a block of the file for it, which its one row would keep
for ever. So the newest ids are written once more with those that come.
"""

from __future__ import annotations

from collections.abc import Sequence

from n4a_fast.engine.connection import Database

_TOGETHER = 1024  # ids, of 40 bytes; older ones stay as they are
_TAKE_NEWEST = f"""DELETE FROM deleted_runs WHERE rowid IN (SELECT rowid FROM deleted_runs ORDER BY rowid
OFFSET (SELECT count(*) // {_TOGETHER} * {_TOGETHER} FROM deleted_runs)) RETURNING run_id"""
_NOTE = "INSERT INTO deleted_runs SELECT unnest(?)"


def note_in_transaction(database: Database, owners: Sequence[str]) -> None:
    """These are deleted from now on."""
    if owners:
        newest = [name for (name,) in database.rows(_TAKE_NEWEST)]
        database.execute(_NOTE, ([*newest, *owners],))
