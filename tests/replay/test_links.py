"""Classifiers with affine scores: labels and probabilities of compiled chains are those of the plain path, in every way
to ask.

A label may differ only where two classes are equally probable within rounding, which no spectrum here comes near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_chains import ChainMaker, spectra, target
from replay_stores import plain, put_maker
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.preprocessing import LabelEncoder, Normalizer, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.fused.compile import compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.known_operators import ENTRIES
from n4a_fast.replay.fused.linear_operators import public_name
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plan.folds import weights_of

pytestmark = pytest.mark.filterwarnings("ignore")
Array = np.ndarray[Any, Any]

X = spectra(90, 20, seed=3)
NEW = spectra(23, 20, seed=4)
RANKS = np.argsort(np.argsort(target(X)))
NAMES: dict[str, Callable[[Array], Array]] = {
    "text": lambda codes: np.array(["barley", "oat", "rye", "wheat"])[codes],
    "int": lambda codes: codes * 3 - 2,
    "float": lambda codes: codes * 2.0,
    "bool": lambda codes: codes > 0,
}
SOFT: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(C=100.0),
    "logistic cv": lambda: LogisticRegressionCV(Cs=2, cv=2),
    "lda": LinearDiscriminantAnalysis,
    "shrunk lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
    "sgd log": lambda: SGDClassifier(loss="log_loss", random_state=0),
}
HARD: dict[str, Callable[[], Any]] = {
    "ridge": RidgeClassifier,
    "ridge cv": RidgeClassifierCV,
    "svc": LinearSVC,
    "sgd": lambda: SGDClassifier(random_state=0),
    "perceptron": lambda: Perceptron(random_state=0),
}
MODELS = SOFT | HARD


def codes(n_classes: int) -> Array:
    return np.asarray(RANKS * n_classes // len(X))


def chain(
    model: str, n_classes: int, n_folds: int, kind: str = "int", encoder: Any = None, statistic: bool = True
) -> ChainMaker:
    labels = NAMES[kind](codes(n_classes))
    maker, Z = ChainMaker(), X
    for step in [*([Normalizer()] if statistic else []), StandardScaler()]:
        maker.step(step.fit(Z))
        Z = step.transform(Z)
    if encoder is not None:
        given = labels[:, None] if isinstance(encoder, OrdinalEncoder) else labels
        maker.step(encoder.fit(given), kind="y_processing")
        labels = np.asarray(encoder.transform(given)).ravel()
    return maker.model(
        *(
            MODELS[model]().fit(np.delete(Z, slice(n, None, 3), 0), np.delete(labels, slice(n, None, 3)))
            for n in range(n_folds)
        )
    )


def compiled(maker: ChainMaker) -> CompiledChain | PlainChain:
    plan = maker.load()
    return compile_chain(plan, weights_of(tuple(plan.model.fold_ids), None), NEW[:4], None, Bench(maker.shelf))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path_factory.mktemp("links")) as opened:
        yield opened


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_classifier_with_affine_scores_fuses(model: str, n_classes: int) -> None:
    found = compiled(chain(model, n_classes, 3))
    assert isinstance(found, CompiledChain), found.notes
    assert found.start == 0
    assert len(found.weights) == 3 * (1 if n_classes == 2 else n_classes)
    assert found.answers(True) == (model in SOFT)


@pytest.mark.parametrize("model", sorted(SOFT))
def test_spectra_of_which_no_class_is_probable_get_the_label_of_the_plain_path(
    store: WorkspaceStore, model: str
) -> None:
    labels, folds = codes(3), [slice(n, None, 3) for n in range(3)]
    models = [MODELS[model]().fit(np.delete(X, left, 0), np.delete(labels, left)) for left in folds]
    one = put_maker(store, ChainMaker().model(*models))
    store.replay_chain(one, NEW)
    for far in (1e8 * NEW, -1e8 * NEW, 1000.0 + NEW, 1000.0 - NEW):
        np.testing.assert_array_equal(store.replay_chain(one, far), plain(store, one, far))


@pytest.mark.parametrize("n_folds", [1, 2])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_that_only_rounding_tells_apart_are_the_classifier_s(
    store: WorkspaceStore, n_classes: int, n_folds: int
) -> None:
    models = [LogisticRegression(C=100.0 + fold, fit_intercept=False) for fold in range(n_folds)]
    labels = codes(n_classes)
    one = put_maker(store, ChainMaker().model(*(model.fit(X, labels) for model in models)))
    dark = np.vstack([NEW[:3], np.zeros((1, 20)), 1e-300 * NEW[3:5]])
    store.replay_chain(one, NEW)
    assert store.replay_plan(one).compiled
    np.testing.assert_array_equal(store.replay_chain(one, dark), plain(store, one, dark))
    np.testing.assert_array_equal(store.replay_chains([one], dark)[0], plain(store, one, dark))


@pytest.mark.long
@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    model=st.sampled_from(sorted(MODELS)),
    n_classes=st.integers(2, 4),
    n_folds=st.integers(1, 3),
    kind=st.sampled_from(sorted(NAMES)),
    encoded=st.sampled_from([None, LabelEncoder, OrdinalEncoder]),
    weighted=st.booleans(),
    statistic=st.booleans(),
    far=st.booleans(),
    layout=st.sampled_from(
        [np.ascontiguousarray, np.asfortranarray, lambda a: a[:1], lambda a: np.repeat(a, 2, axis=1)[:, ::2]]
    ),
)
def test_random_classifiers_agree_with_the_plain_path(
    store: WorkspaceStore,
    model: str,
    n_classes: int,
    n_folds: int,
    kind: str,
    encoded: Any,
    weighted: bool,
    statistic: bool,
    far: bool,
    layout: Any,
) -> None:
    maker = chain(model, 2 if kind == "bool" else n_classes, n_folds, kind, encoded and encoded(), statistic)
    new = layout(NEW * np.linspace(0.2, 30.0, NEW.shape[1]) if far else NEW)
    choice = {"fold_weights": [3.0, 1.0, 2.0][:n_folds]} if weighted else {}
    chain_id = put_maker(store, maker)
    expected = plain(store, chain_id, new, **choice)
    for found in (
        store.replay_chain(chain_id, new, **choice),
        store.replay_chain(chain_id, new, **choice),
        store.replay_chains([chain_id], new, **choice)[0],
    ):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert store.replay_plan(chain_id, new).compiled
    if model in SOFT:
        proba = plain(store, chain_id, new, return_proba=True, **choice)
        for found in (
            store.replay_chain(chain_id, new, return_proba=True, **choice),
            store.replay_chains([chain_id], new, return_proba=True, **choice)[0],
        ):
            np.testing.assert_allclose(found, proba, rtol=0, atol=1e-10)
    else:
        with pytest.raises(InvalidInputError, match="no predict_proba"):
            store.replay_chain(chain_id, new, return_proba=True, **choice)


def test_classifiers_are_found_again_without_their_objects(tmp_path: Any) -> None:
    with WorkspaceStore(tmp_path) as first:
        ids = [put_maker(first, chain(model, 3, 2, "text", LabelEncoder())) for model in ("logistic", "lda", "ridge")]
        labels, proba = first.replay_chains(ids, NEW), first.replay_chains(ids[:2], NEW, return_proba=True)
        paths = [
            first.get_artifact_path(name) for one in ids for name in first.get_chain(one)["fold_artifacts"].values()
        ]  # type: ignore[index]
    for path in paths:
        path.unlink()
    with WorkspaceStore(tmp_path) as again:
        np.testing.assert_array_equal(again.replay_chains(ids, NEW), labels)
        np.testing.assert_array_equal(again.replay_chain(ids[2], NEW), labels[2])
        np.testing.assert_array_equal(again.replay_chains(ids[:2], NEW, return_proba=True), proba)


def test_compiled_and_plain_classifiers_come_in_one_array(store: WorkspaceStore) -> None:
    maker, forest = chain("logistic", 3, 2), ChainMaker()
    ids = [
        put_maker(store, maker),
        put_maker(store, forest.model(RandomForestClassifier(5, random_state=0).fit(X, NAMES["int"](codes(3))))),
    ]
    np.testing.assert_array_equal(store.replay_chains(ids, NEW), np.stack([plain(store, one, NEW) for one in ids]))
    expected = np.stack([plain(store, one, NEW, return_proba=True) for one in ids])
    np.testing.assert_allclose(store.replay_chains(ids, NEW, return_proba=True), expected, rtol=0, atol=1e-12)


class Other(LogisticRegression):  # type: ignore[misc]
    """A subclass may do anything."""


@pytest.mark.parametrize(
    "make", [lambda: SGDClassifier(loss="modified_huber", random_state=0), lambda: SVC(kernel="linear"), Other]
)
def test_a_classifier_that_is_not_known_stays_plain(make: Callable[[], Any]) -> None:
    found = compiled(ChainMaker().model(make().fit(X, codes(3))))
    assert isinstance(found, PlainChain)
    assert "runs plainly" in found.notes[-1]


@pytest.mark.parametrize("wrong", ["coef_", "classes_"])
def test_a_classifier_that_is_not_what_it_says_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = LogisticRegression.decision_function if wrong == "coef_" else LogisticRegression.predict
    if wrong == "coef_":
        monkeypatch.setattr(
            LogisticRegression,
            "decision_function",
            lambda self, Z: honest(self, Z) + 1e-7 * np.sin(9.0 * honest(self, Z)),
        )
    else:
        monkeypatch.setattr(LogisticRegression, "predict", lambda self, Z: honest(self, Z)[::-1])
    found = compiled(ChainMaker().model(LogisticRegression(C=100.0).fit(X, codes(3))))
    assert isinstance(found, PlainChain)
    assert "an operator is not what its entry says" in found.notes[-1]


def test_every_classifier_of_the_registry_is_tried_here() -> None:
    untried = {entry.name for entry in ENTRIES if entry.role == "score"} - {
        public_name(type(make())) for make in MODELS.values()
    }
    # deprecated in favour of SGDClassifier; tried with its last step in test_nested_pipelines; in test_fuse_nirs4all
    assert untried == {
        "sklearn.linear_model.PassiveAggressiveClassifier",
        "sklearn.pipeline.Pipeline",
        "nirs4all.operators.models.sklearn.plsda.PLSDA",
    }


def test_folds_of_two_kinds_stay_plain() -> None:
    labels = codes(2)
    found = compiled(ChainMaker().model(LogisticRegression().fit(X, labels), RidgeClassifier().fit(X, labels)))
    assert isinstance(found, PlainChain)
    assert "answer in different ways" in found.notes[-1]
