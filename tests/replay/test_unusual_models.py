"""Models at the edge of what chains hold: each predicts what its own class predicts, by every way, or is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from replay_chains import spectra, target
from replay_stores import begin, put_chain
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVR, LinearSVC, NuSVR
from surfaces import surfaces

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, ReplayError
from n4a_fast.replay.plan.recreate import keeps_width
from n4a_fast.replay.plan.tags import width_of

X = spectra(60)
Y = target(X)


def assert_everywhere(store: WorkspaceStore, chain_id: str, expected: Any, folder: Path) -> None:
    for name, predict in surfaces(store, chain_id, X, folder).items():
        found = predict()
        assert found.shape == expected.shape, name
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=name)
        else:
            assert found.tolist() == expected.tolist(), name


@pytest.mark.parametrize("model", [SVR(), SVR(epsilon=0.0, C=10.0), NuSVR(), KernelRidge(kernel="rbf")])
@pytest.mark.parametrize("n_folds", [1, 3])
def test_radial_models_predict_alike_everywhere(
    store: WorkspaceStore, tmp_path: Path, model: Any, n_folds: int
) -> None:
    folds = [pickle.loads(pickle.dumps(model)).fit(X[fold::n_folds], Y[fold::n_folds]) for fold in range(n_folds)]
    chain_id = put_chain(store, begin(store), [], folds)
    assert_everywhere(store, chain_id, np.mean([fold.predict(X) for fold in folds], axis=0), tmp_path)


def test_a_support_vector_model_without_support_vectors_is_a_constant(store: WorkspaceStore, tmp_path: Path) -> None:
    model = SVR().fit(X, 0.1 + 0.001 * Y)
    assert len(model.support_) == 0
    pipeline = begin(store)
    alone, linear = put_chain(store, pipeline, [], [model]), put_chain(store, pipeline, [], [Ridge().fit(X, Y)])
    assert_everywhere(store, alone, model.predict(X), tmp_path)
    np.testing.assert_array_equal(store.replay_chains([linear, alone], X)[1], model.predict(X))


class Multiplies(RegressorMixin, BaseEstimator):
    """A regressor that has classes, as wrappers around classifiers do."""

    def __init__(self, factor: float = 1.0, classes_: Any = None) -> None:
        self.factor, self.classes_ = factor, classes_

    def fit(self, X: Any, y: Any) -> Multiplies:
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0] * self.factor


@pytest.mark.parametrize("classes", [None, [], np.array([0, 1, 2])])
@pytest.mark.parametrize("n_folds", [1, 3])
def test_a_regressor_with_classes_is_averaged(
    store: WorkspaceStore, tmp_path: Path, classes: Any, n_folds: int
) -> None:
    folds = [Multiplies(1.0 + fold, classes) for fold in range(n_folds)]
    chain_id = put_chain(store, begin(store), [], folds)
    assert_everywhere(store, chain_id, np.mean([fold.predict(X) for fold in folds], axis=0), tmp_path)


class ForgetsItsWidth(Multiplies):
    """Says, like CatBoost after unpickling, that it was fitted on no columns at all."""

    n_features_in_ = 0


def test_a_width_of_zero_means_unknown(store: WorkspaceStore, tmp_path: Path) -> None:
    model = ForgetsItsWidth(2.0)
    chain_id = put_chain(store, begin(store), [], [model, model])
    assert_everywhere(store, chain_id, model.predict(X), tmp_path)


@pytest.mark.parametrize("kind", ["CatBoostRegressor", "CatBoostClassifier"])
def test_catboost_is_replayed_after_it_was_stored(store: WorkspaceStore, tmp_path: Path, kind: str) -> None:
    catboost = pytest.importorskip("catboost")
    y = Y if kind == "CatBoostRegressor" else np.where(np.median(Y) < Y, "high", "low")
    quiet = {"iterations": 5, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    model = getattr(catboost, kind)(**quiet).fit(X, y)
    chain_id = put_chain(store, begin(store), [], [model, model])
    assert_everywhere(store, chain_id, np.ravel(model.predict(X)), tmp_path)
    with pytest.raises(InvalidInputError, match=f"X has {X.shape[1] + 1} columns"):
        store.replay_chain(chain_id, np.hstack([X, X[:, :1]]))


@pytest.mark.parametrize(("neighbours", "n_folds"), [(5, 3), (5, 5), (3, 5)])
def test_tied_votes_take_the_first_class_everywhere(
    store: WorkspaceStore, tmp_path: Path, neighbours: int, n_folds: int
) -> None:
    random = np.random.default_rng(neighbours)
    labels = np.array(["blé", "maïs", "soja"])[random.integers(0, 3, len(X))]
    folds = [KNeighborsClassifier(neighbours).fit(X[k::n_folds], labels[k::n_folds]) for k in range(n_folds)]
    votes = np.sum([np.rint(fold.predict_proba(X) * neighbours).astype(int) for fold in folds], axis=0)
    assert ((votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()  # some do tie
    chain_id = put_chain(store, begin(store), [], folds)
    assert_everywhere(store, chain_id, folds[0].classes_[votes.argmax(axis=1)], tmp_path)


def test_probabilities_of_an_imported_vote_are_the_mean_of_its_folds(store: WorkspaceStore, tmp_path: Path) -> None:
    labels = np.arange(len(X)) % 3
    folds = [KNeighborsClassifier(3).fit(X[k::2], labels[k::2]) for k in range(2)]
    path = store.export_chain(put_chain(store, begin(store), [], folds), tmp_path / "vote.n4a")
    with WorkspaceStore(tmp_path / "other") as other:
        found = other.replay_chain(other.import_chain(path), X, return_proba=True)
    np.testing.assert_allclose(found, np.mean([fold.predict_proba(X) for fold in folds], axis=0), atol=1e-10)


def test_folds_without_probabilities_are_not_written_into_files(store: WorkspaceStore, tmp_path: Path) -> None:
    folds = [LinearSVC().fit(X[k::2], (np.median(Y) < Y)[k::2]) for k in range(2)]
    chain_id = put_chain(store, begin(store), [], folds)
    for format_name in ("n4a", "n4a.py"):
        with pytest.raises(ReplayError, match=r"step 1 .* cannot be averaged by probability"):
            store.export_chain(chain_id, tmp_path / "x", format_name)


@pytest.mark.parametrize(
    "model", [KMeans(2, n_init=1, random_state=0), IsolationForest(n_estimators=3, random_state=0)]
)
def test_labels_of_clusters_and_outliers_are_never_averaged(store: WorkspaceStore, tmp_path: Path, model: Any) -> None:
    folds = [pickle.loads(pickle.dumps(model)).fit(X[k::2]) for k in range(2)]
    chain_id = put_chain(store, begin(store), [], folds)
    for predict in surfaces(store, chain_id, X, tmp_path).values():
        with pytest.raises(ReplayError, match=r"step 1 .*means? something else in each of its 2 folds"):
            predict()
    np.testing.assert_array_equal(store.replay_chain(chain_id, X, folds=[1]), folds[1].predict(X))


def test_a_pickle_of_another_release_is_named_by_step_and_chain(store: WorkspaceStore) -> None:
    model = LinearRegression().fit(X, Y)
    del model.positive  # as a pickle from before it was added
    chain_id = put_chain(store, begin(store), [], [model])
    for replay in (lambda: store.replay_chain(chain_id, X), lambda: store.replay_chains([chain_id], X)):
        with pytest.raises(ReplayError, match=rf"chain '{chain_id}' .*step 1 .*positive"):
            replay()


class CannotBeLoaded(Ridge):
    """A class whose release refuses the state of an older one, as scikit-learn's trees do."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("node array from the pickle has an incompatible dtype")


