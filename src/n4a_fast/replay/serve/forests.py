"""Ensembles of trees without the cost of asking each tree politely.

An ensemble asks its trees one by one: each takes and gives the interpreter's lock, and waits for memory at each node.
A stand-in is a copy of the estimator in which the sum over the trees is a native call that adds them in the estimator's
own order, which gives the same bits; what is made of the sums stays the estimator's own code. Before its first use a
stand-in is compared with the estimator on rows like those at hand; one that differs, or is of another make, is not
used, nor is one asked about rows that are not finite: only then the checks that it leaves out find nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.linear_operators import public_name
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.replay_plan import ReplayPlan
from n4a_fast.replay.serve.boosters import quick_lightgbm, quick_xgboost
from n4a_fast.replay.serve.packed_trees import histogram_trees, packed, require_equal, scikit_learn_trees

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[Any]

_PROVED_ON = 8  # rows


def quick_forest(forest: Any, rows: Rows) -> Any:
    """A random forest, or one of extra trees, with the mean over its trees replaced."""
    trees = [tree.tree_ for tree in forest.estimators_]
    if forest.n_outputs_ != 1:
        raise ValueError("several targets")
    values = np.concatenate([tree.value[:, 0, :] for tree in trees])
    every = packed(scikit_learn_trees(trees), values, np.zeros(len(trees), np.int64))
    classifies = hasattr(forest, "predict_proba")

    def mean(X: Rows) -> Any:
        total = np.zeros((len(X), values.shape[1]))
        every.add(X, total)
        total /= len(trees)
        return total if classifies else total[:, 0]

    each = [tree.predict(rows).reshape(len(rows), -1) for tree in trees]  # a tenth of asking the forest
    expected = sum(each, np.zeros_like(each[0])) / len(trees)
    method = "predict_proba" if classifies else "predict"
    asked = getattr(forest.estimators_[0], method)(rows, check_input=False)
    require_equal(asked, each[0] if classifies else each[0][:, 0])
    require_equal(mean(rows), expected if classifies else expected[:, 0])
    quick = copy(forest)
    setattr(quick, method, mean)
    return quick


def quick_boosting(boosting: Any, rows: Rows) -> Any:
    """Gradient boosting, with the sum over its stages replaced."""
    stages, n_columns = boosting.estimators_.shape
    trees = [tree.tree_ for tree in boosting.estimators_.ravel()]
    values = np.concatenate([tree.value[:, 0, :] for tree in trees]) * boosting.learning_rate
    every = packed(scikit_learn_trees(trees), values, np.tile(np.arange(n_columns), stages))
    begin = boosting._raw_predict_init(rows[:1])
    same = isinstance(boosting.init_, str) or public_name(type(boosting.init_)).startswith("sklearn.dummy.")
    quick = copy(boosting)

    def raw_predict(X: Rows) -> Array:
        total = np.repeat(begin, len(X), axis=0) if same else np.ascontiguousarray(quick._raw_predict_init(X))
        every.add(X, total)
        return total

    def flat(X: Rows) -> Any:
        raw = raw_predict(X)
        return raw[:, 0] if n_columns == 1 else raw

    require_equal(raw_predict(rows), boosting._raw_predict(rows))
    setattr(quick, "decision_function" if hasattr(boosting, "decision_function") else "predict", flat)
    return quick


def quick_histogram_boosting(boosting: Any, rows: Rows) -> Any:
    """Histogram-based gradient boosting, with the sum over its iterations replaced."""
    nodes = [tree.nodes for iteration in boosting._predictors for tree in iteration]
    values = np.concatenate([each["value"] for each in nodes])[:, None]
    n_columns, begin = boosting.n_trees_per_iteration_, boosting._baseline_prediction
    if boosting._preprocessor is not None:
        raise ValueError("columns are encoded before the trees see them")
    every = packed(histogram_trees(nodes), values, np.tile(np.arange(n_columns), len(boosting._predictors)))
    quick = copy(boosting)

    def raw_predict(X: Rows) -> Array:
        total: Array = np.zeros((len(X), n_columns)) + begin
        every.add(X, total)
        return total

    require_equal(raw_predict(rows), boosting._raw_predict(rows))
    quick._raw_predict = raw_predict
    return quick


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a stand-in is made from an estimator and rows to prove it on; the precision in which its trees compare."""

    make: Callable[[Any, Rows], Any]
    dtype: type


