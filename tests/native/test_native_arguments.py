"""Arguments passed over by the compiled check are those that the plain one leaves as they are."""

from __future__ import annotations

import json
import math
import sys
import time
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast._native.arguments import RowMaker, are_plain
from n4a_fast.errors import InvalidInputError
from n4a_fast.schema.columns import PREDICTIONS
from n4a_fast.tables.predictions import arrays, fields
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values import ids

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


def checked(row: dict[str, Any]) -> list[Any]:
    """The fields of a row as it is kept."""
    return fields.row_of(tuple(row[name] for name in fields.FIELDS))[1][1:-3]


@given(st.dictionaries(st.sampled_from([*fields.FIELDS]), VALUES, max_size=3))
def test_fields_are_what_each_plain_check_gives(changed: dict[str, Any]) -> None:
    row = PLAIN | changed
    plainly = outcome(lambda: [convert(row[name], name) for name, (_, convert) in fields.FIELDS.items()])
    assert outcome(lambda: checked(row)) == plainly


@pytest.mark.parametrize("name", [*fields.FIELDS])
def test_each_field_takes_and_refuses_what_its_plain_check_does(name: str) -> None:
    _, convert = fields.FIELDS[name]
    for value in ODD:
        row = PLAIN | {name: value}
        found = outcome(lambda row=row: checked(row))
        plainly = outcome(lambda value=value: [convert(value, name)])
        assert found == plainly or found[[*fields.FIELDS].index(name)] == plainly[0]


NO_PLAIN: list[Any] = [
    *([0.0, 1.0, 2.0], np.arange(3.0).reshape(1, 3), np.arange(3.0).reshape(3, 1), np.arange(6.0)[::2], np.float64(1)),
    *(np.arange(3.0).astype(kind) for kind in (">f8", "f4", "g", "O", "U3", "u8", "?", "m8[s]", "M8[s]")),
    *(np.ma.masked_array(np.arange(3.0), [0, 0, 1]), np.arange(3.0).view(np.matrix), np.arange(4.0), np.zeros(0)),
    np.frombuffer(b"0" * 25, np.uint8)[1:].view("f8"),  # begins anywhere
]
ARRAYS = st.none() | st.sampled_from([np.arange(3.0), np.ones(3), np.arange(3), *NO_PLAIN])


def checked_plainly(given: tuple[Any, ...]) -> Any:
    """What the plain checks of arrays give: a list of weights is what the compiled check leaves to them."""
    return arrays.checked(*given[:2], None, given[2], [0.5])._replace(weights=None)


def array_outcome(call: Any) -> Any:
    try:
        found = call()
    except InvalidInputError as error:
        return str(error)
    return [None if each is None else (each.dtype.str, each.shape, each.tobytes()) for each in found[:5]] + [found[5]]


@given(st.tuples(ARRAYS, ARRAYS, ARRAYS))
def test_arrays_passed_over_are_those_that_the_plain_checks_leave(given: tuple[Any, ...]) -> None:
    y_true, y_pred, indices = given
    assert array_outcome(lambda: arrays.checked(y_true, y_pred, None, indices, None)) == array_outcome(
        lambda: checked_plainly(given)
    )


def test_arrays_are_plain_where_nothing_has_to_be_looked_at() -> None:
    reals, whole = np.arange(3.0), np.arange(3)
    assert are_plain((reals, reals), whole)
    assert are_plain((None, reals[1:]), whole[:2])
    assert are_plain((), None)
    assert not are_plain((reals, reals[:2]), None)
    assert not are_plain((whole, reals), None)
    assert not are_plain((reals, reals), reals)
    assert not any(are_plain((each,), None) for each in NO_PLAIN if len(np.shape(each)) != 1 or len(each) == 3)


def test_looking_at_arrays_leaves_no_reference_behind() -> None:
    values = [np.arange(3.0), np.arange(3), *NO_PLAIN]
    before = [sys.getrefcount(value) for value in values]
    for _ in range(1_000):
        assert not all(are_plain((value, value), value) for value in values)
    assert [sys.getrefcount(value) for value in values] == before


def test_a_row_has_its_key_its_id_and_the_time() -> None:
    before = time.time_ns() // 1000
    key, row = fields.row_of(tuple(PLAIN.values()))
    columns = [PLAIN[name] for name in KEY]
    identifier = ids.prediction_id(key)
    assert key == ids.natural_key(*columns)  # type: ignore[arg-type]
    assert (row[0], row[-2], row[-1]) == (identifier, ids.nk(key), ids.id_key(identifier))
    assert before <= row[-3] <= time.time_ns() // 1000
    assert len(row) == len(PREDICTIONS)


def maker(kinds: bytes, converters: Any, names: Any, dumps: Any = json.dumps) -> RowMaker:
    return RowMaker(kinds, converters, names, dumps, (), lambda: (1, "id", 2, 3))


def test_what_needs_nothing_is_not_converted() -> None:
    values = ("corn", "é", None, 0.5, None, 2**31 - 1, None)
    assert maker(b"tTTrrii", (None,) * 7, ("",) * 7).row(values)[1][1:-3] == [*values]


def test_a_dict_is_what_dumps_gives_unless_that_fails_or_has_a_null() -> None:
    def dumps(value: dict[str, Any]) -> bytes:
        if "bad" in value:
            raise TypeError
        return json.dumps(value).encode()

    made = maker(b"jjjjj", (lambda value, name: (name, value),) * 5, tuple("abcde"), dumps)
    given: Any = ({"n": 1}, {"n": None}, {"bad": 1}, {}, [])
    assert made.row(given)[1][1:-3] == ['{"n": 1}', ("b", {"n": None}), ("c", {"bad": 1}), "{}", ("e", [])]
    with pytest.raises(ZeroDivisionError):
        maker(b"j", (None,), ("a",), lambda _: 1 / 0).row(({"n": 1},))


def test_numbers_that_differ_are_refused() -> None:
    for kinds, converters, names in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        with pytest.raises(ValueError, match="for each field"):
            maker(b"r" * kinds, (float,) * converters, ("a",) * names)
    for values in (0, 2):
        with pytest.raises(ValueError, match="1 fields"):
            maker(b"r", (float,), ("a",)).row((1.0,) * values)


def test_ten_thousand_rows_leave_no_reference_behind() -> None:
    values = ("text of these rows", "é of these rows", 0.123, 2**30 + 1, object(), {"a": 1})
    before = [sys.getrefcount(value) for value in values]
    made = maker(b"tTrijj", (*(str,) * 4, *(lambda value, _name: value,) * 2), ("a",) * 6, lambda value: b"null")
    for _ in range(10_000):
        made.row(values)
    assert [sys.getrefcount(value) for value in values] == before
