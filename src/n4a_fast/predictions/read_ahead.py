"""The predictions around the one that was asked for last, for callers who take one after the other.

A row group of predictions is read in the time that ten of them take one by one. The fourth question in a row in one
row group reads all of it; what follows is answered from memory, as long as the file is the same: no commit of this
process, and no other process has had it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from n4a_fast.engine.connection import ROW_GROUP, Database
from n4a_fast.tables.predictions.keys import id_keys

_IN_A_ROW = 4
_MOST_BYTES = 16 * 2**20  # of the arrays of a row group

VALUES = "y_pred, y_pred_width, y_proba, y_proba_width, y_true_hash, sample_indices_hash, weights_hash, classes"
_GROUP = f"SELECT prediction_id, {VALUES} FROM prediction_values WHERE rowid BETWEEN ? AND ?"
_ROWS = """SELECT {columns} FROM predictions SEMI JOIN wanted
ON predictions.id_key = wanted.id_key AND predictions.prediction_id = wanted.prediction_id
WHERE predictions.id_key BETWEEN {first} AND {last}"""
_DESCRIBED = "SELECT prediction_id FROM prediction_metadata SEMI JOIN wanted USING (prediction_id)"


class ReadAhead:
    """One row group of predictions with arrays."""

    def __init__(self, database: Database, columns: str) -> None:
        self._database, self._columns = database, columns
        self._state: tuple[int, int] | None = None
        self._asked, self._times = -1, 0  # the row group of the last question, and how many in a row were in it
        self._tables: tuple[pa.Table, pa.Table] | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._described: set[str] = set()

    def find(self, prediction_id: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The row and the values of a prediction that has been read ahead; None for any other."""
        state = self._database.state
        if state != self._state or self._database.in_transaction:
            self._state, self._times, self._tables, self._places = state, 0, None, {}
        places = self._places.get(prediction_id)
        if places is None or self._tables is None:
            return None
        row, values = (_row(table, place) for table, place in zip(self._tables, places, strict=True))
        return row, values

    def is_described(self, prediction_id: str) -> bool:
        """Whether a prediction that has been read ahead has metadata of its samples."""
        return prediction_id in self._described

    def note(self, position: int, nbytes: int) -> None:
        """A prediction at this position, with arrays of this size, was read alone."""
        group = position // ROW_GROUP
        self._asked, self._times = group, self._times + 1 if group == self._asked else 1
        if self._times >= _IN_A_ROW and nbytes * ROW_GROUP <= _MOST_BYTES and not self._database.in_transaction:
            self._read(group * ROW_GROUP)

    def _read(self, first: int) -> None:
        values = self._database.arrow(_GROUP, (first, first + ROW_GROUP - 1)).combine_chunks()
        names = values["prediction_id"]
        keys = id_keys(names)
        wanted = pa.table({"prediction_id": names, "id_key": pa.array(keys)})
        sql = _ROWS.format(columns=self._columns, first=keys.min(), last=keys.max())
        rows = self._database.select(sql, wanted=wanted).combine_chunks()
        self._described = set(self._database.select(_DESCRIBED, wanted=wanted)["prediction_id"].to_pylist())
        of_values = {name: place for place, name in enumerate(names.to_pylist())}
        found = enumerate(rows["prediction_id"].to_pylist())
        self._places = {name: (place, of_values[name]) for place, name in found}
        self._tables = rows, values.drop_columns("prediction_id")


def _row(table: pa.Table, place: int) -> dict[str, Any]:
    columns = zip(table.column_names, table.columns, strict=True)
    return {name: _value(column.chunk(0)[place]) for name, column in columns}


def _value(scalar: pa.Scalar) -> Any:
    """As DuckDB gives it, lists as numpy arrays."""
    if isinstance(scalar, pa.ListScalar) and scalar.is_valid:
        return scalar.values.to_numpy()
    return scalar.as_py()
