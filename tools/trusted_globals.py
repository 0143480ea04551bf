"""Writes `src/n4a_fast/artifacts/trust/trusted_globals.txt`: what a pickle of a well-known estimator may import.

    python tools/trusted_globals.py            # where scikit-learn, chemotools, nirs4all and the boosters are installed
    python tools/trusted_globals.py --review   # fits nothing, after REVIEWED has changed
    python tools/trusted_globals.py --check    # says what the installed versions need that the list has not

Public estimators are fitted on toy sets and pickled; what their pickles import is listed, by exact name. A class is
listed only if everything that runs when it is unpickled was read: `REVIEWED` holds the methods that pickle calls by
itself, with what they reach. What was found and is left out is written too, with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import pickle
import pkgutil
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LIST = Path(__file__).parents[1] / "src" / "n4a_fast" / "artifacts" / "trust" / "trusted_globals.txt"
PACKAGES = ("sklearn", "chemotools", "nirs4all.operators", "lightgbm.sklearn", "xgboost.sklearn", "catboost")

# What pickle calls by itself, and what it reaches. A class with one that is not here is left out.
REVIEWED = {
    "sklearn.base.BaseEstimator.__setstate__": "compares the version that was noted, warns, fills __dict__",
    "sklearn.base.BaseEstimator.__getstate__": "runs when saved",
    "sklearn.utils._bunch.Bunch.__setstate__": "does nothing",
    "sklearn.utils._bunch.Bunch.__getattr__": "looks into its own items",
    "sklearn.utils._bunch.Bunch.__setattr__": "sets its own items",
    "xgboost.core.Booster.__setstate__": "hands the bytes of a model to XGBoost, which checks their form",
    "xgboost.core.Booster.__del__": "frees the handle that __setstate__ has made",
    "xgboost.sklearn.XGBModel.__getattr__": "looks into its own __dict__",
    "lightgbm.basic.Booster.__setstate__": "hands the text of a model to LightGBM, which checks its form",
    "lightgbm.basic.Booster.__del__": "frees the handle that __setstate__ has made",
    "lightgbm.sklearn.LGBMModel.__sklearn_is_fitted__": "looks into its own __dict__",
    "catboost.core._CatBoostBase.__setstate__": "hands the bytes of a model to CatBoost, which checks their form",
    "catboost.core._CatBoostBase.__getstate__": "runs when saved",
    "catboost.core._CatBoostBase.__eq__": "compares the saved forms of two models",
    "sklearn.neighbors._base.NeighborsBase.__setstate__": "fills __dict__",
    "numpy.ma.core.MaskedArray.__setstate__": "fills the array and its mask",
    "numpy.ma.MaskedArray.__setstate__": "fills the array and its mask",
    "scipy.interpolate._interpolate.interp1d.__setattr__": "sets its own attributes",
    "scipy.sparse._coo.coo_matrix.__setstate__": "fills __dict__; what it holds is checked when all is loaded",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor.__setstate__": "fills __dict__, casts its nodes",
    "sklearn.frozen._frozen.FrozenEstimator.__getattr__": "asks the estimator that it holds",
    "sklearn.isotonic.IsotonicRegression.__setstate__": "fills __dict__, makes an interpolation of its numbers",
    "sklearn.linear_model._passive_aggressive.PassiveAggressiveClassifier.__new__": "warns",
    "sklearn.linear_model._passive_aggressive.PassiveAggressiveRegressor.__new__": "warns",
    "sklearn.utils._metadata_requests.MetadataRequest.__getattr__": "looks into its own items",
    "nirs4all.operators.models.multimodal.MultimodalClassifier.__setstate__": "fills __dict__",
    "nirs4all.operators.models.multimodal.MultimodalRegressor.__setstate__": "fills __dict__",
    "nirs4all.data.signal_type.SignalType.__new__": "looks a name up among its own",
}
# All of these fill __dict__ and give attributes the names that newer versions have.
REVIEWED_PACKAGES = {"chemotools": ("__setstate__",)}
# Functions and classes that pickle must be able to call: what is made by them, and that it is values alone.
CALLED = {
    "builtins.bytearray": "bytes",
    "builtins.complex": "a number",
    "builtins.frozenset": "a set of values",
    "builtins.range": "a range",
    "builtins.set": "a set of values",
    "builtins.slice": "a slice",
    "collections.Counter": "a dict of counts",
    "collections.OrderedDict": "a dict",
    "collections.defaultdict": "a dict; its maker is on this list itself and is called without arguments",
    "collections.deque": "a list of values",
    "copyreg._reconstructor": "an object made empty by the __new__ of a class that is on this list",
    "_codecs.encode": "bytes; the codecs that turn text into text refuse it",
    "datetime.date": "a date",
    "datetime.datetime": "a moment",
    "datetime.time": "a time",
    "datetime.timedelta": "a span of time",
    "datetime.timezone": "a zone",
    "decimal.Decimal": "a number",
    "numpy.dtype": "a type of values; objects hidden in it are looked for when all is loaded",
    "numpy._core.multiarray._reconstruct": "an empty array",
    "numpy.core.multiarray._reconstruct": "the same in numpy 1",
    "numpy._core.multiarray.scalar": "a number",
    "numpy.core.multiarray.scalar": "the same in numpy 1",
    "numpy._core.numeric._frombuffer": "an array; numpy refuses objects",
    "numpy.core.numeric._frombuffer": "the same in numpy 1",
    "numpy.ma.core._mareconstruct": "an empty masked array",
    "numpy.random._pickle.__generator_ctor": "a generator; only numpy's own kinds by name",
    "numpy.random._pickle.__bit_generator_ctor": "the same",
    "numpy.random._pickle.__randomstate_ctor": "the same",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": "a seed",
    "sklearn.tree._tree.Tree": "an empty tree; sizes are checked before, nodes when all is loaded",
    "sklearn.neighbors._kd_tree.newObj": "an empty tree; checked when all is loaded",
    "sklearn.neighbors._ball_tree.newObj": "the same",
    "sklearn.metrics._dist_metrics.newObj": "an empty distance",
}
CALLED_MODULES = ("sklearn._loss._loss", "sklearn.linear_model._sgd_fast")
# Found, and left out.
REFUSED = {
    "scipy.stats": "distributions run texts of their state (a search over random parameters holds them)",
    "scipy.interpolate._fitpack2": "splines of FITPACK walk what their state says in Fortran, without a check",
    "builtins.getattr": "gives anything of an object",
    "catboost.hnsw": "maps files",
    "functools.partial": "calls what it is given",
    "joblib.memory": "opens files",
    "sklearn.utils._repr_html": "opens files",
    "pandas": "its blocks hand their state to C; frames are no estimators",
    "torch": "opens files and runs code",
    "tensorflow": "opens files and runs code",
    "keras": "opens files and runs code",
    "cloudpickle": "makes functions out of code",
    "types": "makes functions and modules",
    "pathlib": "names files",
}
_ROOTS = (
    "sklearn",
    "chemotools",
    "nirs4all",
    "numpy",
    "scipy",
    "lightgbm",
    "xgboost",
    "catboost",
    "builtins",
    "collections",
)
_AUTOMATIC = (
    "__new__",
    "__setstate__",
    "__setattr__",
    "__getattr__",
    "__getattribute__",
    "__del__",
    "__hash__",
    "__eq__",
)
_PLAIN = ("builtins", "object")


class Names(pickle.Unpickler):
    """Notes every global while it loads what was pickled here."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        self.names[f"{module}.{name}"] = found
        return found


