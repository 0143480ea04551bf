"""Ragged numpy arrays to Arrow list columns: append rows, then hand the column to any Arrow consumer.

    column = ListColumn("y_pred", "float64")
    column.append(np.arange(3.0))
    column.append(None)
    pa.chunked_array(column.snapshot())     # [[0, 1, 2], null]; the column goes on
    pa.array(column.finish())               # the same rows; the column is empty

A call that raises leaves the column as it was.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ListArray", "ListColumn", "append_known", "list_column_from_matrix", "live_blocks"]

def live_blocks() -> int:
    """Allocations of this module that are not freed yet; 0 when no column and no consumer holds any."""

class ListArray:
    """A finished list column, to be handed over once as an Arrow stream or array.

    It cannot be made directly, and it frees its memory when neither it nor a consumer is left.
    """

    @property
    def name(self) -> str:
        """Name of the Arrow field."""
    @property
    def nbytes(self) -> int:
        """Bytes that its rows take."""
    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object:
        """Capsule of the field: a nullable list of doubles or 64-bit integers. May be asked for at any time."""
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Capsules of the field and of the column; a second hand-over raises RuntimeError. No cast to
        `requested_schema`.
        """
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Capsule of a stream of one chunk; a second hand-over raises RuntimeError. No cast to `requested_schema`."""

class ListColumn:
    """A growing column of lists of numbers; one `append` a row.

    `dtype` is "float64" or "int64", `capacity` the number of values to make room for at first.
    `large` gives the Arrow lists 64-bit offsets (`large_list`); without it a column holds at most 2**31 - 1
    values at a time. Not for several threads at once: a call during another's append raises RuntimeError.
    """

    def __init__(self, name: str, dtype: str, capacity: int = 0, large: bool = False) -> None: ...
    @property
    def name(self) -> str:
        """Name of the Arrow field."""
    @property
    def dtype(self) -> str:
        """Type of the values, "float64" or "int64"."""
    @property
    def large(self) -> bool:
        """Whether the offsets have 64 bits."""
    @property
    def nbytes(self) -> int:
        """Bytes that the pending rows take."""
    def __len__(self) -> int: ...
    def append(self, values: npt.ArrayLike | None) -> None:
        """Copy one row: a 1-D or 2-D array or sequence of numbers, flattened row by row; None is a NULL row.

        Any real numeric dtype is converted; integers beyond 2**53 round in a float64 column. Raises TypeError
        for dtypes that are not real numbers and for masked arrays, ValueError for other shapes and, in an
        int64 column, for what is no 64-bit whole number, OverflowError when 32-bit offsets run out.
        """
    def values(self, index: int) -> np.ndarray[Any, Any] | None:
        """Copy of the pending row `index` as a flat numpy array, None for NULL."""
    def remember(self, label: object) -> None:
        """The last row goes by this label from now on, see `known`; IndexError without a row."""
    def known(self, values: object) -> Any:
        """The label of a row that has the bytes of this array, if one goes by it; None for what is no contiguous 1-D
        array of the column's dtype.
        """
    def tail(self, start: int) -> tuple[bytes, bytes]:
        """Copies of the pending rows from `start` on: their lengths (int64, -1 for NULL) and their values, both in
        native byte order.
        """
    def snapshot(self) -> ListArray:
        """The rows so far, sharing their values; the column keeps them and may go on growing."""
    def finish(self) -> ListArray:
        """The rows so far, their values handed over; the column is empty afterwards."""

def append_known(
    y_true: object,
    y_pred: object,
    sample_indices: object,
    shared: ListColumn,
    indices: ListColumn,
    predicted: ListColumn,
    probable: ListColumn,
) -> tuple[Any, Any] | None:
    """Append `y_pred` to `predicted`, and a NULL row to `probable`: the labels by which `shared` knows `y_true` and
    `indices` knows `sample_indices`, None for None.

    None, and nothing done, where these are not known, or `y_pred` is no contiguous 1-D array of the column's dtype, or
    the lengths differ.
    """

def list_column_from_matrix(name: str, matrix: np.ndarray[Any, Any], large: bool = False) -> ListArray:
    """A list column over the rows of a C-contiguous float64 or int64 matrix, without copying it.

    It keeps the matrix alive, which must not be changed until the last consumer is done. Raises TypeError,
    ValueError or OverflowError for a matrix that would need a copy or 64-bit offsets (`large`).
    """
