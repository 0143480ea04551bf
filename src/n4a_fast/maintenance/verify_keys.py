"""The keys by which predictions and their arrays are looked up: computed again from the columns that they follow from.

A repair computes them again, too. It leaves a key that another prediction has already: which of the two is right is not
known here, and the next save of either would replace the other.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import Database
from n4a_fast.maintenance.findings import Finding
from n4a_fast.tables.predictions.keys import id_keys, natural_keys

KEY = "wrong key"
ROWS_AT_ONCE = 2**16
CURE = "verify(repair=True) computes it again, where no other prediction has it; else restore a backup"
_SHOWN = 100  # findings of some rows
_ROWS = """SELECT rowid AS place, prediction_id, pipeline_id, chain_id, model_name, fold_id, partition, branch_id,
nk, id_key FROM predictions WHERE rowid >= {first} AND rowid < {last}"""
_LAST = "SELECT coalesce(max(rowid) + 1, 0) FROM predictions"
_NOT_TAKEN = """SELECT wrong.* FROM wrong ANTI JOIN (SELECT rowid AS other, nk FROM predictions) p
ON p.nk = wrong.nk AND other <> place QUALIFY count(*) OVER (PARTITION BY nk) = 1"""
_OLD = "FROM predictions WHERE rowid IN (SELECT place FROM right_keys)"
_SET = "UPDATE predictions SET nk = k.nk, id_key = k.id_key FROM right_keys k WHERE predictions.rowid = k.place"
_VALUES = """FROM (SELECT v.* FROM prediction_values v JOIN predictions p USING (prediction_id)
WHERE v.id_key IS DISTINCT FROM p.id_key)"""
_SET_VALUES = """UPDATE prediction_values SET id_key = p.id_key FROM predictions p
WHERE p.prediction_id = prediction_values.prediction_id AND prediction_values.id_key IS DISTINCT FROM p.id_key"""


def wrong_keys(database: Database, first: int, last: int) -> list[Finding]:
    """Those of some predictions whose keys do not follow from their columns."""
    message = "its keys do not follow from its columns: look-ups by id, or a re-save, miss it"
    names = _right_keys(database, first, last)["prediction_id"].to_pylist()
    return [Finding(KEY, f"predictions {name}", database.path, message, CURE) for name in names[:_SHOWN]]


def mend_in_transaction(database: Database) -> dict[str, pa.Table]:
    """Compute keys again; by table, the rows as they were before."""
    ((rows,),) = database.rows(_LAST)
    pieces = [_right_keys(database, first, first + ROWS_AT_ONCE) for first in range(0, max(rows, 1), ROWS_AT_ONCE)]
    right = database.select(_NOT_TAKEN, wrong=pa.concat_tables(pieces))
    before = {"predictions": database.select(_OLD, right_keys=right)}
    database.insert(_SET, right_keys=right)
    before["prediction_values"] = database.arrow(_VALUES)
    database.execute(_SET_VALUES)
    return before


def still_wrong(database: Database) -> set[str]:
    """After a repair: the ids of findings whose keys another prediction has."""
    ((rows,),) = database.rows(_LAST)
    pieces = (wrong_keys(database, first, first + ROWS_AT_ONCE) for first in range(0, rows, ROWS_AT_ONCE))
    return {finding.id for piece in pieces for finding in piece}


def _right_keys(database: Database, first: int, last: int) -> pa.Table:
    """Rows with wrong keys, by `place`, id and chain, and the keys that they should have."""
    rows = database.arrow(_ROWS.format(first=first, last=last))
    columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
    right = {"nk": natural_keys(columns, rows.num_rows).nk, "id_key": id_keys(rows["prediction_id"])}
    found = rows.select(["place", "prediction_id", "chain_id"])
    is_wrong = pa.array([False] * rows.num_rows, pa.bool_())
    for name, keys in right.items():
        found = found.append_column(name, pa.array(keys, pa.uint64()))
        is_wrong = pc.or_(is_wrong, pc.fill_null(pc.not_equal(rows[name], found[name]), True))
    return found.filter(is_wrong)
