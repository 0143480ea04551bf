"""The search finds what Python's collector is told of, each object once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.tree import DecisionTreeRegressor

from n4a_fast._native.references import reachable

ENTERED, WANTED, MAY_HOLD_OBJECTS = 1, 2, 4


class Wanted:
    def __init__(self, inside: Any = None) -> None:
        self.inside = inside


def kind_of(kind: type) -> int:
    """Classes are not entered: through their modules they hold all that the process has."""
    return (
        (0 if issubclass(kind, type) else ENTERED)
        | (WANTED if issubclass(kind, Wanted | DecisionTreeRegressor) else 0)
        | (MAY_HOLD_OBJECTS if issubclass(kind, np.ndarray) else 0)
    )


def plainly(root: Any, kind_of: Callable[[type], int] = kind_of) -> list[Any]:
    """The same, level by level, in Python."""
    seen, level = {id(root): root}, [root]
    while level:
        inside = gc.get_referents(*(one for one in level if kind_of(type(one)) & ENTERED))
        for one in level:
            inside += one.ravel().tolist() if isinstance(one, np.ndarray) and one.dtype.hasobject else []
        level = [one for key, one in {id(one): one for one in inside}.items() if key not in seen]
        seen |= {id(one): one for one in level}
    return [one for one in seen.values() if kind_of(type(one)) & WANTED]


def circle() -> Wanted:
    first = Wanted()
    first.inside = [Wanted((first, {"a": first}))]
    return first


X = np.random.default_rng(0).random((40, 3))


@pytest.mark.parametrize(
    "root",
    [
        None,
        1,
        Wanted(),
        circle(),
        [Wanted(), {"a": (Wanted({Wanted()}),)}] * 2,
        np.array([[Wanted(), None], [[Wanted()], np.array([Wanted()], dtype=object)]], dtype=object),
        np.array(Wanted(), dtype=object),
        np.arange(3.0),
        [Wanted(number) for number in range(5_000)],
        GradientBoostingRegressor(n_estimators=20, random_state=0).fit(X, X[:, 0]),
    ],
    ids=[
        "nothing",
        "a number",
        "one",
        "a circle",
        "in a dict",
        "in arrays",
        "in an array of one",
        "no object",
        "many",
        "a model",
    ],
)
def test_it_finds_what_a_search_by_the_collector_finds(root: Any) -> None:
    found = reachable(root, kind_of)
    assert sorted(map(id, found)) == sorted(map(id, plainly(root)))


def test_classes_are_asked_about_once_and_may_be_passed_by() -> None:
    asked: list[type] = []

    def only_lists(kind: type) -> int:
        asked.append(kind)
        return ENTERED if kind is list else WANTED if kind is Wanted else 0

    assert len(reachable([Wanted([Wanted()]), {"a": Wanted()}, [Wanted()]], only_lists)) == 2
    assert sorted(asked, key=str) == sorted({list, dict, Wanted}, key=str)


def test_what_cannot_be_told_is_raised() -> None:
    def fail(kind: type) -> int:
        raise KeyError(kind)

    with pytest.raises(KeyError):
        reachable([[]], fail)


@pytest.mark.slow
def test_all_that_a_process_holds_is_searched_alike() -> None:
    def everything(kind: type) -> int:
        return kind_of(kind) | ENTERED

    root = circle()
    assert sorted(map(id, reachable(root, everything))) == sorted(map(id, plainly(root, everything)))
