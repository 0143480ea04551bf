"""What a stranger's file may make is a list; what a stored step may name is asked; what was made holds together."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.interpolate
import scipy.sparse
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.metrics._dist_metrics import EuclideanDistance64
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KDTree, KNeighborsRegressor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils import Bunch, all_estimators

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.artifacts.trust import trust
from n4a_fast.errors import ArtifactUnreadableError, BundleError, InvalidInputError, UntrustedArtifactError

RNG = np.random.default_rng(0)
X, Y = RNG.random((60, 6)) + 0.1, RNG.random(60)
THREE = np.array(["blé", "maïs", "soja"])[np.digitize(Y, [0.3, 0.6])]


def loaded(model: Any, write: Any = pickle.dumps, setting: Any = "workspace") -> Any:
    return trust(setting).loads("a", write(model), "joblib", "imported")


def as_joblib(obj: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(obj, buffer)
    return buffer.getvalue()


def fitted(kind: type) -> Any:
    """An estimator fitted on the first toy set that it takes; None when it takes none."""
    inner = {"estimator": Ridge(), "estimators": [("a", Ridge())], "transformers": [("a", SplineTransformer(), [0])]}
    inner |= {
        "transformer_list": [("a", SplineTransformer())],
        "steps": [("a", Ridge())],
        "param_grid": {"alpha": [1.0]},
    }
    inner |= {"param_distributions": {"alpha": [1.0]}, "base_estimator": Ridge(), "n_iter": 1, "max_iter": 20}
    taken = kind.__init__.__code__.co_varnames
    sizes = {"n_estimators": 3, "max_iter": 20, "Cs": 2, "cv": 2}
    small, least, wanted = (
        {name: value for name, value in given.items() if name in taken}
        for given in (sizes, sizes | {"max_iter": 250}, inner)  # TSNE takes no fewer
    )
    for options in (small, wanted, least, {}):
        for spectra in (X, X[:, 0], [str(value) for value in X[:, 0]]):
            for target in (Y, THREE, X[:, :2], None):
                try:
                    return kind(**options).fit(spectra, *(() if target is None else (target,)))
                except Exception:  # not for this kind of set
                    continue
    return None


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_every_estimator_of_scikit_learn_loads_by_default() -> None:
    tried, refused = 0, {}
    for name, kind in all_estimators():
        try:
            data = pickle.dumps(model := fitted(kind))
        except Exception:  # holds a function of its own, and cannot be pickled
            continue
        tried += model is not None
        try:
            trust("workspace").loads(name, data, "joblib", "imported")
        except Exception as error:
            refused[name] = str(error)
    assert refused == {}
    assert tried > 150


@pytest.mark.parametrize("write", [pickle.dumps, as_joblib])
@pytest.mark.parametrize(
    "model",
    [
        GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}).fit(X, Y),
        HistGradientBoostingClassifier(max_iter=3).fit(X, THREE),
        make_pipeline(SplineTransformer(), Ridge()).fit(X, Y),
        KNeighborsRegressor(3, algorithm="kd_tree").fit(X, Y),
        SVR().fit(X, Y),
        RandomForestRegressor(5).fit(X, Y),
        GradientBoostingClassifier(n_estimators=2).fit(X, THREE),
        GradientBoostingRegressor(n_estimators=2, init="zero").fit(X, Y),
        GradientBoostingRegressor(n_estimators=2, init=Ridge()).fit(X, Y),
        GradientBoostingRegressor(n_estimators=2, init=Lasso()).fit(X, Y),
        GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()).fit(X, THREE),
        GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()).fit(X, THREE == "soja"),
        GradientBoostingClassifier(n_estimators=2, loss="exponential").fit(X, THREE == "soja"),
        SVR(kernel="precomputed").fit(X[:6] @ X[:6].T, Y[:6]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_that_were_refused_predict_what_they_did(model: Any, write: Any) -> None:
    for setting in ("workspace", ["mypackage.*"]):
        rows = X[:, : model.n_features_in_]
        assert np.array_equal(loaded(model, write, setting).predict(rows), model.predict(rows))


def test_a_list_means_classes_and_estimators_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "class Own:\n    def transform(self, X):\n        return X\nclass Other:\n    pass\ndef run():\n    return 1\n"
    )
    (tmp_path / "ownpackage.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import ownpackage  # type: ignore[import-not-found]

    for setting, allowed in (
        ("workspace", ""),
        (["ownpackage.*"], "Own"),
        (["ownpackage"], "Own"),
        (["ownpackage.Other"], "Other"),
    ):
        for one in (ownpackage.Own(), ownpackage.Other()):
            if type(one).__name__ == allowed:
                assert type(loaded(one, setting=setting)) is type(one)
            else:
                with pytest.raises(UntrustedArtifactError, match="ownpackage"):
                    loaded(one, setting=setting)
    with pytest.raises(UntrustedArtifactError, match="run"):
        trust(["ownpackage.*"]).loads("a", b"\x80\x04cownpackage\nrun\n)R.", "joblib", "imported")
    assert trust(["ownpackage.run"]).loads("a", b"\x80\x04cownpackage\nrun\n)R.", "joblib", "imported") == 1


def test_a_refusal_recommends_nothing_weaker() -> None:
    with pytest.raises(UntrustedArtifactError) as caught:
        loaded(Path("x"))
    assert "module" not in str(caught.value).replace("pathlib", "")
    assert "describe_artifact" in str(caught.value)


def store_with(root: Path, step: dict[str, Any]) -> str:
    with WorkspaceStore(root) as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "d", "h")
        model = store.save_artifact(Ridge().fit(X, Y), "Ridge", "model", "joblib")
        steps = [
            {"step_idx": 1, "artifact_id": None, "stateless": True, **step},
            {"step_idx": 2, "operator_class": "M"},
        ]
        return store.save_chain(pipeline, [*steps], 2, "M", "", "per_fold", {"fold_0": model}, {})


@pytest.mark.parametrize("setting", ["none", ["sklearn"], "workspace"])
@pytest.mark.parametrize("call", ["replay_plan", "replay_chain", "replay_chains", "export_chain"])
def test_what_a_stored_step_names_is_asked(tmp_path: Path, setting: Any, call: str) -> None:
    mark = tmp_path / "mark"
    evil = {"class": "subprocess.Popen", "params": {"args": ["touch", str(mark)]}}
    for number, step in enumerate(
        [
            {"operator_class": "sklearn.preprocessing.FunctionTransformer", "params": {"func": evil}},
            {"operator_class": "subprocess.Popen", "params": evil["params"]},
            {"operator_class": "X", "params": evil},
        ]
    ):
        chain = store_with(tmp_path / str(number), step)
        arguments = {"export_chain": (chain, tmp_path / "x.n4a"), "replay_chains": ([chain], X)}.get(call, (chain, X))
        place = tmp_path / str(number)
        with WorkspaceStore.open_readonly(place, trusted=setting) as store, pytest.raises(UntrustedArtifactError):
            getattr(store, call)(*arguments)
    assert not mark.exists()


def test_estimators_that_a_step_names_are_made_but_under_none(tmp_path: Path) -> None:
    chain = store_with(tmp_path, {"operator_class": "sklearn.preprocessing.Normalizer", "params": {"norm": "l1"}})
    for setting in ("workspace", ["mypackage.*"]):
        with WorkspaceStore.open_readonly(tmp_path, trusted=setting) as store:
            assert store.replay_chain(chain, X).shape == (60,)
    with WorkspaceStore.open_readonly(tmp_path, trusted="none") as store, pytest.raises(UntrustedArtifactError):
        store.replay_chain(chain, X)


class Forged:
    """Pickles as what it is given."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def two_states() -> bytes:
    """A tree whose second state says more nodes than the first has made room for."""
    tree = DecisionTreeRegressor(max_depth=2).fit(X, Y).tree_
    state = tree.__getstate__()
    made = pickle.dumps(Forged(type(tree), (6, np.array([1]), 1), state), 4)[:-1]
    again = pickle.dumps(state | {"node_count": 10**9}, 4)[2:-1]
    return made + again + b"b."


