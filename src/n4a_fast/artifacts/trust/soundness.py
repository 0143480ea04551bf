"""Objects from outside, looked at before native code walks them: indices in range, no cycles, sizes that fit.

Classes whose methods hand arrays to C without a check of their own are listed with what must hold of their state.
Objects are only searched for where the file has named one of these classes. What is not sound is an UnpicklingError.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from n4a_fast._native.kernels import grown_trees_need, trees_are_sound
from n4a_fast._native.references import reachable
from n4a_fast.artifacts.trust import generators
from n4a_fast.artifacts.trust.first_guesses import columns_of, hides_methods
from n4a_fast.artifacts.trust.makers import Makers

# hold nothing that was in the file
_ATOMS = frozenset(
    {type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.NoneType}
    | {np.ufunc, str, bytes, int, float, bool}
)
_INTEGERS = (int, np.integer)
_ENTERED, _WANTED, _MAY_HOLD_OBJECTS = 1, 2, 4  # of the search
_LINKS = ("left_child", "right_child", "feature")
_GROWN = [
    *((name, np.dtype(np.uint32)) for name in ("left", "right")),
    *((name, np.dtype(np.uint8)) for name in ("is_leaf", "is_categorical")),
    ("bitset_idx", np.dtype(np.uint32)),
    ("feature_idx", np.dtype(np.int64)),
]
_LINKS_FIRST = [(np.dtype(np.int64), offset) for offset in (0, 8, 16)]


def require_sound(found: Any, makers: Makers) -> None:
    """UnpicklingError unless everything in `found` that native code will walk holds together."""
    if makers.trees:
        _checked(_trees, makers.trees)
    if makers.trees or not makers.names.isdisjoint(_MAKES_CHECKED) or any(map(_is_checked, makers.kinds)):
        by_kind: dict[Any, list[Any]] = {}
        for one in reachable(found, _kind_of):
            by_kind.setdefault(type(one), []).append(one)
        for kind, ones in by_kind.items():
            left = [*{*ones} - makers.generators] if kind in generators.KINDS else ones
            if left and (check := _check_of(kind)) is not None:
                _checked(check, left)


def _every(check: Callable[[Any], bool], ones: list[Any]) -> bool:
    return all(map(check, ones))


@lru_cache(maxsize=1024)
def _kind_of(kind: Any) -> int:
    """What the search for objects with a check does with those of a class."""
    if kind in _ATOMS or issubclass(kind, type):
        return 0
    wanted = _WANTED if _check_of(kind) is not None else 0
    return _ENTERED | wanted | (_MAY_HOLD_OBJECTS if issubclass(kind, np.ndarray) else 0)


def _is_checked(kind: Any) -> bool:
    return isinstance(kind, type) and _check_of(kind) is not None


@lru_cache(maxsize=1024)
def _check_of(kind: type) -> Callable[[list[Any]], bool] | None:
    """The check of objects of a class, by that or by one that it is made from."""
    return next((_CHECKS[name] for name in map(_name, kind.__mro__) if name in _CHECKS), None)


def _checked(check: Callable[[list[Any]], bool], ones: list[Any]) -> None:
    """All objects of a class at once."""
    name = type(ones[0]).__name__
    try:
        sound = check(ones)
    except Exception as error:  # a state that lacks something, or holds something else
        raise pickle.UnpicklingError(f"a {name} is not whole ({error})") from error
    if not sound:
        raise pickle.UnpicklingError(f"a {name} has indices or sizes that do not fit")


def _trees(trees: list[Any]) -> bool:
    """All trees of a file at once: a forest has hundreds, and a call of numpy costs as much as a small one."""
    nodes = []
    for tree in trees:
        if not 1 <= tree.node_count <= tree.capacity:  # before anything reads the nodes
            return False
        nodes.append(tree.__getstate__()["nodes"])
    stride = nodes[0].dtype.itemsize
    if [nodes[0].dtype.fields[name][:2] for name in _LINKS] != _LINKS_FIRST:  # another release of scikit-learn
        nodes, stride = [np.stack([one[name] for name in _LINKS], axis=1, dtype=np.int64) for one in nodes], 24
    return trees_are_sound(nodes, [tree.n_features for tree in trees], stride)


def _tree_models(models: list[Any]) -> bool:
    """A tree is handed rows as wide as its model says, and does not look at their width."""
    for state in map(vars, models):
        if "_validate_X_predict" in state:
            return False
        if (tree := state.get("tree_")) is not None:
            width = state.get("n_features_in_")
            if not isinstance(width, _INTEGERS) or width != tree.n_features:
                return False
    return True


def _boosted(model: Any) -> bool:
    state = vars(model)
    if "estimators_" not in state:
        return True  # not fitted
    stages = state["estimators_"]
    if not isinstance(stages, np.ndarray) or stages.ndim != 2:
        return False
    models = stages.ravel().tolist()
    if not all(_check_of(kind) is _tree_models for kind in set(map(type, models))):
        return False
    if hides_methods(model):
        return False
    return len({one.tree_.n_features for one in models}) == 1 and stages.shape[1] <= columns_of(model)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _grown_by_histogram(predictors: list[Any]) -> bool:
    return not predictors or _features_needed(predictors) >= 0


def _features_needed(predictors: list[Any]) -> int:
    """By all trees of a file at once, since it has hundreds of small ones; -1 where they are not sound."""
    nodes = [one.nodes for one in predictors]
    if any(one.ndim != 1 or one.dtype != nodes[0].dtype for one in nodes):
        return -1
    fields = nodes[0].dtype.fields
    if [fields[name][0] for name, _ in _GROWN] != [dtype for _, dtype in _GROWN]:  # another release of scikit-learn
        nodes = [_as_grown(one) for one in nodes]
        fields = nodes[0].dtype.fields
    bits = [(one.binned_left_cat_bitsets, one.raw_left_cat_bitsets) for one in predictors]
    return grown_trees_need(nodes, bits, (nodes[0].dtype.itemsize, *(fields[name][1] for name, _ in _GROWN)))


def _as_grown(nodes: Any) -> Any:
    made = np.zeros(len(nodes), _GROWN)
    for name, dtype in _GROWN:
        made[name] = nodes[name].astype(dtype)
    return made


def _boosted_by_histogram(model: Any) -> bool:
    """Rows are as wide as the model says, where no preprocessor makes others of them: that one and its categories come
    with a function that calls others, and is not on the list.
    """
    state = vars(model)
    trees, width = [one for stage in state.get("_predictors", ()) for one in stage], state.get("n_features_in_")
    if not trees:
        return True  # not fitted
    if hides_methods(model) or "_in_fit" in state or state.get("_preprocessor") is not None:
        return False
    if any(len(one.raw_left_cat_bitsets) for one in trees):
        return False
    return isinstance(width, _INTEGERS) and bool(0 <= _features_needed(trees) <= width)


def _compressed(matrix: Any) -> bool:
    rows, columns = matrix.shape
    length, width = (rows, columns) if matrix.format == "csr" else (columns, rows)
    starts, indices, data = matrix.indptr, matrix.indices, matrix.data
    return bool(
        all(isinstance(one, np.ndarray) and one.ndim == 1 for one in (starts, indices, data))
        and starts.dtype.kind == indices.dtype.kind == "i"
        and data.dtype.kind in "biufc"
        and len(starts) == length + 1
        and starts[0] == 0
        and (np.diff(starts) >= 0).all()
        and starts[-1] <= len(indices)
        and len(indices) == len(data)
        and (not len(indices) or 0 <= indices.min() <= indices.max() < width)
    )


def _coordinates(matrix: Any) -> bool:
    row, column = matrix.row, matrix.col
    return bool(
        len(row) == len(column) == len(matrix.data)
        and row.dtype.kind == column.dtype.kind == "i"
        and (not len(row) or (0 <= row.min() <= row.max() < matrix.shape[0]))
        and (not len(row) or (0 <= column.min() <= column.max() < matrix.shape[1]))
    )


def _spline(spline: Any) -> bool:
    knots, coefficients, degree = spline.t, spline.c, spline.k
    return bool(
        isinstance(degree, _INTEGERS)
        and 0 <= degree <= 64
        and knots.ndim == 1
        and knots.dtype == coefficients.dtype == np.float64
        and len(knots) >= 2 * (degree + 1)
        and coefficients.ndim >= 1
        and len(coefficients) >= len(knots) - degree - 1
        and (np.diff(knots) >= 0).all()
    )


def _support_vectors(model: Any) -> bool:
    state = vars(model)
    if "support_" not in state:
        return True  # not fitted
    if state["_sparse"] or not isinstance(state["kernel"], str) or hides_methods(model):
        return False  # walks rows of a sparse matrix, or calls what it holds
    support, counts, weights = state["support_"], state["_n_support"], state["_dual_coef_"]
    vectors, intercept, kernel = state["support_vectors_"], state["_intercept_"], state["kernel"]
    classifies = type(model).__name__.endswith("SVC")
    classes = len(counts) if classifies else 2
    pairs, (rows, width) = classes * (classes - 1) // 2, state["shape_fit_"]
    return bool(
        kernel in ("linear", "poly", "rbf", "sigmoid", "precomputed")
        and support.dtype == counts.dtype == np.int32
        and support.ndim == counts.ndim == intercept.ndim == 1
        and vectors.dtype == weights.dtype == intercept.dtype == np.float64
        and vectors.ndim == weights.ndim == 2
        and classes >= 2
        and len(counts) >= 2
        and (counts >= 0).all()
        and (counts if classifies else counts[:1]).sum() == len(support)
        and weights.shape == (classes - 1, len(support))
        and (len(vectors) == len(support) or kernel == "precomputed")
        and len(intercept) == pairs
        and len(state["_probA"]) == len(state["_probB"])
        and len(state["_probA"]) in (0, 1, pairs)
        and isinstance(rows, _INTEGERS)
        and (not len(support) or 0 <= support.min() <= support.max() < rows)  # places in a kernel that is given
        and (kernel == "precomputed" or vectors.shape[1] == width)
    )


def _neighbors(model: Any) -> bool:
    """Distances are taken over as many columns as the rows that are asked about have."""
    state = vars(model)
    if "_fit_X" not in state:
        return True  # not fitted
    (rows, columns), width = state["_fit_X"].shape, state["n_features_in_"]
    inverse = (state.get("effective_metric_params_") or {}).get("VI")
    return (
        isinstance(width, _INTEGERS)
        and bool(columns == width and rows == state["n_samples_fit_"])
        and (inverse is None or inverse.shape == (width, width))
        and not hides_methods(model)
    )


def _covariance(model: Any) -> bool:
    """The same of Mahalanobis' distances: their matrix has a row and a column for each."""
    state = vars(model)
    matrices = [state[name] for name in ("covariance_", "precision_") if state.get(name) is not None]
    if not matrices:
        return True  # not fitted
    width = state["n_features_in_"]
    squares = all(matrix.shape == (width, width) for matrix in matrices)
    return isinstance(width, _INTEGERS) and squares and not hides_methods(model)


