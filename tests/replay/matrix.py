"""Every model and operator that fits a toy set, predicted in every way: equal to its own class, or refused by step.

`estimators()` finds them: regressors and classifiers of scikit-learn, lightgbm, xgboost and catboost, a
network of torch, models of nirs4all, and the operators of chemotools and nirs4all before a Ridge, as far as
these are installed. What does not fit the spectra gets their first principal component. `measured` stores the
chains and predicts them in each of `WAYS`; what a cell of the table says is in `Cell`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from replay_chains import spectra, target
from replay_stores import begin, plain, put_chain
from sklearn.base import clone, is_classifier
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, StandardScaler
from sklearn.utils import all_estimators
from surfaces import TRUSTED, of_bundle, of_script

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, ReplayError, UntrustedArtifactError

Array = np.ndarray[Any, Any]

sys.path += [one for one in (os.environ.get("N4A_PACKAGES_BESIDE"),) if one and one not in sys.path]
X = spectra(60)
Y = target(X)
LABELS = np.array(["blé", "maïs", "soja"])[np.digitize(Y, np.quantile(Y, [0.3, 0.6]))]
WAYS = ("plain", "compiled", "batch", "process", "bundle", "imported", "script")
QUICK = {"n_estimators": 5, "max_iter": 60, "random_state": 0, "verbose": False, "iterations": 5, "n_jobs": 1}
_BY_THE_WIDTH = ("max_iter", None)  # as many as there are columns
TOLERANCE = 1e-10
_PROCESS = """
import os, pickle, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
sys.path += filter(None, [os.environ.get("N4A_PACKAGES_BESIDE")])
import numpy as np
from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, ReplayError
X, ids, found = np.load(sys.argv[3]), sys.argv[5:], {}
with WorkspaceStore.open_readonly(sys.argv[2]) as store:
    for one in ids:
        try:
            found[one] = store.replay_chain(one, X)
        except (ReplayError, InvalidInputError) as error:
            found[one] = error
with open(sys.argv[4], "wb") as file:
    pickle.dump(found, file)
