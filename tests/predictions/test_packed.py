"""Rows of a log record by column: nothing is lost by writing once what all have."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from n4a_fast._native.newest_rows import NewestRows
from n4a_fast.tables.predictions.packed import array_of, rows_of, unpacked, values_of

REALS = st.none() | st.sampled_from([0.0, -0.0, 1.0, float("nan")]) | st.floats()
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b"]), REALS, st.none() | st.integers(-2, 2)), min_size=1, max_size=5)
NAMES = ("text", "real", "integer")
KINDS = (pa.string(), pa.float64(), pa.int32())


NAMED = ("id", *NAMES)  # no two rows of a record are alike


def columns_of(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def packed_plainly(names: tuple[str, ...], columns: list[list[Any]]) -> tuple[int, dict[str, Any]]:
    return len(columns[0]), {name: once_if_shared(column) for name, column in zip(names, columns, strict=True)}


def once_if_shared(column: list[Any]) -> Any:
    first = column[0]
    # 0.0 equals -0.0, and is another number
    return first if type(first) is not float and column.count(first) == len(column) else column


def packed(names: tuple[str, ...], rows: list[tuple[Any, ...]], *, with_places: bool = False) -> bytes:
    """The rows as the compiled call writes them."""
    written = NewestRows(len(rows[0]))
    for row in rows:
        written.put(row)
    return written.packed(names, written.fresh_places(), with_places=with_places)


def exact(value: Any) -> Any:
    """A number by its bytes: NaN equals itself, and -0.0 is not 0.0."""
    return struct.pack("d", value) if isinstance(value, float) else value


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_rows_come_back_as_they_were(drawn: list[list[tuple[Any, ...]]]) -> None:
    frames = [[(str(place), *row) for place, row in enumerate(rows)] for rows in drawn]
    written = [unpacked(msgpack.decode(packed(NAMED, rows)), NAMED) for rows in frames]
    for rows, frame in zip(frames, written, strict=True):
        assert [tuple(map(exact, row)) for row in rows_of(frame, NAMED)] == [tuple(map(exact, row)) for row in rows]
    for place, (name, kind) in enumerate(zip(NAMES, KINDS, strict=True), 1):
        values = [exact(row[place]) for rows in frames for row in rows]
        assert [exact(value) for value in values_of(written, name)] == values
        column = array_of(written, name, kind)
        assert column.type == kind
        assert [exact(value) for value in column.to_pylist()] == values


VALUES = st.one_of(
    st.sampled_from([None, 0, -1, 2**31, 2**64 - 1, -(2**63), 0.0, -0.0, "a", "b", "", "é" * 20, "x" * 70_000]),
    *(st.integers(-(2**bits), 2**bits) for bits in (5, 7, 8, 15, 16, 31, 32, 62)),
    st.floats(),
    st.text(max_size=40),
)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20), st.booleans(), st.booleans())
def test_rows_are_written_byte_for_byte_as_a_library_does(
    drawn: list[tuple[Any, Any]], are_alike: bool, with_places: bool
) -> None:
    rows = [(str(place), *(drawn[0] if are_alike else row)) for place, row in enumerate(drawn)]
    columns = [*([list(range(len(rows)))] if with_places else []), *columns_of(rows)]
    names = (*(["place"] if with_places else []), "id", "first", "é" * 40)
    assert packed(names, rows, with_places=with_places) == msgpack.encode(packed_plainly(names, columns))


@pytest.mark.parametrize("count", [15, 16, 40, 70_000])
def test_any_number_of_rows_and_columns_is_written(count: int) -> None:
    rows = [(str(number), number) for number in range(count)]
    assert packed(("id", "n"), rows) == msgpack.encode(packed_plainly(("id", "n"), columns_of(rows)))
    wide, names = ("a", *range(count % 1000)), tuple(f"column {number}" for number in range(count % 1000 + 1))
    assert packed(names, [wide]) == msgpack.encode(packed_plainly(names, [[value] for value in wide]))


def test_replaced_rows_are_not_written() -> None:
    rows = NewestRows(2)
    for row in (("old", 0), ("a", 1), ("b", 2), ("a", 3)):
        rows.put(row)
        if row[0] == "old":
            rows.mark_logged()
    assert rows.fresh_places() == [1, 2]
    assert rows.fresh_column([1, 2], 1) == [2, 3]
    assert msgpack.decode(rows.packed(("id", "n"), [1, 2])) == [2, {"id": ["b", "a"], "n": [2, 3]}]


def test_what_no_column_holds_is_refused() -> None:
    for value, error in (([], TypeError), (b"a", TypeError), (True, TypeError), (2**64, OverflowError)):
        with pytest.raises(error):
            packed(("id", "value"), [("a", value)])
    for value in (-(2**63) - 1, -(2**80)):
        with pytest.raises(OverflowError):
            packed(("id", "value"), [("a", value)])
    with pytest.raises(UnicodeEncodeError):
        packed(("id", "value"), [("a", "\ud800")])
    for names in (("id",), ("id", "value", "more")):
        with pytest.raises(ValueError, match="names"):
            packed(names, [("a", 1)])


def test_what_all_rows_have_is_written_once() -> None:
    assert msgpack.decode(packed(NAMED, [("a", "pipeline", 0.5, 1), ("b", "pipeline", 0.5, 2)])) == [
        2,
        {"id": ["a", "b"], "text": "pipeline", "real": [0.5, 0.5], "integer": [1, 2]},
    ]


def test_a_record_is_read_by_names_whatever_came_or_went_since_it_was_written() -> None:
    written = msgpack.decode(packed(("text", "gone"), [("a", 1), ("b", 2)]))
    assert list(rows_of(unpacked(written, NAMES), ("text", "new"))) == [("a", None), ("b", None)]
    assert array_of([unpacked(written, NAMES)], "new", pa.int32()).to_pylist() == [None, None]


def test_records_of_format_1_are_read_by_position() -> None:
    part = unpacked([2, ["pipeline", [0.5, 1.5]]], NAMES)
    assert list(rows_of(part, NAMES)) == [("pipeline", 0.5, None), ("pipeline", 1.5, None)]


@pytest.mark.parametrize(
    "part", [[2**40, {"text": "a"}], [-1, {}], ["2", {"text": ["a", "b"]}], [3, {"text": ["a", "b"]}]]
)
def test_more_rows_than_any_column_has_are_refused(part: Any) -> None:
    with pytest.raises(ValueError, match="rows, and columns of"):
        unpacked(part, NAMES)
