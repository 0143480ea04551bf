"""Predictions and their arrays that are still in memory.

The caller's arrays are copied at the call into growing Arrow buffers. `y_true`,
`sample_indices` and `weights`, which repeat across predictions, are kept once per content.
A prediction saved twice counts once: the newest row and the newest arrays of an id win.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from msgspec import Raw

from n4a_fast._native.columns import ListColumn, append_known
from n4a_fast._native.newest_rows import NewestRows
from n4a_fast.schema.columns import PREDICTION_VALUES, PREDICTIONS, PREDICTIONS_ENCODED, SHARED_ARRAYS, SHARED_INDICES
from n4a_fast.tables.predictions.arrays import Arrays, restored
from n4a_fast.tables.predictions.contents import Contents, arrays_of, lists, width_of
from n4a_fast.tables.predictions.keys import id_keys
from n4a_fast.tables.predictions.packed import rows_of, unpacked
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values import checks, ids

KEY_PLACES = [PREDICTIONS.names.index(name) for name in KEY]
_PIPELINE = PREDICTIONS.names.index("pipeline_id")
_CREATED_AT = PREDICTIONS.names.index("created_at")
_SCORES, _BEST_PARAMS = PREDICTIONS.names.index("scores"), PREDICTIONS.names.index("best_params")
# of arrays in a record: where in it they are, whose, and what the table has beside them
REFERENCE = ["place", *(name for name in PREDICTION_VALUES.names if name not in ("y_pred", "y_proba", "id_key"))]
_COLUMNS, _OF_REFERENCES = tuple(PREDICTIONS.names), tuple(REFERENCE)
_CONTENTS = [REFERENCE.index(name) - 1 for name in ("y_true_hash", "sample_indices_hash", "weights_hash")]
_ROW_BYTES = 600  # of a row in memory, beside what can be long


class PredictionBatch:
    """Rows and arrays since they were last written to the tables; what came after the last flush is *fresh*."""

    def __init__(self) -> None:
        self._rows = NewestRows(len(PREDICTIONS))
        self._id_of_key: dict[int, str] = {}
        self._key_of_id: dict[str, int] = {}
        self._first_ids: dict[str, str] = {}  # of ids that came later with a natural key
        self._references = NewestRows(len(REFERENCE) - 1)  # what is known of each row of the next two
        self._y_pred, self._y_proba = ListColumn("y_pred", "float64"), ListColumn("y_proba", "float64")
        self._shared, self._indices = Contents("float64"), Contents("int64")
        self._kept = 0  # arrays that are in the log
        self.nbytes = 0  # of the arrays held
        self.row_nbytes = 0  # about those of the rows
        self.logged_nbytes = 0  # how many of both are in the log

    def __len__(self) -> int:
        return max(len(self._rows), len(self._y_pred))

    @property
    def fresh_rows(self) -> int:
        """How many rows or arrays are fresh; what was saved twice counts twice."""
        return max(self._rows.fresh, self._references.fresh)

    def reach(self, rows: int, nbytes: int) -> bool:
        """Whether so many rows, or bytes, are fresh; asked after each of them."""
        return (
            self._rows.fresh >= rows
            or self._references.fresh >= rows
            or self.nbytes + self.row_nbytes - self.logged_nbytes >= nbytes
        )

    def __contains__(self, prediction_id: str) -> bool:
        return prediction_id in self._rows

    def has_arrays(self, prediction_id: str) -> bool:
        """Whether arrays of this prediction are held here."""
        return prediction_id in self._references

    def row(self, prediction_id: str) -> dict[str, Any] | None:
        """The row of an id by column, if it is held here."""
        row = self._rows.get(prediction_id)
        return None if row is None else dict(zip(PREDICTIONS.names, row, strict=True))

    def key_of(self, prediction_id: str) -> int:
        """The natural key of a row that is held here."""
        return self._key_of_id[prediction_id]

    def arrays_of(self, prediction_id: str, labels: bool) -> dict[str, Any] | None:
        """Copies of the arrays of a prediction, as `arrays.restored` gives them, if they are held here."""
        reference = self._references.get(prediction_id)
        if reference is None:
            return None
        _, y_pred_width, y_proba_width, y_true, sample_indices, weights, classes = reference
        place = self._references.places[prediction_id]
        (y_true_values, y_true_width), (weight_values, _) = self._shared.get(y_true), self._shared.get(weights)
        return restored(
            {
                "y_true": y_true_values,
                "y_true_width": y_true_width,
                "y_pred": self._y_pred.values(place),
                "y_pred_width": y_pred_width,
                "y_proba": self._y_proba.values(place),
                "y_proba_width": y_proba_width,
                "sample_indices": self._indices.get(sample_indices)[0],
                "weights": weight_values,
                "classes": classes,
            },
            labels,
        )

    def holds_key(self, key: int) -> bool:
        """Whether a row with this natural key is held here."""
        return key in self._id_of_key

    def id_of(self, key: int) -> str | None:
        """The id of the row with this natural key, if it is held here."""
        return self._id_of_key.get(key)

    def ids_of_pipeline(self, pipeline_id: str) -> list[tuple[int, str]]:
        """Natural key and id of the rows of a pipeline that are held here."""
        columns = self._rows.columns()
        return [
            (self._key_of_id[name], name)
            for name, pipeline in zip(columns[0], columns[_PIPELINE], strict=True)
            if pipeline == pipeline_id
        ]

    def rows_of_pipeline(self, pipeline_id: str) -> list[list[Any]]:
        """The rows of a pipeline that are held here, each in the order of the columns."""
        return [row for _, name in self.ids_of_pipeline(pipeline_id) if (row := self._rows.get(name)) is not None]

    def holds_id_of_another(self, prediction_id: str, key: int) -> bool:
        """Whether a row with another natural key has this id."""
        return self._key_of_id.get(prediction_id, key) != key

    def put(self, row: Sequence[Any], key: int) -> str:
        """Keep a row in the order of the predictions schema, and give its id. It replaces the one with its natural key,
        whose id and arrays it takes over, or the one with its id, which goes with its arrays.
        """
        given, scores, best_params = row[0], row[_SCORES], row[_BEST_PARAMS]
        prediction_id = self._id_of_key.setdefault(key, given)
        if prediction_id != given:
            row = (prediction_id, *row[1:-1], ids.id_key(prediction_id))
        if self._first_ids or prediction_id != given or given in self._key_of_id:
            self._replace(given, prediction_id, key)
        self._key_of_id[prediction_id] = key
        self._rows.put(row)
        self.row_nbytes += _ROW_BYTES + len(scores or "") + len(best_params or "")
        return prediction_id

    def put_new(self, row: Sequence[Any], key: int) -> bool:
        """`put` of a row whose id and natural key are new here; False, and nothing done, for any other."""
        if self._first_ids or not self._rows.put_new(row, key, self._id_of_key, self._key_of_id):
            return False
        self.row_nbytes += _ROW_BYTES + len(row[_SCORES] or "") + len(row[_BEST_PARAMS] or "")
        return True

    def _replace(self, given: str, prediction_id: str, key: int) -> None:
        """Make way for a row with this natural key, which was saved as `given` and has the other id."""
        self._first_ids.pop(given, None)
        if prediction_id != given:
            self._first_ids[given] = prediction_id
        elif self.holds_id_of_another(prediction_id, key):
            del self._id_of_key[self._key_of_id[prediction_id]]
            self._references.drop(prediction_id)

    def put_known(self, prediction_id: str, y_true: Any, y_pred: Any, sample_indices: Any) -> bool:
        """`put_arrays` of what needs no check, of a prediction that is held here with arrays that others share; False,
        and nothing done, for any other.
        """
        if type(prediction_id) is not str or prediction_id not in self._rows:
            return False
        place = len(self._y_pred)
        try:
            shared = append_known(
                *(y_true, y_pred, sample_indices, self._shared.values, self._indices.values),
                *(self._y_pred, self._y_proba),
            )
            if shared is None:
                return False
            self._references.put((prediction_id, None, None, *shared, None, None))
        except BaseException:
            self._fill(place, prediction_id)
            raise
        self._count()
        return True

    def put_arrays(self, prediction_id: str, arrays: Arrays) -> None:
        """Copy the arrays of a prediction; they replace those it had."""
        hashes = (
            self._shared.add(arrays.y_true),
            self._indices.add(arrays.sample_indices),
            self._shared.add(arrays.weights),
            arrays.classes,
        )
        self._put_values(
            (prediction_id, width_of(arrays.y_pred), width_of(arrays.y_proba), *hashes), arrays.y_pred, arrays.y_proba
        )

    def _put_values(self, reference: tuple[Any, ...], y_pred: Any, y_proba: Any) -> None:
        place = len(self._y_pred)
        try:
            self._y_pred.append(y_pred)
            self._y_proba.append(y_proba)
            self._references.put(reference)
        except BaseException:
            self._fill(place, reference[0])
            raise
        self._count()

    def _fill(self, place: int, prediction_id: str) -> None:
        """After an interrupt: a row that no prediction refers to, as long in every column."""
        for column in (self._y_pred, self._y_proba):
            if len(column) == place:
                column.append(None)
        self._references.fill((prediction_id, *[None] * (len(REFERENCE) - 2)), place)

    def _count(self) -> None:
        self.nbytes = self._y_pred.nbytes + self._y_proba.nbytes + self._shared.nbytes + self._indices.nbytes

    def fresh(self) -> dict[str, Any]:
        """What came after `mark_logged`, for the log: by table name, in what msgpack knows."""
        content: dict[str, Any] = {}
        if rows := self._rows.fresh_places():
            content["predictions"] = Raw(self._rows.packed(_COLUMNS, rows))
        if places := self._references.fresh_places():
            y_true, indices, weights = (self._references.fresh_column(places, place) for place in _CONTENTS)
            content["prediction_values"] = {
                "references": Raw(self._references.packed(_OF_REFERENCES, places, with_places=True)),
                "y_pred": self._y_pred.tail(self._kept),
                "y_proba": self._y_proba.tail(self._kept),
                "shared_arrays": self._shared.record_of((*y_true, *weights)),
                "shared_indices": self._indices.record_of(indices),
            }
        return content

    def mark_logged(self) -> None:
        """What is fresh is in the log."""
        self._rows.mark_logged()
        self._references.mark_logged()
        self._kept = len(self._y_pred)
        self.logged_nbytes = self.nbytes + self.row_nbytes

    def replay(self, content: dict[str, Any]) -> None:
        """Put again what `fresh` once gave."""
        names = PREDICTIONS.names
        for row in rows_of(unpacked(content["predictions"], names), names) if "predictions" in content else ():
            if isinstance(row[_CREATED_AT], str):  # of a version that wrote times so
                row = (*row[:_CREATED_AT], checks.microseconds_of(row[_CREATED_AT]), *row[_CREATED_AT + 1 :])
            self.put(row, ids.natural_key(*(row[place] for place in KEY_PLACES)))
        values = content.get("prediction_values")
        if values is not None:
            self._shared.replay(values["shared_arrays"])
            self._indices.replay(values["shared_indices"])
            y_pred, y_proba = arrays_of(values["y_pred"], "float64"), arrays_of(values["y_proba"], "float64")
            for place, name, *reference in rows_of(unpacked(values["references"], REFERENCE), REFERENCE):
                self._put_values((self._first_ids.get(name, name), *reference), y_pred[place], y_proba[place])

    def pending(self) -> dict[str, pa.Table]:
        """What is held, as Arrow tables by table name."""
        tables: dict[str, pa.Table] = {}
        if self._rows:
            columns = zip(self._rows.columns(), PREDICTIONS, strict=True)
            arrays = [pa.array(column, field.type) for column, field in columns]
            tables["predictions"] = pa.Table.from_arrays(arrays, schema=PREDICTIONS_ENCODED)
        if self._references:
            tables["prediction_values"] = self._values_table()
        if self._shared:
            tables["shared_arrays"] = pa.table(self._shared.columns(), schema=SHARED_ARRAYS)
        if self._indices:
            tables["shared_indices"] = pa.table(self._indices.columns()[:2], schema=SHARED_INDICES)
        return tables

    def _values_table(self) -> pa.Table:
        columns = dict(zip(REFERENCE[1:], self._references.columns(), strict=True))
        arrays = {name: pa.array(column, PREDICTION_VALUES.field(name).type) for name, column in columns.items()}
        values = {"y_pred": lists(self._y_pred), "y_proba": lists(self._y_proba)}
        if not self._references.is_plain:
            places = pa.array(list(self._references.places.values()))
            values = {name: column.take(places) for name, column in values.items()}
        arrays |= values | {"id_key": pa.array(id_keys(arrays["prediction_id"]))}
        return pa.Table.from_arrays([arrays[name] for name in PREDICTION_VALUES.names], schema=PREDICTION_VALUES)
