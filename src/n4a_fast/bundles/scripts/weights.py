"""`predict` of a script for a linear chain: a correction of each row, then weights and an intercept.

The centre is kept in float32: any centre is as good, as long as the intercept is the prediction there.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from n4a_fast.bundles.scripts.table import checked

N_FEATURES, N_TARGETS = 1, 1
STATISTIC, NUMBER = "", 0.0
FUNCTIONALS = SPECTRA = CENTER = WEIGHTS = INTERCEPT = ""

CORRECTIONS = ("", "snv", "norm", "regression")  # kinds of statistic that `_corrected` knows

# -- in every script from here on --


def predict(X: Any) -> Any:
    """Predictions for the spectra in the rows of X: (n_samples,), or (n_samples, n_targets) for several targets."""
    with np.errstate(all="ignore"):
        found = (_corrected(checked(X)) - _array(CENTER, "<f4")) @ _array(WEIGHTS, "<f8", N_TARGETS).T + _array(
            INTERCEPT, "<f8"
        )
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} of X cannot be corrected ({STATISTIC}): it is constant, or nearly so")
    return found[:, 0] if N_TARGETS == 1 else found


def _corrected(rows: Any) -> Any:
    """The rows after the correction that treats each by numbers of its own."""
    if STATISTIC == "snv":
        mean = rows.mean(axis=1, keepdims=True)
        scale = np.sqrt(((rows - mean) ** 2).sum(axis=1, keepdims=True) / (rows.shape[1] - NUMBER))
        return (rows - mean) / np.where(scale > np.abs(mean) * 2.0**-48, scale, np.nan)
    if STATISTIC == "norm":
        return rows / _or_nan(np.linalg.norm(rows, ord=NUMBER, axis=1, keepdims=True))
    if STATISTIC == "regression":
        found = rows @ _array(FUNCTIONALS, "<f8", N_FEATURES)
        rest = rows - found[:, :-1] @ _array(SPECTRA, "<f8", found.shape[1] - 1) if SPECTRA else rows
        return rest / _or_nan(found[:, -1:])
    if STATISTIC:
        raise ValueError(f"the correction {STATISTIC!r} is unknown to this script")
    return rows


def _or_nan(denominators: Any) -> Any:
    """These; NaN for those so small that the operator itself may take another number."""
    return np.where(np.abs(denominators) < 1e-9, np.nan, denominators)


def _array(text: str, kind: str, rows: int = 0) -> Any:
    values = np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)
    return values.reshape(rows, -1) if rows else values
