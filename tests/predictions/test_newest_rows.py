"""Rows in one list beside a plain dict of rows: the newest of each id, in both orders, whatever came and went."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast._native.newest_rows import NewestRows

Row = tuple[str, int, float | None]

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "drop", "logged", "cut"]), st.sampled_from("abc")), max_size=25
)


def columns_of(rows: list[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]


@given(STEPS)
def test_the_newest_row_of_each_id_counts(steps: list[tuple[str, str]]) -> None:
    rows, model = NewestRows(3), dict[str, Row]()
    fresh, put, there = dict[str, Row](), 0, 0  # in the order of the last put of each
    for number, (step, name) in enumerate(steps):
        row = (name, number, None if number % 2 else 0.5)
        if step == "put":
            rows.put(row if number % 3 else list(row))
            model[name], put = row, put + 1
            fresh.pop(name, None)
            fresh[name] = row
        elif step == "drop":
            rows.drop(name)
            model.pop(name, None)
            fresh.pop(name, None)
        elif step == "cut":  # by an interrupt, before the row was kept
            rows.fill(row, there)
            put += 1
        else:
            rows.mark_logged()
            fresh, put = {}, 0
        there += step in ("put", "cut")
        rows.fill(row, there - 1)  # or after it
        assert len(rows) == len(model)
        assert rows.fresh == put
        assert [rows.get(each) for each in "abc"] == [list(model[each]) if each in model else None for each in "abc"]
    assert rows.columns() == columns_of(list(model.values()))
    places = rows.fresh_places()
    assert [rows.fresh_column(places, column) for column in range(3)] == columns_of(list(fresh.values()))
    assert places == sorted(places)
    assert all(0 <= place < put for place in places)


def test_a_row_whose_id_and_key_are_new_is_noted_with_both() -> None:
    rows, id_of_key, key_of_id = NewestRows(2), dict[int, str](), dict[str, int]()
    assert rows.put_new(("a", 1), 2**100, id_of_key, key_of_id)
    assert not rows.put_new(("b", 2), 2**100, id_of_key, key_of_id)
    assert not rows.put_new(("a", 2), 7, id_of_key, key_of_id)
    assert (id_of_key, key_of_id, rows.columns()) == ({2**100: "a"}, {"a": 2**100}, [["a"], [1]])


def test_rows_of_another_form_are_refused_and_leave_nothing() -> None:
    rows = NewestRows(2)
    rows.put(("a", 1))
    for row, error in ((("a",), ValueError), (("a", 1, 2), ValueError), ((1, 2), TypeError), (None, TypeError)):
        with pytest.raises(error):
            rows.put(row)  # type: ignore[arg-type]
        with pytest.raises(error):
            rows.put_new(row, 1, {}, {})  # type: ignore[arg-type]
    assert (rows.fresh, rows.columns(), rows.get("b")) == (1, [["a"], [1]], None)
    assert "b" not in rows
    assert 1 not in rows
    for column in (-1, 2):
        with pytest.raises(IndexError):
            rows.fresh_column([0], column)
    with pytest.raises(ValueError, match="at least one value"):
        NewestRows(0)


def test_ten_thousand_rows_leave_no_reference_behind() -> None:
    values = ("text of these rows", 0.123, 2**70)
    before = [sys.getrefcount(value) for value in values]
    rows = NewestRows(3)
    for _ in range(10_000):
        rows.put(values)
        rows.put_new(values, 1, {}, {})
        rows.get(values[0])
        rows.fresh_column([0], 2)
    rows.columns()
    del rows
    assert [sys.getrefcount(value) for value in values] == before
