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
from n4a_fast.values import checks

if TYPE_CHECKING:
    import pyarrow as pa

Connection = duckdb.DuckDBPyConnection

ROW_GROUP = 2048
# the size is not in the file, and DuckDB gives each of its threads whole groups
_READ_ONLY = f"READ_ONLY, ROW_GROUP_SIZE {ROW_GROUP}"
_WRITABLE = f"ROW_GROUP_SIZE {ROW_GROUP}, STORAGE_VERSION 'v2.0.0'"
# no name is a variable of ours; each checkpoint is, for a log has to be named before
_SETTINGS = """SET max_vacuum_tasks = 0; SET autoinstall_known_extensions = false;
SET autoload_known_extensions = false; SET python_enable_replacements = false;
SET wal_autocheckpoint = '1000TB'"""
MEMORY_LIMIT = 512 * 2**20  # bytes that DuckDB takes for a file, unless told otherwise
_LEAST_MEMORY = 64 * 10**6  # a few row groups of arrays for each thread
_OF_THREAD = 64 * 2**20  # bytes
_CHECKPOINTS = 8  # a checkpoint for each so many parts of the memory in DuckDB's log: 64 MiB by default
_SPARE_AT_MOST = 2  # a merge has two files open at once
_LEAST_SCAN = 2048  # rows that an index may give; DuckDB's own default
_SAME_KEY = 4  # times as many rows as were thought may have the keys; where there are more, all are read
_CACHE = 512 * 2**20  # what DuckDB may keep of what was written; it would keep everything, up to its limit


def connected(memory_limit: int, spill: Path | None) -> Connection:
    """A connection without a file: the one that a closed store has left, or a new one, which takes 13 ms.

    DuckDB takes `memory_limit` bytes, and writes what does not fit into the folder `spill`, which it makes when it
    needs it and removes when the connection closes; None: it raises.
    """
    try:
        connection, takes = _SPARE.pop()
    except IndexError:  # asked so: another thread may take the last one after a look
        connection, takes = _new(), 0
    connection.execute(f"SET temp_directory = '{_quoted(spill) if spill else ''}'")
    if takes != memory_limit:  # to set it again would give the memory of the file before back, 5 ms for a large one
        use_memory(connection, memory_limit)
    return connection


def checked_limit(given: int | str | None) -> int | None:
    """Bytes of a memory limit as users give it; None when they give none."""
    return None if given is None else checks.nbytes(given, "memory_limit", _LEAST_MEMORY)


@contextmanager
def looking_up(connection: Connection, keys: int, rows: int) -> Iterator[None]:
    """Joins of the block on an indexed column look up to so many keys up in its index, which have about so many rows;
    others would compare them with what is known of each row group.
    """
    most = max(_LEAST_SCAN, _SAME_KEY * rows)
    with _set_in_block(connection, f"SET dynamic_or_filter_threshold = {keys}; SET index_scan_max_count = {most}"):
        yield


@contextmanager
def packing_mantissas(connection: Connection) -> Iterator[None]:
    """Doubles that the block inserts have all their digits: DuckDB packs them as it would anyway, without trying all
    else it knows on each row group, a tenth of the time of their insert.
    """
    with _set_in_block(connection, "SET force_compression = 'alprd'"):
        yield


@contextmanager
def _set_in_block(connection: Connection, settings: str) -> Iterator[None]:
    try:
        connection.execute(settings)
        yield
    finally:
        with suppress(duckdb.Error):  # in a transaction that has failed it is for who rolls that back
            reset_settings(connection)


def reset_settings(connection: Connection) -> None:
    """What was set for a block is as before; nothing happens if it is."""
    connection.execute("RESET dynamic_or_filter_threshold; RESET index_scan_max_count; RESET force_compression")


