"""From prediction ids to row positions: how rows are found among millions without reading all of them.

A join on ids compares text, and reads the lists of every row group on its way. Positions (DuckDB's rowid, good until
the transaction ends) are found on narrow columns, and wide ones are then read where positions are:

* (a) ids begin with the time, so a few literal ranges of `id_key` leave most row groups out by their zone maps;
* (b) in those that are left, ids are compared where keys match: predictions of one millisecond may share a key;
* (c) a join on rowid reads the lists of the row groups that have hits, and no others;
* (d) rows that lie together, as those of a run do, are read from the first to the last, without any join; whether they
  do is told by the first rows between the smallest and the largest key.

5,000 predictions out of three places among three million take a hundredth of the time that the join takes; where they
are all over the table, as long.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from n4a_fast.engine.connection import Database

_RANGES = 4  # more are compared with every row that is left, which costs more than they save
_SMALL = 65_536  # rows; a table of that size is read as fast as it is searched
_SHARE = 4  # of so large a part of all rows, most row groups are read anyway

_LOOSE = 1.25  # rows from the first to the last for each row wanted, at most, to be read as they lie
_SPAN = """SELECT count(*), min(position), max(position) FROM (
    SELECT rowid AS position FROM {table} WHERE id_key BETWEEN {first} AND {last} LIMIT {limit})"""
_COUNT = "SELECT count(*) FROM {table}"
_POSITIONS = """SELECT wanted.place, t.rowid AS position FROM {table} t
JOIN wanted ON t.id_key = wanted.id_key AND t.prediction_id = wanted.prediction_id WHERE {ranges}"""


def span(database: Database, table: str, wanted: pa.Table) -> tuple[int, int] | None:
    """The first and the last position of the wanted rows in `table`, where hardly any others lie between them."""
    if not wanted.num_rows:
        return None
    keys, loose = wanted["id_key"].to_numpy(), int(_LOOSE * wanted.num_rows)
    sql = _SPAN.format(table=table, first=keys.min(), last=keys.max(), limit=loose + 1)
    ((found, first, last),) = database.rows(sql)
    return (first, last) if 0 < found <= loose and last - first < loose else None


def worth_locating(database: Database, table: str, wanted: pa.Table) -> bool:
    """Whether `positions` is faster than a join on the ids."""
    rows = int(database.rows(_COUNT.format(table=table))[0][0])
    return rows > _SMALL and wanted.num_rows * _SHARE < rows


def positions(database: Database, table: str, wanted: pa.Table) -> pa.Table:
    """`place` and `position` of the predictions in `table` whose `prediction_id` and `id_key` are wanted, unordered."""
    ranges = _ranges_of(wanted["id_key"].to_numpy())
    return database.select(_POSITIONS.format(table=table, ranges=ranges), wanted=wanted)


def _ranges_of(id_keys: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> str:
    """SQL for the few closest ranges that hold all keys: they are parted where the gaps are widest."""
    if not len(id_keys):
        return "false"
    keys = np.unique(id_keys)
    gaps = np.sort(np.argsort(np.diff(keys))[-(_RANGES - 1) :])
    first, last = keys[np.r_[0, gaps + 1]], keys[np.r_[gaps, len(keys) - 1]]
    return " OR ".join(f"t.id_key BETWEEN {low} AND {high}" for low, high in zip(first, last, strict=True))
