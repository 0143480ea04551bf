"""Values survive the trip through JSON text: numbers as numbers, non-finite ones included."""

from __future__ import annotations

import dataclasses
import json
import math
import uuid
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from n4a_fast.errors import InvalidInputError
from n4a_fast.values import jsontext


def trip(value: Any) -> Any:
    return jsontext.decode(jsontext.encode(value, "value"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_every_json_value_comes_back_equal(value: Any) -> None:
    found = trip(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [np.float64(0.5), np.float32(0.5), np.int64(3), np.int8(-3), np.uint64(2**63), np.bool_(True)]
)
@pytest.mark.parametrize("beside", [{}, {"none": None}])
def test_numpy_scalars_become_numbers(value: Any, beside: dict[str, Any]) -> None:
    found = trip({"x": value, **beside})["x"]
    assert found == value.item()
    assert type(found) is type(value.item())


def test_numpy_arrays_become_lists() -> None:
    assert trip({"a": np.arange(3), "b": np.ones((2, 2)), "c": None}) == {
        "a": [0, 1, 2],
        "b": [[1.0, 1.0], [1.0, 1.0]],
        "c": None,
    }
    assert trip(np.array([1.0, math.inf])) == [1.0, math.inf]


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x, None], lambda x: {"a": {"b": x}}, lambda x: {"a": np.float64(x)}]
)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_survive(wrap: Any, number: float) -> None:
    found: Any = trip(wrap(number))
    while not isinstance(found, float):
        found = found[0] if isinstance(found, list) else next(iter(found.values()))
    assert found == number or (math.isnan(found) and math.isnan(number))


@pytest.mark.parametrize("text", ["0.00012345678901234567", "[1, 0.12345678901234567890123, 2]", "-5e-324", "1.5e+300"])
def test_long_fractions_are_read_as_the_standard_library_reads_them(text: str) -> None:
    assert repr(jsontext.decode(text)) == repr(json.loads(text))


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**70), 10**40])
def test_large_integers_keep_every_digit(number: int) -> None:
    assert trip(number) == number
    assert type(trip(number)) is int
    assert trip({"a": [number, None]}) == {"a": [number, None]}
    for text in (f'{{"a": {number}}}', f"[1,{number}]", f'{{"a":\n{number}}}', f"\t{number}"):
        assert repr(jsontext.decode(text)) == repr(json.loads(text))


def test_keys_that_are_no_text_become_text() -> None:
    assert trip({np.int64(1): "b", 2.5: "c", None: "d", False: "e"}) == {
        "1": "b",
        "2.5": "c",
        "null": "d",
        "false": "e",
    }


def test_none_is_null_and_not_the_text_null() -> None:
    assert jsontext.encode(None, "value") is None
    assert jsontext.decode(None) is None
    assert trip("null") == "null"


class Colour(Enum):
    RED = "red"


class Level(int, Enum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: Any


@pytest.mark.parametrize("beside", [[], [None]])
@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, 2), [1, 2]),
        ({3, 1}, [1, 3]),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2), "01:02:00"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, (2,)), {"x": 1, "y": [2]}),
        (np.str_("text"), "text"),
        (math.sqrt, "math.sqrt"),
        (StandardScaler, "sklearn.preprocessing._data.StandardScaler"),
    ],
)
def test_common_objects_have_one_text_whatever_is_beside_them(value: Any, stored: Any, beside: list[None]) -> None:
    assert trip([value, *beside]) == [stored, *beside]


def test_an_estimator_becomes_its_class_and_parameters() -> None:
    found = trip({"model": StandardScaler(with_std=False)})["model"]
    assert found["class"].endswith("StandardScaler")
    assert found["params"]["with_std"] is False


def nested_too_deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [b"bytes", object(), {"a": {(1, 2): "tuple key"}}, "\ud800", {"a": ["\udfff", None]}, {"\ud800": 1}]
)
def test_what_cannot_be_json_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^scores cannot be stored as JSON"):
        jsontext.encode(value, "scores")


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="scores"):
        jsontext.encode(nested_too_deep(), "scores")


@pytest.mark.parametrize("value", ["\x00", "é漢🌽", '"quoted"\\', "a\nb", ""])
def test_every_unicode_text_survives(value: str) -> None:
    assert trip({value: [value]}) == {value: [value]}


@pytest.mark.parametrize(
    "value", [{1: "a", "1": "b"}, {"deep": [{True: 1, "true": 2}]}, {np.int64(3): 1, 3.0: 2, "3": 4}]
)
def test_keys_that_become_one_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="two of its keys are .* as text"):
        jsontext.encode(value, "config")
