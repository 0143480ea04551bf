"""A row whose values are made when they are asked for is, to all who ask, the dict that it stands for."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable
from operator import eq, ne
from typing import Any

import polars as pl
import pytest

from n4a_fast.integrations.nirs4all.late_rows import LATE, LateRow, WholeRow, late_rows

FORM = {"id": "p", "scores": None, "fold_id": "0", "weights": None, "n": 3}
WANTED = {"id": "p", "scores": {"val": [2]}, "fold_id": "0", "weights": [], "n": 3}


class Maker:
    """Makes values, and counts."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def row(self, place: int = 2) -> LateRow:
        makers = {"scores": self._making("scores", lambda place: {"val": [place]}), "weights": self._making("weights")}
        return late_rows(FORM, makers, place + 1)[place]

    def _making(self, name: str, make: Callable[[int], Any] = lambda _: []) -> Callable[[int], Any]:
        def call(place: int) -> Any:
            self.made.append((name, place))
            return make(place)

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
    assert len(maker.made) == len(set(maker.made))
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
    assert not row._makers  # type: ignore[attr-defined]


def test_who_reads_past_the_methods_is_told_rather_than_misled(maker: Maker) -> None:
    frame = pl.DataFrame([maker.row()], strict=False)
    assert "made when it is asked for" in str(frame["scores"][0])


def test_threads_that_ask_at_once_get_one_object() -> None:
    begin = threading.Barrier(2)
    found: list[list[Any]] = [[], []]
    rows = late_rows({"a": None}, {"a": lambda place: [place]}, 300)

    def ask(mine: list[Any]) -> None:
        begin.wait(60)
        mine += [row["a"] if place % 2 else row.copy()["a"] for place, row in enumerate(rows)]

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is other for one, other in zip(*found, strict=True))
