"""Fold keys, the choice of folds and their weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast.errors import InvalidInputError, ReplayError
from n4a_fast.replay.plan.folds import choose, fold_key, read_folds, weights_of
from n4a_fast.replay.plan.replay_plan import Place

PLACE = Place("c1", 5, "Ridge")
CV = ("0", "1", "2")


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("fold_0", "0"),
        ("0", "0"),
        (0, "0"),
        (np.int64(3), "3"),
        ("fold_final", "final"),
        ("final", "final"),
        ("fold_007", "7"),
    ],
)
def test_a_fold_has_one_key_however_it_is_written(raw: Any, key: str) -> None:
    assert fold_key(raw) == key


def test_folds_are_ordered_by_number_and_averages_are_none() -> None:
    stored = {"fold_10": "k", "fold_2": "c", "fold_avg": "x", "w_avg": "y", "fold_final": "f", "0": ["a"], "1": None}
    assert read_folds(stored, PLACE) == {"0": "a", "2": "c", "10": "k", "final": "f"}
    assert list(read_folds(stored, PLACE)) == ["0", "2", "10", "final"]


def test_a_fold_stored_twice_must_be_the_same_model() -> None:
    assert read_folds({"0": "a", "fold_0": "a"}, PLACE) == {"0": "a"}
    with pytest.raises(ReplayError, match="two models for fold '0'"):
        read_folds({"0": "a", "fold_0": "b"}, PLACE)
    with pytest.raises(ReplayError, match="2 models for fold 'fold_1'"):
        read_folds({"fold_1": ["a", "b"]}, PLACE)


@pytest.mark.parametrize(
    ("available", "folds", "chosen"),
    [
        ((*CV, "final"), "auto", ("final",)),
        (CV, "auto", CV),
        ((*CV, "final"), "all", CV),
        ((*CV, "final"), "cv", CV),
        ((*CV, "final"), "final", ("final",)),
        (CV, [2, "fold_0"], ("2", "0")),
        (CV, "fold_1", ("1",)),
        (CV, 1, ("1",)),
        ((*CV, "final"), ["final", 0], ("final", "0")),
        (CV, np.array([0, 2]), ("0", "2")),
    ],
)
def test_folds_are_chosen(available: tuple[str, ...], folds: Any, chosen: tuple[str, ...]) -> None:
    assert choose(available, folds) == chosen


@pytest.mark.parametrize(
    ("available", "folds", "named"),
    [
        (CV, "final", "only folds '0', '1', '2'"),
        (("final",), "all", "only folds 'final'"),
        (CV, [0, 7], "no fold '7'.*'0', '1', '2'"),
        (CV, "avg", "no fold 'avg'"),
        (CV, [], "at least one of folds '0'"),
        (CV, [0, "fold_0"], "each fold once"),
        (CV, 1.5, "not a choice of folds"),
        (CV, [0.5], "not a choice of folds"),
        (CV, None, "not a choice of folds"),
    ],
)
def test_a_choice_that_cannot_be_met_names_the_folds_there_are(
    available: tuple[str, ...], folds: Any, named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        choose(available, folds)


@pytest.mark.parametrize(
    "weights",
    [[1, 1, 2], (0.25, 0.25, 0.5), np.array([2.0, 2.0, 4.0]), {"fold_2": 2, 0: 1, "1": 1}, [1.7e308, 1.7e308, 1.7e308]],
)
def test_weights_sum_to_one(weights: Any) -> None:
    found = weights_of(CV, weights)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()


def test_mapped_weights_follow_the_folds_used() -> None:
    np.testing.assert_allclose(weights_of(("2", "0"), {0: 3, 2: 1}), [0.25, 0.75])
    np.testing.assert_allclose(weights_of(CV, None), [1 / 3] * 3)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([1, 1], "one weight for each"),
        ([[1, 1, 1]], "one weight for each"),
        ([0, 0, 0], "not all zero"),
        ([1, -1, 2], "not negative"),
        ([1, math.nan, 1], "finite"),
        ([1, math.inf, 1], "finite"),
        (["a", "b", "c"], "must be numbers"),
        ({"0": 1, "1": 1}, "the folds used are"),
        ({"0": 1, "1": 1, "2": 1, "9": 1}, "the folds used are"),
        ({"0": 1, "fold_0": 1, "1": 1, "2": 1}, "the folds used are"),
        ({1.5: 1}, "must be fold keys"),
        (3.0, "one weight for each"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        weights_of(CV, weights)


@given(st.lists(st.floats(0, 1e300), min_size=3, max_size=3).filter(lambda weights: max(weights) > 1e-300))
def test_weights_keep_their_proportions(weights: list[float]) -> None:
    found = weights_of(CV, weights)
    np.testing.assert_allclose(
        found, np.array(weights) / max(weights) / (np.array(weights) / max(weights)).sum(), rtol=1e-12
    )
