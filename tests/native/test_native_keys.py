"""The native key of a prediction beside the plain arithmetic on Python's integers."""

from __future__ import annotations

import array
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast._native.keys import ids_of_keys, key_and_id
from n4a_fast.values import ids

LANE = st.integers(0, 2**64 - 1)


def plainly(prefix: int, chain: tuple[int, int], place: tuple[int, ...]) -> int:
    first, second = chain
    for number in range(3):
        first, second = (
            ids.fold(first, place[2 * number], ids.FACTORS[0]),
            ids.fold(second, place[2 * number + 1], ids.FACTORS[1]),
        )
    return prefix << 80 | first << 16 | second >> 48


@given(st.integers(0, 2**48 - 1), st.tuples(LANE, LANE), st.tuples(LANE, LANE, LANE, LANE, LANE, LANE))
def test_the_native_key_is_the_plain_one(prefix: int, chain: tuple[int, int], place: tuple[int, ...]) -> None:
    key = plainly(prefix, chain, place)
    identifier = ids.prediction_id(key)
    assert key_and_id(prefix, chain, place, ids.FACTORS) == (key, identifier, ids.nk(key), ids.id_key(identifier))


@pytest.mark.parametrize(
    ("prefix", "chain", "place", "error"),
    [
        (2**64, (0, 0), (0,) * 6, OverflowError),
        (-1, (0, 0), (0,) * 6, OverflowError),
        (0, (0, 2**64), (0,) * 6, OverflowError),
        (0, (0,), (0,) * 6, IndexError),
        (0, (0, 0), (0,) * 5, IndexError),
        (0, (0, 0), ("a",) * 6, TypeError),
        (0, None, (0,) * 6, TypeError),
    ],
)
def test_numbers_that_are_no_lanes_are_refused(
    prefix: int, chain: tuple[int, int], place: tuple[int, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        key_and_id(prefix, chain, place, ids.FACTORS)


def test_ten_thousand_keys_leave_no_reference_behind() -> None:
    chain, place = (2**63, 2**62), tuple(range(2**61, 2**61 + 6))
    inputs = (chain, place, *chain, *place)
    before = [sys.getrefcount(value) for value in inputs]
    for prefix in range(10_000):
        key_and_id(prefix, chain, place, ids.FACTORS)
    assert [sys.getrefcount(value) for value in inputs] == before


@given(st.lists(st.tuples(LANE, LANE), max_size=9))
def test_ids_of_many_keys_are_those_of_each(keys: list[tuple[int, int]]) -> None:
    high, low = (array.array("Q", half) for half in (zip(*keys, strict=True) if keys else ((), ())))
    assert ids_of_keys(high, low).decode() == "".join(ids.prediction_id(first << 64 | second) for first, second in keys)


@pytest.mark.parametrize(
    ("high", "low", "error"),
    [
        (b"\0" * 8, b"\0" * 16, ValueError),
        (b"\0" * 7, b"\0" * 7, ValueError),
        ([1], [2], TypeError),
        (b"\0" * 8, None, TypeError),
        (memoryview(b"\0" * 32)[::2], b"\0" * 16, BufferError),
    ],
)
def test_halves_that_are_none_are_refused(high: object, low: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        ids_of_keys(high, low)
