"""Which format a file has, and what is done about it, before anything in it is touched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from n4a_fast.engine.connection import Database
from n4a_fast.errors import ForeignStoreError, NewerFormatError, NotAStoreError, NotFoundError, ReadOnlyError
from n4a_fast.schema import ddl
from n4a_fast.schema.creation import create_file
from n4a_fast.schema.ddl import DOCUMENTED_NAMES, STATEMENTS
from n4a_fast.version import __version__

FORMAT_VERSION = 2

# statements that bring format n to n + 1; they run in one transaction, on a file that was copied aside
MIGRATIONS: Mapping[int, Sequence[str]] = {1: (ddl.METRICS, ddl.CHAIN_SCORES, ddl.CHAIN_INPUT, ddl.COMPILE_ANEW)}

_READ_VERSION = "SELECT format_version, written_by FROM store.main.store_info"
# a view by this name would run what a stranger wrote
_HAS_VERSION = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'store' AND table_name = 'store_info'"
_TABLE_NAMES = "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'store'"
_SET_VERSION = "UPDATE store_info SET format_version = ?, written_by = ?"


def create(path: Path) -> None:
    """Make an empty store file of the current format, unless one is there."""
    stamp = (
        f"INSERT INTO store_info VALUES ({FORMAT_VERSION}, '{__version__}', '{datetime.now(UTC):%Y-%m-%d %H:%M:%S}')"
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
        return
    if not database.path.is_file():
        raise NotAStoreError(database.path, "not a file")
    found, written_by = _version_of(database)
    if found > FORMAT_VERSION:
        raise NewerFormatError(database.path, found, FORMAT_VERSION, written_by)
    if found < FORMAT_VERSION:
        migrate(database, found, FORMAT_VERSION, MIGRATIONS)


def migrate(database: Database, found: int, wanted: int, migrations: Mapping[int, Sequence[str]]) -> Path:
    """Bring the file from format `found` to `wanted` in one transaction; the path of the copy kept aside."""
    if database.read_only:
        raise ReadOnlyError(database.path)
    database.checkpoint()  # a copy without its log would lack the newest rows
    database.detach()  # closing a copy's descriptor while attached would drop DuckDB's lock
    backup = database.path.with_name(f"{database.path.name}.v{found}")
    shutil.copy2(database.path, backup)
    with database.transaction():
        for version in range(found, wanted):
            for statement in migrations[version]:
                database.execute(statement)
        database.execute(_SET_VERSION, (wanted, __version__))
    return backup


def _version_of(database: Database) -> tuple[int, str]:
    info = database.peek(_READ_VERSION) if database.peek(_HAS_VERSION) else None
    if info and isinstance(info[0][0], int):
        return info[0][0], str(info[0][1])
    names = {name for (name,) in database.peek(_TABLE_NAMES) or ()}
    if set(DOCUMENTED_NAMES) - {"prediction_arrays"} <= names:  # early 0.8 keeps its arrays in files
        raise ForeignStoreError(database.path)
    raise NotAStoreError(database.path, "a DuckDB file of something else")
