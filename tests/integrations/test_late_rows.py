"""A row whose values are made when they are asked for is, to all who ask, the dict that it stands for."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable, Sequence
from operator import eq, ne
from typing import Any

import numpy as np
import polars as pl
import pytest

from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.nirs4all.late_rows import LATE, LateRow, WholeRow, late_rows

FORM = {"id": "p", "scores": None, "fold_id": "0", "weights": None, "n": 3}
WANTED = {"id": "p", "scores": {"val": [2]}, "fold_id": "0", "weights": [], "n": 3}


class Maker:
    """Makes values, and counts."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def row(self, place: int = 2) -> LateRow:
        return self.rows(place + 1)[place]

    def rows(self, count: int) -> list[LateRow]:
        makers = {"scores": self._making("scores", lambda place: {"val": [place]}), "weights": self._making("weights")}
        return late_rows(FORM, makers, {}, count)

    def _making(self, name: str, make: Callable[[int], Any] = lambda _: []) -> Callable[[Sequence[int]], list[Any]]:
        def call(places: Sequence[int]) -> list[Any]:
            self.made += [(name, place) for place in places]
            return [make(place) for place in places]

        return call


@pytest.fixture
def maker() -> Maker:
    return Maker()


def with_keywords(**given: Any) -> dict[str, Any]:
    return given


WAYS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "keys": lambda row: list(row.keys()),
    "values": lambda row: list(row.values()),
    "items": lambda row: list(row.items()),
    "iter": list,
    "reversed": lambda row: list(reversed(row)),
    "repr": repr,
    "copy": lambda row: row.copy(),
    "copied": copy.copy,
    "deep": copy.deepcopy,
    "pickled": lambda row: pickle.loads(pickle.dumps(row)),
    "json": json.dumps,
    "unpacked": lambda row: {**row},
    "keywords": lambda row: with_keywords(**row),
    "updated": lambda row: {"id": "q"} | {"more": dict.update(made := {}, row)} | made,
    "or": lambda row: row | {"id": "q"},
    "ror": lambda row: {"more": 1, "id": "q"} | row,
    "ior": lambda row: row.__ior__({"id": "q"}).items(),
    "equal": lambda row: (eq(row, WANTED), eq(WANTED, row), row == {}, [row] == [WANTED]),
    "unequal": lambda row: (ne(row, WANTED), ne(WANTED, row), row != {}),
    "get": lambda row: (row.get("scores"), row.get("weights"), row.get("none"), row.get("none", 5), row.get("id")),
    "item": lambda row: (row["weights"], row["scores"], row["id"]),
    "pop": lambda row: (row.pop("scores"), row.pop("scores", 7), dict(row)),
    "popitem": lambda row: (row.popitem(), row.popitem(), dict(row)),
    "setdefault": lambda row: (row.setdefault("scores", 1), row.setdefault("new", 2), dict(row)),
    "set": lambda row: (row.update({"scores": 1}), row.__setitem__("n", 4), dict(row)),
    "removed": lambda row: (row.__delitem__("scores"), "scores" in row, dict(row)),
    "length": lambda row: (len(row), "scores" in row, "none" in row, bool(row)),
    "rows of a frame": lambda row: pl.DataFrame([dict(row)]).to_dicts(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("touched", [(), ("scores",), ("scores", "weights")])
def test_a_row_is_the_dict_that_it_stands_for(maker: Maker, way: str, touched: tuple[str, ...]) -> None:
    row = maker.row()
    for key in touched:
        assert row[key] is row.get(key)
    found, wanted = WAYS[way](row), WAYS[way](copy.deepcopy(WANTED))
    assert (list(found) if isinstance(found, dict) else found) == (list(wanted) if isinstance(wanted, dict) else wanted)
    assert found == wanted
    assert len(maker.made) <= len(set(maker.made)) + len(touched)
    assert {place for _, place in maker.made} <= {2}


@pytest.mark.parametrize("way", ["copied", "deep", "pickled", "copy", "or", "unpacked"])
def test_copies_are_plain_dicts(maker: Maker, way: str) -> None:
    for row in (maker.row(), maker.row()):
        row.get("scores")
        assert type(WAYS[way](row)) is dict


def test_two_rows_that_are_late_are_compared_by_their_values(maker: Maker) -> None:
    assert maker.row() == maker.row()
    assert maker.row(1) != maker.row(2)
    assert not eq(maker.row(1), maker.row(2))


def test_nothing_is_made_before_it_is_asked_for(maker: Maker) -> None:
    row = maker.row()
    row["n"] = 4
    assert (row["id"], row.get("fold_id"), len(row), "scores" in row) == ("p", "0", 5, True)
    assert maker.made == []
    assert row["weights"] is row["weights"]
    assert maker.made == [("weights", 2)]
    assert dict.__getitem__(row, "scores") is LATE


def test_a_row_that_is_whole_has_no_methods_of_its_own_and_lets_go(maker: Maker) -> None:
    row: dict[str, Any] = maker.row()
    dict(row)
    assert type(row) is WholeRow
    assert all(getattr(WholeRow, name) is getattr(dict, name) for name in ("get", "__getitem__", "__iter__", "items"))
    assert row._source is None  # type: ignore[attr-defined]


def test_who_reads_past_the_methods_is_told_rather_than_misled(maker: Maker) -> None:
    frame = pl.DataFrame([maker.row()], strict=False)
    assert "made when it is asked for" in str(frame["scores"][0])


def test_threads_that_ask_at_once_get_one_object() -> None:
    begin = threading.Barrier(2)
    found: list[list[Any]] = [[], []]
    rows = late_rows({"a": None}, {"a": lambda places: [[place] for place in places]}, {}, 300)

    def ask(mine: list[Any]) -> None:
        begin.wait(60)
        mine += [row["a"] if place % 2 else row.copy()["a"] for place, row in enumerate(rows)]

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is other for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    "order",
    [
        range(700),
        range(699, -1, -1),
        range(1, 700, 3),
        [*range(0, 700, 2), *range(1, 700, 2)],
        [at for pair in zip(range(350), range(350, 700), strict=True) for at in pair],
        np.random.default_rng(0).permutation(700).tolist(),
        [5, 6, 7, 8, 3, 699, 698, 0],
    ],
)
def test_rows_looked_at_in_any_order_are_their_own_and_made_once_or_dropped(maker: Maker, order: Sequence[int]) -> None:
    rows = maker.rows(700)
    for place in order:
        assert dict(rows[place]) == {**WANTED, "scores": {"val": [place]}}
    assert all(type(rows[place]) is WholeRow for place in order)
    assert [place for place, row in enumerate(rows) if type(row) is LateRow] == sorted({*range(700)} - {*order})


