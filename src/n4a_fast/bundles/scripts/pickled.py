"""`predict` of a script that carries the operators themselves, as joblib wrote them."""

from __future__ import annotations

import base64
import functools
import io
import zlib
from typing import Any

import numpy as np

from n4a_fast.bundles.scripts.table import checked

TRANSFORMS: list[str] = []
MODELS: list[str] = []
TARGETS: list[str] = []
NEEDS = ""
OPERATORS: dict[str, str] = {}

# -- in every script from here on --


def predict(X: Any) -> Any:
    """Predictions for the spectra in the rows of X: (n_samples,), (n_samples, n_targets) for several targets, or
    labels.
    """
    rows = checked(X)
    for name in TRANSFORMS:
        rows = _operator(name).transform(rows.copy())
        rows = np.ascontiguousarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)
    each = [_widened(np.asarray(_operator(name).predict(rows.copy()))) for name in MODELS]
    found = each[0] if len(each) == 1 else np.mean([values.reshape(len(rows), -1) for values in each], axis=0)
    for name in TARGETS:
        operator = _operator(name)
        if found.dtype.kind == "f" and hasattr(operator, "classes_"):
            found = found.astype(np.int64)
        found = np.asarray(
            operator.inverse_transform(
                found.reshape(-1) if hasattr(operator, "classes_") else found.reshape(len(rows), -1)
            )
        )
    return found.reshape(-1) if found.size == len(rows) else found


def _widened(values: Any) -> Any:
    """Numbers in double precision, in which they are averaged; labels as they are."""
    return values.astype(np.float64) if values.dtype.kind == "f" else values


@functools.cache
def _operator(name: str) -> Any:
    try:
        import joblib

        return joblib.load(io.BytesIO(zlib.decompress(base64.b64decode(OPERATORS[name]))))
    except (ImportError, AttributeError) as error:  # another release may have no such class
        raise ImportError(f"{error}; this script needs {NEEDS}") from error