def boosted(**state: Any) -> bytes:
    return forged(GradientBoostingRegressor(n_estimators=2).fit(X, Y), **state)


def stages(width: int, columns: int = 1) -> Any:
    """Trees of a boosted model, fitted on so many features."""
    grown = [DecisionTreeRegressor(max_depth=1).fit(RNG.random((60, width)), Y) for _ in range(2 * columns)]
    return np.array(grown, dtype=object).reshape(2, columns)


def with_nodes(**changed: Any) -> bytes:
    model = DecisionTreeRegressor(max_depth=2).fit(X, Y)
    state = model.tree_.__getstate__()
    state["nodes"] = nodes = state["nodes"].copy()
    for name, value in changed.items():
        nodes[name][0] = value

    model.__dict__["tree_"] = Forged(type(model.tree_), (6, np.array([1]), 1), state)
    return pickle.dumps(model)


def forged(model: Any, **state: Any) -> bytes:
    vars(model).update(state)
    return pickle.dumps(model)


def with_state(model: Any, **state: Any) -> Any:
    vars(model.fit(X, Y)).update(state)
    return model


def with_link(link: Any) -> Any:
    """A loss whose link has this in the place of its method."""
    loss = GradientBoostingRegressor(n_estimators=1).fit(X, Y)._loss
    vars(loss.link)["link"] = link
    return loss


