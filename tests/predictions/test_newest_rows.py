"""Rows in one list beside a plain dict of rows: the newest of each id, in both orders, whatever came and went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from n4a_fast.tables.predictions.newest_rows import NewestRows

Row = tuple[str, int, float | None]

STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "drop", "logged", "cut"]), st.sampled_from("abc")), max_size=25
)


def columns_of(rows: list[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]


@given(STEPS)
def test_the_newest_row_of_each_id_counts(steps: list[tuple[str, str]]) -> None:
    rows, model = NewestRows(3), dict[str, Row]()
    fresh, put = dict[str, Row](), 0  # in the order of the last put of each
    for number, (step, name) in enumerate(steps):
        row = (name, number, None if number % 2 else 0.5)
        if step == "put":
            rows.put(row)
            model[name], put = row, put + 1
            fresh.pop(name, None)
            fresh[name] = row
        elif step == "drop":
            rows.drop(name)
            model.pop(name, None)
            fresh.pop(name, None)
        elif step == "cut":  # by an interrupt, with half of the row there
            rows._cells.extend(row[:2])
            rows.fill(row, len(rows._cells) // 3)
            put += 1
        else:
            rows.mark_logged()
            fresh, put = {}, 0
        assert len(rows) == len(model)
        assert rows.fresh == put
        assert [rows.get(each) for each in "abc"] == [list(model[each]) if each in model else None for each in "abc"]
    assert rows.columns() == columns_of(list(model.values()))
    places = rows.fresh_places()
    assert rows.fresh_columns(places) == columns_of(list(fresh.values()))
    assert list(places) == sorted(places)
    assert all(0 <= place < put for place in places)
