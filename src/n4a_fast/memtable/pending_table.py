"""What a table has in memory, as the log and the drain see it: the interface that every table implements."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import pyarrow as pa

Tables = dict[str, pa.Table]  # rows to be written, by the name of the SQL table


class PendingTable(Protocol):
    """Rows that are saved and not in the SQL tables yet; those saved since the last flush are *fresh*."""

    def __len__(self) -> int:
        """How many rows are in memory."""
        ...

    @property
    def fresh_rows(self) -> int:
        """How many of them are fresh."""
        ...

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory they take."""
        ...

    @property
    def fresh_nbytes(self) -> int:
        """About how many of these are of fresh rows."""
        ...

    def fresh(self) -> dict[str, Any]:
        """The fresh rows for a log record: by table name, in what msgpack knows."""
        ...

    def mark_logged(self) -> None:
        """What is fresh is in the log."""
        ...

    def replay(self, content: dict[str, Any]) -> None:
        """Save again what `fresh` once gave."""
        ...

    def pending(self) -> Tables:
        """All rows in memory as Arrow tables."""
        ...

    def write_in_transaction(self, tables: Tables, beyond: Collection[str] = ()) -> None:
        """Put what `pending` gave in the SQL tables, in place of rows with the same keys; in those named `beyond` there
        are none.
        """
        ...

    def clear(self) -> None:
        """Forget the rows: they are written, or given up."""
        ...

    def forget_known(self) -> None:
        """Rows may have come or gone: ids must be looked up again."""
        ...