def _space_tree(tree: Any) -> bool:
    data, order, nodes, bounds, leaf_size, n_levels, n_nodes, *_, distance, weights = tree.__getstate__()
    starts, ends, at = nodes["idx_start"], nodes["idx_end"], np.arange(len(nodes))
    inner = nodes["is_leaf"] == 0
    return bool(
        data.ndim == 2
        and len(order) == len(data) >= 1
        and np.array_equal(np.sort(order), np.arange(len(data)))
        and leaf_size >= 1
        and 1 <= n_levels <= 40
        and len(nodes) == n_nodes == 2**n_levels - 1
        and (starts >= 0).all()
        and (starts <= ends).all()
        and (ends <= len(data)).all()
        and (2 * at[inner] + 2 < len(nodes)).all()
        and bounds.ndim == 3
        and bounds.shape[1:] == (len(nodes), data.shape[1])
        and distance is not None
        and (weights is None or weights.shape == (len(data),))
    )


def _bit_generator(generator: Any) -> bool:
    return generators.is_in_range(generator.state)


_SPARSE = {
    f"scipy.sparse._{kind}.{kind}_{what}": check
    for kind, check in (("csr", _compressed), ("csc", _compressed), ("coo", _coordinates))
    for what in ("matrix", "array")
}
_CHECKS: dict[str, Callable[[list[Any]], bool]] = {
    **{name: partial(_every, check) for name, check in _SPARSE.items()},
    **{
        f"sklearn.svm._classes.{name}": partial(_every, _support_vectors)
        for name in ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")
    },
    **{
        f"sklearn.neighbors._kd_tree.{name}": partial(_every, _space_tree)
        for name in ("KDTree", "KDTree32", "KDTree64")
    },
    **{
        f"sklearn.neighbors._ball_tree.{name}": partial(_every, _space_tree)
        for name in ("BallTree", "BallTree32", "BallTree64")
    },
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _grown_by_histogram,
    **{
        f"sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoosting{name}": partial(
            _every, _boosted_by_histogram
        )
        for name in ("Classifier", "Regressor")
    },
    "sklearn.tree._classes.BaseDecisionTree": _tree_models,
    "sklearn.neighbors._base.NeighborsBase": partial(_every, _neighbors),
    "sklearn.covariance._empirical_covariance.EmpiricalCovariance": partial(_every, _covariance),
    "sklearn.ensemble._gb.BaseGradientBoosting": partial(_every, _boosted),
    "scipy.interpolate._bsplines.BSpline": partial(_every, _spline),
    "scipy.interpolate._bsplines._BSpline": partial(_every, _spline),
    "numpy.random._mt19937.MT19937": partial(_every, _bit_generator),
    "numpy.random._philox.Philox": partial(_every, _bit_generator),
}
# functions that make objects of a class with a check, which the file need not name
_MAKES_CHECKED = frozenset(
    {f"numpy.random._pickle.{name}" for name in ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor")}
)
