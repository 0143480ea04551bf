"""Boosted trees of lightgbm and xgboost: stand-ins for their boosters, the estimators' own code around them.

Both give their trees as text. A stand-in sums them natively in the order of the library, lightgbm's in double and
xgboost's in single precision, and makes predictions of the sums as the library does. ValueError for what is walked
otherwise: categories, linear leaves, zeros as missing values, dropped trees, leaves of several targets, early stops.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from n4a_fast.replay.serve.packed_trees import Links, PackedTrees, packed, require_equal

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[Any]

_CATEGORICAL, _MISSING, _ZERO_IS_MISSING = 1, 0b1100, 0b0100  # bits of lightgbm's decision_type
_NOTHING = float(np.float32(1e-35))
_LARGEST = math.log(sys.float_info.max)


def quick_lightgbm(model: Any, rows: Rows) -> Any:
    """An estimator of lightgbm with its booster replaced."""
    own = inspect.signature(type(model).__init__).parameters
    if any("pred" in name for name in model.get_params() if name not in own):
        raise ValueError("predictions have parameters of their own")
    head, *trees = model.booster_.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    told = _told(head)
    columns = int(told["num_tree_per_iteration"])
    nodes = [_lightgbm_tree(_told(tree)) for tree in trees]
    every = packed(
        _links(nodes), np.concatenate(nodes)["value"][:, None], np.tile(np.arange(columns), len(trees) // columns)
    )
    rounds = len(trees) // columns if "average_output" in told else 1
    quick = copy(model)
    quick._Booster = _LightGBM(every, columns, int(told["max_feature_idx"]) + 1, rounds, _answer(told["objective"]))
    return _proved(model, quick, rows)


def _links(nodes: list[NDArray[np.void]]) -> Links:
    every = np.concatenate(nodes)
    left, right, leaf, feature, threshold = (every[name] for name in ("left", "right", "leaf", "feature", "threshold"))
    return Links(left, right, leaf, feature, threshold, np.array([len(each) for each in nodes]))


def _told(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


_NODE = np.dtype(
    [("left", int), ("right", int), ("leaf", bool), ("feature", int), ("threshold", float), ("value", float)]
)


def _lightgbm_tree(told: Mapping[str, str]) -> NDArray[np.void]:
    """The splits of a tree and its leaves behind them; a leaf is told as -1 - its number."""
    given = {name: np.array(told.get(name, "").split(), float) for name in _SPLITS}
    kinds = given["decision_type"].astype(int)
    if told["is_linear"] != "0" or (kinds & _CATEGORICAL).any() or ((kinds & _MISSING) == _ZERO_IS_MISSING).any():
        raise ValueError("its trees compare or give something else than numbers")
    count, leaves = len(kinds), np.array(told["leaf_value"].split(), float)
    nodes = np.zeros(count + len(leaves), _NODE)
    for name in ("left", "right"):
        child = given[f"{name}_child"].astype(int)
        nodes[name][:count] = np.where(child < 0, count - 1 - child, child)
    nodes["feature"][:count], nodes["threshold"][:count] = given["split_feature"], _among(given["threshold"])
    nodes["value"][count:], nodes["leaf"][count:] = leaves, True
    return nodes


_SPLITS = ("left_child", "right_child", "split_feature", "threshold", "decision_type")


def _among(thresholds: Array) -> Array:
    """Thresholds that divide as these do once numbers of at most `_NOTHING` are taken as zero, which lightgbm does."""
    below, above = (thresholds >= -_NOTHING) & (thresholds < 0), (thresholds >= 0) & (thresholds < _NOTHING)
    return np.where(below, np.nextafter(-_NOTHING, -np.inf), np.where(above, _NOTHING, thresholds))


def _answer(objective: str) -> Callable[[Array], Array]:
    """What lightgbm makes of the sums (n, columns) for an objective."""
    name, *given = objective.split()
    parameters = dict(one.split(":") for one in given if ":" in one)
    if name in _IDENTITIES:
        return _signed_squares if "sqrt" in given else lambda sums: sums
    if name in ("poisson", "gamma", "tweedie"):
        return _exp
    if name in ("binary", "multiclassova", "cross_entropy"):
        return partial(_logistic, float(parameters.get("sigmoid", 1.0)))
    if name == "multiclass":
        return _softmax
    raise ValueError(f"what {name} makes of its sums is not known")


_IDENTITIES = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")


def _signed_squares(sums: Array) -> Array:
    return np.sign(sums) * sums * sums


def _logistic(slope: float, sums: Array) -> Array:
    return 1.0 / (1.0 + _exp(-slope * sums))


def _softmax(sums: Array) -> Array:
    powers = _exp(sums - sums.max(axis=1, keepdims=True))
    total = np.zeros(len(powers))
    for column in powers.T:  # one after the other, as a sum over an axis need not be
        total += column
    return powers / total[:, None]


def _exp(values: Array) -> Array:
    """The exponential of the C library: numpy's has other last bits."""
    powers = np.fromiter(map(math.exp, np.minimum(values, _LARGEST).flat), np.float64, values.size)
    return np.where(values > _LARGEST, np.inf, powers.reshape(values.shape))


