"""The rows that a compiled chain is compared on with the plain path, and how far apart the two are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

_ROWS = 24
_VARIED = 8
_FAR = 100.0  # times the prediction at zero; at the mean of spectra like the training's it is a few times that


def evenly(n_rows: int) -> NDArray[np.int64]:
    """Places of some rows, evenly spread."""
    return np.unique(np.linspace(0, n_rows - 1, _ROWS).astype(np.int64))


def varied(rows: Array) -> Array:
    """Other spectra like these: each under a slow wave of a few per cent."""
    waves = np.arange(1, _VARIED + 1)[:, None] * np.linspace(0.3, 2.0, rows.shape[1])[None, :]
    picked = rows[np.arange(_VARIED) % len(rows)]
    return np.ascontiguousarray(
        picked * (1.0 + 0.05 * np.sin(waves)) + 0.02 * np.abs(picked).max() * np.cos(1.7 * waves)
    )


def difference_of(found: Array, expected: Array, n_rows: int) -> float:
    """The largest difference, of the rows at hand relative to their largest value, of the others to theirs.

    A value that is near zero by chance, beside others a thousand times as large, is no measure.
    """
    difference, size = np.abs(found - expected), np.abs(expected)
    largest = float(size.max()) or 1.0
    at_hand = max(float(size[:n_rows].max()), largest / 1000.0)
    return float(np.maximum(difference[:n_rows].max() / at_hand, difference[n_rows:].max() / largest))


def is_far(center: Array, predicted: Array, weights: Array) -> bool:
    """Whether the spectra at hand, whose mean is `center`, are nothing like those of the training: around it all others
    would lose the digits that the prediction there has more than theirs, and around zero none.
    """
    at_zero = np.abs(predicted - center @ weights).max()
    return bool(np.abs(predicted).max() > _FAR * at_zero)
