"""Forests of regression trees without the cost of asking each tree politely.

A forest's `predict` hands its trees to threads one by one, and each of its trees takes and gives the
interpreter's lock, so that threads wait for each other. `quickened` puts a stand-in before exactly
those forest classes that sums its trees in order in one native call, which gives the same bits; it
compares one tree first, and falls back to the forest wherever it is not sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast._native import kernels
from n4a_fast.replay.fused.linear_operators import public_name
from n4a_fast.replay.plan.replay_plan import ReplayPlan

Array: TypeAlias = NDArray[np.float64]

_FORESTS = ("sklearn.ensemble.RandomForestRegressor", "sklearn.ensemble.ExtraTreesRegressor")


class _Rows:
    """Spectra as trees take them, made once for all folds."""

    def __init__(self) -> None:
        self._made: tuple[Array, NDArray[np.float32] | None] | None = None

    def of(self, X: Array) -> NDArray[np.float32] | None:
        """X in single precision; None if that has values that are not finite."""
        if self._made is None or self._made[0] is not X:
            with np.errstate(over="ignore"):
                rows = X.astype(np.float32)
            self._made = X, rows if np.isfinite(rows).all() else None
        return self._made[1]


@dataclass(frozen=True, slots=True)
class QuickForest:
    """Predicts as `forest`, which it answers for; leaves the spectra as they are."""

    forest: Any
    rows: _Rows = field(default_factory=_Rows)
    reads_only: ClassVar[bool] = True

    @property
    def n_features_in_(self) -> int:
        return int(self.forest.n_features_in_)

    def __sklearn_tags__(self) -> Any:
        return self.forest.__sklearn_tags__()

    def predict(self, X: Array) -> Any:
        """The mean of the trees' predictions; (n,)."""
        rows = self.rows.of(X)
        if self.forest.n_outputs_ != 1 or rows is None:
            return self.forest.predict(X.copy())
        try:
            nodes, roots = _merged(self.forest.estimators_)
            first = self.forest.estimators_[0].predict(X[:2])  # one tree: each call hands the interpreter's lock over
            known = np.array_equal(first, kernels.forest_sum(nodes, roots[:1], rows[:2]))
        except (AttributeError, ValueError):  # trees of another make
            known = False
        return (
            kernels.forest_sum(nodes, roots, rows) / len(self.forest.estimators_)
            if known
            else self.forest.predict(X.copy())
        )


def _merged(trees: Sequence[Any]) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """The nodes of all trees in one array, and where each tree begins."""
    parts = [tree.tree_ for tree in trees]
    sizes = np.array([part.node_count for part in parts])
    roots = np.cumsum(sizes) - sizes
    nodes = kernels.new_nodes(int(sizes.sum()))
    nodes["threshold"] = np.concatenate([part.threshold for part in parts])
    nodes["value"] = np.concatenate([part.value for part in parts])[:, 0, 0]
    left, right = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("children_left", "children_right")
    )
    own, shift, leaf = np.arange(len(nodes)), np.repeat(roots, sizes), left < 0
    nodes["feature"] = np.where(leaf, 0, np.concatenate([part.feature for part in parts]))
    nodes["children"] = np.stack([np.where(leaf, own, left + shift), np.where(leaf, own, right + shift)], axis=1)
    return nodes, roots.astype(np.int32)


def quickened(plan: ReplayPlan) -> ReplayPlan:
    """The plan with stand-ins for its forests."""
    rows = _Rows()
    models: Mapping[str, Any] = {
        key: QuickForest(model, rows) if is_forest(model) else model for key, model in plan.model.models.items()
    }
    return replace(plan, model=replace(plan.model, models=MappingProxyType(models)))


def is_forest(model: Any) -> bool:
    """Whether a stand-in is known for this model."""
    return public_name(type(model)) in _FORESTS and hasattr(model, "__sklearn_tags__")
