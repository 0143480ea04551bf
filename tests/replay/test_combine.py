"""Folds into one prediction: averages, votes, probabilities, targets in their own unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from replay_chains import ChainMaker, Constant, SoftVoter, Voter, spectra, target
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelEncoder,
    MinMaxScaler,
    OrdinalEncoder,
    PowerTransformer,
    StandardScaler,
)

from n4a_fast.errors import InvalidInputError, ReplayError
from n4a_fast.replay import execute

X = spectra()
ONE = X[:1]


def chain(*models: Any, **keys: Any) -> ChainMaker:
    return ChainMaker().model(*models, keys=keys or None)


# -- regression ---------------------------------------------------------------------------------


def test_the_refit_predicts_alone_and_folds_are_averaged() -> None:
    maker = chain(fold_0=Constant(1.0), fold_1=Constant(3.0), fold_final=Constant(10.0), fold_avg=Constant(99.0))
    assert maker.predict(ONE).tolist() == [10.0]
    assert maker.predict(ONE, folds="all").tolist() == [2.0]
    assert maker.predict(ONE, folds=[1]).tolist() == [3.0]
    assert maker.predict(ONE, folds="all", fold_weights=[1, 3]).tolist() == [2.5]
    assert maker.predict(ONE, folds=["fold_1", "final"], fold_weights={"1": 1, "final": 1}).tolist() == [6.5]
    with pytest.raises(InvalidInputError, match="fold_weights has shape"):
        maker.predict(ONE, fold_weights=[1, 3])  # the refit is one fold
    with pytest.raises(InvalidInputError, match="no fold '7'"):
        maker.predict(ONE, folds=[7])


def test_a_plan_without_the_models_asked_for_says_so() -> None:
    maker = chain(fold_0=Constant(1.0), fold_final=Constant(10.0))
    with pytest.raises(InvalidInputError, match=r"loaded without the models of the folds \['0'\]"):
        execute(maker.load(folds="auto"), ONE, folds=[0])


def test_one_target_is_flat_and_several_are_columns() -> None:
    assert chain(Constant(1.0)).predict(X).shape == (24,)
    assert chain(Constant(1.0, 2.0), Constant(3.0, 6.0)).predict(ONE).tolist() == [[2.0, 4.0]]
    assert chain(Constant(1.0)).predict(ONE).shape == (1,)
    with pytest.raises(ReplayError, match=r"different numbers of targets \(\[1, 2\]\)"):
        chain(Constant(1.0), Constant(1.0, 2.0)).predict(ONE)


def test_targets_return_to_their_unit_through_all_steps_backwards() -> None:
    y = target(X)[:, None] ** 2
    first, second = StandardScaler().fit(y), MinMaxScaler().fit(StandardScaler().fit_transform(y))
    third = PowerTransformer().fit(second.transform(first.transform(y)))
    model = Ridge().fit(X, third.transform(second.transform(first.transform(y))).ravel())
    expected = first.inverse_transform(
        second.inverse_transform(third.inverse_transform(model.predict(X)[:, None]))
    ).ravel()
    maker = ChainMaker().step(first, second, kind="y_processing").step(third, kind="y_processing").model(model)
    np.testing.assert_allclose(maker.predict(X), expected, rtol=1e-12)


def test_folds_are_averaged_in_the_unit_of_the_targets() -> None:
    logarithm = FunctionTransformer(np.log10, inverse_func=exp10)
    maker = ChainMaker().step(logarithm, params={"y_processing": "x"}).model(Constant(1.0, 2.0), Constant(3.0, 2.0))
    np.testing.assert_allclose(maker.predict(ONE), [[505.0, 100.0]])


def exp10(values: Any) -> Any:
    return 10.0**values


def test_a_target_function_without_inverse_is_refused() -> None:
    maker = ChainMaker().step(FunctionTransformer(np.log10), kind="y_processing").model(Constant(1.0))
    with pytest.raises(
        ReplayError, match=r"step 1 \(FunctionTransformer\) changed the targets by a function without an inverse"
    ):
        maker.predict(ONE)


def test_a_target_step_that_fails_is_named() -> None:
    maker = ChainMaker().step(StandardScaler().fit(X[:, :3]), kind="y_processing").model(Constant(1.0))
    with pytest.raises(ReplayError, match=r"step 1 \(StandardScaler\) failed to bring predictions back"):
        maker.predict(ONE)


class Speaks:
    """A model that is no classifier and predicts words."""

    def predict(self, X: Any) -> Any:
        return np.array(["high"] * len(X))


class Short:
    """A model that forgets samples."""

    def predict(self, X: Any) -> Any:
        return np.zeros(3)


class Broken:
    """A model that fails."""

    def predict(self, X: Any) -> Any:
        raise RuntimeError("no licence")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Speaks(), "predicted <U4"),
        (Short(), r"of shape \(3,\) for 24 samples"),
        (Broken(), "failed to predict: no licence"),
    ],
)
def test_a_model_that_gives_no_numbers_is_named(model: Any, named: str) -> None:
    with pytest.raises(ReplayError, match=named):
        chain(model).predict(X)


# -- classification -----------------------------------------------------------------------------

LABELS = np.array(["arabica", "robusta", "liberica"])[np.arange(24) % 3]


def test_classifiers_average_probabilities() -> None:
    folds = [RandomForestClassifier(5, random_state=seed).fit(X[seed:], LABELS[seed:]) for seed in range(3)]
    maker = chain(*folds)
    proba = np.mean([fold.predict_proba(X) for fold in folds], axis=0)
    np.testing.assert_allclose(maker.predict(X, return_proba=True), proba, rtol=1e-12)
    found = maker.predict(X)
    np.testing.assert_array_equal(found, folds[0].classes_[proba.argmax(axis=1)])
    assert found.dtype == folds[0].classes_.dtype
    weights = [0.2, 0.0, 0.7]
    np.testing.assert_allclose(
        maker.predict(X, return_proba=True, fold_weights=weights),
        np.average([fold.predict_proba(X) for fold in folds], axis=0, weights=weights),
        rtol=1e-12,
    )


def test_probabilities_decide_and_not_the_number_of_votes() -> None:
    maker = chain(SoftVoter([0.6, 0.4], [3, 5]), SoftVoter([0.55, 0.45], [3, 5]), SoftVoter([0.0, 1.0], [3, 5]))
    assert maker.predict(ONE).tolist() == [5]
    assert maker.predict(ONE, fold_weights=[5, 5, 1]).tolist() == [3]


def test_one_fold_answers_with_its_own_predict() -> None:
    voter = SoftVoter([0.4, 0.6], [3, 5])
    voter.label = 3  # as SVC(probability=True) may
    assert chain(voter).predict(ONE).tolist() == [3]
    np.testing.assert_array_equal(chain(voter).predict(ONE, return_proba=True), [[0.4, 0.6]])


def test_a_tie_goes_to_the_first_class() -> None:
    assert chain(SoftVoter([0.5, 0.5], ["b", "a"]), SoftVoter([0.5, 0.5], ["b", "a"])).predict(ONE).tolist() == ["b"]
    assert chain(Voter("a", ["b", "a"]), Voter("b", ["b", "a"])).predict(ONE).tolist() == ["b"]
    assert chain(*[Voter(label, [1, 2]) for label in (2, 2, 1)]).predict(
        ONE, fold_weights=[0.1, 0.2, 0.3]
    ).tolist() == [1]  # 0.1 + 0.2 == 0.3


def test_classifiers_without_probabilities_vote() -> None:
    folds = [RidgeClassifier(alpha=alpha).fit(X, LABELS) for alpha in (1.0, 10.0, 1000.0)]
    votes = np.stack([fold.predict(X) for fold in folds])
    expected = [max(sorted(set(column)), key=list(column).count) for column in votes.T]
    found = chain(*folds).predict(X)
    assert found.tolist() == expected
    assert found.dtype == folds[0].classes_.dtype
    assert chain(Voter(1, [1, 2]), Voter(1, [1, 2]), Voter(2, [1, 2])).predict(
        ONE, fold_weights=[1, 1, 3]
    ).tolist() == [2]
    with pytest.raises(InvalidInputError, match="has no predict_proba; ask for labels"):
        chain(*folds).predict(X, return_proba=True)


def test_a_fold_without_probabilities_makes_all_of_them_vote() -> None:
    assert chain(SoftVoter([0.0, 1.0], [1, 2]), Voter(1, [1, 2]), Voter(1, [1, 2])).predict(ONE).tolist() == [1]


def test_folds_that_disagree_on_the_classes_are_refused() -> None:
    with pytest.raises(ReplayError, match=r"different classes: '0' \[1, 2\], '1' \[1, 3\]"):
        chain(Voter(1, [1, 2]), Voter(1, [1, 3])).predict(ONE)
    with pytest.raises(ReplayError, match=r"several kinds \(classifier, regressor\)"):
        chain(Voter(1, [1, 2]), Constant(1.0)).predict(ONE)
    with pytest.raises(ReplayError, match="not among its classes_"):
        chain(Voter(9, [1, 2]), Voter(1, [1, 2])).predict(ONE)


def test_a_classifier_of_several_targets_is_refused() -> None:
    model = MultiOutputClassifier(RandomForestClassifier(3, random_state=0)).fit(X, np.c_[LABELS, LABELS])
    with pytest.raises(ReplayError, match="several targets"):
        chain(model).predict(X)


def test_regression_has_no_probabilities() -> None:
    with pytest.raises(InvalidInputError, match=r"return_proba=True: step 1 \(Constant\) of chain 'c1' is a regressor"):
        chain(Constant(1.0)).predict(ONE, return_proba=True)


@pytest.mark.parametrize("as_float", [False, True])
def test_labels_go_back_through_their_encoder(as_float: bool) -> None:
    encoder = LabelEncoder().fit(LABELS)
    codes = encoder.transform(LABELS).astype(float if as_float else int)
    model = LogisticRegression().fit(X, codes)
    maker = (
        ChainMaker().step(encoder, params={"y_processing": "sklearn.preprocessing.LabelEncoder"}).model(model, model)
    )
    np.testing.assert_array_equal(maker.predict(X), encoder.inverse_transform(model.predict(X).astype(int)))
    np.testing.assert_allclose(maker.predict(X, return_proba=True), model.predict_proba(X))


def test_labels_go_back_through_an_encoder_of_columns() -> None:
    encoder = OrdinalEncoder().fit(LABELS[:, None])
    model = LogisticRegression().fit(X, encoder.transform(LABELS[:, None]).ravel())
    maker = ChainMaker().step(encoder, kind="y_processing").model(model)
    np.testing.assert_array_equal(maker.predict(X), encoder.inverse_transform(model.predict(X)[:, None]).ravel())


def test_an_encoder_that_does_not_know_the_labels_is_named() -> None:
    maker = ChainMaker().step(LabelEncoder().fit(["a", "b"]), kind="y_processing").model(Voter(7, [7, 8]))
    with pytest.raises(ReplayError, match=r"step 1 \(LabelEncoder\) failed to bring labels back"):
        maker.predict(ONE)
