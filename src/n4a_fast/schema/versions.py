"""Which format a file has, and what is done about it, before anything in it is touched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from n4a_fast import platform
from n4a_fast.engine.connection import Database
from n4a_fast.errors import (
    ForeignStoreError,
    NewerFormatError,
    NotAStoreError,
    NotFoundError,
    ReadOnlyError,
    StoreUnavailableError,
)
from n4a_fast.schema import catalogue, chain_scores, ddl
from n4a_fast.schema.creation import create_file
from n4a_fast.schema.ddl import DOCUMENTED_NAMES, STATEMENTS
from n4a_fast.version import __version__

FORMAT_VERSION = 2

# statements that bring format n to n + 1; they run in one transaction, on a file that was copied aside
MIGRATIONS: Mapping[int, Sequence[str]] = {
    1: (
        *ddl.IDENTITY,
        ddl.METRICS,
        *chain_scores.CACHED,
        ddl.AGGREGATED_VIEW,
        ddl.CHAIN_INPUT,
        *ddl.RELEASES,
        *ddl.CLASSES,
        ddl.COMPILE_ANEW,
    )
}

_READ_VERSION = "SELECT format_version, written_by FROM store.main.store_info"
# a view by this name would run what a stranger wrote
_HAS_VERSION = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'store' AND table_name = 'store_info'"
_READ_IDENTITY = "SELECT store_id, rewrites, began_as FROM store.main.store_info"
_TABLE_NAMES = "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'store'"
_SET_VERSION = "UPDATE store_info SET format_version = ?, written_by = ?"


def create(path: Path) -> None:
    """Make an empty store file of the current format, unless one is there. A log of DuckDB's that is left of a file
    which was taken away alone is put aside: it would be replayed into this one.
    """
    if not path.exists():
        with suppress(FileNotFoundError):
            platform.replace(f"{path}.wal", f"{path}.wal.orphaned")
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    stamp = (
        f"INSERT INTO store_info VALUES ({FORMAT_VERSION}, '{__version__}', '{now}', '{uuid4()}', 0, {FORMAT_VERSION})"
    )
    create_file(path, (*STATEMENTS, stamp))


def prepare(database: Database) -> None:
    """Make `database` ready: create a missing file, migrate an older format, refuse any other with the cure."""
    if not database.path.exists():
        other = database.path.with_name("store.sqlite")
        if other.exists():  # a collection would take the artifacts there for orphans
            raise ForeignStoreError(other)
        if database.read_only:
            raise NotFoundError(
                "store file", str(database.path), "check the path, or create it with WorkspaceStore(path)", where=""
            )
        create(database.path)
    if not database.path.is_file():
        raise NotAStoreError(database.path, "not a file")
    found, written_by = _version_of(database)
    if found > FORMAT_VERSION:
        raise NewerFormatError(database.path, found, FORMAT_VERSION, written_by)
    if found < FORMAT_VERSION:
        catalogue.require_no_macros(database)
    catalogue.require_ours(database)
    if found < FORMAT_VERSION:
        migrate(database, found, FORMAT_VERSION, MIGRATIONS)
    _identify(database)


def migrate(database: Database, found: int, wanted: int, migrations: Mapping[int, Sequence[str]]) -> Path:
    """Bring the file from format `found` to `wanted` in one transaction; the path of the copy kept aside.

    The turn at the file is ours from before the copy until the commit. What logs hold is read later, by the new format.
    """
    backup = database.path.with_name(f"{database.path.name}.v{found}")
    if database.read_only:
        raise ReadOnlyError(database.path)
    with database.alone():
        if _version_of(database)[0] >= wanted:  # another process was faster
            return backup
        database.checkpoint()  # a copy without DuckDB's log would lack the newest rows
        database.detach()  # closing a copy's descriptor while attached would drop DuckDB's lock
        _copy_aside(database.path, backup)
        with database.undrained(), database.defining():
            for version in range(found, wanted):
                for statement in migrations[version]:
                    database.execute(statement)
            database.execute(_SET_VERSION, (wanted, __version__))
    return backup


def _copy_aside(path: Path, backup: Path) -> None:
    draft = backup.with_name(f"{backup.name}.new")
    try:
        shutil.copy2(path, draft)
        platform.sync_path(draft)
        platform.replace(draft, backup)
        platform.sync_path(backup.parent)
    except OSError as error:
        raise StoreUnavailableError(backup, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _identify(database: Database) -> None:
    """Note which file this is."""
    file = platform.identity(database.path)
    rows = database.peek(_READ_IDENTITY)
    if not rows or not isinstance(rows[0][0], str) or platform.identity(database.path) != file:
        raise NotAStoreError(database.path, "it does not say which store it is, or was replaced at this moment")
    store_id, rewrites, began_as = rows[0]
    database.identity.note(file, store_id, rewrites, began_as)


def _version_of(database: Database) -> tuple[int, str]:
    info = database.peek(_READ_VERSION) if database.peek(_HAS_VERSION) else None
    if info and isinstance(info[0][0], int):
        return info[0][0], str(info[0][1])
    names = {name for (name,) in database.peek(_TABLE_NAMES) or ()}
    if set(DOCUMENTED_NAMES) - {"prediction_arrays"} <= names:  # early 0.8 keeps its arrays in files
        raise ForeignStoreError(database.path)
    raise NotAStoreError(database.path, "a DuckDB file of something else")
