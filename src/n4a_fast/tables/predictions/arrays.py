"""The arrays of one prediction: checked at the call, and put together again when read.

Targets are 1-D `(n_samples,)` or 2-D `(n_samples, n_targets)`; one column counts as 1-D.
Probabilities are 2-D `(n_samples, n_classes)` or 1-D, and come back in the shape they had.
`weights` are free in length: nirs4all stores fold weights there as well as sample weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from n4a_fast._native.arguments import are_plain
from n4a_fast.errors import InvalidInputError, StoreFormatError
from n4a_fast.tables.predictions import labels
from n4a_fast.values import checks

Array = np.ndarray[Any, Any]

_REAL, _WHOLE = np.dtype(np.float64), np.dtype(np.int64)


class Arrays(NamedTuple):
    """Checked arrays: C-contiguous, float64 (`sample_indices` int64), 1-D or 2-D; None where there is none."""

    y_true: Array | None
    y_pred: Array | None
    y_proba: Array | None
    sample_indices: Array | None
    weights: Array | None
    classes: str | None = None  # JSON text


NAMES = Arrays._fields[:-1]


def checked(
    y_true: Any, y_pred: Any, y_proba: Any, sample_indices: Any, weights: Any, classes: Sequence[str] | None = None
) -> Arrays:
    """The arguments of `save_prediction_arrays` as `Arrays`; InvalidInputError names what does not fit."""
    if y_proba is weights is classes is None and are_plain((y_true, y_pred), sample_indices):
        return Arrays(y_true, y_pred, None, sample_indices, None)
    stored = None
    if classes is not None or not (_is_plain(y_true, _REAL) and _is_plain(y_pred, _REAL)):
        y_true, y_pred, stored = _targets(y_true, y_pred, classes)
    arrays = Arrays(
        y_true,
        y_pred,
        None if y_proba is None else _reals(y_proba, "y_proba", 2),
        _indices(sample_indices),
        None if weights is None else _target(weights, "weights", 1),
        stored,
    )
    per_sample = arrays[:4]
    if len({len(found) for found in per_sample if found is not None}) > 1:
        told = ", ".join(
            f"{name} has {len(found)}" for name, found in zip(NAMES, per_sample, strict=False) if found is not None
        )
        raise InvalidInputError(f"arrays of one prediction must have one row per sample, but {told}")
    if arrays.y_true is not None and arrays.y_pred is not None and arrays.y_true.shape != arrays.y_pred.shape:
        raise InvalidInputError(
            f"y_true has shape {arrays.y_true.shape}, y_pred {arrays.y_pred.shape}; they must have the same targets"
        )
    return arrays


def restored(row: dict[str, Any], as_labels: bool) -> dict[str, Array | None]:
    """The five arrays of a stored row as arrays of their own, float64 (`sample_indices` int64), 2-D where they were;
    targets that have classes as text if `as_labels`.
    """
    found = {
        "y_true": _shaped(row["y_true"], row["y_true_width"]),
        "y_pred": _shaped(row["y_pred"], row["y_pred_width"]),
        "y_proba": _shaped(row["y_proba"], row["y_proba_width"]),
        "sample_indices": None if row["sample_indices"] is None else np.array(row["sample_indices"], np.int64),
        "weights": _shaped(row["weights"], None),
    }
    return found | {name: labels.texts_of(found[name], row["classes"]) for name in labels.TARGETS if as_labels}


def _targets(y_true: Any, y_pred: Any, classes: Sequence[str] | None) -> tuple[Array | None, Array | None, str | None]:
    """Both targets, and the classes as they are stored where they are labels."""
    stored = None
    if classes is not None or not (_is_number(y_true) and _is_number(y_pred)):
        targets, stored = labels.coded({"y_true": y_true, "y_pred": y_pred}, classes)
        y_true, y_pred = targets["y_true"], targets["y_pred"]
    return _target(y_true, "y_true"), _target(y_pred, "y_pred"), stored


def _is_number(value: Any) -> bool:
    """Whether this is surely no label."""
    return value is None or (type(value) is np.ndarray and value.dtype.kind in "fiub")


def _is_plain(value: Any, dtype: np.dtype[Any]) -> TypeGuard[Array]:
    """Whether nothing has to be converted or can be refused."""
    return type(value) is np.ndarray and value.dtype is dtype and value.ndim == 1 and value.flags.c_contiguous


def _target(value: Any, name: str, most: int = 2) -> Array | None:
    if _is_plain(value, _REAL):
        return value
    if type(value) is np.ndarray and value.dtype.kind == "f" and value.shape[1:] in ((), (1,)) and value.ndim:
        return np.ascontiguousarray(value.reshape(-1), np.float64)  # nirs4all's: nothing can be refused
    found = _reals(value, name, 2)
    if found is not None and found.ndim == 2 and found.shape[1] == 1:
        found = found.reshape(-1)
    if found is not None and found.ndim > most:
        raise InvalidInputError(f"{name} must be 1-D, got shape {found.shape}")
    return found


def _reals(value: Any, name: str, most: int) -> Array | None:
    if value is None:
        return None
    found = _numeric(value, name)
    if not 1 <= found.ndim <= most:
        raise InvalidInputError(f"{name} must have 1 to {most} dimensions, got shape {found.shape}")
    return np.ascontiguousarray(found, np.float64)


def _indices(value: Any) -> Array | None:
    if value is None:
        return None
    if _is_plain(value, _WHOLE):
        return value
    found = _numeric(value, "sample_indices")
    found = found.reshape(-1) if found.ndim == 2 and found.shape[1] == 1 else found
    if found.ndim != 1:
        raise InvalidInputError(f"sample_indices must be 1-D, got shape {found.shape}")
    if found.dtype.kind in "ib" or (found.dtype.kind == "u" and found.dtype.itemsize < 8):  # every value fits
        return np.ascontiguousarray(found, np.int64)
    with np.errstate(invalid="ignore"):  # what does not fit is found by the comparison
        whole = np.ascontiguousarray(found, np.int64) if found.size == 0 or np.isfinite(found).all() else None
    if whole is None or not np.array_equal(whole, found):
        raise InvalidInputError("sample_indices must be whole numbers that fit 64 bits")
    return whole


def refuse_masked(name: str, value: Any) -> None:
    """InvalidInputError for an array that hides some of its values."""
    if type(value) is not np.ndarray and np.ma.is_masked(value):  # numpy takes as long as all other checks
        raise InvalidInputError(
            f"{name} has masked values, which cannot be stored as such; fill them, with NaN for instance"
        )


def _numeric(value: Any, name: str) -> Array:
    checks.no_text(value, name)
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is ragged ({error}); give one row per sample") from error
    refuse_masked(name, value)
    if found.size == 0 and found.dtype == object:
        found = found.astype(np.float64)
    if found.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} must be numeric, got dtype {found.dtype}")
    return found


def _shaped(values: Any, width: int | None) -> Array | None:
    if values is None:
        return None
    return in_rows(np.array(values, np.float64), width)


def in_rows(flat: Array, width: int | None) -> Array:
    """Values as rows of `width`; as they are where that is None. StoreFormatError when they do not make whole rows."""
    if width is None:
        return flat
    try:
        return flat.reshape(-1 if width else 0, max(width, 0))
    except ValueError as error:
        told = f"{flat.size} values do not make rows of {width}; `n4a-fast verify` names the prediction"
        raise StoreFormatError(told) from error
