"""Whether rows of a batch can be in the tables already, told by the smallest and the largest of their keys.

Ids, and the hashes of natural keys, begin with the time. What is new lies behind all that is stored, which DuckDB
tells from its zone maps in a tenth of the time that comparing the keys takes. Where something is stored in
between, nothing is known, and keys have to be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
from pyarrow import compute

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import WITHIN

_KEYS = {
    "runs": ("run_id",),
    "pipelines": ("pipeline_id",),
    "chains": ("chain_id",),
    "logs": ("log_id",),
    "predictions": ("nk", "id_key"),
    "prediction_values": ("id_key",),
}
_QUESTION = "(SELECT '{0}' FROM {0} WHERE {1} {2} LIMIT 1)"


class Range(NamedTuple):
    """Keys of a column of a table, both ends included."""

    table: str
    column: str
    first: str | int
    last: str | int


def tables_between(database: Database, ranges: Iterable[Range]) -> set[str]:
    """Tables with a row in one of the ranges."""
    asked = list(ranges)
    if not asked:
        return set()
    question = " UNION ALL ".join(_question(each) for each in asked)
    return {name for (name,) in database.rows(question, [bound for _, _, *bounds in asked for bound in bounds])}


def _question(asked: Range) -> str:
    within = "BETWEEN ? AND ?" if isinstance(asked.first, str) else WITHIN
    return _QUESTION.format(asked.table, asked.column, within)


def tables_beyond(database: Database, batch: dict[str, pa.Table]) -> set[str]:
    """Tables of a batch in which nothing is stored between its keys, and so none of its rows."""
    ranges = [_range(name, column, batch[name]) for name in _KEYS.keys() & batch.keys() for column in _KEYS[name]]
    return {found.table for found in ranges} - tables_between(database, ranges)


def _range(name: str, column: str, rows: pa.Table) -> Range:
    found = compute.min_max(rows[column])
    return Range(name, column, found["min"].as_py(), found["max"].as_py())
