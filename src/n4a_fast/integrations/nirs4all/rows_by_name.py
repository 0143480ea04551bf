"""As much of a sqlite3 connection as nirs4all 1.x and its studio use: rows by name and by place, and few writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from n4a_fast.integrations.nirs4all.answers import answer
from n4a_fast.integrations.nirs4all.sqlite_tables import columns_of
from n4a_fast.integrations.workspaces.sqlite_schema import VERSION

if TYPE_CHECKING:
    from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

_BEFORE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"  # the first word of a statement
_PRAGMA = re.compile(
    rf"{_BEFORE}PRAGMA\s+(?:\w+\.)?(\w+)\s*(?:\(\s*[\"'\[]?(\w+)[\"'\]]?\s*\)|=\s*\S+)?\s*;?\s*", re.I | re.S
)
_SETTINGS = {"user_version": VERSION, "foreign_keys": 1}  # a row goes with what owns it
# a snapshot each call has anyway
_NOTHING = re.compile(rf"{_BEFORE}(BEGIN|COMMIT|END|ROLLBACK)\b[\w\s]*;?\s*", re.I | re.S)
_READS = re.compile(rf"{_BEFORE}(SELECT|WITH|VALUES)\b", re.I | re.S)


class Row(tuple[Any, ...]):
    """A row whose values are found by place and by name, and that is a mapping to `dict`."""

    names: tuple[str, ...]

    def keys(self) -> list[str]:
        """The names of the columns."""
        return list(self.names)

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self.names.index(key) if isinstance(key, str) else key)


class Cursor:
    """Rows to be fetched once."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[Any]], rowcount: int = -1) -> None:
        kind = type("Row", (Row,), {"names": tuple(names)})
        self._rows = iter([kind(row) for row in rows])
        self.description = [(name, *[None] * 6) for name in names] or None
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    def fetchone(self) -> Row | None:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[Row]:
        """At most `size` of the rows that are left."""
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Row]:
        """The rows that are left."""
        return list(self._rows)


class RowConnection:
    """A connection to one store; with `times_as_text` times come as plain SQLite has them."""

    row_factory: Any = None  # set by those who want rows by name, which they are

    def __init__(self, store: Store1x, *, times_as_text: bool = False) -> None:
        self._store, self._times_as_text = store, times_as_text

    @property
    def in_transaction(self) -> bool:
        """Whether a block of `transaction()` is open."""
        return self._store._open().database.in_transaction

    def execute(self, query: str, parameters: Sequence[Any] | None = None) -> Cursor:
        """The answer to one statement; InvalidInputError for a write that the store has a method for."""
        if _READS.match(query):
            frame = answer(self._store, query, parameters, times_as_text=self._times_as_text)
            return Cursor(frame.columns, frame.rows())
        if pragma := _PRAGMA.fullmatch(query):
            return _pragma(pragma[1].lower(), pragma[2] or "")
        if _NOTHING.fullmatch(query):
            return Cursor([], [])
        from n4a_fast.integrations.nirs4all.sqlite_writes import write

        return Cursor([], [], write(self._store, query, list(parameters or ())))

    def frame(self, query: str, parameters: Sequence[Any] | None = None) -> pl.DataFrame:
        """The rows that `execute` gives, as a frame; without columns where it gives none."""
        if _READS.match(query):
            return answer(self._store, query, parameters, times_as_text=self._times_as_text)
        return pl.DataFrame([dict(row) for row in self.execute(query, parameters)], infer_schema_length=None)

    def close(self) -> None:
        """Let go of a store that was opened for this connection alone."""


def _pragma(name: str, argument: str) -> Cursor:
    if name == "table_info":
        described = [(place, *column, 0, None, int(place == 0)) for place, column in enumerate(columns_of(argument))]
        return Cursor(("cid", "name", "type", "notnull", "dflt_value", "pk"), described)
    return Cursor([name], [(_SETTINGS[name],)] if name in _SETTINGS else [])
