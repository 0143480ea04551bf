"""Objects from outside, looked at before native code walks them: indices in range, no cycles, sizes that fit.

Classes whose methods hand arrays to C without a check of their own are listed with what must hold of their state.
Objects are only searched for where the file has named one of these classes. What is not sound is an UnpicklingError.
"""

from __future__ import annotations

import gc
import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from n4a_fast.artifacts.trust.makers import Makers

_NO_INSTANCES = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, np.ufunc, str, bytes)
_MT_LENGTH = 624


def require_sound(found: Any, makers: Makers) -> None:
    """UnpicklingError unless everything in `found` that native code will walk holds together."""
    makers.require_dtypes()
    for tree in makers.trees:
        _tree(tree)
    wanted = {name: check for name, check in _CHECKS.items() if name in makers.names}
    if wanted:
        for one in _objects(found):
            kind = type(one)
            check = wanted.get(f"{kind.__module__}.{kind.__qualname__}")
            if check is not None:
                _checked(check, one)


def _objects(root: Any) -> Iterator[Any]:
    """Everything that can be reached from an object, once."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        yield from waiting
        inside = gc.get_referents(*waiting)
        fresh = {id(one): one for one in inside if not isinstance(one, _NO_INSTANCES) and id(one) not in seen}
        seen.update(fresh)
        waiting = list(fresh.values())


def _checked(check: Callable[[Any], bool], one: Any) -> None:
    try:
        sound = check(one)
    except Exception as error:  # a state that lacks something, or holds something else
        raise pickle.UnpicklingError(f"a {type(one).__name__} is not whole ({error})") from error
    if not sound:
        raise pickle.UnpicklingError(f"a {type(one).__name__} has indices or sizes that do not fit")


def _tree(tree: Any) -> None:
    nodes = tree.__getstate__()
    left, right, feature = (nodes["nodes"][name] for name in ("left_child", "right_child", "feature"))
    at, inner = np.arange(len(left)), left >= 0
    sound = (
        nodes["node_count"] == len(left) >= 1
        and nodes["values"].shape[:2] == (len(left), tree.n_outputs)
        and bool((((left > at) & (right > at) & (left < len(at)) & (right < len(at))) | ~inner).all())
        and bool((((feature >= 0) & (feature < tree.n_features)) | ~inner).all())
    )
    if not sound:
        raise pickle.UnpicklingError("a tree has a child or a feature that is not there, or leads back to itself")


def _grown_by_histogram(predictor: Any) -> bool:
    nodes = predictor.nodes
    left, right, at = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), np.arange(len(nodes))
    inner = nodes["is_leaf"] == 0
    bits = (predictor.binned_left_cat_bitsets, predictor.raw_left_cat_bitsets)
    cuts = nodes["bitset_idx"][inner & (nodes["is_categorical"] != 0)]
    return bool(
        len(nodes) >= 1
        and nodes.ndim == 1
        and (((left > at) & (right > at) & (left < len(at)) & (right < len(at))) | ~inner).all()
        and all(one.ndim == 2 and one.shape[1] == 8 and one.dtype == np.uint32 for one in bits)
        and (cuts < min(map(len, bits))).all()
    )


def _boosted_by_histogram(model: Any) -> bool:
    predictors = [one for stage in vars(model).get("_predictors", ()) for one in stage]
    width = vars(model).get("_n_features", 0)
    return all(
        bool((one.nodes["feature_idx"][one.nodes["is_leaf"] == 0].astype(np.int64) < width).all()) for one in predictors
    )


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
        isinstance(degree, int | np.integer)
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
    if state["_sparse"] or not isinstance(state["kernel"], str):
        return False  # walks rows of a sparse matrix, or calls what it holds
    support, counts, weights = state["support_"], state["_n_support"], state["_dual_coef_"]
    vectors, intercept, kernel = state["support_vectors_"], state["_intercept_"], state["kernel"]
    classifies = type(model).__name__.endswith("SVC")
    classes = len(counts) if classifies else 2
    pairs = classes * (classes - 1) // 2
    return bool(
        kernel in ("linear", "poly", "rbf", "sigmoid", "precomputed")
        and support.dtype == counts.dtype == np.int32
        and support.ndim == counts.ndim == intercept.ndim == 1
        and vectors.dtype == weights.dtype == intercept.dtype == np.float64
        and vectors.ndim == weights.ndim == 2
        and classes >= 2
        and (counts >= 0).all()
        and (counts if classifies else counts[:1]).sum() == len(support)
        and weights.shape == (classes - 1, len(support))
        and (len(vectors) == len(support) or kernel == "precomputed")
        and len(intercept) == pairs
        and len(state["_probA"]) == len(state["_probB"])
        and len(state["_probA"]) in (0, 1, pairs)
        and (not len(support) or support.min() >= 0)
        and (kernel == "precomputed" or vectors.shape[1] == state["shape_fit_"][1])
    )


def _space_tree(tree: Any) -> bool:
    data, order, nodes, bounds, leaf_size, n_levels, n_nodes = tree.__getstate__()[:7]
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
    )


def _twister(generator: Any) -> bool:
    return 0 <= int(generator.state["state"]["pos"]) <= _MT_LENGTH


def _random_state(generator: Any) -> bool:
    state = generator.get_state(legacy=False)
    return state["bit_generator"] != "MT19937" or 0 <= int(state["state"]["pos"]) <= _MT_LENGTH


_SPARSE = {
    f"scipy.sparse._{kind}.{kind}_{what}": check
    for kind, check in (("csr", _compressed), ("csc", _compressed), ("coo", _coordinates))
    for what in ("matrix", "array")
}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **_SPARSE,
    **{f"sklearn.svm._classes.{name}": _support_vectors for name in ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")},
    **{f"sklearn.neighbors._kd_tree.{name}": _space_tree for name in ("KDTree", "KDTree32", "KDTree64")},
    **{f"sklearn.neighbors._ball_tree.{name}": _space_tree for name in ("BallTree", "BallTree32", "BallTree64")},
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _grown_by_histogram,
    **{
        f"sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoosting{name}": _boosted_by_histogram
        for name in ("Classifier", "Regressor")
    },
    "scipy.interpolate._bsplines.BSpline": _spline,
    "numpy.random._mt19937.MT19937": _twister,
    "numpy.random.mtrand.RandomState": _random_state,
}
