"""Which format a file has, and what is done about it, before anything in it is touched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
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
        *ddl.INDEXES,
    )
}

# which file, the id of the store in it, how often it was rewritten, the format that it was made with
Identity = tuple[tuple[int, int], str, int, int]

_READ_INFO = "SELECT info FROM store.main.store_info info"
_SET_VERSION = "UPDATE store_info SET format_version = ?, written_by = ?"


def create(path: Path) -> Identity | None:
    """Make an empty store file of the current format; what it says of itself, None when one is there. A log of DuckDB's
    that is left of a file which was taken away alone is put aside: it would be replayed into this one.
    """
    if not path.exists():
        with suppress(FileNotFoundError):
            platform.replace(f"{path}.wal", f"{path}.wal.orphaned")
    now, store_id = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}", str(uuid4())
    stamp = (
        f"INSERT INTO store_info VALUES ({FORMAT_VERSION}, '{__version__}', '{now}', '{store_id}', 0, {FORMAT_VERSION})"
    )
    file = create_file(path, (stamp,), common=STATEMENTS)
    return None if file is None else (file, store_id, 0, FORMAT_VERSION)


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
        if (created := create(database.path)) is not None:
            database.identity.note(*created)
            return
    if not database.path.is_file():
        raise NotAStoreError(database.path, "not a file")
    made = catalogue.made_in(database)
    file, info = platform.identity(database.path), _info_of(database, made)
    found = info["format_version"]
    if found > FORMAT_VERSION:
        raise NewerFormatError(database.path, found, FORMAT_VERSION, str(info.get("written_by")))
    if found < FORMAT_VERSION:
        catalogue.require_no_macros(database)
    catalogue.require_ours(database, made)
    if found < FORMAT_VERSION:
        migrate(database, found, FORMAT_VERSION, MIGRATIONS)
        file, info = platform.identity(database.path), _info_of(database, catalogue.made_in(database))
    _identify(database, file, info)


def migrate(database: Database, found: int, wanted: int, migrations: Mapping[int, Sequence[str]]) -> Path:
    """Bring the file from format `found` to `wanted` in one transaction; the path of the copy kept aside.

    The turn at the file is ours from before the copy until the commit. What logs hold is read later, by the new format.
    """
    backup = database.path.with_name(f"{database.path.name}.v{found}")
    if database.read_only:
        raise ReadOnlyError(database.path)
    with database.alone():
        if _info_of(database, catalogue.made_in(database))["format_version"] >= wanted:  # another process was faster
            return backup
        database.checkpoint()  # a copy without DuckDB's log would lack the newest rows
        database.detach()  # closing a copy's descriptor while attached would drop DuckDB's lock
        _copy_aside(database.path, backup)
        with database.making_indexes():
            with database.undrained(), database.defining():
                for version in range(found, wanted):
                    for statement in migrations[version]:
                        database.execute(statement)
                database.execute(_SET_VERSION, (wanted, __version__))
            database.checkpoint()
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


def _identify(database: Database, file: tuple[int, int], info: Mapping[str, Any]) -> None:
    """Note which file this is."""
    match info:
        case {"store_id": str(store_id), "rewrites": int(rewrites), "began_as": int(began_as)} if (
            platform.identity(database.path) == file
        ):
            database.identity.note(file, store_id, rewrites, began_as)
        case _:
            message = "it does not say which store it is, or was replaced at this moment"
            raise NotAStoreError(database.path, message)


def _info_of(database: Database, made: Sequence[catalogue.Made]) -> dict[str, Any]:
    """The row of `store_info` by column, with a format that is a number."""
    if info_tables := [each for each in made if each.name == "store_info" and each.kind == catalogue.TABLE]:
        catalogue.require_ours(database, info_tables)  # a view by this name would run what a stranger wrote
        rows = database.peek(_READ_INFO)
        info = rows[0][0] if rows else None
        if isinstance(info, dict) and isinstance(info.get("format_version"), int):
            return info
    if set(DOCUMENTED_NAMES) - {"prediction_arrays"} <= {each.name for each in made}:  # early 0.8: arrays in files
        raise ForeignStoreError(database.path)
    raise NotAStoreError(database.path, "a DuckDB file of something else")