def of_histogram(name: str = "left", value: int = 10**6) -> Any:
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, THREE)
    model._predictors[0][0].nodes[name][0] = value
    return model


FORGED = {
    "a child far away": lambda: with_nodes(left_child=10**9),
    "a way back": lambda: with_nodes(left_child=0),
    "a leaf by another number": lambda: with_nodes(left_child=-2),
    "a way back on the right": lambda: with_nodes(right_child=-1),
    "more nodes than there is room for": two_states,
    "a tree of more features than its model": lambda: forged(DecisionTreeRegressor().fit(X, Y), n_features_in_=1),
    "a tree that does not say its features": lambda: _without_width(),
    "a tree that looks at its rows otherwise": lambda: forged(
        DecisionTreeRegressor().fit(X, Y), _validate_X_predict=Ridge
    ),
    "a tree of a boosted model, of more features": lambda: boosted(estimators_=np.concatenate([stages(6), stages(9)])),
    "stages of a boosted model that are no trees": lambda: boosted(estimators_=np.array([[Ridge().fit(X, Y)]], object)),
    "more columns than a boosted model begins with": lambda: boosted(estimators_=stages(6, 3)),
    "more columns than zeros to begin with": lambda: boosted(estimators_=stages(6, 3), init_="zero"),
    "a boosted model that begins with anything": lambda: boosted(init_=make_pipeline(Ridge()).fit(X, Y)),
    "a boosted model that begins with few rows": lambda: boosted(init_=with_state(Ridge(), intercept_=np.ones((1, 1)))),
    "a boosted model that begins with one column": lambda: boosted(
        init_=with_state(Ridge(), _decision_function=np.mean), estimators_=stages(6)
    ),
    "classes of a boosted model, begun with fewer": lambda: forged(
        GradientBoostingClassifier(n_estimators=2).fit(X, THREE), init_=LogisticRegression().fit(X, THREE == "soja")
    ),
    "a loss that is none": lambda: boosted(_loss=Bunch(link=Bunch(link=np.mean), is_multiclass=False)),
    "a link in the place of a loss's": lambda: boosted(_loss=with_link(np.mean)),
    "a histogram's model of fewer columns": lambda: forged(of_histogram("is_leaf", 0), n_features_in_=1),
    "a histogram's model that does not say its columns": lambda: forged(
        of_histogram("is_leaf", 0), n_features_in_=None
    ),
    "a histogram's model of other rows": lambda: forged(
        of_histogram("is_leaf", 0), _preprocessor=VarianceThreshold().fit(X)
    ),
    "a histogram's model of bins": lambda: forged(of_histogram("is_leaf", 0), _in_fit=True),
    "places beyond a kernel that is given": lambda: forged(
        SVR(kernel="precomputed").fit(X[:6] @ X[:6].T, Y[:6]), shape_fit_=(1, 6)
    ),
    "a support vector machine that looks at its rows otherwise": lambda: forged(
        SVR().fit(X, Y), _validate_for_predict=np.log1p
    ),
    "a sparse matrix among objects": lambda: pickle.dumps(np.array([{"a": _far_off()}], dtype=object)),
    "a feature that is not there": lambda: with_nodes(feature=6),
    "a child of a histogram's tree": lambda: pickle.dumps(of_histogram()),
    "a feature of a histogram's tree": lambda: pickle.dumps(of_histogram("feature_idx", 6)),
    "a feature before the first": lambda: pickle.dumps(of_histogram("feature_idx", -(2**40))),
    "indices of a sparse matrix": lambda: forged(
        scipy.sparse.csr_matrix(np.eye(3)), indices=np.array([0, 1, 10**8], np.int32)
    ),
    "starts of a sparse matrix": lambda: forged(
        scipy.sparse.csr_array(np.eye(3)), indptr=np.array([0, 1, 2, 10**8], np.int32)
    ),
    "support vectors": lambda: forged(SVR().fit(X, Y), _n_support=np.array([10**6, 0], np.int32)),
    "support vectors of one kind": lambda: forged(
        model := SVR().fit(X, Y), _n_support=np.array([len(model.support_)], np.int32)
    ),
    "neighbours of fewer columns": lambda: forged(
        KNeighborsRegressor(algorithm="brute").fit(X, Y), _fit_X=X[:, :1].copy()
    ),
    "neighbours by a distance of fewer columns": lambda: forged(
        NearestNeighbors(algorithm="brute", metric="mahalanobis", metric_params={"VI": np.eye(6)}).fit(X),
        effective_metric_params_={"VI": np.eye(1)},
    ),
    "a covariance of fewer columns": lambda: forged(EllipticEnvelope().fit(X), precision_=np.eye(1)),
    "a place in random numbers": lambda: pickle.dumps(_far_along()),
    "a tree of places without its state": lambda: pickle.dumps(_BuiltWith(KDTree(X), (X,))),
    "a distance without its state": lambda: pickle.dumps(_BuiltWith(EuclideanDistance64(), ())),
    "a spline without coefficients": lambda: forged(
        scipy.interpolate.make_interp_spline(Y.cumsum(), X), _c=np.zeros((1, 6))
    ),
}


