"""The journal: small flushes committed as Arrow IPC bytes, put into their tables later in bulk.

DuckDB logs the list data of a whole vector again at each small commit, so 21 predictions cost
33 ms straight into the tables and 3 ms as a few binary rows. A flush is durable once its rows
are here. `drain` moves all of them into the tables and empties the journal in one transaction,
so a crash at any moment neither loses nor doubles a row. It runs before anything reads, before
the file is let go, and whenever enough has gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from n4a_fast.database import Database
from n4a_fast.errors import StoreError, StoreUnavailableError

Tables = dict[str, pa.Table]

_APPEND = "INSERT INTO journal VALUES {places}"
_READ = "SELECT batch_id, table_name, content FROM journal ORDER BY rowid"
_ANY = "SELECT 1 FROM journal LIMIT 1"
_EMPTY = "DELETE FROM journal"
_ONCE = {"predictions": ("prediction_id", "nk"), "prediction_values": ("prediction_id",)}


class Journal:
    """Batches that are committed but not yet in their tables."""

    def __init__(self, database: Database, write_in_transaction: Callable[[Tables], None]) -> None:
        self._database, self._write_in_transaction = database, write_in_transaction
        self._seen_attachment = -1
        self._filled = False
        self.rows = self.nbytes = 0  # appended since the last drain

    def append(self, batch_id: str, tables: Tables) -> None:
        """Commit a batch, durably, without touching its tables."""
        params: list[object] = []
        for name, table in tables.items():
            params += (batch_id, name, _to_bytes(table))
        places = ", ".join(["(?, ?, ?)"] * len(tables))
        with self._database.transaction(settled=False):
            self._database.execute(_APPEND.format(places=places), params)
        self._filled = True
        self.rows += max(len(table) for table in tables.values())
        self.nbytes += sum(table.nbytes for table in tables.values())

    def drain(self, own: bool = True) -> None:
        """Put everything journaled, by whatever process, into its tables; nothing to do is cheap.

        With `own=False` only if another process may have journaled: the caller knows what this one did.
        """
        if not own and self._seen_attachment == self._database.attachment:
            return
        if not self._is_filled():
            return
        if self._database.read_only:
            self._drain_for_reader()
            return
        with self._database.transaction(settled=False):
            self.drain_in_transaction()
        self._filled, self.rows, self.nbytes = False, 0, 0

    def drain_in_transaction(self) -> None:
        """Like `drain`, as part of the caller's transaction."""
        for tables in _groups(self._database.rows(_READ)):
            self._write_in_transaction(tables)
        self._database.execute(_EMPTY)

    def _is_filled(self) -> bool:
        if self._seen_attachment != self._database.attachment:  # another process may have written meanwhile
            self._filled = bool(self._database.rows_unsettled(_ANY))
            self._seen_attachment = self._database.attachment
        return self._filled

    def _drain_for_reader(self) -> None:
        """A writer was stopped before it drained: finish its work, as this file's rows would be missed otherwise."""
        self._database.read_only = False
        try:
            self.drain()
        except StoreError as error:
            reason = f"it holds rows that a stopped process has not put in place, and they cannot be now ({error})"
            raise StoreUnavailableError(self._database.path, reason) from error
        finally:
            self._database.read_only = True


def _groups(rows: list[tuple[str, str, bytes]]) -> Iterator[Tables]:
    """Journaled batches joined into as few as give the same result as one after the other."""
    group: dict[str, list[pa.Table]] = {}
    seen: dict[tuple[str, str], set[object]] = {}
    for tables in _batches(rows):
        keys = {(name, column): set(tables[name][column].to_pylist()) for name, columns in _ONCE.items() if name in tables for column in columns}
        if any(seen.get(place, set()) & values for place, values in keys.items()):
            yield _joined(group)
            group, seen = {}, {}
        for name, table in tables.items():
            group.setdefault(name, []).append(table)
        for place, values in keys.items():
            seen.setdefault(place, set()).update(values)
    if group:
        yield _joined(group)


def _batches(rows: list[tuple[str, str, bytes]]) -> Iterator[Tables]:
    batch: Tables = {}
    batch_id = None
    for row_id, name, content in rows:
        if row_id != batch_id and batch:
            yield batch
            batch = {}
        batch_id = row_id
        batch[name] = _from_bytes(content)
    if batch:
        yield batch


def _joined(group: dict[str, list[pa.Table]]) -> Tables:
    return {name: pa.concat_tables(tables) for name, tables in group.items()}


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()
