"""The attachment of one store file: whose turn it is, the lock of the threads, and the way through a fork.

The file is attached when work needs it and the turn of this process has come. It is detached when
`yield_turn` finds that another process waits, or when whoever watches the workspace finds it idle, so nothing
outside may assume that an attachment stays. Statements run one at a time under `lock` (re-entrant). A thread
that waits for the file lets go of that lock meanwhile, so calls that need no file go on; inside `held` it does
not. A forked child never touches its parent's attachment: it starts with a fresh one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import duckdb

from n4a_fast import platform
from n4a_fast.engine.background import Bell
from n4a_fast.engine.connection import client
from n4a_fast.engine.connection.failures import interrupts_told, is_lock_conflict, translated
from n4a_fast.engine.connection.waiting import Borrower, CallLock, Patience, released
from n4a_fast.engine.ending import refuses_this_thread, tell_of_end
from n4a_fast.engine.fork import tell_of_forks
from n4a_fast.engine.identity import REPLACED, StoreIdentity
from n4a_fast.engine.lease import Turnstile
from n4a_fast.errors import StoreClosedError, StoreError, StoreMovedError, StoreUnavailableError
from n4a_fast.platform.interrupts import Uninterrupted

_READ_IDENTITY = "SELECT store_id, rewrites FROM store.main.store_info"
_TURN_SECONDS = 0.02  # a turn lasts at least so long: handing over costs about 5 ms
POLL_SECONDS = 0.02  # for a file that another DuckDB client holds: it does not know the turns
_NEVER = float("inf")  # without an attachment there is nothing to hand over
_FORK_SECONDS = 10.0  # a fork waits so long for calls of other threads to end
_EXIT_SECONDS = 10.0  # so does the end of the program, which interrupts a longer statement
# bytes; each checkpoint begins new row groups, and a sweep that rests after each pipeline would keep 1.4 MB for each.
# More than that pays for its own: joining them to others writes these once more
_FEW = 2**20


class Attachment:
    """One file, attached or not; safe to share between threads."""

    def __init__(
        self, path: Path, *, read_only: bool = False, lock_timeout: float = 30.0, turnstile: Turnstile | None = None
    ) -> None:
        self.path, self._read_only, self.patience = path, read_only, Patience(lock_timeout)
        self._turnstile = turnstile
        self.lock = CallLock(path, self.patience)
        self.activity = Bell()  # set with each attachment: there is something to let go again
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._attached_read_only: bool | None = None
        self._depth = self._holds = 0
        self.last_used, self._look_at, self.uses = 0.0, _NEVER, 0
        self.attachment = 0  # counts attachments: what was known of the file may be old after each
        self._closed = self._forking = self._forked_inside = False
        self._after_commit: list[Callable[[], object]] = []
        self._inserted = 0  # bytes since the file was attached
        self._log_is_named = False  # the name of the file's log survives a power loss
        self.memory_limit = client.MEMORY_LIMIT
        self.identity = StoreIdentity(path)  # of a store: known once it is opened
        self._keeps_turn = False
        self._borrower: Borrower | None = None
        tell_of_forks(self)
        tell_of_end(self)

    # -- modes -----------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether nothing but reads is asked of this database."""
        return self._read_only

    def allow_writes(self) -> None:
        """A writer has joined: the next statement attaches the file for writing."""
        self._read_only = False

    @property
    def lock_timeout(self) -> float:
        """How many seconds this thread waits for the file."""
        return self.patience.seconds

    @property
    def is_lent(self) -> bool:
        """Whether another thread works on the file now: who needs it waits for its end, see `take_back`."""
        return self._borrower is not None and not self._borrower.is_over

    def take_back(self) -> None:
        """The file is this thread's, which has the lock, once what it was lent for is over."""

    def begin_call(self, seconds: float) -> None:
        """Before each call of the user's: StoreClosedError, or that of `require_usable`; then `wait_at_most`."""
        if self._closed or self._forked_inside:
            self.require_open()
            self.require_usable()
        self.patience.seconds = seconds if seconds < self.patience.limit else self.patience.limit

    def wait_at_most(self, seconds: float) -> None:
        """From now on the calls of this thread wait so long for the file: stores that share it may differ in that."""
        self.patience.seconds = seconds

    def spill_folder(self) -> Path | None:
        """Where a new connection may write what does not fit into memory."""
        return platform.temporary_folder()

    # -- the file --------------------------------------------------------------------------

    @property
    def attached(self) -> int:
        """Number of the present attachment, 0 without one: while it stays the same, nobody else can write to the
        file.
        """
        return self.attachment if self._attached_read_only is not None else 0

    @property
    def is_writable(self) -> bool:
        """Whether the file is attached, and for writing."""
        return self._attached_read_only is False

    def attach(self, *, writing: bool = False) -> None:
        """Take the file and its lock, unless they are held already; `writing`: though only reads are asked for."""
        with self._use(read_only=False if writing else None):
            pass

    def require_same_file(self) -> None:
        """StoreMovedError unless the path still means the file that was opened: asked before anything is acknowledged.

        After a vacuum by another process this waits for the file, and looks inside; no other thread goes on meanwhile,
        for the caller is in the middle of what it acknowledges.
        """
        if self.identity.is_known and not self.identity.is_here():
            if self.attached:  # so nobody else can have rewritten it
                raise StoreMovedError(self.path, REPLACED)
            with self.held():
                self.attach()

    @interrupts_told()
    def abandon(self, happened: str) -> None:
        """Let go of a file that is no longer the path's, and write nothing to either; `happened` is told from now."""
        self.identity.abandon(happened)
        with self.lock:
            self.take_back()
            if self._connection is not None and self._attached_read_only is not None:
                client.abandon_store(self._connection)
                self._drop_connection()

    def enter_if_free(self) -> bool:
        """Whether the file can be used at once: it is attached, or the turn has been taken and the caller attaches it
        next.
        """
        if self.is_lent:
            return False
        return bool(self.attached) or self._turnstile is None or self._turnstile.enter(0.0, shared=self._read_only)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The lock stays with this thread for the whole block, though it may wait for the file in it."""
        with self.lock:
            self._holds += 1
            try:
                yield
            finally:
                self._holds -= 1

    @interrupts_told()
    def detach(self) -> None:
        """Let go of the file and its lock; the next statement takes them again."""
        with self.lock:
            self.take_back()
            if self._connection is not None and self._attached_read_only is not None and not self._depth:
                with Uninterrupted():
                    try:
                        if self.is_elsewhere():  # a checkpoint would write beside a path that is another file's
                            client.abandon_store(self._connection)
                        else:
                            logged = not self._attached_read_only and client.log_size(self.path) > 0
                            client.detach_store(self._connection, joined=0 < self._inserted < _FEW, logged=logged)
                    except BaseException as error:  # a full disk, or Ctrl-C: what is attached is not known any more
                        self._drop_connection()
                        if isinstance(error, duckdb.Error):
                            raise self._translated(error) from error
                        raise
                    self._let_go()

    @interrupts_told()
    def close(self) -> None:
        """Detach and end; a committed transaction is in the file or its log."""
        with self.lock:
            try:
                self.detach()
                if self._attached_read_only is None:  # not within a transaction
                    client.keep_for_the_next(self._connection, self.memory_limit)
                    self._connection = None
            finally:
                self._drop_connection()
                self._closed = True
                self.identity.close()
                self.activity.set()
                if self._turnstile is not None:
                    self._turnstile.close()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def require_open(self) -> None:
        """StoreClosedError once the program has ended."""
        if self._closed:
            raise StoreClosedError(self.path.parent)

    def require_usable(self) -> None:
        """StoreUnavailableError in a child forked inside a transaction: its parent has the file attached."""
        if self._forked_inside:
            raise StoreUnavailableError(
                self.path,
                "this process was forked inside a transaction",
                "fork before or after it, or use spawn or loky",
            )

    # -- forks -----------------------------------------------------------------------------

    def let_go_before_fork(self) -> None:
        """Detach, and keep other threads out until the fork is done: DuckDB refuses a child the file its parent has
        attached.
        """
        self._forking = self.lock.acquire(timeout=_FORK_SECONDS)
        if self._forking:
            with suppress(StoreError):  # the next call of the parent meets the cause itself
                self.detach()

    def go_on_after_fork(self) -> None:
        """In the parent: let other threads work again."""
        if self._forking:  # a database made by another thread meanwhile was not stopped
            self._forking = False
            self.lock.release()

    def forget_after_fork(self) -> None:
        """In a forked child: leave the parent's connection alone, for good, and start anew."""
        client.leave_to_parent(self._connection)
        self._forked_inside = self._forked_inside or self._depth > 0 or self._attached_read_only is not None
        self.lock, self.activity = CallLock(self.path, self.patience), Bell()
        self._connection = self._attached_read_only = None
        self._look_at, self._holds = _NEVER, 0
        self._depth, self._after_commit, self._forking, self._borrower = 0, [], False, None
        if self._turnstile is not None:
            self._turnstile.forget_after_fork()

    # -- the end of the program ------------------------------------------------------------

    def acquire_at_end(self) -> bool:
        """Whether no other thread is inside a call any more: a statement of one that takes long is interrupted."""
        if self.lock.acquire(timeout=_EXIT_SECONDS):
            return True
        if (connection := self._connection) is not None:
            connection.interrupt()
        return self.lock.acquire(timeout=1.0)

    def end_with_program(self) -> None:
        """Close what nobody has closed: no thread may be inside DuckDB any more."""
        if not self._closed and self.acquire_at_end():
            try:
                self.close()
            finally:
                self.lock.release()

    # -- inside ----------------------------------------------------------------------------

    @contextmanager
    def _use(self, read_only: bool | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection with the file attached, as `read_only` says or as it may be, held by this thread; DuckDB's
        errors become ours.
        """
        with self.lock, interrupts_told():
            self.uses += 1
            try:
                connection = self._attached(read_only)
                while self._borrower is not None:
                    self.take_back()
                    connection = self._attached(read_only)
                yield connection
            except duckdb.Error as error:
                raise self._translated(error) from error
            finally:
                self.last_used = time.monotonic()

    def _attached(self, wanted: bool | None) -> duckdb.DuckDBPyConnection:
        if (found := self._attached_as(wanted)) is not None:
            return found
        if self._depth:
            raise RuntimeError("the attachment changed inside a transaction")
        self.require_usable()
        read_only, deadline = self._read_only if wanted is None else wanted, time.monotonic() + self.lock_timeout
        while (found := self._attached_as(wanted)) is None:
            self.detach()  # another thread may have attached it, and otherwise, while this one waited
            is_our_turn = self._wait_for_turn(deadline, shared=read_only)
            if self._attached_read_only is not None:
                continue
            if self._closed or refuses_this_thread():
                self._let_go()
                if self._turnstile is not None:
                    self._turnstile.close()  # it was opened again
                raise StoreClosedError(self.path.parent)
            # without a turn one attempt is left at the deadline, and DuckDB names the holder
            is_late = time.monotonic() >= deadline
            if is_our_turn or is_late:
                self._attached_now(read_only, is_late)
        return found

    def _attached_as(self, read_only: bool | None) -> duckdb.DuckDBPyConnection | None:
        """The connection, if the file is attached for what is asked; what only reads may find it writable."""
        fits = (self._read_only, False) if read_only is None else (read_only,)
        return self._connection if self._attached_read_only in fits else None

    def _wait_for_turn(self, deadline: float, *, shared: bool) -> bool:
        """Wait until it is the turn of this process, or the deadline; whether it is, once this thread has its lock
        back: another one may have given the turn up.
        """
        turnstile = self._turnstile
        if turnstile is None or turnstile.is_ours:
            return True
        with self._others_go_on():
            turnstile.enter(max(0.0, deadline - time.monotonic()), shared=shared)
        return turnstile.is_ours

    def _attached_now(self, read_only: bool, is_late: bool) -> None:
        """Attach the file; not, after a moment, if another DuckDB client, which knows no turns, has it, and it is not
        too late to try again.
        """
        connection = self._connection = self._connection or client.connected(self.memory_limit, self.spill_folder())
        try:
            is_same = not self.identity.is_known or self.identity.is_here()  # or ATTACH would make a missing file
            client.attach(connection, self.path, "store", read_only=read_only)
            client.name_store(connection)
            if not is_same:
                self._follow(connection)
            self._attached_read_only, self._look_at = read_only, time.monotonic() + _TURN_SECONDS
            self.attachment, self._inserted, self._log_is_named = self.attachment + 1, 0, False
            self.activity.set()
            return
        except duckdb.Error as error:
            if is_late or not is_lock_conflict(self.path, error):
                self._let_go()
                raise
        except StoreError:
            self._let_go()
            raise
        except BaseException:  # an interrupt, perhaps when the file was attached already
            self._drop_connection()
            raise
        with self._others_go_on():
            time.sleep(POLL_SECONDS)

    def _others_go_on(self) -> AbstractContextManager[None]:
        """While this thread waits, others may have the lock, unless it is `held`."""
        return nullcontext() if self._holds else released(self.lock)

    def is_elsewhere(self) -> bool:
        try:
            return self.identity.is_known and not self.identity.is_here()
        except StoreError:
            return True

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

    def _let_go(self) -> None:
        self._attached_read_only, self._look_at = None, _NEVER
        if self._turnstile is not None and not self._keeps_turn:
            self._turnstile.leave()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._let_go()

    def _translated(self, error: duckdb.Error) -> StoreError:
        if isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error):
            self._drop_connection()  # the next call attaches the file anew
        return translated(self.path, error)
