"""`migrate` of a SQLite workspace: the finished store takes its place at once, the original gets other names.

Steps, each safe to be killed after: a draft is made and compared while nobody can write to the original; the
draft gets the name `store.duckdb`, from when on the folder is ours; the files of the original, which are not
changed, get the ending `.nirs4all`. A migration that finds both stores ends what a killed one began.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.sync import sync
from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.errors import ConflictError, StoreLockedError, StoreUnavailableError

SQLITE_FILE = "store.sqlite"
ENDING = ".nirs4all"
_OF_SQLITE = ("-wal", "-shm", "-journal", "")
_ARRAYS = "arrays"


@contextmanager
def nobody_writes(root: Path) -> Iterator[None]:
    """While the block runs, SQLite lets no other program write; StoreLockedError while one does."""
    path = root / SQLITE_FILE
    try:
        with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise StoreLockedError(path, None) from error
        raise StoreUnavailableError(path, str(error)) from error


def refuse_to_overwrite(root: Path) -> None:
    """ConflictError when an earlier original has the name that this one would get."""
    for name in (SQLITE_FILE, _ARRAYS):
        kept = root / f"{name}{ENDING}"
        if (root / name).exists() and kept.exists():
            raise ConflictError("backup", str(kept), "an earlier original", "another one")


def take_its_place(root: Path, draft: Path) -> None:
    """Give the finished draft the name of a store; from now on the folder is ours."""
    sync(draft / STORE_FILE)
    platform.replace(draft / STORE_FILE, root / STORE_FILE)
    sync(root)


def set_aside(root: Path) -> Path:
    """Give the files of the original other names; the database's."""
    _rename(root / _ARRAYS, root / f"{_ARRAYS}{ENDING}")
    for ending in _OF_SQLITE:  # the database itself at last: while it has its name, there is something left to do
        _rename(root / f"{SQLITE_FILE}{ending}", root / f"{SQLITE_FILE}{ENDING}{ending}")
    sync(root)
    return root / f"{SQLITE_FILE}{ENDING}"


def _rename(old: Path, new: Path) -> None:
    if old.exists():
        platform.replace(old, new)