def estimators(package: str) -> Iterator[type]:
    """Public estimator classes of a package and of what lies below it."""
    if package == "sklearn":
        from sklearn.utils import all_estimators

        yield from (kind for _, kind in all_estimators())
        return
    for module in _modules(package):
        for name, kind in vars(module).items():
            is_public = isinstance(kind, type) and not name.startswith("_")
            if is_public and kind.__module__.startswith(package.partition(".")[0]) and _is_estimator(kind):
                yield kind


def _is_estimator(kind: type) -> bool:
    return hasattr(kind, "fit") or hasattr(kind, "transform")


def _modules(package: str) -> Iterator[types.ModuleType]:
    try:
        found = importlib.import_module(package)
    except ImportError:
        return
    yield found
    for info in pkgutil.walk_packages(getattr(found, "__path__", ()), f"{package}."):
        if "test" not in info.name and not any(
            word in info.name for word in (".torch", ".tensorflow", ".jax", ".keras", "widget")
        ):
            try:
                yield importlib.import_module(info.name)
            except Exception:  # an optional package that is missing
                continue


def fitted(kind: type) -> Iterator[Any]:
    """Estimators of a class, fitted on sets of every kind that it may want."""
    rng = np.random.default_rng(0)
    X = rng.random((40, 12)) + 0.1
    y = X[:, 0] * 2 + X[:, 1]
    classes, three = (y > y.mean()).astype(int), np.digitize(y, np.quantile(y, [0.3, 0.6]))
    texts = np.array(["a", "b", "c"])[three]
    targets = [y, classes, three, texts, np.column_stack([y, -y]), np.column_stack([classes, 1 - classes]), None]
    for made in instances(kind):
        for spectra in (X, X[:, :1].ravel(), np.arange(40.0)[:, None] + X[:, :1], ["a b", "c d"] * 20, X[:, :2] > 0.5):
            for target in targets:
                try:
                    one = _copied(made)
                    one.fit(spectra) if target is None else one.fit(spectra, target)
                    yield one
                except Exception:  # this kind of set is not for it
                    continue


