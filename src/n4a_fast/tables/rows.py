"""Rows of one table that are still in memory: the newest row of each id, in the order of first sight."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.values.ids import made_around

_REPLACED = "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM batch)"
_INSERTED = "INSERT INTO {table} BY NAME SELECT * FROM batch"
_CHANGE = "UPDATE {table} SET {changes} WHERE {key} = ?"
_STORED = "SELECT * FROM {table} WHERE {key} = ?"
_STORED_AROUND = f"{_STORED} AND created_at BETWEEN ? AND ?"
_EXISTS = "SELECT 1 FROM {table} WHERE {key} = ?"
_THERE = "SELECT {key} FROM {table} SEMI JOIN batch USING ({key})"
# SQL: a text column is one of the list that is parameter {1}; the bounds, which come first, rule row groups out
ONE_OF = "{0} IN (SELECT unnest(?{1})) AND {0} BETWEEN list_min(?{1}) AND list_max(?{1})"
_AMONG = f"SELECT {{key}} FROM {{table}} WHERE {ONE_OF.format('{key}', 1)}"
_WHOLE = f"SELECT * FROM {{table}} WHERE {ONE_OF.format('{key}', 1)}"
CHANGED = "changed"  # in a row of the log: it has some columns; in a batch: which ones it has; others stay as stored
_FEW = 16  # ids that are asked for one by one, which spares a table of them
_KNOWN_AT_MOST = 50_000
# of a text on its way: Python's, Arrow's, and DuckDB's, which reads its rows again to log them, 2,048 at once
_COPIES = 6
_ROW_BYTES = 200  # of a row in memory, beside its texts; a row that replaces another counts too, as it does in the log


class PendingRows:
    """An upsert buffer for one table; the first column of its schema is the key."""

    def __init__(self, database: Database, table: str, schema: pa.Schema) -> None:
        self._database, self._table, self._schema = database, table, schema
        self._key = schema.names[0]
        self._times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
        self._rows: dict[str, dict[str, Any]] = {}
        self._fresh: dict[str, dict[str, Any]] = {}  # the rows put since the last flush
        self._known: dict[str, None] = {}  # ids seen in the table, the newest last
        self.nbytes = self.fresh_nbytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fresh_rows(self) -> int:
        """How many rows were put since the last flush."""
        return len(self._fresh)

    def exists(self, key: str) -> bool:
        """Whether a row with this id is pending or stored."""
        if key in self._rows or key in self._known:
            return True
        if (
            not isinstance(key, str)
            or self._database.row(_EXISTS.format(table=self._table, key=self._key), (key,), own=False) is None
        ):
            return False
        self._remember((key,))
        return True

    def unknown(self, keys: Iterable[str]) -> list[str]:
        """Those of these ids that are neither pending nor stored, in their order."""
        asked = [key for key in keys if key not in self._rows and key not in self._known]
        if not asked:
            return asked
        if len(asked) <= _FEW:
            return [key for key in asked if not self.exists(key)]
        batch = pa.table({self._key: pa.array(asked, pa.string())})
        with self._database.reading(own=False):
            found = self._database.select(_THERE.format(table=self._table, key=self._key), batch=batch)
        there = dict.fromkeys(found[self._key].to_pylist())
        self._remember(there)
        return [key for key in asked if key not in there]

    def not_stored(self, keys: Collection[str]) -> list[str]:
        """Those of these ids that are not in the table, whatever is known or in memory."""
        if not keys:
            return []
        asked = _AMONG.format(table=self._table, key=self._key)
        return sorted(set(keys).difference(key for (key,) in self._database.rows(asked, (list(keys),))))

    def forget_known(self) -> None:
        """Rows may have gone: ids must be looked up again."""
        self._known.clear()

    def put(self, row: dict[str, Any]) -> None:
        """Keep `row` (column name to value; missing columns are NULL), replacing an earlier one of its id."""
        self._keep(row[self._key], row)

    def change(self, key: str, **columns: Any) -> None:
        """Replace some columns of the row of an id that is pending or stored. The others stay as they are when it is
        written, so that nothing is lost that another process changes meanwhile.
        """
        row = {self._key: key, **columns}
        before = self._rows.get(key), self._fresh.get(key)
        self._keep(key, row)
        self._rows[key], self._fresh[key] = ({**(earlier or {CHANGED: True}), **row} for earlier in before)

    def _keep(self, key: str, row: dict[str, Any]) -> None:
        self._rows[key] = self._fresh[key] = row
        size = _ROW_BYTES + _COPIES * sum([len(value) for value in row.values() if type(value) is str])
        self.nbytes, self.fresh_nbytes = self.nbytes + size, self.fresh_nbytes + size

    def get(self, key: str) -> dict[str, Any] | None:
        """The pending row of `key`, if it is there whole; the caller must not change it."""
        row = self._rows.get(key)
        return None if row is None or CHANGED in row else row

    def stored_row(self, key: str) -> dict[str, Any] | None:
        """The row of `key` in the table, or None. Zone maps of ids know a minute; where the id tells when it was made,
        the row is looked for there first.
        """
        names = {"table": self._table, "key": self._key}
        if around := made_around(key):
            row = self._database.row(_STORED_AROUND.format(**names), (key, *around))
            if row is not None:
                return row
        return self._database.row(_STORED.format(**names), (key,))

    def values(self) -> list[dict[str, Any]]:
        """All pending rows, oldest first."""
        return list(self._rows.values())

    def _remember(self, keys: Iterable[str]) -> None:
        self._known.update(dict.fromkeys(keys))
        forget_oldest(self._known, _KNOWN_AT_MOST)

    def fresh(self) -> dict[str, Any]:
        """What was put since the last flush, for a log record: by table name, in what msgpack knows."""
        return {self._table: list(self._fresh.values())} if self._fresh else {}

    def mark_logged(self) -> None:
        """What is fresh is in the log."""
        self._fresh, self.fresh_nbytes = {}, 0

    def replay(self, content: dict[str, Any]) -> None:
        """Put again what `fresh` once gave."""
        for row in content.get(self._table, ()):
            for name in self._times:
                if row.get(name) is not None:
                    row[name] = datetime.fromisoformat(row[name])
            if row.pop(CHANGED, False):
                self.change(row.pop(self._key), **row)
            else:
                self.put(row)

    def pending(self) -> dict[str, pa.Table]:
        """The rows as one Arrow table by table name; empty when there are none."""
        if not self._rows:
            return {}
        columns = [pa.array([row.get(field.name) for row in self._rows.values()], field.type) for field in self._schema]
        batch = pa.Table.from_arrays(columns, schema=self._schema)
        if any(CHANGED in row for row in self._rows.values()):
            changed = [list(row.keys() - {CHANGED}) if CHANGED in row else None for row in self._rows.values()]
            batch = batch.append_column(CHANGED, pa.array(changed, pa.list_(pa.string())))
        return {self._table: batch}

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        """Put the batch of this table, if there is one, in place of the rows with its ids; in the tables named `beyond`
        there are none.
        """
        if self._table in tables and not self._change_in_transaction(tables[self._table]):
            batch = tables[self._table] = self._completed(tables[self._table])
            if self._table not in beyond:
                self._database.insert(_REPLACED.format(table=self._table, key=self._key), batch=batch)
            self._database.insert(_INSERTED.format(table=self._table), batch=batch)

    def _change_in_transaction(self, batch: pa.Table) -> bool:
        """Whether these are but changes of few rows, as the end of a run is: then they are made."""
        if CHANGED not in batch.column_names or batch[CHANGED].null_count or batch.num_rows > _FEW:
            return False
        for row in batch.to_pylist():
            columns = {name: row[name] for name in row[CHANGED] if name != self._key}
            changes = ", ".join(f"{name} = ?" for name in columns)
            self._database.execute(
                _CHANGE.format(table=self._table, changes=changes, key=self._key), (*columns.values(), row[self._key])
            )
        return True

    def _completed(self, batch: pa.Table) -> pa.Table:
        """Each changed row with what is stored of it; without those that are not stored any more."""
        if CHANGED not in batch.column_names:
            return batch
        rows = batch.to_pylist()
        wanted = [row[self._key] for row in rows if row[CHANGED] is not None]
        found = self._database.arrow(_WHOLE.format(table=self._table, key=self._key), (wanted,)).to_pylist()
        whole = {row[self._key]: row for row in found}
        for row in rows:
            names = row.pop(CHANGED)
            if names is None:
                whole[row[self._key]] = row
            elif row[self._key] in whole:
                whole[row[self._key]].update({name: row[name] for name in names})
        return pa.Table.from_pylist(list(whole.values()), self._schema)

    def clear(self) -> None:
        """Forget the rows: they are written, or given up."""
        self._remember(self._rows)
        self._rows, self._fresh, self.nbytes, self.fresh_nbytes = {}, {}, 0, 0


def forget_oldest(known: dict[str, Any], most: int) -> None:
    """Keep the newer half once there are more than `most`."""
    if len(known) > most:
        for key in list(islice(known, len(known) - most // 2)):
            del known[key]
