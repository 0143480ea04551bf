"""A new store file: made under another name, finished, then given its own, so nobody ever sees half of one.

Tables and views are made once in a process, 25 ms of its time; each later file begins as a copy of their bytes (5 ms).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from n4a_fast import platform
from n4a_fast.durable.duckdb_file import another_file
from n4a_fast.durable.sync import sync
from n4a_fast.engine.connection import Database

_MADE: dict[tuple[str, ...], bytes] = {}  # by the statements, the file that they make


def create_file(path: Path, statements: Sequence[str], *, common: tuple[str, ...] = ()) -> tuple[int, int] | None:
    """Make a new database file from DDL; it appears under `path` whole, or not at all. The statements `common` come
    first, and make the same in all files of this process.

    Which file it is. None when there was one, which is left as it is: another process may have made it in the meantime.
    """
    draft = path.with_name(f"{path.name}.{uuid4().hex}.new")  # what a refused attempt has left is not met by the next
    try:
        if common:
            _begin(draft, common)
        _run(draft, statements)
        return _publish(draft, path)
    finally:
        for each in (draft, draft.with_name(f"{draft.name}.wal")):
            each.unlink(missing_ok=True)


def _begin(draft: Path, common: tuple[str, ...]) -> None:
    """Make the draft a file with what is common. It need not be synced: the checkpoint that follows syncs all of it."""
    if (made := _MADE.get(common)) is not None:
        draft.write_bytes(another_file(made))
    else:
        _run(draft, common)
        _MADE[common] = draft.read_bytes()


def _run(draft: Path, statements: Sequence[str]) -> None:
    database = Database(draft)
    try:
        with database.defining():
            for statement in statements:
                database.execute(statement)
        database.checkpoint()
    finally:
        database.close()


def _publish(draft: Path, path: Path) -> tuple[int, int] | None:
    """Give the finished draft its name, durably, unless the name is taken."""
    file = platform.identity(draft)
    try:
        platform.publish_new(draft, path)
    except FileExistsError:
        return None
    sync(path.parent)
    return file
