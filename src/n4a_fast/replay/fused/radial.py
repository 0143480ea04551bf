"""Kernel models with a radial kernel, all folds at once, as a row statistic and weights.

The folds of an SVR or a KernelRidge were trained on much the same spectra, so the distances to their
union serve all of them; a fold's kernel is a function of these. The values of all kernels are the
"spectra" behind a row statistic "radial", and the models' coefficients, folds averaged, its weights.

A. Distances come from one matrix product around the mean of the union: without it absorbances, which
   lie far from zero, would cost digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.linear_operators import Unfused, public_name
from n4a_fast.replay.fused.statistics import RowStatistic

Array: TypeAlias = NDArray[np.float64]

_SUPPORT_VECTORS = ("sklearn.svm.SVR", "sklearn.svm.NuSVR")
_KERNEL_RIDGE = "sklearn.kernel_ridge.KernelRidge"


def radial_part(models: Mapping[str, Any], fold_weights: Array) -> tuple[RowStatistic, Array]:
    """The statistic, and weights (kernel values, targets) of the averaged folds; Unfused for other models."""
    parts = [_support(model) for model in models.values()]
    if (
        len({coefficients.shape[1] for _, coefficients, _ in parts}) > 1
        or len({rows.shape[1] for rows, _, _ in parts}) > 1
    ):
        raise Unfused("its folds differ in shape")
    if not any(len(rows) for rows, _, _ in parts):
        raise Unfused("it has no support vectors and predicts a constant")
    union, index = np.unique(np.concatenate([rows for rows, _, _ in parts]), axis=0, return_inverse=True)
    gammas = np.concatenate([np.full(len(rows), gamma) for rows, _, gamma in parts])
    weights = np.concatenate(
        [share * coefficients for share, (_, coefficients, _) in zip(fold_weights, parts, strict=True)]
    )
    kernels, where = np.unique(
        np.stack([gammas, index.reshape(-1).astype(np.float64)], axis=1), axis=0, return_inverse=True
    )
    total = np.zeros((len(kernels), weights.shape[1]))
    np.add.at(total, where.reshape(-1), weights)
    return RowStatistic("radial", 0.0, kernels, union), total


def is_radial(model: Any) -> bool:
    """Whether this is a kernel model with a radial kernel that is known here."""
    return public_name(type(model)) in (*_SUPPORT_VECTORS, _KERNEL_RIDGE) and bool(model.kernel == "rbf")


def _support(model: Any) -> tuple[Array, Array, float]:
    """Spectra that a model holds, their coefficients (spectra, targets) and its gamma."""
    if not is_radial(model):
        raise Unfused(f"{type(model).__name__} is not registered as linear")
    if public_name(type(model)) in _SUPPORT_VECTORS:
        return np.asarray(model.support_vectors_), np.asarray(model.dual_coef_).T, float(model._gamma)
    rows = np.asarray(model.X_fit_)
    gamma = 1.0 / rows.shape[1] if model.gamma is None else float(model.gamma)
    return rows, np.asarray(model.dual_coef_).reshape(len(rows), -1), gamma
