"""The one DuckDB attachment of a store file.

It owns the connection, the settings, transactions, the file lock and the way results become
Polars frames. The file is attached when work needs it and our turn has come, and detached when
`yield_turn` finds that another process waits, or when it has been idle for a moment, so a store
that is alive but idle locks no other process out; nothing outside may assume that an attachment
stays. Statements run one at a time under `lock` (re-entrant). A forked child never touches its
parent's attachment: it starts with a fresh one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import polars as pl
import pyarrow as pa

from n4a_fast import platform
from n4a_fast.engine import background
from n4a_fast.engine.connection import client, user_sql
from n4a_fast.engine.connection.failures import INTERRUPTED, translated
from n4a_fast.engine.fork import tell_of_forks
from n4a_fast.engine.identity import REPLACED, StoreIdentity
from n4a_fast.engine.interrupts import Uninterrupted
from n4a_fast.engine.lease import Turnstile
from n4a_fast.errors import (
    InvalidInputError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMovedError,
    StoreUnavailableError,
)

_READ_IDENTITY = "SELECT store_id, rewrites FROM store.main.store_info"
_TURN_SECONDS = 0.02  # a turn lasts at least so long: handing over costs about 5 ms
_LOOK_SECONDS = 0.004  # a look costs 25 µs
_WATCH_SECONDS = 0.05  # a look costs 50 µs of CPU time while a program computes
_NEVER = float("inf")  # without an attachment there is nothing to hand over
_NO_LIMIT = 2**20  # megabytes
_TRIM_EVERY = 256 * 2**20  # bytes written
# bytes; each checkpoint begins new row groups, and a sweep that rests after each pipeline would keep 1.4 MB for each.
# More than that pays for its own:
# joining them to others writes these once more
_FEW = 2**20

Params = Sequence[Any]
Result = TypeVar("Result")


class Database:
    """Statements, transactions and frames on one store file; safe to share between threads."""

    def __init__(
        self, path: Path, *, read_only: bool = False, lock_timeout: float = 30.0, turnstile: Turnstile | None = None
    ) -> None:
        self.path, self.read_only, self.lock_timeout = path, read_only, lock_timeout
        self._turnstile = turnstile
        self.lock = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._attached_read_only: bool | None = None
        self._depth, self._is_drained = 0, False
        self._last_used, self._look_at = 0.0, _NEVER
        self.attachment = 0  # counts attachments: what was known of the file may be old after each
        # runs before a read or a transaction; False: rows that this process journaled need not be in place
        self.drain: Callable[[bool], object] = lambda _own: None
        self.rest: Callable[[], object] = lambda: None  # runs when nothing has happened for a moment
        self._closed = self._forking = self._forked_inside = False
        self._watcher: threading.Thread | None = None
        self._after_commit: list[Callable[[], object]] = []
        self._untrimmed = 0  # bytes inserted since DuckDB's cache was last cut
        self._inserted = 0  # since the file was attached
        self._readable: user_sql.Readable | None = None
        self._log_is_named = False  # the name of the file's log survives a power loss
        self.identity = StoreIdentity(path)  # of a store: known once it is opened
        self._keeps_turn = False
        tell_of_forks(self)

    # -- reading ---------------------------------------------------------------------------

    @contextmanager
    def drained(self, own: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """All reads of the block see the tables at one moment: what waits is put in place before it, and nothing during
        it.
        """
        with self.lock:
            outer = self._is_drained
            if not self._depth and not outer:
                self.drain(own)
            self._is_drained = True
            try:
                with self._use() as connection:
                    yield connection
            finally:
                self._is_drained = outer

    @contextmanager
    def undrained(self) -> Iterator[None]:
        """All reads of the block see what is in the tables now; what waits is left where it is."""
        with self.lock:
            outer, self._is_drained = self._is_drained, True
            try:
                with self._use():
                    yield
            finally:
                self._is_drained = outer

    def rows(self, sql: str, params: Params = (), *, own: bool = True) -> list[tuple[Any, ...]]:
        """All result rows as tuples; `own` as in `row`."""
        with self.drained(own) as connection:
            return connection.execute(sql, list(params)).fetchall()

    def rows_undrained(self, sql: str) -> list[tuple[Any, ...]]:
        """Like `rows`, on the file as it is now."""
        with self._use() as connection:
            return connection.execute(sql).fetchall()

    def row(self, sql: str, params: Params = (), *, own: bool = True) -> dict[str, Any] | None:
        """The first result row by column name, or None; `own=False` when the caller knows what this process saved
        last.
        """
        with self.drained(own) as connection:
            found = connection.execute(sql, list(params)).fetchall()
            names = [column[0] for column in connection.description or ()]
            return dict(zip(names, found[0], strict=True)) if found else None

    def arrow(self, sql: str, params: Params = ()) -> pa.Table:
        """The result as an Arrow table; typed even when it has no rows."""
        with self.drained() as connection:
            table: pa.Table = connection.sql(sql, params=list(params)).to_arrow_table()
            return table

    def in_little_memory(self, megabytes: int, work: Callable[[], Result]) -> Result:
        """What `work` gives while DuckDB keeps no more than this, its cache of the file included; twice as much where
        that is too little.
        """
        with self.drained() as connection:
            while True:
                connection.execute(f"SET memory_limit = '{megabytes}MB'")
                try:
                    return work()
                except StoreError as error:
                    megabytes *= 2
                    if not isinstance(error.__cause__, duckdb.OutOfMemoryException) or megabytes > _NO_LIMIT:
                        raise
                finally:
                    connection.execute("RESET memory_limit")

    def frame(self, sql: str, params: Params = ()) -> pl.DataFrame:
        """The result as a Polars frame; typed even when it has no rows."""
        return _as_frame(self.arrow(sql, params))

    def frame_of_user_sql(self, sql: str, params: Params = ()) -> pl.DataFrame:
        """Like `frame`, for SQL from outside: one SELECT that only reads this store; InvalidInputError otherwise."""
        with self.drained() as connection:
            try:
                if self._readable is None:
                    self._readable = user_sql.Readable(connection)
                with self._read_transaction(connection):
                    return _as_frame(user_sql.selected(connection, sql, list(params), self._readable))
            except user_sql.ERRORS as error:
                if isinstance(translated(self.path, error), StoreFormatError):
                    raise
                raise InvalidInputError(f"the query cannot run: {error}") from error

    # -- writing ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, drained: bool = True, of_user: bool = False) -> Iterator[None]:
        """All writes of the block commit together, durably, or not at all; a nested block joins the outer one.

        Ctrl-C waits until it has committed, but for a block `of_user`, which may take long.
        """
        with self.lock:
            if self._depth:
                yield
                return
            with (
                self.drained() if drained else self._use() as connection,
                nullcontext() if of_user else Uninterrupted(),
            ):
                self._depth = 1
                try:  # from the first statement on: Ctrl-C may strike anywhere
                    connection.execute("BEGIN")
                    yield
                    self.require_same_file()
                    connection.execute("COMMIT")
                    self._log_is_named = self._log_is_named or client.is_log_named(self.path)
                except BaseException:
                    self._roll_back(connection)
                    raise
                finally:
                    self._depth = 0
                if self._untrimmed >= _TRIM_EVERY:
                    self._untrimmed = 0
                    client.trim_cache(connection)
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

    def insert(self, sql: str, **tables: pa.Table) -> int:
        """Like `execute`, with each Arrow table visible in the SQL under its keyword's name."""
        with (
            self._use() as connection,
            client.registered(connection, {name: client.in_row_groups(table) for name, table in tables.items()}),
        ):
            self._require_transaction()
            nbytes = sum(table.nbytes for table in tables.values())
            self._untrimmed, self._inserted = self._untrimmed + nbytes, self._inserted + nbytes
            found = connection.execute(sql).fetchall()
            return int(found[0][0]) if found else 0

    def select(self, sql: str, **tables: pa.Table) -> pa.Table:
        """An Arrow result of SQL over the store and the Arrow tables given by name."""
        with self.drained() as connection, client.registered(connection, tables):
            table: pa.Table = connection.sql(sql).to_arrow_table()
            return table

    @property
    def attached(self) -> int:
        """Number of the present attachment, 0 without one: while it stays the same, nobody else can write to the
        file.
        """
        return self.attachment if self._attached_read_only is not None else 0

    def drained_attachment(self) -> int:
        """`attached`, once the file is, and what other processes have journaled is in its tables."""
        with self.drained(own=False):
            return self.attachment

    def after_commit(self, hook: Callable[[], object]) -> None:
        """Run `hook` once the open transaction has committed; never if it rolls back."""
        self._require_transaction()
        self._after_commit.append(hook)

    # -- life ------------------------------------------------------------------------------

    def attach(self) -> None:
        """Take the file and its lock, unless they are held already."""
        with self._use():
            pass

    def require_same_file(self) -> None:
        """StoreMovedError unless the path still means the file that was opened: asked before anything is acknowledged.

        After a vacuum by another process this waits for the file, and looks inside.
        """
        if self.identity.is_known and not self.identity.is_here():
            if self.attached:  # so nobody else can have rewritten it
                raise StoreMovedError(self.path, REPLACED)
            self.attach()

    def _is_elsewhere(self) -> bool:
        try:
            return self.identity.is_known and not self.identity.is_here()
        except StoreError:
            return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process has a turn at the file during the block, whether it is attached or not."""
        with self.lock:
            self.detach()
            if not self._enter(self.lock_timeout, shared=False):
                raise StoreLockedError(self.path, None)
            self._keeps_turn = True
            try:
                yield
            finally:
                self._keeps_turn = False
                if not self.attached:
                    self._let_go()

    def abandon(self, happened: str) -> None:
        """Let go of a file that is no longer the path's, and write nothing to either; `happened` is told from now."""
        self.identity.abandon(happened)
        with self.lock:
            if self._connection is not None and self._attached_read_only is not None:
                client.abandon_store(self._connection)
                self._drop_connection()

    def enter_if_free(self) -> bool:
        """Whether the file can be used at once: it is attached, or the turn has been taken and the caller attaches it
        next.
        """
        return self.attached > 0 or self._enter(0.0, shared=self.read_only)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and give free blocks at its end back."""
        with self._use() as connection:
            connection.execute("CHECKPOINT store")

    def copy_into(self, draft: Path) -> None:
        """Write everything committed into a new file beside this one, without its free blocks."""
        with self.drained() as connection:
            client.attach(connection, draft, "draft", 0.0, read_only=False)
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
        meanwhile.
        """
        with self.lock, other.lock, self.drained() as connection:
            other.detach()
            deadline = time.monotonic() + other.lock_timeout
            other._enter(other.lock_timeout, shared=True)
            try:
                try:
                    client.attach(connection, other.path, name, deadline, read_only=True)
                except duckdb.Error as error:
                    raise other._translated(error) from error
                yield
            finally:
                if self._connection is connection:
                    client.detach_if_attached(connection, name)
                other._let_go()

    def peek(self, sql: str) -> list[tuple[Any, ...]] | None:
        """Rows of a query on the file attached read-only, so that nothing in it can change; None when a name is
        unknown.
        """
        mode, self.read_only = self.read_only, True
        try:
            return self.rows_undrained(sql)
        except InvalidInputError:
            return None
        finally:
            self.read_only = mode

    def yield_turn(self) -> None:
        """Between calls: detach if another process waits and this one has had its turn; looks rarely enough to cost
        nothing.
        """
        if (now := time.monotonic()) < self._look_at or self._depth or self._turnstile is None:
            return
        self._look_at = now + _LOOK_SECONDS
        if self._turnstile.is_awaited():
            self.detach()

    def detach(self) -> None:
        """Let go of the file and its lock; the next statement takes them again."""
        with self.lock:
            if self._connection is not None and self._attached_read_only is not None and not self._depth:
                with Uninterrupted():
                    try:
                        if self._is_elsewhere():  # a checkpoint would write beside a path that is another file's
                            client.abandon_store(self._connection)
                        else:
                            client.detach_store(self._connection, joined=0 < self._inserted < _FEW)
                    except duckdb.Error as error:  # the disk was full, and DuckDB gave the file up
                        self._drop_connection()
                        raise self._translated(error) from error
                    self._let_go()

    def keep_awake(self) -> None:
        """The store is in use: it rests when it has not been for a moment."""
        self._last_used = time.monotonic()
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = background.watch(self)

    def rest_when_idle(self) -> float | None:
        """For the watching thread: yield the turn between calls, detach after a moment without any.

        Returns when to look again, None when there is nothing to watch.
        """
        with self.lock:
            if not self._closed:
                patience = background.IDLE_SECONDS if self._turnstile is None else background.PATIENCE_SECONDS
                if time.monotonic() - self._last_used < patience:
                    self.yield_turn()
                    return _WATCH_SECONDS
                self._idle()
            self._watcher = None
            return None

    def _idle(self) -> None:
        for step in (self.rest, self.detach):
            try:
                step()
            except StoreError:
                pass  # what is not drained is durable as it is; the next call meets the cause itself, in its own thread

    def close(self) -> None:
        """Detach and end; a committed transaction is in the file or its log."""
        with self.lock:
            try:
                self.detach()
                if self._attached_read_only is None:  # not within a transaction
                    client.keep_for_the_next(self._connection)
                    self._connection = None
            finally:
                self._drop_connection()
                self._closed = True
                self.identity.close()
                if self._turnstile is not None:
                    self._turnstile.close()

    def let_go_before_fork(self) -> None:
        """Detach, and keep other threads out until the fork is done: DuckDB refuses a child the file its parent has
        attached.
        """
        self.lock.acquire()
        self._forking = True
        self.detach()

    def go_on_after_fork(self) -> None:
        """In the parent: let other threads work again."""
        if self._forking:  # a database made by another thread meanwhile was not stopped
            self._forking = False
            self.lock.release()

    def forget_after_fork(self) -> None:
        """In a forked child: leave the parent's connection alone, for good, and start anew."""
        client.leave_to_parent(self._connection)
        self.lock = threading.RLock()
        self._connection = self._attached_read_only = self._watcher = None
        self._forked_inside, self._look_at = self._forked_inside or self._depth > 0, _NEVER
        self._depth, self._after_commit, self._forking, self._is_drained = 0, [], False, False
        if self._turnstile is not None:
            self._turnstile.forget_after_fork()

    # -- inside ----------------------------------------------------------------------------

    @contextmanager
    def _use(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection with the file attached, held by this thread; DuckDB's errors become ours."""
        with self.lock:
            try:
                yield self._attached()
            except duckdb.Error as error:
                raise self._translated(error) from error
            except RuntimeError as error:
                if str(error) == INTERRUPTED:
                    raise KeyboardInterrupt from error
                raise
            finally:
                self._last_used = time.monotonic()

    def require_usable(self) -> None:
        """StoreUnavailableError in a child forked inside a transaction: DuckDB refuses it the file that its parent had
        attached.
        """
        if self._forked_inside:
            raise StoreUnavailableError(
                self.path,
                "this process was forked inside a transaction",
                "fork before or after it, or use spawn or loky",
            )

    def _attached(self) -> duckdb.DuckDBPyConnection:
        if self._connection is not None and self._attached_read_only in (self.read_only, False):
            return self._connection
        if self._depth:
            raise RuntimeError("the attachment changed inside a transaction")
        self.require_usable()
        if self._connection is None:
            self._connection = client.connected()
        self.detach()
        self._attach_in_turn(self._connection)
        self.keep_awake()
        return self._connection

    def _attach_in_turn(self, connection: duckdb.DuckDBPyConnection) -> None:
        deadline = time.monotonic() + self.lock_timeout
        self._enter(
            self.lock_timeout, shared=self.read_only
        )  # without a turn one attempt is left, and DuckDB names the holder
        try:
            is_same = not self.identity.is_known or self.identity.is_here()  # or ATTACH would make a missing file
            client.attach(connection, self.path, "store", deadline, read_only=self.read_only)
            connection.execute("USE store")
            if not is_same:
                self._follow(connection)
            self._attached_read_only, self._look_at = self.read_only, time.monotonic() + _TURN_SECONDS
            self.attachment, self._inserted, self._log_is_named = self.attachment + 1, 0, False
        except (duckdb.Error, StoreError):
            self._let_go()
            raise
        except BaseException:  # an interrupt, perhaps when the file was attached already
            self._drop_connection()
            raise

    def _follow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """The path means another file than before: whether it is what a vacuum has made of that one, it says itself."""
        try:
            ((store_id, rewrites),) = connection.execute(_READ_IDENTITY).fetchall()
        except (duckdb.Error, ValueError):
            store_id, rewrites = "", 0
        try:
            self.identity.follow(platform.identity(self.path), store_id, rewrites)
        except StoreMovedError:
            client.abandon_store(connection)
            raise

    def _enter(self, timeout: float, *, shared: bool) -> bool:
        return self._turnstile is None or self._turnstile.enter(timeout, shared=shared)

    def _let_go(self) -> None:
        self._attached_read_only, self._look_at = None, _NEVER
        if self._turnstile is not None and not self._keeps_turn:
            self._turnstile.leave()

    @contextmanager
    def _read_transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        if self._depth:  # the caller's own transaction: its rows must be seen
            yield
            return
        try:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield
        finally:
            self._roll_back(connection)

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._after_commit = []
        if self._forked_inside:
            return  # the transaction is the parent's
        try:
            connection.execute("ROLLBACK")
        except duckdb.Error:
            self._drop_connection()  # DuckDB gave the transaction, or the whole database, up already

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._let_go()

    def _require_transaction(self) -> None:
        if not self._depth:
            raise RuntimeError("writes need an open transaction")

    def _translated(self, error: duckdb.Error) -> StoreError:
        if isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error):
            self._drop_connection()  # the next call attaches the file anew
        return translated(self.path, error)


def _as_frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(table)