def use_memory(connection: Connection, nbytes: int) -> None:
    """`limit_memory`, and no more threads than find room: each holds the blocks that it reads."""
    limit_memory(connection, nbytes)
    connection.execute("RESET threads")
    ((cores,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    if cores > (room := max(1, nbytes // _OF_THREAD)):
        connection.execute(f"SET threads = {room}")


def limit_memory(connection: Connection, nbytes: int) -> None:
    """From now on DuckDB takes so many bytes; OutOfMemoryException when statements that run hold more."""
    connection.execute(f"SET memory_limit = '{nbytes}B'")


def _new() -> Connection:
    connection = duckdb.connect(":memory:")
    connection.execute(_SETTINGS)
    # after two seconds it would be drawn on the user's stdout. In a notebook kernel without ipywidgets it is off, and
    # DuckDB refuses even to turn it off
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() != [(False,)]:
        connection.execute("SET enable_progress_bar = false")
    return connection


def keep_for_the_next(connection: Connection | None, memory_limit: int) -> None:
    """Give back a connection that has no file any more, and takes so many bytes; one that has spilled ends, and its
    folder with it.
    """
    if connection is None:
        return
    try:
        reset_settings(connection)
        connection.execute("SET temp_directory = ''")
    except duckdb.NotImplementedException:
        connection.close()
        return
    if len(_SPARE) < _SPARE_AT_MOST:
        _SPARE.append((connection, memory_limit))


def leave_to_parent(connection: Connection | None) -> None:
    """In a forked child: never touch it again; closing it here would write to the parent's file, or wait for threads
    that are not here.
    """
    keep_for_ever(connection)  # a list would let go of it when the interpreter ends


def name_store(connection: Connection) -> None:
    """Tables are the store's from now on, and functions DuckDB's own: macros of the file, under whatever names, stand
    behind them. A view of the file still finds its macros first.
    """
    connection.execute("SET search_path = 'system.main,store.main'")


def attach(connection: Connection, path: Path, name: str, *, read_only: bool) -> None:
    """Attach a file under `name`; DuckDB's own error when another process has it. What a crash left of a checkpoint is
    made whole before.
    """
    mend_before_attaching(path, duckdb.__version__)
    options = _READ_ONLY if read_only else _WRITABLE
    connection.execute(f"ATTACH '{_quoted(path)}' AS {name} (TYPE duckdb, {options})")


def log_size(path: Path) -> int:
    """Bytes in the log of a file; 0 when there is none."""
    try:
        return path.with_name(path.name + ".wal").stat().st_size
    except FileNotFoundError:
        return 0


def is_checkpoint_due(log: int, memory_limit: int) -> bool:
    """Whether a log is so long that a checkpoint is due: until the next one DuckDB keeps long texts in memory."""
    return log >= memory_limit // _CHECKPOINTS


def name_log(path: Path) -> None:
    """After a commit: let the name of the log survive a power loss. DuckDB syncs the log that it makes with the first
    commit after attaching, or after a checkpoint, but not the folder.
    """
    with disk_errors_told(path):
        sync(path.parent)


def detach_store(connection: Connection, *, joined: bool, logged: bool) -> None:
    """Detach the store's file; `joined`: rows at the ends of its tables move together into common row groups; `logged`:
    there is a log, which goes. DuckDB leaves one that it has replayed, unless a statement has read the indexes since.
    """
    if joined:
        connection.execute("SET max_vacuum_tasks = 1")
    try:
        connection.execute("CHECKPOINT store; USE memory" if logged else "USE memory")
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
    return type(table).from_batches(table.to_batches(ROW_GROUP), table.schema) if len(table) > ROW_GROUP else table


def trim_cache(connection: Connection, memory_limit: int) -> None:
    """Let DuckDB forget what it has written beyond `_CACHE`, so that memory does not grow with the rows."""
    try:
        limit_memory(connection, min(_CACHE, memory_limit))
    except duckdb.OutOfMemoryException:
        pass  # more than that is in use at this moment; the next time will do
    finally:
        limit_memory(connection, memory_limit)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _leave_spare_to_parent() -> None:
    while _SPARE:
        leave_to_parent(_SPARE.pop()[0])


_SPARE: list[tuple[Connection, int]] = []  # and the bytes that each takes
at_fork(in_child=_leave_spare_to_parent)
