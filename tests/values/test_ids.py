"""Ids sort by time, and a prediction's id follows from its natural key alone."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast.values import checks, ids

PIPELINE = "0193a0c0-1234-7abc-8def-001122334455"


def test_run_ids_are_uuids_of_version_7() -> None:
    identifier = uuid.UUID(ids.uuid7())
    assert (identifier.version, identifier.variant) == (7, uuid.RFC_4122)


def test_later_ids_do_not_sort_before_the_millisecond_of_earlier_ones() -> None:
    made = [ids.uuid7() for _ in range(2000)]
    assert [identifier[:13] for identifier in made] == sorted(identifier[:13] for identifier in made)
    assert len(set(made)) == len(made)


def test_prediction_ids_are_uuids_of_version_8_beside_their_pipeline() -> None:
    text = ids.prediction_id(ids.natural_key(PIPELINE, "chain", "0", "val", "PLS", None))
    identifier = uuid.UUID(text)
    assert (identifier.version, identifier.variant) == (8, uuid.RFC_4122)
    assert text[:13] == PIPELINE[:13]


def test_a_pipeline_id_that_is_no_uuid_still_gives_a_prediction_id() -> None:
    first, second = (
        ids.prediction_id(ids.natural_key(name, None, "0", "val", "PLS", None)) for name in ("mine", "yours")
    )
    assert uuid.UUID(first).version == 8
    assert first != second


def test_the_same_key_gives_the_same_id() -> None:
    key = (PIPELINE, "chain", "0", "val", "PLS", 2)
    assert ids.prediction_id(ids.natural_key(*key)) == ids.prediction_id(ids.natural_key(*key))


def test_a_missing_chain_or_branch_differs_from_any_present_one() -> None:
    keys = {
        ids.natural_key(PIPELINE, chain, "0", "val", "PLS", branch)
        for chain in (None, "", "=", "None")
        for branch in (None, 0, 1, -1)
    }
    assert len(keys) == 16


_KEYS = st.tuples(
    st.text(max_size=4),
    st.none() | st.text(max_size=4),
    st.text(alphabet="0=\x1f:a", max_size=4),
    st.text(alphabet="0=\x1f:a", max_size=4),
    st.text(alphabet="0=\x1f:a", max_size=4),
    st.none() | st.integers(-3, 3),
)


@given(_KEYS)
def test_what_is_derived_at_once_is_what_follows_step_by_step(
    parts: tuple[str, str | None, str, str, str, int | None],
) -> None:
    key = ids.natural_key(*parts)
    identifier = ids.prediction_id(key)
    assert ids.derived(*parts) == (key, identifier, ids.nk(key), ids.id_key(identifier))


@given(_KEYS, _KEYS)
def test_different_keys_never_share_a_hash(
    one: tuple[str, str | None, str, str, str, int | None], other: tuple[str, str | None, str, str, str, int | None]
) -> None:
    assert (ids.natural_key(*one) == ids.natural_key(*other)) == (one == other)


def test_separators_inside_names_do_not_make_two_keys_one() -> None:
    assert ids.natural_key("p", "c", "0\x1fval", "x", "m", None) != ids.natural_key(
        "p", "c", "0", "val\x1fx", "m", None
    )
    assert ids.natural_key("p", "c", "0", "a\x1fb", "c", None) != ids.natural_key("p", "c", "0", "a", "b\x1fc", None)


def test_look_up_keys_follow_the_time_of_the_pipeline() -> None:
    pipelines = [ids.uuid7() for _ in range(3)]
    keys = [ids.natural_key(pipeline, "c", str(fold), "val", "m", None) for pipeline in pipelines for fold in range(50)]
    for numbers in ([ids.nk(key) for key in keys], [ids.id_key(ids.prediction_id(key)) for key in keys]):
        milliseconds = [number >> 16 for number in numbers]
        assert milliseconds == sorted(milliseconds)
        assert all(0 <= number < 2**64 for number in numbers)


@pytest.mark.parametrize(
    "name",
    [
        "mine",
        "",
        "0123456789abcdef",
        "-" * 36,
        *(f"{sign}1234567-1234-1234-1234-123456789012" for sign in "+-_ "),
        "é" * 36,
    ],
)
def test_any_id_has_a_look_up_key(name: str) -> None:
    assert 0 <= ids.id_key(name) < 2**64
    assert ids.id_key(name) == ids.id_key(name)


def test_a_uuid_of_version_7_tells_when_it_was_made() -> None:
    before = checks.now()
    first, last = ids.made_around(ids.uuid7()) or (before, before)
    assert first < before < last
    assert ids.made_around(PIPELINE.replace("-7abc-", "-8abc-")) is None
    assert ids.made_around("ffffffff-ffff-7fff-bfff-ffffffffffff") is None
    assert ids.made_around("00000000-0000-7000-8000-000000000000") is not None


@given(st.text() | st.uuids().map(str))
def test_whatever_is_taken_for_an_id_has_such_a_time_or_none(identifier: str) -> None:
    around = ids.made_around(identifier)
    assert around is None or around[0] < around[1]
