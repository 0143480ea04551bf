"""Predictions of log records as tables, by column: nothing but a few checks is done for each of them.

`PredictionBatch.replay` puts them one by one, which takes three times as long. It is left for what
replaces something: a prediction saved again, arrays saved again, or two logs with the same.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import PREDICTION_VALUES, PREDICTIONS, PREDICTIONS_ENCODED, SHARED_ARRAYS, SHARED_INDICES
from n4a_fast.tables.predictions.contents import Contents, flat_of
from n4a_fast.tables.predictions.keys import id_keys
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.packed import Packed, array_of, unpacked, values_of
from n4a_fast.tables.predictions.pending import REFERENCE, PredictionBatch
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.tables.predictions.saving import Predictions
from n4a_fast.values import checks

_SHARED: dict[str, tuple[Literal["float64", "int64"], pa.Schema]] = {
    "shared_arrays": ("float64", SHARED_ARRAYS),
    "shared_indices": ("int64", SHARED_INDICES),
}
Content = dict[str, Any]


class LoggedPredictions(Predictions):
    """The predictions of records that other processes have logged, to be written at once."""

    def __init__(self, database: Database, metadata: SampleMetadata) -> None:
        super().__init__(database, metadata)
        self._contents: list[Content] = []

    def replay(self, content: Content) -> None:
        self._contents.append(content)

    def pending(self) -> dict[str, pa.Table]:
        return tables_of(self._contents)


def tables_of(contents: list[Content]) -> dict[str, pa.Table]:
    """What a `PredictionBatch` holds after it has replayed these, as it gives it."""
    rows = [unpacked(content["predictions"], PREDICTIONS.names) for content in contents if "predictions" in content]
    values = [content["prediction_values"] for content in contents if "prediction_values" in content]
    references = [unpacked(value["references"], REFERENCE) for value in values]
    if not (_replace_nothing(rows, references) and all(map(_are_in_order, references, values))):
        batch = PredictionBatch()
        for content in contents:
            batch.replay(content)
        return batch.pending()
    tables: dict[str, pa.Table] = {}
    if rows:
        tables["predictions"] = _rows_table(rows)
    if values:
        tables["prediction_values"] = _values_table(references, values)
        tables.update((name, table) for name in _SHARED if (table := _shared_table(name, values)).num_rows)
    return tables


def _replace_nothing(rows: list[Packed], references: list[Packed]) -> bool:
    """Whether no two rows have the same id or natural key, and no two arrays the same id."""
    keys = (values_of(rows, name) for name in KEY)
    return (
        _are_distinct(values_of(rows, "prediction_id"))
        and _are_distinct(list(zip(*keys, strict=True)))
        and _are_distinct(values_of(references, "prediction_id"))
    )


def _are_distinct(keys: list[Any]) -> bool:
    return len(set(keys)) == len(keys)


def _are_in_order(references: Packed, values: Content) -> bool:
    """Whether the arrays of a record are those of its references, one after the other."""
    return values_of([references], "place") == list(range(len(values["y_pred"][0]) // 8))


def _rows_table(rows: list[Packed]) -> pa.Table:
    rows = [(number, {**columns, "created_at": _times(columns.get("created_at"))}) for number, columns in rows]
    arrays = [array_of(rows, field.name, field.type) for field in PREDICTIONS]
    return pa.Table.from_arrays(arrays, schema=PREDICTIONS_ENCODED)


def _times(column: Any) -> Any:
    """Times of a record as numbers, which an earlier version wrote as text."""
    if isinstance(column, list):
        return [_times(value) for value in column]
    return checks.microseconds_of(column) if isinstance(column, str) else column


def _values_table(references: list[Packed], values: list[Content]) -> pa.Table:
    columns = {name: array_of(references, name, PREDICTION_VALUES.field(name).type) for name in REFERENCE[1:]}
    columns.update(
        y_pred=_lists(values, "y_pred"),
        y_proba=_lists(values, "y_proba"),
        id_key=pa.array(id_keys(columns["prediction_id"])),
    )
    return pa.Table.from_arrays([columns[name] for name in PREDICTION_VALUES.names], schema=PREDICTION_VALUES)


def _lists(values: list[Content], name: str) -> pa.ListArray:
    """The arrays of all records under one name."""
    lengths, flat = flat_of((value[name] for value in values), "float64")
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(np.maximum(lengths, 0), out=offsets[1:])
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(lengths < 0))


def _shared_table(name: str, values: list[Content]) -> pa.Table:
    dtype, schema = _SHARED[name]
    contents = Contents(dtype)
    for value in values:
        contents.replay(value[name])
    return pa.table(contents.columns()[: len(schema)], schema=schema)
