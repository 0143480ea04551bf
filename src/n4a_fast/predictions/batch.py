"""Predictions and their arrays that are still in memory.

The caller's arrays are copied at the call into growing Arrow buffers. `y_true`,
`sample_indices` and `weights`, which repeat across predictions, are kept once per content.
A prediction saved twice counts once: the newest row and the newest arrays of an id win.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from n4a_fast._native.columns import ListColumn
from n4a_fast.predictions.arrays import Arrays
from n4a_fast.schema.columns import PREDICTION_VALUES, PREDICTIONS, SHARED_ARRAYS, SHARED_INDICES, table_of


class PredictionBatch:
    """Rows and arrays since the last flush."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._id_of_key: dict[int, str] = {}
        self._key_of_id: dict[str, int] = {}
        self._places: dict[str, int] = {}  # prediction id -> where its newest arrays are
        self._references: list[tuple[Any, ...]] = []
        self._y_pred, self._y_proba = ListColumn("y_pred", "float64"), ListColumn("y_proba", "float64")
        self._shared: dict[str, int | None] = {}  # content hash -> width
        self._shared_values = ListColumn("array_values", "float64")
        self._indices: dict[str, None] = {}
        self._indices_values = ListColumn("array_values", "int64")

    def __len__(self) -> int:
        return max(len(self._rows), len(self._references))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return sum(column.nbytes for column in (self._y_pred, self._y_proba, self._shared_values, self._indices_values))

    def __contains__(self, prediction_id: str) -> bool:
        return prediction_id in self._rows

    def has_arrays(self, prediction_id: str) -> bool:
        """Whether arrays of this prediction are held here."""
        return prediction_id in self._places

    def holds_key(self, key: int) -> bool:
        """Whether a row with this natural key is held here."""
        return key in self._id_of_key

    def put(self, row: tuple[Any, ...], key: int) -> None:
        """Keep a row in the order of the predictions schema; it replaces the one with its id or its natural key."""
        prediction_id = row[0]
        earlier = self._id_of_key.get(key)
        if earlier is not None and earlier != prediction_id:
            del self._rows[earlier], self._key_of_id[earlier]
            if earlier in self._places:  # its arrays move along, unless the id has its own
                self._places.setdefault(prediction_id, self._places.pop(earlier))
        if self._key_of_id.get(prediction_id, key) != key:  # the id moves to another key: it no longer holds the old one
            del self._id_of_key[self._key_of_id[prediction_id]]
        self._id_of_key[key], self._key_of_id[prediction_id] = prediction_id, key
        self._rows[prediction_id] = row

    def put_arrays(self, prediction_id: str, arrays: Arrays) -> None:
        """Copy the arrays of a prediction; they replace those it had."""
        reference = (
            prediction_id, width_of(arrays.y_pred), width_of(arrays.y_proba), self._share(arrays.y_true),
            self._share_indices(arrays.sample_indices), self._share(arrays.weights),
        )  # fmt: skip
        self._y_pred.append(arrays.y_pred)
        self._y_proba.append(arrays.y_proba)
        self._places[prediction_id] = len(self._references)
        self._references.append(reference)

    def pending(self) -> dict[str, pa.Table]:
        """What is held, as Arrow tables by table name."""
        tables: dict[str, pa.Table] = {}
        if self._rows:
            tables["predictions"] = table_of(list(self._rows.values()), PREDICTIONS)
        if self._places:
            tables["prediction_values"] = self._values_table()
        if self._shared:
            columns = [pa.array(list(self._shared), pa.string()), lists(self._shared_values), pa.array(list(self._shared.values()), pa.int32())]
            tables["shared_arrays"] = pa.table(columns, schema=SHARED_ARRAYS)
        if self._indices:
            tables["shared_indices"] = pa.table([pa.array(list(self._indices), pa.string()), lists(self._indices_values)], schema=SHARED_INDICES)
        return tables

    def _values_table(self) -> pa.Table:
        ids, y_pred_width, y_proba_width, y_true, sample_indices, weights = zip(*self._references, strict=True)
        text, width = pa.string(), pa.int32()
        table = pa.table(
            [pa.array(ids, text), lists(self._y_pred), pa.array(y_pred_width, width), lists(self._y_proba), pa.array(y_proba_width, width),
             pa.array(y_true, text), pa.array(sample_indices, text), pa.array(weights, text)], schema=PREDICTION_VALUES,
        )  # fmt: skip
        places = list(self._places.values())
        if len(places) == len(ids) and tuple(self._places) == ids:
            return table
        return table.take(pa.array(places)).set_column(0, "prediction_id", pa.array(list(self._places), text))

    def _share(self, values: np.ndarray[Any, Any] | None) -> str | None:
        if values is None:
            return None
        address = content_hash(values)
        if address not in self._shared:
            self._shared_values.append(values)
            self._shared[address] = width_of(values)
        return address

    def _share_indices(self, values: np.ndarray[Any, Any] | None) -> str | None:
        if values is None:
            return None
        address = content_hash(values)
        if address not in self._indices:
            self._indices_values.append(values)
            self._indices[address] = None
        return address


def width_of(values: np.ndarray[Any, Any] | None) -> int | None:
    """Number of columns of a 2-D array; None for 1-D."""
    return values.shape[1] if values is not None and values.ndim == 2 else None


def content_hash(values: np.ndarray[Any, Any]) -> str:
    """The address of an array: xxh3-128 of dtype, shape and bytes; `values` is contiguous."""
    digest = xxhash.xxh3_128(f"{values.dtype.str}{values.shape}".encode())
    digest.update(values.data if values.size else b"")
    return digest.hexdigest()


def lists(column: ListColumn) -> pa.ChunkedArray:
    """The column as Arrow, over its own memory."""
    return pa.chunked_array(column.snapshot())
