"""Statements, transactions and frames on the one DuckDB attachment of a store file.

Reads see the file as it is; what is not in the tables yet is for those above (see `memtable.drain`). Whose turn it
is with the file, threads and forks are for `Attachment`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from n4a_fast import platform
from n4a_fast.engine.connection import client, user_sql
from n4a_fast.engine.connection.attachment import POLL_SECONDS
from n4a_fast.engine.connection.failures import is_lock_conflict, translated
from n4a_fast.engine.connection.indexes import IndexedAttachment, Result
from n4a_fast.engine.frames import as_frame
from n4a_fast.errors import InvalidInputError, MemoryLimitError, StoreError, StoreFormatError, StoreUnavailableError
from n4a_fast.platform.interrupts import Uninterrupted

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_TRIM_EVERY = 256 * 2**20  # bytes written

Params = Sequence[Any]


class Database(IndexedAttachment):
    """Statements, transactions and frames on one store file; safe to share between threads."""

    _untrimmed = 0  # bytes inserted since DuckDB's cache was last cut
    _readable: user_sql.Readable | None = None
    _begun = 0  # transactions of this process
    _accepted_in: tuple[int, int] | None = None  # the state in which SQL from outside was looked at

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._accepted = set[str]()

    @property
    def state(self) -> tuple[int, int]:
        """Another one once anything may have changed the tables; asked within `reading`, outside a transaction."""
        return self.attachment, self._begun

    # -- reading ---------------------------------------------------------------------------

    @contextmanager
    def reading(self, own: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """All reads of the block see the file at one moment; `own=False` when the caller knows what this process saved
        last.
        """
        del own
        with self._use() as connection:
            yield connection

    @contextmanager
    def undrained(self) -> Iterator[None]:
        """All reads of the block see what is in the tables now."""
        yield

    def attachment_for_reading(self) -> int:
        """`attached`, once the file is, for a caller who knows what this process saved last."""
        with self.reading(own=False):
            return self.attachment

    def rows(self, sql: str, params: Params = (), *, own: bool = True) -> list[tuple[Any, ...]]:
        """All result rows as tuples; `own` as in `row`."""
        return self.with_room(lambda: self._fetched(sql, params, own)[0])

    def rows_undrained(self, sql: str) -> list[tuple[Any, ...]]:
        """Like `rows`, on the file as it is now."""
        with self._use() as connection:
            return connection.execute(sql).fetchall()

    def row(self, sql: str, params: Params = (), *, own: bool = True) -> dict[str, Any] | None:
        """The first result row by column name, or None; `own=False`: the caller knows what this process saved last."""
        found, names = self.with_room(lambda: self._fetched(sql, params, own))
        return dict(zip(names, found[0], strict=True)) if found else None

    def _fetched(self, sql: str, params: Params, own: bool) -> tuple[list[tuple[Any, ...]], list[str]]:
        """Rows and names of columns."""
        with self.reading(own) as connection:
            found = connection.execute(sql, list(params)).fetchall()
            return found, [column[0] for column in connection.description or ()]

    def arrow(self, sql: str, params: Params = ()) -> pa.Table:
        """The result as an Arrow table; typed even when it has no rows."""
        return self._table(sql, list(params), {})

    def in_little_memory(self, nbytes: int, work: Callable[[], Result]) -> Result:
        """What `work` gives while DuckDB keeps no more than this, its cache of the file included; twice as much where
        that is too little, up to the limit of all calls.
        """
        with self.reading() as connection:
            while nbytes < self.memory_limit:
                self._little_memory = nbytes
                try:
                    self.begin_anew_if_due()
                    connection = self._connection or connection  # another one where the disk has refused
                    client.limit_memory(connection, nbytes)
                    return work()
                except (MemoryLimitError, duckdb.OutOfMemoryException):
                    nbytes *= 2
                finally:
                    self._little_memory = None
                    if self._connection is connection:  # or it is lost with what the block raises
                        client.limit_memory(connection, self.memory_limit)
            return self.with_room(work)

    def frame(self, sql: str, params: Params = ()) -> pl.DataFrame:
        """The result as a Polars frame; typed even when it has no rows."""
        return as_frame(self.arrow(sql, params))

    def frame_of_user_sql(self, sql: str, params: Params = ()) -> pl.DataFrame:
        """Like `frame`, for SQL from outside: one SELECT that only reads this store; InvalidInputError otherwise."""
        with self.reading() as connection:
            try:
                with self._read_transaction(connection):
                    self._require_readable(connection, sql)
                    return as_frame(user_sql.selected(connection, sql, list(params)))
            except user_sql.ERRORS as error:
                if isinstance(translated(self.path, error), StoreFormatError):
                    raise
                raise InvalidInputError(f"the query cannot run: {error}") from error

    def _require_readable(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Look at SQL from outside, once for each state of the file: what it may name are the tables of that."""
        if self._readable is None:
            self._readable = user_sql.Readable(connection)
        if self._accepted_in != self.state or self.in_transaction:
            self._accepted.clear()
            self._readable.look(connection)
            self._accepted_in = self.state
        if sql not in self._accepted:
            user_sql.require_select(connection, sql, self._readable)
            self._accepted.add(sql)

    # -- writing ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes of the block commit together, durably, or not at all; a nested block joins the outer one.

        Ctrl-C waits until it has committed.
        """
        with self.reading():
            if self._depth:
                yield
                return
            with Uninterrupted():
                self.begin()
                try:
                    yield
                    self.commit()
                except BaseException:
                    self.roll_back()
                    raise
        self.run_hooks()

    @contextmanager
    def defining(self) -> Iterator[None]:
        """A transaction in which tables and views may be made, for a file without macros: they would come before
        DuckDB's functions.
        """
        with self.held(), self._use(read_only=False) as connection:
            connection.execute("USE store")
            try:
                with self.transaction():
                    yield
            finally:
                if self._connection is connection and self.attached:
                    client.name_store(connection)

    def begin(self) -> None:
        """Begin a transaction on the file; `commit` or `roll_back` follows. The lock stays with this thread until
        then.
        """
        with Uninterrupted():
            self.lock.acquire()
            self._depth, self._begun, self._new_keys = 1, self._begun + 1, 0
            try:
                with self._use() as connection:
                    connection.execute("BEGIN")
            except BaseException:
                self.roll_back()
                raise

    def commit(self) -> None:
        """Make what the transaction wrote durable; if that fails, `roll_back` follows. `run_hooks` comes next."""
        with self._use() as connection:
            self.require_same_file()
            connection.execute("COMMIT")
            if (log := client.log_size(self.path)) and not self._log_is_named:
                client.name_log(self.path)
            self._log_is_named, self._depth = log > 0, 0
            if client.is_checkpoint_due(log, self.memory_limit):
                with suppress(StoreError):  # what was committed is durable; the next commit tries again
                    self.checkpoint()
            self.lock.release()
            if self._untrimmed >= _TRIM_EVERY and not self._more:
                self._untrimmed = 0
                client.trim_cache(connection, self.memory_limit)

    def run_hooks(self) -> None:
        """Do what `after_commit` was given for the transaction that has committed."""
        hooks, self._after_commit = self._after_commit, []
        for hook in hooks:
            hook()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of this database is open."""
        return self._depth > 0

    def execute(self, sql: str, params: Params = ()) -> int:
        """Run one writing statement inside the open transaction; the number of rows it changed."""
        with self._use() as connection:
            self._require_transaction()
            found = connection.execute(sql, list(params)).fetchall()
            return int(found[0][0]) if found and isinstance(found[0][0], int) else 0

    def insert(self, sql: str, *, mantissas: bool = False, **tables: pa.Table) -> int:
        """Like `execute`, with each Arrow table visible in the SQL under its keyword's name; `mantissas`: their doubles
        have all their digits.
        """
        with (
            self._use() as connection,
            client.packing_mantissas(connection) if mantissas else nullcontext(),
            client.registered(connection, {name: client.in_row_groups(table) for name, table in tables.items()}),
        ):
            self._require_transaction()
            nbytes = sum(table.nbytes for table in tables.values())
            self._untrimmed, self._inserted = self._untrimmed + nbytes, self._inserted + nbytes
            found = connection.execute(sql).fetchall()
            return int(found[0][0]) if found else 0

    def select(self, sql: str, **tables: pa.Table) -> pa.Table:
        """An Arrow result of SQL over the store and the Arrow tables given by name."""
        return self._table(sql, None, tables)

    def _table(self, sql: str, params: list[Any] | None, tables: dict[str, pa.Table]) -> pa.Table:
        def found() -> pa.Table:
            with self.reading() as connection, client.registered(connection, tables):
                return connection.sql(sql, params=params).to_arrow_table()

        return self.with_room(found)

    @contextmanager
    def looking_up(self, keys: int, rows: int) -> Iterator[None]:
        """Each `select` of the block that joins up to so many keys on an indexed column, which have about so many rows,
        looks them up in the index.
        """
        with self.reading() as connection, client.looking_up(connection, keys, rows):
            yield

    def after_commit(self, hook: Callable[[], object]) -> None:
        """Run `hook` once the open transaction has committed; never if it rolls back."""
        self._require_transaction()
        self._after_commit.append(hook)

    def note_use(self) -> None:
        """The workspace is in use: it rests when it has not been for a moment."""
        self.last_used = time.monotonic()
        self.activity.set()

    # -- the file as a whole ---------------------------------------------------------------

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and give free blocks at its end back."""
        with self._use() as connection:
            connection.execute("CHECKPOINT store")
            self._log_is_named = False  # the next commit makes another one

    def require_no_log(self) -> None:
        """StoreUnavailableError where DuckDB's log of the file was not removed: another file must not meet it."""
        if client.log_size(self.path):
            raise StoreUnavailableError(self.path, "its log could not be put into it")

    @contextmanager
    def open_to_readers(self) -> Iterator[None]:
        """The file is ours, nobody in turn writes to it, and another process can read it, or a rename replace it: where
        an attached file is shut to all others, it is let go of, and the turn kept.
        """
        with self.held():
            self.attach()
            if not platform.SHUTS_READERS_OUT or self._keeps_turn:
                yield
                return
            self._keeps_turn = True
            try:
                self.detach()
                yield
            finally:
                self._keeps_turn = False
                if not self.attached:
                    self._let_go()

    def copy_into(self, draft: Path) -> None:
        """Write everything committed into a new file beside this one, without its free blocks."""
        with self.reading() as connection, self.making_indexes():
            client.attach(connection, draft, "draft", read_only=False)
            try:
                connection.execute("COPY FROM DATABASE store TO draft")
                connection.execute("CHECKPOINT draft")
            finally:
                connection.execute("DETACH draft")

    @contextmanager
    def registered(self, tables: dict[str, pa.Table]) -> Iterator[None]:
        """Arrow tables under these names, for all statements of the block."""
        with self._use() as connection, client.registered(connection, tables):
            yield

    @contextmanager
    def beside(self, other: Database, name: str) -> Iterator[None]:
        """The file of another database under `name`, read-only, for statements of this one; nobody writes to it
        meanwhile. The caller holds both (see `held`).
        """
        with self.reading() as connection:
            other.detach()
            try:
                other._lend(connection, name)
                yield
            finally:
                if self._connection is connection:
                    client.detach_if_attached(connection, name)
                other._let_go()

    def _lend(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Let another connection attach this file, in our turn."""
        deadline = time.monotonic() + self.lock_timeout
        self._wait_for_turn(deadline, shared=True)
        while True:
            try:
                client.attach(connection, self.path, name, read_only=True)
                return
            except duckdb.Error as error:
                if not is_lock_conflict(self.path, error) or time.monotonic() >= deadline:
                    raise self._translated(error) from error
            time.sleep(POLL_SECONDS)

    def peek(self, sql: str) -> list[tuple[Any, ...]] | None:
        """Rows of a query on a file that is attached read-only, so that nothing in it can change; None when a name is
        unknown.
        """
        with self._use(read_only=True) as connection:
            try:
                return connection.execute(sql).fetchall()
            except (duckdb.ProgrammingError, duckdb.DataError):
                return None

    @contextmanager
    def _read_transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        if self._depth:  # the caller's own transaction: its rows must be seen
            yield
            return
        try:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield
        finally:
            self._undo(connection)

    def roll_back(self) -> None:
        """Undo the open transaction; nothing happens without one."""
        if not self._depth:
            return
        self._depth, self._after_commit = 0, []
        try:
            if not self._forked_inside:  # or the transaction is the parent's
                self._undo(self._connection)
        finally:
            self.lock.release()

    def _undo(self, connection: duckdb.DuckDBPyConnection | None) -> None:
        try:
            if connection is not None:
                connection.execute("ROLLBACK")
                client.reset_settings(connection)
        except duckdb.Error:
            self._drop_connection()  # DuckDB gave the transaction, or the whole database, up already

    def _require_transaction(self) -> None:
        if not self._depth:
            raise RuntimeError("writes need an open transaction")
