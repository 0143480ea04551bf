"""Ensembles of trees that are walked natively give the bits of the estimator itself, or are left to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_chains import ChainMaker, spectra, target
from sklearn import ensemble, linear_model

from n4a_fast.replay import execute
from n4a_fast.replay.serve.forests import QuickTrees, StandIns, quickened

Array = np.ndarray[Any, Any]

X = spectra(64, 24, seed=1)
y = target(X) + np.random.default_rng(0).normal(0, 0.1, len(X))
NEW = spectra(37, 24, seed=2)
GOALS: dict[str, Any] = {
    "numbers": y,
    "two classes": y > np.median(y),
    "text": np.array(["low", "mid", "high"])[np.digitize(y, np.quantile(y, [0.3, 0.7]))],
}
KINDS: list[tuple[str, Callable[[], Any]]] = [
    ("numbers", lambda: ensemble.RandomForestRegressor(7, random_state=0)),
    (
        "numbers",
        lambda: ensemble.RandomForestRegressor(5, max_leaf_nodes=6, max_features=0.3, criterion="absolute_error"),
    ),
    ("numbers", lambda: ensemble.ExtraTreesRegressor(1, max_depth=2, bootstrap=True)),
    ("two classes", lambda: ensemble.RandomForestClassifier(7, random_state=0)),
    ("text", lambda: ensemble.RandomForestClassifier(7, random_state=0, class_weight="balanced")),
    ("text", lambda: ensemble.ExtraTreesClassifier(7, random_state=0, max_depth=3)),
    ("numbers", lambda: ensemble.GradientBoostingRegressor(n_estimators=9, subsample=0.7, random_state=0)),
    ("numbers", lambda: ensemble.GradientBoostingRegressor(n_estimators=5, loss="huber", init="zero")),
    ("numbers", lambda: ensemble.GradientBoostingRegressor(n_estimators=5, init=linear_model.Ridge())),
    ("two classes", lambda: ensemble.GradientBoostingClassifier(n_estimators=9, loss="exponential")),
    ("text", lambda: ensemble.GradientBoostingClassifier(n_estimators=5, random_state=0)),
    ("numbers", lambda: ensemble.HistGradientBoostingRegressor(max_iter=9, min_samples_leaf=5)),
    ("numbers", lambda: ensemble.HistGradientBoostingRegressor(max_iter=5, loss="gamma", min_samples_leaf=5)),
    ("two classes", lambda: ensemble.HistGradientBoostingClassifier(max_iter=9, min_samples_leaf=5)),
    ("text", lambda: ensemble.HistGradientBoostingClassifier(max_iter=9, min_samples_leaf=5)),
]
FITTED: list[Any] = []


def fitted(number: int) -> Any:
    """One of the estimators, fitted once for all tests."""
    if not FITTED:
        FITTED.extend(make().fit(X, GOALS[goal]) for goal, make in KINDS)
    return FITTED[number]


def bits_of(model: Any, quick: Any, rows: Array) -> None:
    np.testing.assert_array_equal(quick.predict(rows), model.predict(rows))
    assert hasattr(quick, "predict_proba") == hasattr(model, "predict_proba")
    if hasattr(model, "predict_proba"):
        np.testing.assert_array_equal(quick.predict_proba(rows), model.predict_proba(rows))


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(KINDS)))
def test_a_stand_in_gives_the_bits_of_its_ensemble(number: int) -> None:
    model, made = fitted(number), StandIns()
    quick = QuickTrees(model, made)
    bits_of(model, quick, NEW)
    stand_in = made.of(model, NEW)
    assert stand_in is not model
    assert type(stand_in) is type(model)
    bits_of(model, quick, np.asfortranarray(NEW)[::-1])


@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, len(KINDS) - 1), rows=st.integers(1, 70), seed=st.integers(0, 99), data=st.data())
@pytest.mark.long
def test_stand_ins_agree_on_any_rows(number: int, rows: int, seed: int, data: st.DataObject) -> None:
    model, made = fitted(number), StandIns()
    some = spectra(rows, 24, seed=seed) * data.draw(st.sampled_from([1.0, -3.0, 1e-9, 1e9]))
    edges = X.ravel()[: data.draw(st.integers(0, 24))]  # values that are thresholds, or near to them
    some[0, : len(edges)] = edges
    bits_of(model, QuickTrees(model, made), some)


@pytest.mark.parametrize("number", [0, 6, 11])
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_not_finite_is_told_or_answered_by_the_ensemble_itself(number: int) -> None:
    model, quick = fitted(number), QuickTrees(fitted(number), StandIns())
    holes = NEW.copy()
    holes[3, 4] = np.nan
    for rows in (holes, np.where(NEW > 1.0, np.inf, NEW), np.full((2, 24), 1e300)):
        try:
            expected = model.predict(rows)
        except ValueError as error:
            with pytest.raises(ValueError, match=re.escape(str(error).splitlines()[0])):
                quick.predict(rows)
        else:
            np.testing.assert_array_equal(quick.predict(rows), expected)


def test_several_targets_and_categories_are_left_to_the_ensemble() -> None:
    pairs = ensemble.RandomForestRegressor(3, random_state=0).fit(X, np.stack([y, -y], axis=1))
    colours = np.column_stack([X, np.arange(len(X)) % 3])
    by_category = ensemble.HistGradientBoostingRegressor(max_iter=5, categorical_features=[24], min_samples_leaf=3)
    by_category.fit(colours, y + 20.0 * (colours[:, 24] == 1.0))
    for model, rows in ((pairs, NEW), (by_category, colours)):
        made = StandIns()
        np.testing.assert_array_equal(QuickTrees(model, made).predict(rows), model.predict(rows))
        assert made.of(model, rows) is model


@pytest.mark.parametrize("name", ["threshold", "node_count", "value"])
def test_trees_of_another_make_are_left_to_their_forest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = ensemble.RandomForestRegressor(5, random_state=0).fit(X, y)

    class Other:
        def __init__(self, tree: Any) -> None:
            self.tree = tree

        def __getattr__(self, asked: str) -> Any:
            if asked == name == "node_count":
                raise AttributeError(asked)
            return getattr(self.tree, asked) + 1.0 if asked == name else getattr(self.tree, asked)

    expected = forest.predict(NEW)
    for tree in forest.estimators_:
        monkeypatch.setattr(tree, "tree_", Other(tree.tree_))
    made = StandIns()
    np.testing.assert_array_equal(QuickTrees(forest, made).predict(NEW), expected)
    assert made.of(forest, NEW) is forest


def test_stand_ins_are_made_once_and_go_with_their_model() -> None:
    made, model = StandIns(), ensemble.RandomForestRegressor(3, random_state=0).fit(X, y)
    first = made.of(model, NEW.astype(np.float32))
    assert made.of(model, NEW.astype(np.float32)) is first
    assert len(made._made) == 1
    del model, first
    assert len(made._made) == 0


def test_a_plan_has_stand_ins_for_its_ensembles_alone() -> None:
    plan = quickened(ChainMaker().model(fitted(0), linear_model.Ridge().fit(X, y)).load(), StandIns())
    quick, ridge = plan.model.models.values()
    assert isinstance(quick, QuickTrees)
    assert isinstance(ridge, linear_model.Ridge)
    expected = np.mean([fitted(0).predict(NEW), ridge.predict(NEW)], axis=0)
    np.testing.assert_allclose(execute(plan, NEW), expected, rtol=1e-14)
