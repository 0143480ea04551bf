"""A new store file: made under another name, finished, then given its own, so nobody ever sees half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.sync import sync
from n4a_fast.engine.connection import Database


def create_file(path: Path, statements: Sequence[str]) -> None:
    """Make a new database file from DDL; it appears under `path` whole, or not at all.

    An existing file is left as it is: another process may have made it in the meantime.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    database = Database(draft)
    try:
        with database.defining():
            for statement in statements:
                database.execute(statement)
        database.checkpoint()
        database.close()
        _publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
        database.close()


def _publish(draft: Path, path: Path) -> None:
    """Give the finished draft its name, durably, unless the name is taken."""
    try:
        platform.publish_new(draft, path)
    except FileExistsError:
        return
    sync(path.parent)