def test_rows_that_follow_each_other_are_made_together_and_only_those(maker: Maker) -> None:
    rows = maker.rows(9000)
    for row in rows[1:3000:3]:
        dict(row)
    made = [place for name, place in maker.made if name == "scores"]
    assert made == list(range(1, made[-1] + 1, 3))
    assert made[-1] < 3000 + 3 * 256
    maker.made.clear()
    for place in (4000, 5000, 4500, 7000):
        dict(rows[place])
    assert maker.made == [(name, place) for place in (4000, 5000, 4500, 7000) for name in ("scores", "weights")]


def test_what_was_set_or_removed_before_stays(maker: Maker) -> None:
    rows = maker.rows(20)
    for row in rows[:8]:
        dict(row)
    rows[9]["scores"], rows[10]["weights"] = "mine", rows[10]["scores"]
    del rows[11]["scores"]
    assert (dict(rows[8]), dict(rows[9])) == ({**WANTED, "scores": {"val": [8]}}, {**WANTED, "scores": "mine"})
    assert dict(rows[10])["weights"] is rows[10]["scores"]
    assert "scores" not in dict(rows[11])


def test_a_damaged_row_hinders_none_before_or_after_it() -> None:
    def make(places: Sequence[int]) -> list[int]:
        if 40 in places:
            raise InvalidInputError("what is stored is no JSON")
        return [*places]

    rows = late_rows({"a": None}, {"a": make}, {}, 100)
    assert [dict(row)["a"] for row in rows[:40]] == [*range(40)]
    with pytest.raises(InvalidInputError, match="no JSON"):
        dict(rows[40])
    assert [dict(row)["a"] for row in rows[41:]] == [*range(41, 100)]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(maker: Maker, enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        for row in maker.rows(600):
            dict(row)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
