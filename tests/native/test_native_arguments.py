"""Arguments passed over by the compiled check are those that the plain one leaves as they are."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast._native.arguments import converted
from n4a_fast.errors import InvalidInputError
from n4a_fast.tables.predictions import fields

PLAIN = {name: "corn" if kind in "tT" else 1.5 if kind == "r" else 7 for name, (kind, _) in fields.FIELDS.items()}
PLAIN |= {"scores": {"rmse": 0.1}, "best_params": {}}


class Name(StrEnum):
    CORN = "corn"


ODD = [
    *(None, True, "", "\ud800", "é", "雪", Name.CORN, b"corn", 1, -(2**31), 2**31 - 1, 2**31, -(2**31) - 1, 2**80),
    *(1.0, 1.5, math.nan, -math.inf, 1j, np.float64(0.5), np.float32(0.5), np.int64(7), np.int64(2**40), np.str_("a")),
    *({}, {"a": math.nan}, {1: {2}}, [], object(), {"a": "\ud800"}),
]
VALUES = st.one_of(st.sampled_from(ODD), st.text(), st.floats(), st.integers(), st.none(), st.booleans())


def outcome(call: Any) -> Any:
    """What a call gives with the type of it, or what it raises."""
    try:
        found = call()
    except InvalidInputError as error:
        return str(error)
    return [(type(value), repr(value)) for value in found]


@given(st.dictionaries(st.sampled_from([*fields.FIELDS]), VALUES, max_size=3))
def test_fields_are_what_each_plain_check_gives(changed: dict[str, Any]) -> None:
    row = PLAIN | changed
    plainly = outcome(lambda: [convert(row[name], name) for name, (_, convert) in fields.FIELDS.items()])
    assert outcome(lambda: fields.checked(tuple(row[name] for name in fields.FIELDS))) == plainly


@pytest.mark.parametrize("name", [*fields.FIELDS])
def test_each_field_takes_and_refuses_what_its_plain_check_does(name: str) -> None:
    _, convert = fields.FIELDS[name]
    for value in ODD:
        row = PLAIN | {name: value}
        found = outcome(lambda row=row: fields.checked(tuple(row.values())))
        plainly = outcome(lambda value=value: [convert(value, name)])
        assert found == plainly or found[[*fields.FIELDS].index(name)] == plainly[0]


def test_what_needs_nothing_is_not_converted() -> None:
    values = ("corn", "é", None, 0.5, None, 2**31 - 1, None)
    assert converted(values, b"tTTrrii", (None,) * 7, ("",) * 7) == [*values]  # type: ignore[arg-type]


def test_four_that_differ_in_length_are_refused() -> None:
    for values, kinds, converters, names in ((1, 2, 1, 1), (2, 1, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)):
        with pytest.raises(ValueError, match="for each value"):
            converted((1.0,) * values, b"r" * kinds, (float,) * converters, ("a",) * names)  # type: ignore[arg-type]


def test_ten_thousand_rows_leave_no_reference_behind() -> None:
    values = ("text of these rows", "é of these rows", 0.123, 2**30 + 1, object())
    before = [sys.getrefcount(value) for value in values]
    for _ in range(10_000):
        converted(values, b"tTrij", (*(str,) * 4, lambda value, _name: value), ("a",) * 5)
    assert [sys.getrefcount(value) for value in values] == before
