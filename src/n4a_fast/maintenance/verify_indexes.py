"""Whether the indexes of keys are there, and find the rows of their tables, and no others.

A file that was made before there were any is read rightly without, and slower. An index that misses a row would hide
it from whoever asks for its id, one with a damaged block lets nobody ask for ids, or write. A repair makes all of
these anew; nothing in them is the only copy. Of a table with more than a million rows, those with the smallest keys and
those with the largest are looked up, which are the oldest and the newest: DuckDB keeps all that an index gives to one
statement. Which blocks are an index's, DuckDB does not tell: they are those that are in use no more once it is made
anew.
"""

from __future__ import annotations

import numpy as np

from n4a_fast.engine.connection import Database
from n4a_fast.errors import DamagedStoreError
from n4a_fast.maintenance.findings import Finding
from n4a_fast.schema.ddl import INDEX_ANEW, INDEXED

INDEX, MISSING = "wrong index", "missing index"
_CURE = "verify(repair=True) makes it anew"
_AT_ONCE = 2**19  # rows
_THERE = """SELECT table_name FROM duckdb_indexes()
WHERE database_name = 'store' AND schema_name = 'main' AND expressions = '[id_key]'"""
_COUNT = "SELECT count(id_key) FROM {table}"  # one without a key is in no index
# any two numbers will do, if about so many rows have smaller keys than the first, and larger ones than the second
_BOUNDS = "SELECT approx_quantile(id_key, {share})::UBIGINT, approx_quantile(id_key, 1 - {share})::UBIGINT FROM {table}"
# what is asked of a column is asked of its index, what follows from it is not
_BY_INDEX = "SELECT rowid AS place FROM {table} WHERE id_key {side}::UBIGINT"
_IN_TABLE = "SELECT rowid AS place FROM {table} WHERE xor(id_key, 0::UBIGINT) {side}::UBIGINT"


def missing_indexes(database: Database) -> list[Finding]:
    """Tables without the index of their keys."""
    there = {table for (table,) in database.rows(_THERE)}
    message = "it has no index of its keys: what asks for a prediction by its id is slower"
    return [
        Finding(MISSING, f"{table} id_key", database.path, message, _CURE, is_leftover=True)
        for table in INDEXED
        if table not in there
    ]


def wrong_indexes(database: Database) -> list[Finding]:
    """Tables whose index does not give what is in them, or cannot be read."""
    found = {table: _fault(database, table) for table in INDEXED}
    return [
        Finding(INDEX, f"{table} id_key", database.path, message, _CURE) for table, message in found.items() if message
    ]


def make_anew(database: Database, table: str) -> None:
    """Drop the index of a table, and make it."""
    with database.making_indexes():
        with database.transaction():
            for statement in INDEX_ANEW[table]:
                database.execute(statement)
        database.checkpoint()


def _fault(database: Database, table: str) -> str:
    """What is wrong with the index of a table, of which the rows with a key are looked up; empty where nothing is."""
    ((rows,),) = database.rows(_COUNT.format(table=table))
    if not rows:
        return ""
    ((low, high),) = database.rows(_BOUNDS.format(table=table, share=min(0.5, _AT_ONCE / rows)))
    differing = 0
    for side in (f"<= {low}", f"> {max(low, high)}"):
        database.begin_anew_if_due()
        there = database.arrow(_IN_TABLE.format(table=table, side=side))["place"].to_numpy()
        try:
            with database.looking_up(1, rows):
                found = database.arrow(_BY_INDEX.format(table=table, side=side))["place"].to_numpy()
        except DamagedStoreError as error:
            return f"its index of keys is damaged: what asks for a prediction by its id, or saves one, fails ({error})"
        differing += len(np.setxor1d(found, there))
    wrong = f"its index of keys is wrong for {differing:,} rows: what asks for a prediction by its id may miss it"
    return wrong if differing else ""