def _copied(estimator: Any) -> Any:
    from sklearn.base import clone

    return clone(estimator)


def instances(kind: type) -> Iterator[Any]:
    """Unfitted estimators of a class; those that hold others are given simple ones."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import MinMaxScaler

    inner = {"estimator": Ridge(), "estimators": [("a", Ridge())], "base_estimator": Ridge(), "regressor": Ridge()}
    options: list[dict[str, Any]] = [{}]
    parameters = inspect.signature(kind).parameters
    for name, one in inner.items():
        if name in parameters:
            options += [
                {name: one},
                {name: LogisticRegression() if name != "estimators" else [("a", LogisticRegression())]},
            ]
    if "transformers" in parameters:
        options.append({"transformers": [("a", MinMaxScaler(), slice(0, 3))]})
    if "transformer_list" in parameters:
        options.append({"transformer_list": [("a", MinMaxScaler())]})
    if "steps" in parameters:
        options.append({"steps": [("a", MinMaxScaler()), ("b", Ridge())]})
    if "param_grid" in parameters:
        options.append({"estimator": Ridge(), "param_grid": {"alpha": [0.1, 1.0]}})
    if "param_distributions" in parameters:
        options.append({"estimator": Ridge(), "param_distributions": {"alpha": [0.1, 1.0]}, "n_iter": 2})
    for name, value in (("n_estimators", 3), ("iterations", 3), ("max_iter", 20)):
        if name in parameters:
            options = [{**option, name: value} for option in options]
    if kind.__module__.startswith("catboost"):
        options = (
            [{"iterations": 3, "verbose": False}] if "iterations" in parameters else [{"params": {"iterations": 3}}]
        )
    for extra in _EXTRA.get(kind.__name__, ()):
        options.append(extra)
    for option in options:
        try:
            yield kind(**option)
        except Exception:  # wants other arguments
            continue


def _extra() -> dict[str, list[dict[str, Any]]]:
    from sklearn import gaussian_process, model_selection
    from sklearn.feature_selection import f_regression, mutual_info_regression, r_regression

    splitters = [
        getattr(model_selection, name)() for name in ("KFold", "StratifiedKFold", "ShuffleSplit", "TimeSeriesSplit")
    ]
    kernels = gaussian_process.kernels
    sums = [
        kernels.RBF(),
        kernels.ConstantKernel() * kernels.Matern() + kernels.WhiteKernel(),
        kernels.DotProduct() ** 2,
    ]
    sums += [
        kernels.RationalQuadratic(),
        kernels.ExpSineSquared(),
        kernels.PairwiseKernel(),
        kernels.CompoundKernel([kernels.RBF()]),
    ]
    from sklearn.linear_model import Ridge

    searching = [{"estimator": Ridge(), "param_grid": {"alpha": [1.0, 2.0]}, "cv": cv} for cv in splitters]
    functions = [np.log1p, np.expm1, np.sqrt, np.log, np.exp, np.square, np.abs, np.log10, np.mean, np.median]
    return {
        "GridSearchCV": searching,
        "GaussianProcessRegressor": [{"kernel": kernel} for kernel in sums],
        "GaussianProcessClassifier": [{"kernel": kernel} for kernel in sums],
        "FunctionTransformer": [{"func": function} for function in functions],
        "TransformedTargetRegressor": [{"func": np.log1p, "inverse_func": np.expm1}],
        "SelectKBest": [{"score_func": f} for f in (f_regression, r_regression, mutual_info_regression)],
        "RandomForestRegressor": [{"n_estimators": 2, "random_state": np.random.RandomState(0)}],
        "KNeighborsRegressor": [
            {"algorithm": name, "metric": metric}
            for name in ("kd_tree", "ball_tree")
            for metric in ("euclidean", "manhattan", "chebyshev")
        ],
        "HistGradientBoostingRegressor": [
            {"loss": loss, "quantile": 0.5, "max_iter": 3}
            for loss in ("absolute_error", "poisson", "quantile", "gamma")
        ],
        "GradientBoostingRegressor": [{"loss": loss} for loss in ("absolute_error", "huber", "quantile")],
        "GradientBoostingClassifier": [{"loss": "exponential"}],
        "SGDRegressor": [{"loss": loss} for loss in ("huber", "epsilon_insensitive", "squared_epsilon_insensitive")],
        "SGDClassifier": [
            {"loss": loss} for loss in ("hinge", "log_loss", "modified_huber", "perceptron", "squared_hinge")
        ],
        "TweedieRegressor": [{"power": power} for power in (0, 1, 1.5, 2, 3)],
        "SVR": [{"kernel": kernel} for kernel in ("linear", "poly", "sigmoid")],
        "SplineTransformer": [{"extrapolation": kind} for kind in ("periodic", "linear", "constant")],
        "OneHotEncoder": [{"dtype": dtype} for dtype in (np.float32, np.float64, np.int64, float)],
    }


_EXTRA: dict[str, list[dict[str, Any]]] = {}
# of releases that do not run on the Python which makes the list; looked at by hand as `reason_against` does
OTHER_RELEASES = (
    "scipy.interpolate._bsplines._BSpline",  # what BSpline holds since SciPy 1.18: arrays and numbers
)


def found_globals(packages: Iterable[str]) -> dict[str, Any]:
    """Every global that the pickles of fitted public estimators import, and the estimators themselves."""
    _EXTRA.update(_extra())
    found: dict[str, Any] = dict(_values())
    for package in packages:
        for kind in dict.fromkeys(estimators(package)):
            found.setdefault(f"{kind.__module__}.{kind.__qualname__}", kind)
            if package.partition(".")[0] in ("nirs4all",) and "models" in kind.__module__:
                continue  # deep models, and names of what is there already
            for one in fitted(kind):
                for protocol in (2, pickle.HIGHEST_PROTOCOL):
                    found |= _imported(one, protocol)
    return found


def known_globals() -> dict[str, Any]:
    """What the list names already, and what is here of it."""
    found = dict(_values())
    names = [line.split()[1] for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    for name in names:
        module, _, attribute = name.rpartition(".")
        if not name.endswith(".*"):
            try:
                found[name] = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError):  # a name of Python 2 or of another release
                continue
    return found


def _imported(one: Any, protocol: int) -> dict[str, Any]:
    try:
        reading = Names(pickle.dumps(one, protocol=protocol))
        reading.load()
        return reading.names
    except Exception:  # an estimator that cannot be pickled needs nothing
        return {}


def _values() -> dict[str, Any]:
    """What states hold: arrays of every kind, numbers, generators, sparse matrices, functions of one argument."""
    import scipy.sparse

    values = [np.dtype(kind).type(0) for kind in "?bBhHiIlLqQefdgFD"] + [
        np.array(["a"]),
        np.array([None]),
        np.str_("a"),
    ]
    values += [
        np.ma.masked_array([1.0, None], [0, 1]),
        np.random.RandomState(0),
        np.random.default_rng(0),
        np.matrix([1.0]),
    ]
    values += [
        np.random.Generator(kind(0))
        for kind in (np.random.MT19937, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
    ]
    values += [
        getattr(scipy.sparse, f"{kind}_{what}")(np.eye(2))
        for kind in ("csr", "csc", "coo")
        for what in ("matrix", "array")
    ]
    values += [bool, int, float, str, bytes, object, np.datetime64("2020"), np.timedelta64(1), np.arange(3)[::2]]
    values += [value for value in vars(np).values() if isinstance(value, np.ufunc) and value.nin == 1]
    found: dict[str, Any] = {}
    for value in values:
        for protocol in (2, pickle.HIGHEST_PROTOCOL):
            found |= _imported(value, protocol)
    return found


def reason_against(name: str, found: Any) -> str | None:
    """Why a global is left out, None for one that is listed."""
    for prefix, reason in REFUSED.items():
        if name == prefix or name.startswith(f"{prefix}."):
            return reason
    if name in CALLED or name.rpartition(".")[0] in CALLED_MODULES:
        return None
    if name.partition(".")[0] not in _ROOTS:
        return "is of another package"
    if isinstance(found, np.ufunc):
        return None
    if isinstance(found, type):
        return next(_unread(found), None)
    home = getattr(found, "__module__", "") or ""
    if not isinstance(found, types.FunctionType | types.BuiltinFunctionType) and not callable(found):
        return "is no class and no function"
    is_read = home.partition(".")[0] in ("numpy", "sklearn", "chemotools", "nirs4all") or _is_array_function(name)
    return None if is_read else "is a function that was not read"


def _is_array_function(name: str) -> bool:
    """scipy's names for functions of numpy."""
    return name.startswith("scipy._lib.array_api_compat.numpy.")