def test_a_model_that_cannot_be_unpickled_is_named_by_step_and_chain(store: WorkspaceStore) -> None:
    chain_id = put_chain(store, begin(store), [], [CannotBeLoaded().fit(X, Y)])
    with pytest.raises(ReplayError, match=r"step 1 .*cannot be loaded here \(ValueError: node array"):
        store.replay_chain(chain_id, X)


def test_the_names_of_what_an_operator_makes_are_no_width() -> None:
    class Makes:
        feature_names_: ClassVar = ["mean", "energy"]

    assert width_of(Makes()) == 0


@pytest.mark.long
def test_a_classifier_of_several_labels_is_refused_though_its_classes_are_one_list(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    y = (np.median(X[:, :2], axis=0) < X[:, :2]).astype(int)
    for model in (
        OneVsRestClassifier(LogisticRegression()),
        MLPClassifier((4,), max_iter=3, tol=10.0, n_iter_no_change=1, random_state=0),
        KNeighborsClassifier(),
    ):
        folds = {f"fold_{number}": clone(model).fit(X[number::2], y[number::2]) for number in range(2)}
        chain = put_chain(store, begin(store), [], folds)
        for predict in surfaces(store, chain, X, tmp_path).values():
            with pytest.raises(ReplayError, match="several targets at once"):
                predict()


class Moments(TransformerMixin, BaseEstimator):
    """Gives five columns whatever it is given, and does not say how many it takes."""

    def fit(self, X: Any, y: Any = None) -> Moments:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Any) -> Any:
        return np.stack([np.mean(X**power, axis=1) for power in range(1, 6)], axis=1)


@pytest.mark.long
def test_an_operator_whose_output_is_as_wide_as_anything_tells_no_width(store: WorkspaceStore, tmp_path: Path) -> None:
    moments, widths = Moments(), []
    features = moments.transform(X)
    chain = put_chain(store, begin(store), [moments], {"fold_0": Ridge().fit(features, Y)})
    assert_everywhere(store, chain, Ridge().fit(features, Y).predict(features), tmp_path)
    assert not keeps_width(moments.transform, features.shape[1])
    assert keeps_width(lambda rows: (widths.append(rows.shape[1]), rows)[1], 5)
    assert sorted(widths) == [4, 5, 6]
