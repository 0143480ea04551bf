"""How the arrays of many predictions are read: as they lie, by the index of their ids, or with all others.

Of one row, DuckDB makes the 2,048 of its row group plain, unless it finds it by an index; then it takes as long as a
hundred rows that two threads read one after the other. So ids are put in the order of their keys, which is that of
time, and parted where the gaps are widest. Rows that lie near each other, all or those of a part, are read from the
first position to the last (DuckDB's rowid, good until the transaction ends): the first rows between their smallest and
their largest key tell whether they do. Others are looked up by the index. Where that would cost more than to read the
whole table, it is read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import Database

_PARTS = 4
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
    none = whole.slice(0, 0)
    (together,) = _looked_at(database, table, [whole])
    if together is not None and together.hardly_any_others:
        return Ways([together], none)
    parts = _parted(whole)
    near = [found for found in _looked_at(database, table, parts) if found is not None]
    worth = [found for found in near if found.cost < _LOOKED_UP * found.wanted.num_rows]
    rest = [part for part in parts if not any(part is found.wanted for found in worth)]
    rows, same_key = _counted(database, table, whole)
    possible = [Ways(worth, pa.concat_tables([none, *rest]), same_key, rows)]
    if together is not None:
        possible.append(Ways([together], none))
    row = _LOOKED_UP * same_key * (1 if database.index_fits(rows) else _COLD)
    cheapest = min(possible, key=lambda each: each.cost(row))
    return cheapest if cheapest.cost(row) <= rows + _STATEMENT else None


def _counted(database: Database, table: str, ordered: pa.Table) -> tuple[int, float]:
    """How many rows `table` has, and how many of them have the same key, about, as one that is wanted."""
    keys = ordered["id_key"].to_numpy()
    some = np.unique(keys[np.linspace(0, len(keys) - 1, _SAMPLE, dtype=np.int64)])
    ((rows, found),) = database.rows(_COUNT.format(table=table, keys=", ".join(f"{key}::UBIGINT" for key in some)))
    return rows, max(1.0, found / len(some))


def _parted(ordered: pa.Table) -> list[pa.Table]:
    """Rows that are in the order of their keys, parted where the gaps are widest."""
    gaps = np.diff(ordered["id_key"].to_numpy())
    widest = np.sort(np.argsort(gaps)[-(_PARTS - 1) :]) + 1
    bounds = [0, *widest.tolist(), ordered.num_rows]
    return [ordered.slice(first, last - first) for first, last in pairwise(bounds)]


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
