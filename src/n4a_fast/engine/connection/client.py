"""DuckDB connections: their settings, the files attached to them, the Arrow tables they see.

A connection is made without a file and given back when its store is closed; the next store takes it.
Whose turn it is with a file, and what a statement may do, is for `Database`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from n4a_fast.durable.sync import disk_errors_told, sync
from n4a_fast.durable.torn_pages import mend_before_attaching
from n4a_fast.platform import at_fork, keep_for_ever

if TYPE_CHECKING:
    import pyarrow as pa

Connection = duckdb.DuckDBPyConnection

_ROW_GROUP = 2048
# the size is not in the file, and DuckDB gives each of its threads whole groups
_READ_ONLY = f"READ_ONLY, ROW_GROUP_SIZE {_ROW_GROUP}"
_WRITABLE = f"ROW_GROUP_SIZE {_ROW_GROUP}, STORAGE_VERSION 'v1.5.0'"
_SETTINGS = """SET max_vacuum_tasks = 0; SET wal_autocheckpoint = '256MB'; SET autoinstall_known_extensions = false;
SET autoload_known_extensions = false; SET python_enable_replacements = false"""  # no name is a variable of ours
_SPARE_AT_MOST = 2  # a merge has two files open at once
_CACHE = "512MB"  # what DuckDB may keep of what was written; it would keep everything, up to 80 % of the memory


def connected() -> Connection:
    """A connection without a file: the one that a closed store has left, or a new one, which takes 13 ms."""
    with suppress(IndexError):
        return _SPARE.pop()
    connection = duckdb.connect(":memory:")
    connection.execute(_SETTINGS)
    # after two seconds it would be drawn on the user's stdout. In a notebook kernel without ipywidgets it is off, and
    # DuckDB refuses even to turn it off
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() != [(False,)]:
        connection.execute("SET enable_progress_bar = false")
    return connection


def keep_for_the_next(connection: Connection | None) -> None:
    """Give back a connection that has no file any more."""
    if connection is not None and len(_SPARE) < _SPARE_AT_MOST:
        _SPARE.append(connection)


def leave_to_parent(connection: Connection | None) -> None:
    """In a forked child: never touch it again; closing it here would write to the parent's file, or wait for threads
    that are not here.
    """
    keep_for_ever(connection)  # a list would let go of it when the interpreter ends


def attach(connection: Connection, path: Path, name: str, *, read_only: bool) -> None:
    """Attach a file under `name`; DuckDB's own error when another process has it. What a crash left of a checkpoint is
    made whole before.
    """
    mend_before_attaching(path, duckdb.__version__)
    options = _READ_ONLY if read_only else _WRITABLE
    connection.execute(f"ATTACH '{_quoted(path)}' AS {name} (TYPE duckdb, {options})")


def is_log_named(path: Path) -> bool:
    """After a commit: whether the log of a file is there, under a name that survives a power loss. DuckDB syncs the log
    that it makes with the first commit after attaching, but not the folder.
    """
    if not path.with_name(path.name + ".wal").exists():
        return False
    with disk_errors_told(path):
        sync(path.parent)
    return True


def detach_store(connection: Connection, *, joined: bool) -> None:
    """Detach the store's file; `joined`: rows at the ends of its tables move together into common row groups."""
    if joined:
        connection.execute("SET max_vacuum_tasks = 1")
    try:
        connection.execute("USE memory")
        connection.execute("DETACH store")
    finally:
        if joined:
            connection.execute("SET max_vacuum_tasks = 0")


def abandon_store(connection: Connection) -> None:
    """Detach the store without writing to its file or to the log beside the path, which may be another file's."""
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    try:
        connection.execute("USE memory")
        connection.execute("DETACH store")
    finally:
        connection.execute("PRAGMA enable_checkpoint_on_shutdown")


def detach_if_attached(connection: Connection, name: str) -> None:
    """Detach a file that an error may have detached already."""
    if (name,) in connection.execute("SELECT database_name FROM duckdb_databases()").fetchall():
        connection.execute(f"DETACH {name}")


@contextmanager
def registered(connection: Connection, tables: dict[str, pa.Table]) -> Iterator[None]:
    """Arrow tables under these names."""
    for name, table in tables.items():
        connection.register(name, table)
    try:
        yield
    except BaseException:
        for name in tables:
            with suppress(duckdb.Error):  # which a transaction that has failed refuses: the cause is what counts
                connection.unregister(name)
        raise
    for name in tables:
        connection.unregister(name)


def in_row_groups(table: pa.Table) -> pa.Table:
    """The same rows in record batches of a row group: DuckDB's threads share these, of a single batch one thread does
    all (53 and 96 ms for 16,384 rows).
    """
    return type(table).from_batches(table.to_batches(_ROW_GROUP), table.schema) if len(table) > _ROW_GROUP else table


def trim_cache(connection: Connection) -> None:
    """Let DuckDB forget what it has written beyond `_CACHE`, so that memory does not grow with the rows."""
    try:
        connection.execute(f"SET memory_limit = '{_CACHE}'")
    except duckdb.OutOfMemoryException:
        pass  # more than that is in use at this moment; the next time will do
    finally:
        connection.execute("RESET memory_limit")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _leave_spare_to_parent() -> None:
    while _SPARE:
        leave_to_parent(_SPARE.pop())


_SPARE: list[Connection] = []
at_fork(in_child=_leave_spare_to_parent)
