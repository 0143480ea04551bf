"""Rows found by position are those that a join on the ids finds, whatever is asked for and however it is spread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import begin_pipeline, begin_sweep, examples, predict_with_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

import n4a_fast
from n4a_fast import WorkspaceStore
from n4a_fast.schema.columns import LOOKUP_COLUMNS, WITHIN
from n4a_fast.tables.predictions import positions as positions_module
from n4a_fast.tables.predictions.keys import id_keys
from n4a_fast.tables.predictions.positions import positions, span, worth_locating

JOINED = """SELECT wanted.place, v.rowid AS position FROM prediction_values v
JOIN wanted ON v.id_key = wanted.id_key AND v.prediction_id = wanted.prediction_id ORDER BY place, position"""
OWN_IDS = ["mine", "my-own-2", "0000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, list[str]]]:
    with WorkspaceStore(tmp_path_factory.mktemp("positions")) as store:
        sweep, saved = begin_sweep(store), []
        for size in (1, 700, 40, 2500):
            pipeline = begin_pipeline(store, sweep.run)
            columns = {
                "pipeline_id": pipeline,
                "dataset_name": "corn",
                "model_name": [f"m{number}" for number in range(size)],
                "model_class": "PLS",
                "partition": "val",
                "fold_id": "0",
            }
            saved += store.save_predictions(columns, y_pred=np.arange(size * 2.0).reshape(size, 2))
        for number, name in enumerate(OWN_IDS):
            saved.append(predict_with_arrays(store, sweep, fold_id=str(number), prediction_id=name))
        store.flush()
        store.list_runs()
        yield store, saved


def wanted_of(ids: list[str]) -> pa.Table:
    column = pa.array(ids, pa.string())
    return pa.table({"prediction_id": column, "id_key": id_keys(column), "place": pa.array(np.arange(len(ids)))})


@settings(max_examples=examples(30))
@given(st.data())
@pytest.mark.long
def test_positions_are_those_of_a_join(filled: tuple[WorkspaceStore, list[str]], data: st.DataObject) -> None:
    store, saved = filled
    starts = data.draw(st.lists(st.tuples(st.integers(0, len(saved) - 1), st.integers(0, 300)), max_size=6))
    ids = [each for start, length in starts for each in saved[start : start + length]]
    ids += data.draw(st.lists(st.sampled_from([*OWN_IDS, "unknown", saved[0], saved[-9]]), max_size=4))
    database, wanted = store._open().database, wanted_of(ids)
    found = positions(database, "prediction_values", wanted).sort_by(
        [("place", "ascending"), ("position", "ascending")]
    )
    assert found.to_pylist() == database.select(JOINED, wanted=wanted).to_pylist()
    assert found["place"].to_pylist() == [place for place, each in enumerate(ids) if each in set(saved)]


def test_arrays_loaded_by_position_are_the_same(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, saved = filled
    ids = [*saved[-3:], *saved[100:400], saved[0], *saved[3000:3010], saved[0]]
    joined = store.load_arrays(ids)
    monkeypatch.setattr(positions_module, "_SMALL", 0)
    assert worth_locating(store._open().database, "prediction_values", wanted_of(ids))
    assert store.load_arrays(ids).to_arrow().equals(joined.to_arrow())


@settings(max_examples=examples(30))
@given(st.data())
def test_arrays_that_lie_together_are_those_of_a_join(
    filled: tuple[WorkspaceStore, list[str]], data: st.DataObject
) -> None:
    store, saved = filled
    start, length = data.draw(st.integers(0, len(saved) - 1)), data.draw(st.integers(1, 400))
    ids = data.draw(st.permutations(saved[start : start + length]))
    ids = [*ids, *ids[: data.draw(st.integers(0, 3))]]
    together = store.load_arrays(ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions_module, "_LOOSE", 0)
        assert span(store._open().database, "prediction_values", wanted_of(ids)) is None
        assert store.load_arrays(ids).to_arrow().equals(together.to_arrow())


def test_rows_of_a_pipeline_lie_together(filled: tuple[WorkspaceStore, list[str]]) -> None:
    store, saved = filled
    database = store._open().database
    first, last = span(database, "prediction_values", wanted_of(saved[1:701])) or (0, 0)
    assert last - first == 699
    assert span(database, "prediction_values", wanted_of([saved[0], saved[-9]])) is None
    assert span(database, "prediction_values", wanted_of([])) is None


@pytest.mark.parametrize("column", LOOKUP_COLUMNS)
def test_bounds_of_a_look_up_column_are_compared_in_its_type(
    filled: tuple[WorkspaceStore, list[str]], column: str
) -> None:
    """Of plain parameters DuckDB makes signed numbers, and casts what it knows of every row group."""
    database = filled[0]._open().database
    ((first, last),) = database.rows(f"SELECT min({column}) + 1, max({column}) - 1 FROM predictions")
    sql = f"EXPLAIN (FORMAT json) FROM predictions WHERE {column} {WITHIN}"
    ((_, plan),) = database.rows(sql, (first, last))
    assert str(first) in plan
    assert "CAST(" not in plan


def test_no_statement_asks_for_look_up_columns_within_plain_parameters() -> None:
    plain = re.compile(rf"\b({'|'.join(LOOKUP_COLUMNS)}) BETWEEN \?")
    modules = list(Path(n4a_fast.__file__).parent.rglob("*.py"))
    assert len(modules) > 100
    assert [path.name for path in modules if plain.search(path.read_text("utf-8"))] == []
