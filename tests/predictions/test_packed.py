"""Rows of a journal frame by column: nothing is lost by writing once what all have."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from n4a_fast.tables.predictions.packed import array_of, packed, rows_of, values_of

REALS = st.none() | st.sampled_from([0.0, -0.0, 1.0, float("nan")]) | st.floats()
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b"]), REALS, st.none() | st.integers(-2, 2)), min_size=1, max_size=5)
KINDS = (pa.string(), pa.float64(), pa.int32())


def exact(value: Any) -> Any:
    """A number by its bytes: NaN equals itself, and -0.0 is not 0.0."""
    return struct.pack("d", value) if isinstance(value, float) else value


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_rows_come_back_as_they_were(frames: list[list[tuple[Any, ...]]]) -> None:
    written = [msgpack.decode(msgpack.encode(packed(rows))) for rows in frames]
    for rows, frame in zip(frames, written, strict=True):
        assert [tuple(map(exact, row)) for row in rows_of(frame)] == [tuple(map(exact, row)) for row in rows]
    for place, kind in enumerate(KINDS):
        values = [exact(row[place]) for rows in frames for row in rows]
        assert [exact(value) for value in values_of(written, place)] == values
        column = array_of(written, place, kind)
        assert column.type == kind
        assert [exact(value) for value in column.to_pylist()] == values


def test_what_all_rows_have_is_written_once() -> None:
    assert packed([("pipeline", 1, 0.5), ("pipeline", 2, 0.5)]) == (2, ["pipeline", [1, 2], [0.5, 0.5]])
