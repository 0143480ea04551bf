"""The write-ahead log: small flushes made durable beside the store file, put into its tables later in bulk.

DuckDB logs the list data of a whole vector again at each small commit: 33 ms for 21 predictions, against 0.4 ms for
one write and one sync here. Each process appends to a segment of its own and so needs no turn at the store file for a
flush, which is one record. The table `log_positions` tells, by segment, the number of the last record that is in the
tables; the transaction that puts records there raises it, so a crash at any moment neither loses nor doubles a row.
Any process that has the file attached may apply the records of all. A process that ends takes its segment along; a
killed one's goes with the next process that comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.sync import sync
from n4a_fast.engine.connection import Database
from n4a_fast.engine.session import Session
from n4a_fast.errors import LogDamagedError, StoreError, StoreUnavailableError
from n4a_fast.log.recovery import Found, Segments, Waiting
from n4a_fast.log.segment import Segment
from n4a_fast.schema.versions import FORMAT_VERSION

_READ = "SELECT segment, applied FROM log_positions UNION ALL SELECT run_id, NULL FROM deleted_runs"
_FORGET = "DELETE FROM log_positions WHERE list_contains(?, segment)"
_SET = "INSERT INTO log_positions SELECT unnest(?), unnest(?)"


class WriteAheadLog:
    """This process's segment, and the view of the others'."""

    def __init__(self, database: Database, session: Session) -> None:
        self._database, self._session = database, session
        self._segments, self._segment = Segments(database.identity, session), Segment()
        self._attachment = -1  # of the database, when the table was last read
        self._known: dict[str, int] = {}  # the table: by segment, the number of the last record that is applied
        self.deleted_runs: frozenset[str] = frozenset()
        self._applied = 0  # number of the last record of this process that is in the tables
        self._sealed = 0  # and of the last one that is on its way there
        self._waiting: list[bytes] = []  # the records after that one: memory is made of them again, not of the disk
        self._is_new = True  # nothing of it was applied by this process

    @property
    def is_empty(self) -> bool:
        """Whether every record of this process is in the tables, as far as known."""
        return self._segment.last == self._applied

    @property
    def is_current(self) -> bool:
        """Whether nobody else can have used the file since the last refresh."""
        return self._attachment == self._database.attachment

    def begin(self) -> None:
        """This process is about to write: its session begins, and files of dead sessions that left no log go."""
        self._session.begin()
        self._remove_dead_sessions()

    def refresh(self) -> list[bytes] | None:
        """On each new attachment, once: if others have applied records of this process, those that still wait; None
        otherwise.
        """
        self._database.attach()
        if self.is_current:
            return None
        rows = self._database.rows_undrained(_READ)
        self._known = {name: applied for name, applied in rows if applied is not None}
        self.deleted_runs = frozenset(name for name, applied in rows if applied is None)
        self._attachment = self._database.attachment
        own = self._segment.path
        applied = 0 if own is None else self._known.get(own.name, 0)
        if applied <= self._applied:
            return None
        del self._waiting[: applied - self._applied]
        self._applied = self._sealed = applied
        if self.is_empty:
            self._segment.rewind()
        return self.own_waiting()

    def own_waiting(self) -> list[bytes]:
        """The records of this process that are not in the tables, or on their way there, whatever has become of its
        segment.
        """
        return self._waiting[self._sealed - self._applied :]

    def seal(self) -> int:
        """All records of this process are on their way to the tables; the number of the last one. `rewind` follows the
        commit, or `unseal`.
        """
        self._sealed = self._segment.seal()
        return self._sealed

    def unseal(self) -> None:
        """They still wait."""
        self._sealed = self._applied
        self._segment.unseal()

    def others_waiting(self, *, salvage: bool = False) -> list[Waiting]:
        """The records of other processes that are not in the tables; the caller has refreshed. LogDamagedError where
        one is damaged before a whole one, unless `salvage` passes over it.

        Who may not write here leaves the living to apply theirs.
        """
        waiting = []
        may_write = platform.is_writable_folder(self._database.path.parent)
        for found in self._others():
            is_dead = self._segments.is_dead(found)
            applied = self._known.get(found.path.name, 0)
            records = self._segments.read_after(found, applied, complete=is_dead, salvage=salvage)
            if records and (may_write or is_dead):
                waiting.append(Waiting(found, records, is_dead))
            elif not records and is_dead and not self._database.read_only:
                self._remove(found, is_ours=found.path.name in self._known or self._segments.is_ours(found))
        return waiting

    def damaged(self) -> list[LogDamagedError]:
        """Of segments that nobody writes to, those that `others_waiting` would refuse; the caller has refreshed."""
        errors = []
        for found in filter(self._segments.is_dead, self._others()):
            try:
                self._segments.read_after(found, self._known.get(found.path.name, 0), complete=True)
            except LogDamagedError as error:
                errors.append(error)
        return errors

    def sessions_that_left_nothing(self) -> list[Path]:
        """Files of processes that have ended and have no log here any more."""
        return self._session.dead({found.session for found in self._listed()})

    def writers(self) -> list[tuple[int, bool, int]]:
        """Of each segment, oldest first: process id, whether it runs, how many of its records are not in the tables;
        the caller has refreshed.
        """
        writers = []
        for found in self._listed():
            records = self._segments.read_after(found, self._known.get(found.path.name, 0), complete=False)
            holder = self._session.holder_of(found.session) if found.session else None
            pid = found.pid if holder is None else holder.pid
            writers.append((pid, not self._segments.is_dead(found), len(records)))
        return writers

    def append(self, content: bytes) -> None:
        """Make a record durable; it is void, and one without content, if the file that it is about is not there any
        more.
        """
        self._database.require_open()
        last = self._segment.last
        try:
            self._append(content)
        except BaseException:
            content = b""
            raise
        finally:
            if self._segment.last > last:
                self._waiting.append(content)

    def _append(self, content: bytes) -> None:
        store_id = self._database.identity.store_id
        try:
            if self._segment.path is None:
                self._segment.open(self._segments.path_of(self._session.id))
            self._segment.append(content, FORMAT_VERSION, store_id)
        except OSError as error:
            self._database.require_same_file()
            if isinstance(error, StoreError):
                raise
            where = self._segment.path or self._database.path
            raise StoreUnavailableError(where, error.strerror or str(error)) from error
        try:
            self._database.require_same_file()
            self._require_segment()
        except BaseException:
            self._segment.take_back(FORMAT_VERSION, store_id)
            raise

    def apply_in_transaction(
        self, others: Sequence[Waiting] = (), *, database: Database | None = None, through: int | None = None
    ) -> None:
        """Note, with the caller's writes, that the records of this process, all or those up to number `through`, and
        those of `others` are in the tables; `rewind` follows the commit.
        """
        database = database or self._database
        applied = {waiting.found.path.name: waiting.last for waiting in others}
        if not self.is_empty and self._segment.path is not None:
            applied[self._segment.path.name] = self._segment.last if through is None else through
            if self._is_new:
                self._forget_gone_in_transaction(database)
        if applied:
            database.execute(_FORGET, (list(applied),))
            database.execute(_SET, (list(applied), list(applied.values())))

    def rewind(self, others: Sequence[Waiting] = (), *, through_seal: bool = False) -> None:
        """The transaction has committed: all records, or those before the seal, are in the tables, and the next one
        overwrites the first if that is all; segments of dead processes go.
        """
        applied = self._sealed if through_seal else self._segment.last
        if not self.is_empty and self._segment.path is not None:
            self._is_new = False
            self._known[self._segment.path.name] = applied
        del self._waiting[: applied - self._applied]
        self._applied = self._sealed = applied
        if self.is_empty:
            self._segment.rewind()
        for waiting in others:
            self._known[waiting.found.path.name] = waiting.last
            if waiting.is_dead:
                self._remove(waiting.found, is_ours=True)
        if self.is_empty and not self._segment.is_here():
            self.forget()  # somebody removed it: the next record begins another session's
            self._session.end()

    def shorten(self) -> None:
        """Records that came after those that are in the tables move to their place, where there is room; the file is
        attached, so that no other process reads them meanwhile.
        """
        self._segment.rewind_to_seal(FORMAT_VERSION, self._database.identity.store_id)

    def close(self) -> None:
        """Remove the segment when all its records are in the tables, and end the session."""
        leaves_log = not self.is_empty
        if not leaves_log:
            self._segment.remove()
        self.forget()
        self._session.end(leaves_log=leaves_log)

    def forget(self) -> None:
        """Start a new segment with the next record; the old one is another's, or gone."""
        self._segment.close()
        self._waiting.clear()
        self._attachment, self._applied, self._sealed, self._is_new = -1, 0, 0, True

    def _forget_gone_in_transaction(self, database: Database) -> None:
        """Noted segments were there when their number was, so what is not there now has gone for good."""
        own, folder = self._segment.path, self._database.path.parent
        gone = [name for name in self._known if own is not None and name != own.name and not (folder / name).exists()]
        if gone:
            sync(folder)  # or a power loss would bring them back, and nobody knew that they are applied
            database.execute(_FORGET, (gone,))

    def _remove(self, dead: Found, *, is_ours: bool) -> None:
        if is_ours and not self._database.is_elsewhere():  # or it is another file's, in which it is not applied
            self._segments.remove(dead)
            self._remove_dead_sessions()

    def _remove_dead_sessions(self) -> None:
        self._session.remove_dead({found.session for found in self._listed()})

    def _require_segment(self) -> None:
        if not self._segment.is_here():
            raise StoreUnavailableError(
                self._segment.path or self._database.path,
                "this log of a running process was removed",
                "read anything from the store, which puts what was saved into its tables, then try again",
            )

    def _listed(self) -> list[Found]:
        try:
            return list(self._segments.listed())
        except OSError as error:
            self._database.require_same_file()
            raise StoreUnavailableError(self._database.path.parent, error.strerror or str(error)) from error

    def _others(self) -> list[Found]:
        return [found for found in self._listed() if found.path != self._segment.path]