_FOREST, _BOOSTING = _Kind(quick_forest, np.float32), _Kind(quick_boosting, np.float32)
_HISTOGRAM = _Kind(quick_histogram_boosting, np.float64)
_KINDS = {
    f"sklearn.ensemble.{name}{task}": kind
    for name, kind in (
        ("RandomForest", _FOREST),
        ("ExtraTrees", _FOREST),
        ("GradientBoosting", _BOOSTING),
        ("gradient_boosting.HistGradientBoosting", _HISTOGRAM),
    )
    for task in ("Regressor", "Classifier")
} | {
    f"{library}{task}": kind
    for library, kind in (
        ("lightgbm.sklearn.LGBM", _Kind(quick_lightgbm, np.float64)),
        ("xgboost.sklearn.XGB", _Kind(quick_xgboost, np.float32)),
        ("xgboost.sklearn.XGBRF", _Kind(quick_xgboost, np.float32)),
    )
    for task in ("Regressor", "Classifier")
}


class StandIns:
    """Proved stand-ins by estimator, for as long as that one lives; None where there is none."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def of(self, model: Any, rows: Rows) -> Any:
        """What answers for this model: the model itself where nothing else is sure to be equal."""
        if model not in self._made:
            try:
                self._made[model] = _KINDS[public_name(type(model))].make(model, _varied(rows[:_PROVED_ON]))
            except (AttributeError, LookupError, TypeError, ValueError):  # of another make
                self._made[model] = None
        made = self._made[model]
        return model if made is None else made


class RowsOfTrees:
    """Spectra as trees take them, made once for all who ask."""

    def __init__(self) -> None:
        self._made: dict[type, tuple[Array, Rows | None]] = {}

    def of(self, X: Array, dtype: type) -> Rows | None:
        """X in this precision; None if that has values that are not finite."""
        if dtype not in self._made or self._made[dtype][0] is not X:
            with np.errstate(over="ignore"):
                rows: Rows = np.ascontiguousarray(X, dtype=dtype)
            self._made[dtype] = X, rows if finite(rows) else None
        return self._made[dtype][1]


@dataclass(frozen=True, slots=True)
class QuickTrees:
    """Predicts as `model`, which it answers for; leaves the spectra as they are."""

    model: Any
    made: StandIns
    rows: RowsOfTrees = field(default_factory=RowsOfTrees)
    reads_only: ClassVar[bool] = True

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.model, name)
        return (lambda X: self._answer(name, X)) if name in ("predict", "predict_proba") else found

    def _answer(self, method: str, X: Array) -> Any:
        rows = self.rows.of(X, _KINDS[public_name(type(self.model))].dtype)
        if rows is None:
            return getattr(self.model, method)(X.copy())
        return getattr(self.made.of(self.model, rows), method)(rows)


def quickened(plan: ReplayPlan, made: StandIns, rows: RowsOfTrees | None = None) -> ReplayPlan:
    """The plan with stand-ins for its ensembles of trees; `rows` for plans whose models are given the same spectra."""
    rows = rows or RowsOfTrees()
    models: Mapping[str, Any] = {
        key: QuickTrees(model, made, rows) if is_ensemble(model) else model for key, model in plan.model.models.items()
    }
    return replace(plan, model=replace(plan.model, models=MappingProxyType(models)))


def is_ensemble(model: Any) -> bool:
    """Whether a stand-in is known for this model."""
    return public_name(type(model)) in _KINDS and hasattr(model, "__sklearn_tags__")


def _varied(rows: Rows) -> Rows:
    """These rows, and others like them: of one alone few ways down would be compared."""
    return np.concatenate([rows, rows * np.linspace(0.8, 1.2, rows.shape[1], dtype=rows.dtype), rows[:, ::-1]])
