"""Predictions of journal frames as tables, by column: nothing but a few checks is done for each of them.

`PredictionBatch.replay` puts them one by one, which takes three times as long. It is left for what
replaces something: a prediction saved again, arrays saved again, or two journals with the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from n4a_fast import ids
from n4a_fast.database import Database
from n4a_fast.predictions.batch import PredictionBatch
from n4a_fast.predictions.contents import Contents
from n4a_fast.predictions.records import Predictions
from n4a_fast.predictions.table import KEY
from n4a_fast.schema.columns import PREDICTION_VALUES, PREDICTIONS, SHARED_ARRAYS, SHARED_INDICES, table_of

_CREATED_AT, _ID_KEY = (PREDICTIONS.names.index(name) for name in ("created_at", "id_key"))
_ID, _NATURAL_KEY, _ID_OF_ARRAYS = itemgetter(0), itemgetter(*(PREDICTIONS.names.index(name) for name in KEY)), itemgetter(1)
_SHARED: dict[str, tuple[Literal["float64", "int64"], pa.Schema]] = {"shared_arrays": ("float64", SHARED_ARRAYS), "shared_indices": ("int64", SHARED_INDICES)}
Content = dict[str, Any]


class JournaledPredictions(Predictions):
    """The predictions of frames that other processes have journaled, to be written at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._contents: list[Content] = []

    def replay(self, content: Content) -> None:
        self._contents.append(content)

    def pending(self) -> dict[str, pa.Table]:
        return tables_of(self._contents)


def tables_of(contents: list[Content]) -> dict[str, pa.Table]:
    """What a `PredictionBatch` holds after it has replayed these, as it gives it."""
    rows = [row for content in contents for row in content.get("predictions", ())]
    values = [content["prediction_values"] for content in contents if "prediction_values" in content]
    references = [reference for value in values for reference in value["references"]]
    replaced = not (_are_distinct(map(_ID, rows)) and _are_distinct(map(_NATURAL_KEY, rows)) and _are_distinct(map(_ID_OF_ARRAYS, references)))
    if replaced or not all(map(_is_in_order, values)):
        batch = PredictionBatch()
        for content in contents:
            batch.replay(content)
        return batch.pending()
    tables: dict[str, pa.Table] = {}
    if rows:
        tables["predictions"] = _rows_table(rows)
    if references:
        tables["prediction_values"] = _values_table(references, values, {row[0]: row[_ID_KEY] for row in rows})
        tables.update((name, table) for name in _SHARED if (table := _shared_table(name, values)).num_rows)
    return tables


def _are_distinct(keys: Iterable[Any]) -> bool:
    listed = list(keys)
    return len(set(listed)) == len(listed)


def _is_in_order(values: Content) -> bool:
    """Whether the arrays of a frame are those of its references, one after the other."""
    return [reference[0] for reference in values["references"]] == list(range(len(values["y_pred"][0]) // 8))


def _rows_table(rows: list[list[Any]]) -> pa.Table:
    for row in rows:
        row[_CREATED_AT] = datetime.fromisoformat(row[_CREATED_AT])
    return table_of(rows, PREDICTIONS)  # type: ignore[arg-type]  # lists, as msgpack gives them


def _values_table(references: list[list[Any]], values: list[Content], id_keys: dict[str, int]) -> pa.Table:
    _, names, y_pred_width, y_proba_width, y_true, sample_indices, weights = zip(*references, strict=True)
    keys = [id_keys.get(name) or ids.id_key(name) for name in names]
    columns = (names, _lists(values, "y_pred"), y_pred_width, _lists(values, "y_proba"), y_proba_width, y_true, sample_indices, weights, keys)
    return pa.Table.from_arrays(
        [column if isinstance(column, pa.Array) else pa.array(column, field.type) for column, field in zip(columns, PREDICTION_VALUES, strict=True)],
        schema=PREDICTION_VALUES,
    )


def _lists(values: list[Content], name: str) -> pa.ListArray:
    """The arrays of all frames under one name."""
    lengths = np.frombuffer(b"".join(value[name][0] for value in values), np.int64)
    flat = np.frombuffer(b"".join(value[name][1] for value in values))
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(lengths < 0))


def _shared_table(name: str, values: list[Content]) -> pa.Table:
    dtype, schema = _SHARED[name]
    contents = Contents(dtype)
    for value in values:
        contents.replay(value[name])
    return pa.table(contents.columns()[: len(schema)], schema=schema)
