"""Keys of many predictions are those of each, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n4a_fast.tables.predictions import keys as of_many
from n4a_fast.tables.predictions.keys import Column, id_keys, natural_keys
from n4a_fast.values import ids

TEXTS = st.sampled_from(["", "a", "=", "=a", "é\x1f", ids.uuid7(), ids.uuid7(), "x" * 36])
BRANCHES = st.none() | st.integers(-2, 2)
ROWS = st.tuples(TEXTS, st.none() | TEXTS, TEXTS, TEXTS, TEXTS, BRANCHES)
NAMES = ("pipeline_id", "chain_id", "fold_id", "partition", "model_name", "branch_id")


def columns_of(rows: list[tuple[Any, ...]], shared: set[str], chunks: int) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for place, name in enumerate(NAMES):
        kind = pa.int32() if name == "branch_id" else pa.string()
        if name in shared:
            columns[name] = pa.scalar(rows[0][place], kind)
            continue
        values = [row[place] for row in rows]
        columns[name] = pa.chunked_array([values[start::1][:chunks] for start in range(0, len(values), chunks)], kind)
    return columns


@given(st.lists(ROWS, max_size=12), st.sets(st.sampled_from(NAMES)), st.integers(1, 12), st.sampled_from([1, 3, 1000]))
def test_many_keys_are_those_of_each_row(
    rows: list[tuple[Any, ...]], shared: set[str], chunks: int, looked_at: int
) -> None:
    if not rows:
        shared = set()
    rows = [tuple(rows[0][place] if name in shared else row[place] for place, name in enumerate(NAMES)) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_many, "_LOOKED_AT", looked_at)
        keys = natural_keys(columns_of(rows, shared, chunks), len(rows))
    plain = [ids.natural_key(*row) for row in rows]
    assert keys.numbers() == plain
    assert keys.prediction_ids().to_pylist() == [ids.prediction_id(key) for key in plain]
    assert keys.id_key.tolist() == [ids.id_key(ids.prediction_id(key)) for key in plain]
    assert keys.nk.tolist() == [ids.nk(key) for key in plain]
    assert keys.are_distinct() == (len(set(plain)) == len(plain))
    assert len(set(plain)) == len(set(rows))


@pytest.mark.long
def test_a_million_neighbouring_keys_do_not_collide() -> None:
    folds = pa.array(np.arange(1_000_000).astype(str))
    columns = {
        "pipeline_id": pa.scalar(ids.uuid7()),
        "chain_id": pa.scalar(ids.uuid7()),
        "fold_id": folds,
        "partition": pa.scalar("val"),
        "model_name": pa.scalar("PLS"),
        "branch_id": pa.scalar(None, pa.int32()),
    }
    keys = natural_keys(columns, len(folds))
    assert keys.are_distinct()
    # one of the 65,536 is missing once in 65 runs, as chance has it; eight never
    assert len(np.unique(keys.nk & np.uint64(0xFFFF))) > 2**16 - 8


HEX = st.text("0123456789abcdefABCDEF", min_size=12, max_size=12)
FORMS = st.builds(
    "{0}-{1}-{2}-{3}-{4}".format, *[HEX.map(lambda text, size=size: text[:size]) for size in (8, 4, 4, 4, 12)]
)  # type: ignore[misc]
NEARLY = st.tuples(FORMS, st.integers(0, 35), st.sampled_from("g_-+ é\u0661")).map(
    lambda given: given[0][: given[1]] + given[2] + given[0][given[1] + 1 :]
)


@given(st.lists(FORMS | NEARLY, max_size=6), st.lists(FORMS | NEARLY | st.text(), max_size=6), st.integers(0, 2))
def test_many_id_keys_are_those_of_each_id(uuids: list[str], others: list[str], start: int) -> None:
    for identifiers in (uuids, others):
        encodable = [each for each in identifiers if each.isprintable() or each.isascii()]
        assert id_keys(pa.array(encodable, pa.string())[start:]).tolist() == [
            ids.id_key(each) for each in encodable[start:]
        ]
