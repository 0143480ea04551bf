"""A drain beside the caller: rows that are logged go into the tables by a thread, while the caller saves and logs on.

The rows leave memory when it begins, as Arrow tables that nobody changes any more, and count as being in the tables:
whoever looks there waits for its end. It writes only what belongs to something that is there. If it fails, or finds
anything else, nothing of it stays, memory is made of the log again, and the next drain is an ordinary one, which meets
the cause in the caller's own thread. A process that is killed meanwhile leaves its log with all rows, and the tables
tell which of them they have.
"""

from __future__ import annotations

import threading

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.engine.background import Bell
from n4a_fast.engine.connection import Database, Lent
from n4a_fast.log.write_ahead import WriteAheadLog
from n4a_fast.platform.interrupts import start
from n4a_fast.tables.table_set import TableSet


class DrainBeside:
    """What one thread writes, and whether it is there."""

    def __init__(self, database: Database, files: ArtifactFiles, tables: TableSet, log: WriteAheadLog) -> None:
        self._lent, self._log = Lent(database), log
        self._tables = tables.sealed(self._lent, files)
        self._sealed = log.seal()
        self._over = Bell()
        self.is_done = False

    def begin(self) -> None:
        """Let a thread do it; this one, where none can be started."""
        if not start(threading.Thread(target=self._run, name="n4a_fast-drain")):
            self._run()

    @property
    def is_over(self) -> bool:
        """Whether the thread touches the file no more."""
        return self._over.is_set()

    def end(self) -> None:
        """Wait until it is over, and give the file back."""
        while not self.is_over:
            self._over.wait()
        self._lent.give_back()

    def _run(self) -> None:
        try:
            with self._lent.transaction():
                if not self._tables.write_in_transaction([self._tables]):
                    raise _NotOurs
                if self._log.deleted_runs and self._tables.brings_back_deleted():
                    raise _NotOurs
                self._log.apply_in_transaction(database=self._lent, through=self._sealed)
            self.is_done = True
        except Exception:  # the next drain meets the cause, if it stays
            pass
        finally:
            self._over.set()


class _NotOurs(Exception):
    """Rows of what another process has deleted: what goes with them is for an ordinary drain."""
