"""Arrays of many predictions at once: one query, Arrow buffers, numpy views on them.

The values stay in the buffers that DuckDB filled; each array handed out is a view of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import polars as pl
import pyarrow as pa

from n4a_fast.database import Database
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.predictions.queries import where_clause

COLUMNS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")

_SOURCES = {
    "y_true": ("t.array_values AS y_true, t.width AS y_true_width", "LEFT JOIN shared_arrays t ON t.content_hash = v.y_true_hash"),
    "y_pred": ("v.y_pred, v.y_pred_width", ""),
    "y_proba": ("v.y_proba, v.y_proba_width", ""),
    "sample_indices": (
        "i.array_values AS sample_indices, NULL::INTEGER AS sample_indices_width",
        "LEFT JOIN shared_indices i ON i.content_hash = v.sample_indices_hash",
    ),
    "weights": ("w.array_values AS weights, NULL::INTEGER AS weights_width", "LEFT JOIN shared_arrays w ON w.content_hash = v.weights_hash"),
}
_BY_PLACE = """SELECT wanted.prediction_id, {values} FROM wanted LEFT JOIN prediction_values v ON v.prediction_id = wanted.prediction_id
{joins} ORDER BY wanted.place"""
_MATCHING = "SELECT prediction_id FROM predictions{where} ORDER BY created_at, prediction_id"
_KNOWN = "SELECT count(*) AS n FROM predictions WHERE prediction_id IN (SELECT prediction_id FROM wanted)"
_UNKNOWN = "SELECT prediction_id FROM wanted WHERE prediction_id NOT IN (SELECT prediction_id FROM predictions) LIMIT 1"


class ListViews(Sequence[Any]):
    """One array per prediction, each a read-only numpy view of a shared buffer; None where there is none."""

    def __init__(self, column: pa.ListArray, widths: pa.Array) -> None:
        self._column, self._widths = column, widths
        self._offsets = column.offsets.to_numpy()
        self._values = column.values.to_numpy(zero_copy_only=True)

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        if not self._column[place].is_valid:
            return None
        flat = self._values[self._offsets[place] : self._offsets[place + 1]]
        width = self._widths[place].as_py()
        return flat if width is None else flat.reshape(-1 if width else 0, width)

    def to_2d(self) -> np.ndarray[Any, Any]:
        """All arrays as rows of one matrix, a view; InvalidInputError when lengths differ or one is missing."""
        lengths = np.diff(self._offsets)
        if self._column.null_count or (lengths != lengths[:1]).any():
            raise InvalidInputError("the arrays differ in length, or some are missing; take them one by one")
        width = int(lengths[0]) if len(lengths) else 0
        matrix: np.ndarray[Any, Any] = self._values[self._offsets[0] : self._offsets[-1]].reshape(len(self), width)
        return matrix


class LoadedArrays:
    """Arrays of many predictions, in the order they were asked for."""

    def __init__(self, table: pa.Table, columns: Sequence[str]) -> None:
        table = table.combine_chunks()
        self._table = table.select(["prediction_id", *columns])
        self.columns = tuple(columns)
        self._views = {name: ListViews(_one_chunk(table[name]), _one_chunk(table[f"{name}_width"])) for name in columns}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def prediction_ids(self) -> list[str]:
        """Ids, one per row."""
        return list(self._table["prediction_id"].to_pylist())

    @property
    def y_true(self) -> ListViews:
        """Measured values: (n_samples,) or (n_samples, n_targets) each."""
        return self._view("y_true")

    @property
    def y_pred(self) -> ListViews:
        """Predicted values: (n_samples,) or (n_samples, n_targets) each."""
        return self._view("y_pred")

    @property
    def y_proba(self) -> ListViews:
        """Class probabilities: (n_samples, n_classes) each."""
        return self._view("y_proba")

    @property
    def sample_indices(self) -> ListViews:
        """Sample indices, int64: (n_samples,) each."""
        return self._view("sample_indices")

    @property
    def weights(self) -> ListViews:
        """Weights, 1-D each."""
        return self._view("weights")

    def y_true_2d(self) -> np.ndarray[Any, Any]:
        """Measured values as one matrix (n_predictions, n_samples), when lengths agree."""
        return self.y_true.to_2d()

    def y_pred_2d(self) -> np.ndarray[Any, Any]:
        """Predicted values as one matrix (n_predictions, n_samples), when lengths agree."""
        return self.y_pred.to_2d()

    def to_arrow(self) -> pa.Table:
        """`prediction_id` and a list column per array, row-major."""
        return self._table

    def to_polars(self) -> pl.DataFrame:
        """The same as a Polars frame."""
        frame = pl.from_arrow(self._table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _view(self, name: str) -> ListViews:
        if name not in self._views:
            raise AttributeError(f"{name} was not loaded; name it in columns= (loaded: {', '.join(self.columns)})")
        return self._views[name]


class ArrayReader:
    """Loads the arrays of many predictions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ids(self, prediction_ids: Sequence[str] | None, filters: dict[str, Any]) -> pa.Table:
        """The predictions asked for, as a one-column table; NotFoundError for an id that is not stored."""
        if prediction_ids is None:
            where, params = where_clause(filters)
            return self._database.arrow(_MATCHING.format(where=where), params)
        if any(value is not None for value in filters.values()):
            raise InvalidInputError("give prediction_ids or filters, not both")
        wanted = pa.table({"prediction_id": _ids_column(prediction_ids)})
        distinct = pa.table({"prediction_id": wanted["prediction_id"].unique()})
        if self._database.select(_KNOWN, wanted=distinct)["n"][0].as_py() < distinct.num_rows:
            raise NotFoundError("prediction", str(self._database.select(_UNKNOWN, wanted=distinct)["prediction_id"][0].as_py()))
        return wanted

    def load(self, wanted: pa.Table, columns: Sequence[str]) -> LoadedArrays:
        """Arrays of the predictions in `wanted`, in its order."""
        unknown = [name for name in columns if name not in COLUMNS]
        if unknown or not columns:
            raise InvalidInputError(f"columns must name some of {', '.join(COLUMNS)}; got {', '.join(unknown) or 'none'}")
        placed = wanted.append_column("place", pa.array(np.arange(wanted.num_rows)))
        values, joins = zip(*(_SOURCES[name] for name in columns), strict=True)
        return LoadedArrays(self._database.select(_BY_PLACE.format(values=", ".join(values), joins=" ".join(joins)), wanted=placed), columns)

    def batches(self, wanted: pa.Table, columns: Sequence[str], batch_size: int) -> Iterator[LoadedArrays]:
        """The same in pieces of `batch_size` predictions."""
        for start in range(0, wanted.num_rows, batch_size):
            yield self.load(wanted.slice(start, batch_size), columns)


def _ids_column(prediction_ids: Sequence[str]) -> pa.Array:
    try:
        column = pa.array(list(prediction_ids), pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid, UnicodeError) as error:
        raise InvalidInputError(f"prediction_ids must hold texts ({error})") from error
    if column.null_count:
        raise InvalidInputError("prediction_ids holds None; leave it out")
    return column


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
