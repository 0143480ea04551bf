"""Whether predicted values have all the digits of a double, as most models give them, or few, or repeat.

DuckDB would find out by trying all its ways to pack numbers on each row group. A look at some values is enough to tell
the common case from all others, which are left to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

_LISTS = ("y_pred", "y_proba")
_PLACES, _RUN = 32, 8  # values are looked at in so many places, so many that follow one another
_DIGITS = 14  # of 17 that a double may need; one in a hundred that needs no more is a chance
_OTHERS = 0.05  # part of values that may have fewer digits, or repeat


def are_long(values: pa.Table) -> bool:
    """Whether nearly all numbers in the lists of `prediction_values` have all their digits, and differ."""
    found = [_some(values[name]) for name in _LISTS]
    present = [some for some in found if some.size]
    return bool(present) and all(_is_long(some) for some in present)


def _is_long(some: np.ndarray[Any, Any]) -> bool:
    bits = some.view(np.int64)  # NaN equals NaN
    repeats = bits[:, 1:] == bits[:, :-1]
    short = [float(f"{value:.{_DIGITS}g}") == value for value in some.ravel().tolist()]
    return bool(repeats.mean() <= _OTHERS and np.mean(short) <= _OTHERS)


def _some(lists: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Values of a list column, a row of them for each place; none of a short column."""
    runs = [_flat(chunk) for chunk in lists.chunks if len(chunk)]
    runs = [flat[: len(flat) // _RUN * _RUN].reshape(-1, _RUN) for flat in runs]
    return np.concatenate([np.empty((0, _RUN)), *(run[:: max(1, len(run) * len(runs) // _PLACES)] for run in runs)])


def _flat(chunk: pa.ListArray) -> np.ndarray[Any, Any]:
    """All values of the lists, not copied."""
    first, last = chunk.offsets[0].as_py(), chunk.offsets[-1].as_py()
    values: np.ndarray[Any, Any] = chunk.values[first:last].to_numpy(zero_copy_only=False)
    return values
