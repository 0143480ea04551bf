"""How the arrays of many predictions are read: as they lie, by the index of their ids, or with all others.

Of one row, DuckDB makes the 2,048 of its row group plain, unless it finds it by an index; then it takes as long as a
hundred rows that two threads read one after the other. So ids are put in the order of their keys, which is that of
time, and parted where the gaps are wide. Rows of a part that lie near each other are read from the first position to
the last (DuckDB's rowid, good until the transaction ends): the first rows between their smallest and their largest key
tell whether they do. Others are looked up by the index. Where that would cost more than to read the whole table, it is
read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import Database

_PARTS = 8
_OF_A_PART = 50  # rows at least, on average: to ask for it takes as long as to look some up
# a gap that is wider than one of so many parts of all between the first and the last key parts, and one of more parts
# where that does not do
_WIDE = (16, 1000)
_LOOKED_UP = 100  # a row by the index takes as long as so many that two threads read as they lie
_STATEMENT = 1500  # one more, too
_LOOSE = 1.25  # rows for each one wanted, at most, to be read without a join
_FEW = 32  # are looked up, wherever they lie, if it is known that there is memory for it

_SPAN = """(SELECT {number} AS number, count(*) AS found, min(position), max(position) FROM (
    SELECT rowid AS position FROM {table} WHERE id_key BETWEEN {first}::UBIGINT AND {last}::UBIGINT LIMIT {limit}))"""
_SAMPLE = 16  # keys tell how many rows have the same one: a bulk save has only so many for each millisecond
_COLD = 4  # times as long a look-up takes where the index does not stay in memory
_COUNT = "SELECT count(*), (SELECT count(*) FROM {table} WHERE id_key IN ({keys})) FROM {table}"


class Near(NamedTuple):
    """Rows that lie between two positions with not too many others."""

    first: int
    last: int
    wanted: pa.Table

    @property
    def rows(self) -> int:
        """How many are read, those that are not wanted included."""
        return self.last - self.first + 1

    @property
    def cost(self) -> int:
        """In rows that are read as they lie."""
        return self.rows + _STATEMENT

    @property
    def is_close(self) -> bool:
        """Whether there are so few others that to part them would spare nothing."""
        return self.rows <= 2 * int(self.wanted.num_rows) + _STATEMENT

    @property
    def is_worth_reading(self) -> bool:
        """Whether that is faster than looking those that are wanted up."""
        return self.hardly_any_others or self.cost < int(_LOOKED_UP * self.wanted.num_rows)

    @property
    def hardly_any_others(self) -> bool:
        """Whether reading them all is faster than telling them apart."""
        return self.rows <= int(_LOOSE * self.wanted.num_rows)


class Ways(NamedTuple):
    """The rows that are wanted, by the way in which they are read."""

    near: list[Near]
    looked_up: pa.Table
    same_key: float = 1.0  # so many rows have the key of one that is looked up, on average
    rows: int | None = None  # of the table, where they were counted

    def cost(self, row: float) -> int:
        """In rows that are read as they lie, where one that is looked up takes as long as `row` of them."""
        return sum(near.cost for near in self.near) + int(row * self.looked_up.num_rows)


def ways(database: Database, table: str, wanted: pa.Table) -> Ways | None:
    """How the rows of `table` with the `prediction_id` and `id_key` of `wanted` are read; None: with all others."""
    if wanted.num_rows < 2 or (wanted.num_rows <= _FEW and not database.indexes_may_take_much):
        return Ways([], wanted)
    whole = wanted.take(pc.sort_indices(wanted["id_key"]))
    possible = _possible(database, table, whole)
    if not any(each.looked_up.num_rows for each in possible):  # at most all rows of the table, which is not counted
        return min(possible, key=lambda each: each.cost(_LOOKED_UP))
    rows, same_key = _counted(database, table, whole)
    row = _LOOKED_UP * same_key * (1 if database.index_fits(rows) else _COLD)
    chosen = min(possible, key=lambda each: each.cost(row))
    return chosen._replace(same_key=same_key, rows=rows) if chosen.cost(row) <= rows + _STATEMENT else None


def _possible(database: Database, table: str, ordered: pa.Table) -> list[Ways]:
    """Ways to read rows in the order of their keys: parted in few gaps, and in more where that may spare reads."""
    possible, before = list[Ways](), 0
    for wide in _WIDE:
        parts = _parted(ordered, wide)
        if len(parts) == before:
            break
        before = len(parts)
        possible.append(_divided(parts, _looked_at(database, table, parts)))
        if not possible[-1].looked_up.num_rows and all(near.is_close for near in possible[-1].near):
            break
    return possible


def _divided(parts: list[pa.Table], found: list[Near | None]) -> Ways:
    """The rows of these parts, which were found so."""
    together = _merged([near for near in found if near is not None])
    near = [each for each in together if each.is_worth_reading]
    rest = [part for part, each in zip(parts, found, strict=True) if each is None]
    rest += [each.wanted for each in together if not each.is_worth_reading]
    return Ways(near, pa.concat_tables([parts[0].slice(0, 0), *rest]))


def _counted(database: Database, table: str, ordered: pa.Table) -> tuple[int, float]:
    """How many rows `table` has, and how many of them have the same key, about, as one that is wanted."""
    keys = ordered["id_key"].to_numpy()
    some = np.unique(keys[np.linspace(0, len(keys) - 1, _SAMPLE, dtype=np.int64)])
    ((rows, found),) = database.rows(_COUNT.format(table=table, keys=", ".join(f"{key}::UBIGINT" for key in some)))
    return rows, max(1.0, found / len(some))


def _parted(ordered: pa.Table, wide: int) -> list[pa.Table]:
    """Rows that are in the order of their keys, parted in the widest gaps."""
    keys = ordered["id_key"].to_numpy()
    gaps = np.diff(keys)
    widest = np.argsort(gaps)[::-1][: max(0, min(_PARTS, len(keys) // _OF_A_PART) - 1)]
    cuts = sorted(int(gap) + 1 for gap in widest if gaps[gap] > (keys[-1] - keys[0]) // wide)
    return [ordered.slice(first, last - first) for first, last in pairwise([0, *cuts, ordered.num_rows])]


def _looked_at(database: Database, table: str, parts: list[pa.Table]) -> list[Near | None]:
    """For each part, where its rows are, if they are near each other."""
    questions, most = [], [int(_LOOKED_UP * part.num_rows) for part in parts]
    for number, part in enumerate(parts):
        first, last = part["id_key"][0], part["id_key"][-1]
        questions.append(_SPAN.format(number=number, table=table, first=first, last=last, limit=most[number] + 1))
    near: list[Near | None] = [None] * len(parts)
    for number, found, first, last in database.rows(" UNION ALL ".join(questions)):
        if 0 < found <= most[number] and last - first < most[number]:  # and no row of a part is elsewhere
            near[number] = Near(first, last, parts[number])
    return near


def _merged(near: list[Near]) -> list[Near]:
    """The same rows, read together where less than a statement costs lies between them."""
    merged: list[Near] = []
    for each in sorted(near, key=lambda each: each.first):
        if merged and each.first - merged[-1].last <= _STATEMENT:
            before = merged.pop()
            together = pa.concat_tables([before.wanted, each.wanted])
            each = Near(before.first, max(before.last, each.last), together)
        merged.append(each)
    return merged