def _unread(kind: type) -> Iterator[str]:
    """Methods that run by themselves when an instance is unpickled, and that nobody has read."""
    for base in kind.__mro__:
        for method in _AUTOMATIC:
            found = vars(base).get(method)
            if found is None or not isinstance(found, types.FunctionType):  # those in C are the type's own
                continue
            name = f"{base.__module__}.{base.__qualname__}.{method}"
            known = name in REVIEWED or method in REVIEWED_PACKAGES.get(name.partition(".")[0], ())
            if not known and not _only_compares(method, base):
                yield f"nobody has read {name}, which runs when it is unpickled"


def _only_compares(method: str, base: type) -> bool:
    """Comparisons of dataclasses, kernels and tuples look at their own attributes."""
    return method in ("__hash__", "__eq__") and base.__module__.partition(".")[0] in (
        "sklearn",
        "numpy",
        "scipy",
        "dataclasses",
    )


def written(found: dict[str, Any]) -> str:
    """The list as text."""
    versions = {
        name: getattr(sys.modules.get(name), "__version__", None)
        for name in ("sklearn", "chemotools", "nirs4all", "numpy", "scipy", "lightgbm", "xgboost", "catboost")
    }
    names = dict.fromkeys(OTHER_RELEASES) | {name: reason_against(name, value) for name, value in found.items()}
    lines = [
        "# Written by tools/trusted_globals.py: what a pickle may import by default, by exact name.",
        "# Made with " + ", ".join(f"{name} {version}" for name, version in versions.items() if version) + ".",
    ]
    called = {*CALLED, *(name for name in names if name.rpartition(".")[0] in CALLED_MODULES)}
    lines += ["", "# may be called with arguments: what comes of it"]
    lines += [f"call {name}  # {CALLED.get(name, 'a loss or link of numbers')}" for name in sorted(called)]
    lines += ["", "# may be made empty and given its state, or passed along"]
    lines += [f"make {name}" for name in sorted(set(names) - called) if names[name] is None]
    lines += ["", "# found in pickles of estimators, and left out"]
    lines += [f"deny {name}  # {names[name]}" for name in sorted(set(names) - called) if names[name] is not None]
    lines += [f"deny {name}.*  # {reason}" for name, reason in sorted(REFUSED.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--review", action="store_true", help="fit nothing; decide anew on the names that are listed")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the list lacks something")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    found = known_globals() if asked.review else found_globals(PACKAGES)
    if not asked.check:
        LIST.write_text(written(found))
        return 0
    listed = {line.split()[1] for line in LIST.read_text().splitlines() if line and not line.startswith("#")}
    missing = [name for name, value in found.items() if name not in listed and reason_against(name, value) is None]
    print("\n".join(missing))
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
