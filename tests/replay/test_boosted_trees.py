"""Boosted trees of lightgbm and xgboost, walked natively, have the bits of their estimator, or are left to it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_chains import spectra, target

from n4a_fast.replay.serve.boosters import quick_lightgbm, quick_xgboost
from n4a_fast.replay.serve.forests import QuickTrees, StandIns

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
Array = np.ndarray[Any, Any]

X = spectra(90, 24, seed=1)
X[:, :6] -= X[:, :6].mean(axis=0)  # thresholds around zero, which lightgbm takes in a way of its own
X[:40, 5] = 0.0
y = target(X) + np.random.default_rng(0).normal(0, 0.1, len(X))
GOALS: dict[str, Any] = {
    "numbers": y,
    "counts": np.round(10 * np.abs(y)),
    "shares": (y - y.min()) / np.ptp(y),
    "pairs": np.stack([y, -y], axis=1),
    "two": np.where(np.median(y) < y, "high", "low"),
    "three": np.array(["low", "mid", "high"])[np.digitize(y, np.quantile(y, [0.3, 0.7]))],
    "three numbers": np.digitize(y, np.quantile(y, [0.3, 0.7])),
    "two numbers": (np.median(y) < y).astype(int),
}


def light(goal: str, kind: str, **given: Any) -> tuple[str, Callable[[], Any]]:
    settings = {"n_estimators": 7, "min_child_samples": 3, "verbose": -1, "n_jobs": 1, "random_state": 0} | given
    return goal, lambda: getattr(lightgbm, f"LGBM{kind}")(**settings)


def extreme(goal: str, kind: str, **given: Any) -> tuple[str, Callable[[], Any]]:
    settings = {"n_estimators": 7, "max_depth": 4, "n_jobs": 1, "random_state": 0} | given
    return goal, lambda: getattr(xgboost, f"XGB{kind}")(**settings)


WALKED = [
    light("numbers", "Regressor"),
    light("numbers", "Regressor", objective="regression_l1", max_depth=3),
    light("numbers", "Regressor", objective="quantile", alpha=0.3),
    light("counts", "Regressor", reg_sqrt=True),
    light("counts", "Regressor", objective="poisson"),
    light("numbers", "Regressor", boosting_type="dart"),
    light("numbers", "Regressor", boosting_type="rf", subsample=0.6, subsample_freq=1),
    light("numbers", "Regressor", n_estimators=1, min_child_samples=80),  # a leaf alone
    light("shares", "Regressor", objective="cross_entropy"),
    light("two", "Classifier"),
    light("three", "Classifier", n_estimators=5),
    light("three", "Classifier", objective="multiclassova"),
    extreme("numbers", "Regressor"),
    extreme("numbers", "Regressor", objective="reg:absoluteerror", base_score=0.5),
    extreme("counts", "Regressor", objective="count:poisson"),
    extreme("shares", "Regressor", objective="reg:logistic"),
    extreme("pairs", "Regressor"),
    extreme("numbers", "Regressor", tree_method="exact", n_estimators=1),
    extreme("numbers", "Regressor", grow_policy="lossguide", max_leaves=5, max_depth=0, gamma=0.1),
    extreme("numbers", "RFRegressor"),
    extreme("two numbers", "Classifier"),
    extreme("three numbers", "Classifier", num_parallel_tree=2),
    extreme("three numbers", "RFClassifier"),
]
LEFT = [
    light("numbers", "Regressor", zero_as_missing=True),
    light("numbers", "Regressor", linear_tree=True),
    light("two", "Classifier", pred_early_stop=True),
    extreme("numbers", "Regressor", booster="dart", rate_drop=0.5),
    extreme("numbers", "Regressor", booster="gblinear"),
    extreme("numbers", "Regressor", missing=0.0),
    extreme("pairs", "Regressor", multi_strategy="multi_output_tree"),
]
FITTED: list[Any] = []


def fitted(number: int) -> Any:
    """One of the estimators, fitted once for all tests."""
    if not FITTED:
        FITTED.extend(made(goal, make) for goal, make in WALKED)
    return FITTED[number]


def made(goal: str, make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a library finds odd in its own settings
        return make().fit(X, GOALS[goal])


def bits_of(model: Any, quick: Any, rows: Array) -> None:
    for method in ("predict", "predict_proba"):
        assert hasattr(quick, method) == hasattr(model, method)
        if hasattr(model, method):
            found, expected = getattr(quick, method)(rows), getattr(model, method)(rows)
            np.testing.assert_array_equal(found, expected)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("number", range(len(WALKED)))
@pytest.mark.long
def test_a_stand_in_gives_the_bits_of_its_estimator(number: int) -> None:
    model, made = fitted(number), StandIns()
    rows = spectra(300, 24, seed=2)
    bits_of(model, QuickTrees(model, made), rows)
    assert type(made.of(model, rows)) is type(model)
    assert made.of(model, rows) is not model


@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, len(WALKED) - 1), rows=st.integers(1, 70), seed=st.integers(0, 99), data=st.data())
@pytest.mark.long
def test_stand_ins_agree_on_any_rows(number: int, rows: int, seed: int, data: st.DataObject) -> None:
    model = fitted(number)
    some = spectra(rows, 24, seed=seed) * data.draw(st.sampled_from([1.0, -3.0, 1e-9, 1e9, 1e-36, 0.0]))
    edges = st.sampled_from([*X.ravel()[:99], *X[:9, 5], 0.0, -0.0, 1e-35, -1e-35, float(np.float32(-1e-35)), 5e-324])
    some[0, :6] = data.draw(st.lists(edges, min_size=6, max_size=6))
    bits_of(model, QuickTrees(model, StandIns()), some)


@pytest.mark.filterwarnings("ignore")  # xgboost warns of its linear booster whenever it is used
@pytest.mark.parametrize(("goal", "make"), LEFT)
def test_what_is_walked_otherwise_is_left_to_the_estimator(goal: str, make: Callable[[], Any]) -> None:
    model, made_here, rows = made(goal, make), StandIns(), spectra(20, 24, seed=3)
    bits_of(model, QuickTrees(model, made_here), rows)
    assert made_here.of(model, rows) is model


def test_weighted_trees_are_refused_whatever_the_rows() -> None:
    model = made(*extreme("numbers", "Regressor", booster="dart", rate_drop=0.5))
    with pytest.raises(ValueError, match="its trees are weighted"):
        quick_xgboost(model, X[:0])


@pytest.mark.parametrize("number", [0, 9, 12, 20])
def test_missing_values_take_the_way_that_their_estimator_learnt(number: int) -> None:
    holes = X.copy()
    holes[::3, ::2] = np.nan
    model = made(WALKED[number][0], lambda: WALKED[number][1]())
    model.fit(holes, GOALS[WALKED[number][0]])
    bits_of(model, QuickTrees(model, StandIns()), X)
    bits_of(model, QuickTrees(model, StandIns()), holes)


def test_splits_by_category_are_left_to_lightgbm() -> None:
    colours = np.column_stack([X, np.arange(len(X)) % 4])
    model = light("numbers", "Regressor", min_data_per_group=1, cat_smooth=0)[1]().fit(
        colours, y + 20.0 * (colours[:, 24] == 1.0), categorical_feature=[24]
    )
    made_here = StandIns()
    bits_of(model, QuickTrees(model, made_here), colours)
    assert made_here.of(model, colours) is model


@pytest.mark.parametrize("kind", ["light", "extreme"])
def test_an_early_stopped_model_uses_its_best_rounds(kind: str) -> None:
    if kind == "light":
        stop = lightgbm.early_stopping(2, verbose=False)
        model = light("numbers", "Regressor", n_estimators=200, learning_rate=0.9)[1]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer releases have another name for the pair
            model.fit(X[::2], y[::2], eval_set=[(X[1::2], y[1::2])], callbacks=[stop])
        assert 0 < model.best_iteration_ < 200
    else:
        model = extreme("numbers", "Regressor", n_estimators=200, learning_rate=0.9, early_stopping_rounds=2)[1]()
        model.fit(X[::2], y[::2], eval_set=[(X[1::2], y[1::2])], verbose=False)
        assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    made_here = StandIns()
    bits_of(model, QuickTrees(model, made_here), X)
    assert made_here.of(model, X) is not model


@pytest.mark.parametrize("number", [0, 12])
def test_spectra_of_another_width_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=re.compile("feature|column", re.IGNORECASE)):
        StandIns().of(fitted(number), X).predict(X[:, :-1])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"left_child=\d+", "left_child=99999"),
        (r"left_child=[-\d]+", "left_child=0"),
        (r"split_feature=\d+", "split_feature=77"),
        (r"right_child=", "right_child=1 "),
        (r"leaf_value=\S+ ", "leaf_value="),
        (r"threshold=\S+", "threshold=low"),
    ],
)
def test_links_that_lead_astray_are_found_before_the_walk(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(*light("numbers", "Regressor", num_leaves=4))
    told = re.sub(old, new, model.booster_.model_to_string(), count=1)
    monkeypatch.setattr(model.booster_, "model_to_string", lambda: told)
    with pytest.raises((ValueError, LookupError)):
        quick_lightgbm(model, X[:8])
    bits_of(model, QuickTrees(model, StandIns()), X)