class _BuiltWith:
    """Pickled as another object that gets this state."""

    def __init__(self, made: Any, state: Any) -> None:
        self._made, self._state = made, state

    def __reduce__(self) -> Any:
        return (*self._made.__reduce__()[:2], self._state)


def _without_width() -> bytes:
    model = DecisionTreeRegressor().fit(X, Y)
    del vars(model)["n_features_in_"]
    return pickle.dumps(model)


def _far_off() -> Any:
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    matrix.indices = np.array([0, 1, 10**8], np.int32)
    return matrix


def _far_along() -> np.random.RandomState:
    made = np.random.RandomState(0)
    state = made.get_state(legacy=False)
    state["state"]["pos"] = 10**6
    try:
        made.set_state(state)
    except ValueError:
        pytest.skip("this NumPy refuses such a place itself")
    return made


@pytest.mark.parametrize("what", FORGED)
def test_what_does_not_hold_together_is_not_given_away(what: str) -> None:
    if what == "a spline without coefficients" and not hasattr(
        scipy.interpolate.make_interp_spline(Y.cumsum(), X), "_c"
    ):
        pytest.skip("this SciPy names a spline's coefficients otherwise")
    with pytest.raises(ArtifactUnreadableError):
        trust("workspace").loads("a", FORGED[what](), "joblib", "imported")