"""


@dataclass(frozen=True)
class Case:
    """One chain: its fitted parts, and what it must predict."""

    name: str
    variant: str
    steps: Sequence[Any]
    folds: Mapping[str, Any]
    y_steps: Sequence[Any]
    expected: Array


@dataclass(frozen=True)
class Cell:
    """What became of a case in one way: "" when it is equal, else the refusal, or what is wrong."""

    way: str
    refused: str = ""
    wrong: str = ""


def estimators() -> dict[str, Callable[[], Any]]:
    """What makes each estimator, by name; an operator comes as a pair with the model behind it."""
    found: dict[str, Callable[[], Any]] = {}
    for kind in ("regressor", "classifier"):
        found |= {name: _maker(cls, kind) for name, cls in all_estimators(kind)}
    for module, prefix in (("lightgbm", "LGBM"), ("xgboost", "XGB"), ("catboost", "CatBoost")):
        if library := _module(module):
            found |= {f"{prefix}{kind}": _maker(getattr(library, f"{prefix}{kind}"), kind) for kind in _KINDS}
    if _module("torch"):
        found["torch network"] = lambda: importlib.import_module("matrix_torch").Network()
    for package, does in _PACKAGES.items():
        found |= {f"{package.partition('.')[0]} {cls.__name__}": partial(_made, cls) for cls in _classes(package, does)}
    return dict(sorted(found.items()))


_PACKAGES = {
    "chemotools": "transform",
    "nirs4all.operators.transforms": "transform",
    "nirs4all.operators.models.sklearn": "predict",
}
_GIVEN: dict[str, Callable[[], Any]] = {  # what operators cannot be made without
    "model": lambda: PLSRegression(3).fit(X, Y),
    "func": lambda: np.abs,
    "common_x_axis": lambda: np.linspace(0.0, 1.0, X.shape[1]),
}


def _made(cls: type) -> Any:
    parameters = inspect.signature(cls).parameters.values()
    needed = {one.name for one in parameters if one.default is inspect.Parameter.empty} & _GIVEN.keys()
    return cls(**{name: _GIVEN[name]() for name in needed})


_KINDS = ("Regressor", "Classifier")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _maker(cls: type, kind: str) -> Callable[[], Any]:
    inner = LogisticRegression if kind.lower() == "classifier" else Ridge
    given = {"estimator": inner, "base_estimator": inner, "estimators": lambda: [("a", inner()), ("b", inner())]}

    def make() -> Any:
        parameters = inspect.signature(cls).parameters
        needed = {
            name: given[name]()
            for name, parameter in parameters.items()
            if name in given
            and (parameter.default is inspect.Parameter.empty or cls.__module__.startswith("sklearn.semi_supervised"))
        }
        made = cls(**needed)
        own = made.get_params(deep=False)
        quick = {name: value for name, value in QUICK.items() if name in own and (name, own[name]) != _BY_THE_WIDTH}
        if cls.__module__.startswith("lightgbm"):
            quick |= {"verbose": -1, "min_child_samples": 2}
        if cls.__module__.startswith("catboost"):
            quick = {"iterations": 5, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 0}
        return made.set_params(**quick)

    return make


def _classes(package: str, does: str) -> Iterator[type]:
    root = _module(package)
    if root is None:
        return
    seen = set()
    for _, name, _ in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = _module(name) if "._" not in name.replace("__", "") else None
        for cls in vars(module).values() if module else ():
            if (
                isinstance(cls, type)
                and cls.__module__.startswith(package)
                and hasattr(cls, does)
                and hasattr(cls, "fit")
                and not inspect.isabstract(cls)
                and cls.__name__ not in seen
                and not cls.__name__.startswith("_")
            ):
                seen.add(cls.__name__)
                yield cls


def cases(name: str, make: Callable[[], Any], variants: Sequence[str] = ()) -> list[Case]:
    """The chains of one estimator, in some variants or in all that it fits."""
    is_model = " " not in name or _attempt(lambda: hasattr(make(), "predict"))
    builders = _MODEL if is_model else _OPERATOR
    chosen = {one: build for one, build in builders.items() if not variants or one in variants}
    for front in (_spectra, _component)[: 1 + bool(is_model)]:
        parts = {
            one: _attempt(lambda build=build, front=front: build(make(), *front())) for one, build in chosen.items()
        }
        if found := [Case(name, one, *made) for one, made in parts.items() if made is not None]:
            return found
    return []


def _attempt(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except Exception:  # an estimator that needs other data than the toy set's
        return None


def _spectra() -> tuple[Sequence[Any], Array]:
    return [], X


def _component() -> tuple[Sequence[Any], Array]:
    step = PCA(1).fit(X)
    return [step], step.transform(X)


Parts = tuple[Sequence[Any], Mapping[str, Any], Sequence[Any], Array]


def _folds(model: Any, y: Array, n_folds: int, Z: Array) -> dict[str, Any]:
    rows = [np.arange(len(Z)) % (n_folds + 1) != fold for fold in range(n_folds)]
    return {f"fold_{fold}": _copy(model).fit(Z[kept], y[kept]) for fold, kept in enumerate(rows)}


def _copy(model: Any) -> Any:
    try:
        return clone(model)
    except (TypeError, RuntimeError):
        return pickle.loads(pickle.dumps(model))


def _mean(models: Sequence[Any], Z: Array, undo: Sequence[Any] = ()) -> Array:
    each = []
    for model in models:
        one = np.asarray(model.predict(Z.copy()), dtype=np.float64).reshape(len(Z), -1)
        for operator in reversed(undo):
            one = operator.inverse_transform(one)
        each.append(one)
    mean = np.mean(each, axis=0)
    return mean[:, 0] if mean.shape[1] == 1 else mean


def _vote(models: Sequence[Any], Z: Array) -> Array:
    """The label with the largest mean probability or the most votes, the first on a tie."""
    if len(models) == 1:
        return np.asarray(models[0].predict(Z)).reshape(-1)
    classes = models[0].classes_
    if all(hasattr(model, "predict_proba") for model in models):
        shares = np.mean([model.predict_proba(Z) for model in models], axis=0)
    else:
        votes = np.stack([np.asarray(model.predict(Z)).reshape(-1) for model in models])
        shares = np.stack([(votes == one).mean(axis=0) for one in classes], axis=1)
    return np.asarray(classes[(shares >= shares.max(axis=1, keepdims=True) - 1e-12).argmax(axis=1)])


def _fitted(n_folds: int, refit: bool = False) -> Callable[..., Parts]:
    def build(model: Any, steps: Sequence[Any], Z: Array) -> Parts:
        y = np.unique(LABELS, return_inverse=True)[1] if is_classifier(model) else Y
        folds = _folds(model, y, n_folds, Z)
        used = list(folds.values())
        if refit:
            folds["fold_final"] = _copy(model).fit(Z.copy(), y)
            used = [folds["fold_final"]]
        return steps, folds, [], _vote(used, Z) if is_classifier(model) else _mean(used, Z)

    return build


def _with_target_steps(model: Any, steps: Sequence[Any], Z: Array) -> Parts:
    if is_classifier(model):
        encoder = LabelEncoder().fit(LABELS)
        folds = _folds(model, encoder.transform(LABELS), 3, Z)
        return steps, folds, [encoder], encoder.inverse_transform(_vote(list(folds.values()), Z))
    undo = [StandardScaler().fit(Y[:, None]), MinMaxScaler((1.0, 2.0))]
    scaled = undo[1].fit_transform(undo[0].transform(Y[:, None]))
    folds = _folds(model, scaled[:, 0], 3, Z)
    return steps, folds, undo, _mean(list(folds.values()), Z, undo)


def _two_targets(model: Any, steps: Sequence[Any], Z: Array) -> Parts:
    y = np.stack([Y, 3.0 - 0.1 * Y + X[:, 0]], axis=1)
    if is_classifier(model):
        y = (np.median(y, axis=0) < y).astype(int)
    folds = _folds(model, y, 2, Z)
    if is_classifier(model):
        return steps, folds, [], np.asarray(next(iter(folds.values())).predict(Z))
    return steps, folds, [], _mean(list(folds.values()), Z)


def _labelled(labels: Array) -> Callable[..., Parts | None]:
    def build(model: Any, steps: Sequence[Any], Z: Array) -> Parts | None:
        if not is_classifier(model):
            return None
        folds = _folds(model, labels, 3, Z)
        return steps, folds, [], _vote(list(folds.values()), Z)

    return build


def _behind(n_folds: int) -> Callable[..., Parts]:
    def build(operator: Any, steps: Sequence[Any], spectra: Array) -> Parts:
        takes_y = "y" in inspect.signature(operator.fit).parameters
        step = operator.fit(spectra.copy(), Y) if takes_y else operator.fit(spectra.copy())
        Z = np.asarray(step.transform(spectra.copy()), dtype=np.float64)
        folds = _folds(Ridge(), Y, n_folds, Z)
        return [*steps, step], folds, [], _mean(list(folds.values()), Z)

    return build


_MODEL: dict[str, Callable[..., Parts | None]] = {
    "one fold": _fitted(1),
    "five folds": _fitted(5),
    "refit": _fitted(2, refit=True),
    "target steps": _with_target_steps,
    "two targets": _two_targets,
    "text labels": _labelled(LABELS),
    "two classes": _labelled(np.where(np.median(Y) < Y, 7, 3)),
}
_OPERATOR: dict[str, Callable[..., Parts | None]] = {"one fold": _behind(1), "five folds": _behind(5)}
VARIANTS = tuple(_MODEL)


def measured(listed: Sequence[Case], folder: Path) -> dict[tuple[str, str], list[Cell]]:
    """Each case in every way; one store holds them, another the imported ones, one process more replays them."""
    np.save(folder / "X.npy", X)
    found: dict[tuple[str, str], list[Cell]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with WorkspaceStore(folder / "ws") as store, WorkspaceStore(folder / "other", trusted=TRUSTED) as other:
            pipeline = begin(store)
            ids = [put_chain(store, pipeline, case.steps, case.folds, y_steps=case.y_steps) for case in listed]
            for case, one in zip(listed, ids, strict=True):
                found[case.name, case.variant] = [
                    _cell(way, predict, case) for way, predict in _ways(store, other, one, folder).items()
                ]
        elsewhere = _in_a_process(folder, ids)
        for case, one in zip(listed, ids, strict=True):
            found[case.name, case.variant].append(_cell("process", lambda one=one: _raised(elsewhere[one]), case))
    return found


def _ways(store: WorkspaceStore, other: WorkspaceStore, one: str, folder: Path) -> dict[str, Callable[[], Array]]:
    bundle, script = folder / f"{one}.n4a", folder / f"{one}.n4a.py"
    return {
        "plain": lambda: plain(store, one, X),
        "compiled": lambda: (store.replay_chain(one, X), store.replay_chain(one, X))[1],
        "batch": lambda: store.replay_chains([one], X)[0],
        "bundle": lambda: of_bundle(store.export_chain(one, bundle), X),
        "imported": lambda: other.replay_chain(other.import_chain(store.export_chain(one, bundle)), X),
        "script": lambda: of_script(store.export_chain(one, script, "n4a.py"), X),
    }


def _cell(way: str, predict: Callable[[], Array], case: Case) -> Cell:
    try:
        found = predict()
    except UntrustedArtifactError as error:
        return Cell(way, refused=f"imports {error.global_name}, which is to be named in `trusted=` first")
    except (ReplayError, InvalidInputError) as error:
        named = "step " in str(error)
        return Cell(way, refused=str(error)) if named else Cell(way, wrong=f"names no step: {error}")
    except Exception as error:
        return Cell(way, wrong=f"{type(error).__name__}: {error}")
    return Cell(way, wrong=_difference(found, case.expected))


def _difference(found: Array, expected: Array) -> str:
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if expected.dtype.kind in "fc":
        if not np.array_equal(np.isnan(found), np.isnan(expected)):
            return f"{int(np.isnan(found).sum())} are NaN, expected {int(np.isnan(expected).sum())}"
        error = np.nanmax(np.abs(found - expected)) / (np.nanmax(np.abs(expected)) or 1.0)
        return "" if error <= TOLERANCE else f"differs by {error:.2g}"
    return "" if found.tolist() == expected.tolist() else f"{int((found != expected).sum())} other labels"


def _in_a_process(folder: Path, ids: Sequence[str]) -> dict[str, Any]:
    answers = folder / "answers.pickle"
    arguments = (Path(__file__).parent, folder / "ws", folder / "X.npy", answers, *ids)
    subprocess.run([sys.executable, "-c", _PROCESS, *map(str, arguments)], check=True, timeout=500)
    return dict(pickle.loads(answers.read_bytes()))


def _raised(answer: Any) -> Array:
    if isinstance(answer, Exception):
        raise answer
    return np.asarray(answer)
