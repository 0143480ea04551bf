"""Rows of a log record by column: nothing is lost by writing once what all have."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from n4a_fast.tables.predictions.packed import array_of, packed, rows_of, unpacked, values_of

REALS = st.none() | st.sampled_from([0.0, -0.0, 1.0, float("nan")]) | st.floats()
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b"]), REALS, st.none() | st.integers(-2, 2)), min_size=1, max_size=5)
NAMES = ("text", "real", "integer")
KINDS = (pa.string(), pa.float64(), pa.int32())


NAMED = (*NAMES, "id")  # no two rows of a record are alike


def columns_of(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def exact(value: Any) -> Any:
    """A number by its bytes: NaN equals itself, and -0.0 is not 0.0."""
    return struct.pack("d", value) if isinstance(value, float) else value


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_rows_come_back_as_they_were(drawn: list[list[tuple[Any, ...]]]) -> None:
    frames = [[(*row, place) for place, row in enumerate(rows)] for rows in drawn]
    written = [unpacked(msgpack.decode(msgpack.encode(packed(NAMED, columns_of(rows)))), NAMED) for rows in frames]
    for rows, frame in zip(frames, written, strict=True):
        assert [tuple(map(exact, row)) for row in rows_of(frame, NAMED)] == [tuple(map(exact, row)) for row in rows]
    for place, (name, kind) in enumerate(zip(NAMES, KINDS, strict=True)):
        values = [exact(row[place]) for rows in frames for row in rows]
        assert [exact(value) for value in values_of(written, name)] == values
        column = array_of(written, name, kind)
        assert column.type == kind
        assert [exact(value) for value in column.to_pylist()] == values


def test_what_all_rows_have_is_written_once() -> None:
    assert packed(NAMES, [["pipeline", "pipeline"], [0.5, 0.5], [1, 2]]) == (
        2,
        {"text": "pipeline", "real": [0.5, 0.5], "integer": [1, 2]},
    )


def test_a_record_is_read_by_names_whatever_came_or_went_since_it_was_written() -> None:
    written = packed(("text", "gone"), [["a", "b"], [1, 2]])
    assert list(rows_of(unpacked(written, NAMES), ("text", "new"))) == [("a", None), ("b", None)]
    assert array_of([written], "new", pa.int32()).to_pylist() == [None, None]


def test_records_of_format_1_are_read_by_position() -> None:
    part = unpacked([2, ["pipeline", [0.5, 1.5]]], NAMES)
    assert list(rows_of(part, NAMES)) == [("pipeline", 0.5, None), ("pipeline", 1.5, None)]


@pytest.mark.parametrize(
    "part", [[2**40, {"text": "a"}], [-1, {}], ["2", {"text": ["a", "b"]}], [3, {"text": ["a", "b"]}]]
)
def test_more_rows_than_any_column_has_are_refused(part: Any) -> None:
    with pytest.raises(ValueError, match="rows, and columns of"):
        unpacked(part, NAMES)