class FromBytes:
    """An array by numpy's own function for buffers."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return np.arange(3.0).__reduce_ex__(5)[0], self.arguments


@pytest.mark.parametrize(
    "arguments",
    [
        (bytearray(16), np.dtype(object), (2,), "C"),
        (b"abcdefgh", "O", (1,), "C"),
        (b"abcdefgh", np.dtype(np.float64), (2,), "C"),
        (b"abcdefgh" * 2, np.dtype(np.float64), (1,), "F"),
        (b"abcdefgh", np.dtype(np.float64), (1, -1), "C"),
        (b"abcdefgh", np.dtype(np.float64), (2**62, 4), "C"),
        (b"abcdefgh", np.dtype(np.float64), (1,), "X"),
        ("text", np.dtype(np.float64), (1,), "C"),
        (b"abcdefgh", np.dtype(object), (1,), "K", (0,)),
    ],
)
def test_bytes_become_arrays_of_as_many_numbers_alone(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ArtifactUnreadableError):
        trust("workspace").loads("a", pickle.dumps(FromBytes(*arguments), 5), "joblib", "imported")


def bundle(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"bundle_format_version": "1.0"}))
        archive.writestr("artifacts/step_1_fold0.joblib", data)
    return path


def array_of_joblib(shape: bytes, dtype: bytes) -> bytes:
    """What joblib writes before an array's bytes."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    head = b"\x80\x04" + text("joblib.numpy_pickle") + text("NumpyArrayWrapper") + b"\x93)\x81}("
    made = text("numpy") + text("dtype") + b"\x93" + dtype
    return head + text("dtype") + made + text("shape") + shape + text("numpy_array_alignment_bytes") + b"Nub"


@pytest.mark.parametrize(
    "data",
    [
        array_of_joblib(b"J\xd0\xff\xff\xff\x85", b"\x8c\x02u1\x85R") + b".",  # back over the opcodes, for ever
        array_of_joblib(b"K\x04\x85", b"\x8c\x02V1\x85R(K\x03\x8c\x01|NNNK\x04K\x01K\x3ftb")
        + b"abcd.",  # hides objects
        b"\x80\x04" + b"N0" * 20_000_000 + b".",
        b"\x80\x04" + b"(" * 20_000_000 + b".",
    ],
)
def test_looking_into_a_file_always_ends(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        inspect_bundle(bundle(tmp_path / "a.n4a", data))


_BOMB = """
import resource, sys
from n4a_fast import inspect_bundle
from n4a_fast.errors import BundleError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inspect_bundle(sys.argv[1], max_bytes=2**26)
except BundleError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_takes_no_more_than_twice_what_is_allowed(tmp_path: Path) -> None:
    import zlib

    packing = zlib.compressobj(9)
    data = packing.compress(b"\x80\x04B\0\0\0\x7f") + b"".join(packing.compress(bytes(2**20)) for _ in range(512))
    path = bundle(tmp_path / "bomb.n4a", data + packing.flush())
    done = subprocess.run([sys.executable, "-c", _BOMB, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2 * 2**26 + 2**24


def test_globals_inside_arrays_of_objects_are_told() -> None:
    with warnings.catch_warnings():
        found = contents_of(as_joblib([np.arange(3), np.array([RandomForestRegressor()], dtype=object)]))
    assert "sklearn.ensemble._forest.RandomForestRegressor" in found.globals
    with pytest.raises(InvalidInputError):
        contents_of(b"\x80\x04cos\nsystem\n\x82\x01.")
