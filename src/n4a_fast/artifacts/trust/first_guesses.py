"""How many columns a gradient boosting of scikit-learn begins with: each stage is added to them without a look.

They come from the estimator in `init_`, through the link of the loss. What their methods give is told from their
states, so only methods that were read count, and no state may hold a value in the place of one. What cannot be told
without running it is an UnpicklingError.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

_LOSSES, _LINKS, _LINEAR = "sklearn._loss.loss", "sklearn._loss.link", "sklearn.linear_model"
_WEIGHTED = [f"{_LINEAR}.{kind}._decision_function" for kind in ("_base.LinearModel", "_coordinate_descent.ElasticNet")]


def hides_methods(one: Any) -> bool:
    """Whether a state has a value in the place of a method that native code is reached through."""
    kind: Any = type(one)
    return not _methods(kind).isdisjoint(vars(one))


def columns_of(model: Any) -> int:
    """How many a boosted model begins with, one for each row that it is given."""
    state = vars(model)
    init, loss = state["init_"], state["_loss"]
    _require_known(loss, _LOSSES)
    _require_known(vars(loss)["link"], _LINKS)
    if isinstance(init, str):
        columns = state["n_trees_per_iteration_"]
        return int(columns) if isinstance(columns, int | np.integer) else 0
    classifies = hasattr(type(model), "predict_proba")
    told = _told_by(_method(init, "predict_proba" if classifies else "predict"))
    columns = None if told is None or hides_methods(init) else told(init)
    if columns is None:
        raise pickle.UnpicklingError(f"how many values a {type(init).__name__} predicts first cannot be told")
    return columns if not classifies or loss.is_multiclass else min(columns - 1, 1)


def _require_known(one: Any, module: str) -> None:
    if type(one).__module__ != module or hides_methods(one):
        raise pickle.UnpicklingError(f"a {type(one).__name__} is no loss or link of scikit-learn's")


@lru_cache(maxsize=256)
def _methods(kind: Any) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))


def _method(one: Any, name: str) -> str:
    """The full name of a method, where its class has it from."""
    found = getattr(type(one), name, None)
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"


def _constant(init: Any) -> int | None:
    return 1 if _is_one(vars(init)["n_outputs_"]) else None


def _prior(init: Any) -> int | None:
    state = vars(init)
    (classes,) = state["class_prior_"].shape
    return int(classes) if _is_one(state["n_outputs_"]) and state["_strategy"] == "prior" else None


def _line(init: Any) -> int | None:
    """One column where the coefficients are one row and the intercept is a number."""
    weights, intercept = vars(init)["coef_"], vars(init)["intercept_"]
    has_method = _method(init, "_decision_function") in _WEIGHTED
    return 1 if has_method and _is_plain(weights, 1) and isinstance(intercept, int | float | np.floating) else None


def _logistic(init: Any) -> int | None:
    """One for each class, where each class has a row of coefficients and an intercept, or two share one."""
    weights, intercept = vars(init)["coef_"], vars(init)["intercept_"]
    has_method = _method(init, "decision_function") == f"{_LINEAR}._base.LinearClassifierMixin.decision_function"
    if not has_method or not _is_plain(weights, 2) or not _is_plain(intercept, 1) or len(weights) != len(intercept):
        return None
    return max(len(weights), 2)


def _is_one(number: Any) -> bool:
    return type(number) is int and number == 1


def _is_plain(values: Any, ndim: int) -> bool:
    return type(values) is np.ndarray and values.ndim == ndim and values.dtype.kind == "f" and len(values) > 0


_TOLD: dict[str, Callable[[Any], int | None]] = {
    "sklearn.dummy.DummyRegressor.predict": _constant,
    "sklearn.dummy.DummyClassifier.predict_proba": _prior,
    **{
        f"{_LINEAR}.{kind}.predict": _line
        for kind in (
            *("_base.LinearModel", "_base.MultiOutputLinearModel", "_ridge.Ridge", "_ridge.RidgeCV"),
            *("_bayes.BayesianRidge", "_bayes.ARDRegression"),
        )
    },
    f"{_LINEAR}._logistic.LogisticRegression.predict_proba": _logistic,
}
_told_by = _TOLD.get