@dataclass(frozen=True, slots=True)
class _LightGBM:
    """Stands in for a `lightgbm.Booster`."""

    trees: PackedTrees
    columns: int
    width: int
    rounds: int  # over which sums are averaged
    answer: Callable[[Array], Array]

    def predict(self, X: Rows, **_: Any) -> Array:
        _require_width(X, self.width)
        total = np.zeros((len(X), self.columns))
        self.trees.add(np.ascontiguousarray(X, dtype=np.float64), total)
        found = self.answer(total / self.rounds)
        return found[:, 0] if self.columns == 1 else found


def quick_xgboost(model: Any, rows: Rows) -> Any:
    """An estimator of xgboost with its booster replaced."""
    booster = model.get_booster()
    told = orjson.loads(bytes(booster.save_raw("json")))
    learner, made = told["learner"], told["learner"]["gradient_booster"]
    forest = made.get("model", {})
    if made["name"] != "gbtree" or forest.keys() - _SUMMED:
        raise ValueError("its trees are weighted, or there is more to its sums than trees")
    if not np.isnan(model.missing) or str(model.device or "cpu") != "cpu":
        raise ValueError("its trees take numbers as missing, or lie on another device")
    rounds, width = model._get_iteration_range(None), int(learner["learner_model_param"]["num_feature"])
    count = forest["iteration_indptr"][rounds[1] or -1]
    nodes = [_xgboost_tree(tree) for tree in forest["trees"][:count]]
    every = packed(_links(nodes), np.concatenate(nodes)["value"][:, None], np.array(forest["tree_info"][:count]))
    forest |= {"trees": [], "tree_info": [], "iteration_indptr": [0]}
    forest["gbtree_model_param"]["num_trees"] = "0"
    # without trees a base score is one that is still to be estimated, unless it is said not to be
    learner["learner_model_param"] |= {"num_feature": "1", "boost_from_average": "0"}
    learner |= {"feature_names": [], "feature_types": []}
    ends = type(booster)({"nthread": 1}, model_file=bytearray(orjson.dumps(told)))
    begin = ends.inplace_predict(np.zeros((1, 1), np.float32), predict_type="margin")
    quick = copy(model)
    quick._Booster = _XGBoost(booster, every, width, rounds, ends, begin)
    return _proved(model, quick, rows)


# of a booster whose predictions are sums of leaves; from 3.4 on, one with dropped trees has their weights beside these
_SUMMED = frozenset({"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"})


def _xgboost_tree(told: Mapping[str, Any]) -> NDArray[np.void]:
    """A row less than a threshold, in single precision, goes to the left: one of at most the number before it."""
    if any(told["split_type"]) or told["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise ValueError("its trees compare categories or have leaves of several targets")
    nodes, number = np.zeros(len(told["left_children"]), _NODE), np.array(told["split_conditions"], np.float32)
    nodes["left"], nodes["right"] = told["left_children"], told["right_children"]
    nodes["leaf"], nodes["feature"] = nodes["left"] < 0, told["split_indices"]
    nodes["threshold"] = np.nextafter(number, np.float32(-np.inf))
    nodes["value"] = np.where(nodes["leaf"], number, 0)
    return nodes


@dataclass(frozen=True, slots=True)
class _XGBoost:
    """Stands in for `booster`; `ends` is one without trees, of one column, which knows the objective."""

    booster: Any
    trees: PackedTrees
    width: int
    rounds: tuple[int, int]
    ends: Any
    begin: NDArray[np.float32]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.booster, name)

    def inplace_predict(self, data: Rows, iteration_range: tuple[int, int], predict_type: str, **_: Any) -> Any:
        _require_width(data, self.width)
        if iteration_range != self.rounds:
            raise ValueError(f"asked for rounds {iteration_range}, made of {self.rounds}")
        total = np.repeat(self.begin.reshape(1, -1).astype(np.float64), len(data), axis=0)
        self.trees.add(np.ascontiguousarray(data, dtype=np.float32), total, single=True)
        margin = total.astype(np.float32).reshape(len(data), *self.begin.shape[1:])
        nothing = np.zeros((len(data), 1), np.float32)
        return self.ends.inplace_predict(nothing, base_margin=margin, predict_type=predict_type)


def _require_width(rows: Rows, width: int) -> None:
    if rows.shape[1] != width:
        raise ValueError(f"the spectra have {rows.shape[1]} columns, the model was fitted on {width}")


def _proved(model: Any, quick: Any, rows: Rows) -> Any:
    """The stand-in, if it answers as the estimator does."""
    method = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    require_equal(getattr(quick, method)(rows), getattr(model, method)(rows))
    return quick
