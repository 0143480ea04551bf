"""An attached file in the hands of one thread: statements and a transaction of its own, beside the calls of others.

Its owner keeps the attachment and does not touch it meanwhile. It has a lock of its own, so the thread never waits for
a call, and a call waits for it only by the owner's `take_back`.
"""

from __future__ import annotations

from collections.abc import Callable

from n4a_fast.engine.connection.database import Database
from n4a_fast.engine.connection.indexes import Result

# what goes on where the other has stopped
_COUNTED = ("_inserted", "_untrimmed", "_log_is_named", "_begun", "uses", "_more")


class Lent(Database):
    """The file of another database, which has attached it for writing, until `give_back`."""

    def __init__(self, owner: Database) -> None:
        super().__init__(owner.path, lock_timeout=0.0)
        self._owner = owner
        self._connection, self._attached_read_only = owner._connection, owner._attached_read_only
        self.identity, self.attachment, self.memory_limit = owner.identity, owner.attachment, owner.memory_limit
        _copy_counts(owner, self)

    def give_back(self) -> None:
        """The owner goes on; without an attachment where DuckDB has given it up."""
        _copy_counts(self, self._owner)
        self._owner.note_use()
        if self._connection is None:
            self._owner._drop_connection()
        self._connection = self._attached_read_only = None

    def with_room(self, work: Callable[[], Result]) -> Result:
        """The file is attached anew by its owner alone."""
        return work()

    # forks and the end of the program are for the owner

    def let_go_before_fork(self) -> None: ...
    def go_on_after_fork(self) -> None: ...
    def forget_after_fork(self) -> None: ...
    def end_with_program(self) -> None: ...


def _copy_counts(one: Database, other: Database) -> None:
    for name in _COUNTED:
        setattr(other, name, getattr(one, name))
