"""Predictions are read as they lie, by the index of their ids, or with all others; what is found is the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import begin_pipeline, begin_sweep, examples, predict, predict_with_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

import n4a_fast
from n4a_fast import WorkspaceStore
from n4a_fast.predictions import finding, queries, reading
from n4a_fast.schema.columns import LOOKUP_COLUMNS, WITHIN
from n4a_fast.tables.predictions import deleted, positions, prediction_tables
from n4a_fast.tables.predictions.keys import id_keys
from n4a_fast.tables.predictions.positions import Ways, ways
from n4a_fast.values import ids

SAME_KEY = [f"00000000-0000-4000-8000-{number:012x}" for number in range(3000)]  # as their first 64 bits
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
        columns = {"pipeline_id": sweep.pipeline, "dataset_name": "corn", "model_class": "PLS", "partition": "val"}
        names = {"model_name": [f"s{number}" for number in range(len(SAME_KEY))], "prediction_id": SAME_KEY}
        store.save_predictions({**columns, **names, "fold_id": "0"}, y_pred=np.arange(len(SAME_KEY) * 1.0)[:, None])
        store.flush()
        store.list_runs()
        yield store, saved


def wanted_of(ids: list[str]) -> pa.Table:
    column = pa.array(ids, pa.string())
    return pa.table({"prediction_id": column, "id_key": id_keys(column), "place": pa.array(np.arange(len(ids)))})


@settings(max_examples=examples(40))
@given(st.data())
@pytest.mark.long
def test_arrays_are_the_same_whichever_way_they_are_read(
    filled: tuple[WorkspaceStore, list[str]], data: st.DataObject
) -> None:
    store, saved = filled
    starts = data.draw(st.lists(st.tuples(st.integers(0, len(saved) - 1), st.integers(1, 300)), min_size=1, max_size=6))
    step = data.draw(st.sampled_from([1, 1, 2, 7, 40]))
    ids = [each for start, length in starts for each in saved[start : start + length : step]]
    ids = data.draw(st.permutations(ids + data.draw(st.lists(st.sampled_from([*OWN_IDS, *SAME_KEY[:3], saved[0]])))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "ways", lambda *_: None)
        plain = store.load_arrays(ids).to_arrow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "_FEW", data.draw(st.sampled_from([0, 4, 10_000])))
        patch.setattr(positions, "_LOOKED_UP", data.draw(st.sampled_from([0.0, 0.2, 1.25, 9, 40])))
        patch.setattr(positions, "_LOOSE", data.draw(st.sampled_from([0.0, 1.25])))
        patch.setattr(positions, "_STATEMENT", data.draw(st.sampled_from([0, 1500])))
        patch.setattr(positions, "_OF_A_PART", data.draw(st.sampled_from([1, 50])))
        at_once = data.draw(st.sampled_from([3, 100, 8192]))
        patch.setattr(store._open().database, "rows_to_look_up", lambda *_: at_once)
        assert store.load_arrays(ids).to_arrow().equals(plain)
    assert plain["prediction_id"].to_pylist() == ids


def costs(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A table of so many rows, each with a key of its own, and what a row that is looked up and a statement cost."""
    monkeypatch.setattr(positions, "_COUNT", f"SELECT {rows}, 0")
    monkeypatch.setattr(positions, "_LOOKED_UP", 9)
    monkeypatch.setattr(positions, "_STATEMENT", 500)


def test_what_lies_together_is_read_as_it_lies_and_the_rest_by_the_index(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, saved = filled
    costs(monkeypatch, rows=1_000_000)
    database = store._open().database
    together, third, scattered = saved[1:701], saved[741:3241:3], saved[741:3241:40]
    found = {
        name: ways(database, "prediction_values", wanted_of(asked))
        for name, asked in (("together", together), ("third", third), ("scattered", scattered), ("none", []))
    }
    near_each_other, looked_up, *_ = found["none"] or ([1], [1], 0)
    assert (near_each_other, len(looked_up)) == ([], 0)
    (near,), looked_up, *_ = found["together"] or ([], [], 0)
    assert (near.rows, near.hardly_any_others, len(looked_up)) == (700, True, 0)
    (near,), looked_up, *_ = found["third"] or ([], [], 0)
    assert (2400 < near.rows <= 2500, near.hardly_any_others, len(looked_up)) == (True, False, 0)
    near_each_other, looked_up, *_ = found["scattered"] or ([], [], 0)
    assert (near_each_other, len(looked_up)) == ([], len(scattered))


@pytest.mark.parametrize(("statement", "places"), [(1500, 2), (3000, 1)])
def test_places_are_read_as_they_lie_without_counting_the_table(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch, statement: int, places: int
) -> None:
    """700 rows, and 3,000 behind 2,544 others: together where a statement costs more than these."""
    store, saved = filled
    monkeypatch.setattr(positions, "_STATEMENT", statement)
    monkeypatch.setattr(positions, "_COUNT", "no statement")
    found = ways(store._open().database, "prediction_values", wanted_of([*SAME_KEY, *saved[1:701]]))
    assert found is not None
    assert sum(near.rows for near in found.near) == 3700 + (places == 1) * 2544
    assert (len(found.near), found.looked_up.num_rows) == (places, 0)
    loaded = store.load_arrays([*saved[1:701], *SAME_KEY], columns=["y_pred"])
    assert [loaded.y_pred[place][0] for place in range(699, 710)] == [1398, *range(10)]


@pytest.mark.parametrize(("rows", "are_looked_up"), [(1500, False), (3500, True)])
def test_where_a_large_part_is_wanted_all_rows_are_read(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch, rows: int, are_looked_up: bool
) -> None:
    store, saved = filled
    costs(monkeypatch, rows)
    found = ways(store._open().database, "prediction_values", wanted_of(saved[741:3241:10]))
    assert (found is not None) is are_looked_up


def test_where_many_rows_have_a_key_they_are_read_with_all_others(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = filled[0]._open().database
    monkeypatch.setattr(positions, "_LOOKED_UP", 9)
    assert ways(database, "prediction_values", wanted_of(SAME_KEY[::40])) is None


@pytest.mark.parametrize("size", [1, 100, 3000])
def test_ids_with_the_same_key_are_told_apart(filled: tuple[WorkspaceStore, list[str]], size: int) -> None:
    store, _ = filled
    ids = SAME_KEY[:size]
    loaded = store.load_arrays(ids, columns=["y_pred"])
    assert [loaded.y_pred[place][0] for place in range(size)] == list(range(size))
    assert store.get_prediction(ids[-1], load_arrays=True)["y_pred"][0] == size - 1  # type: ignore[index]
    assert store.get_prediction(SAME_KEY[0][:-4] + "ffff") is None


def _statements() -> dict[str, str]:
    """Every statement that asks for one prediction by its id."""
    found = {}
    for module in (queries, finding, deleted, prediction_tables):
        for name, value in vars(module).items():
            if isinstance(value, str) and "id_key = ?" in value and value.startswith("SELECT"):
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = value
    return found


@pytest.mark.parametrize("name", sorted(_statements()))
def test_one_prediction_is_looked_up_by_the_index(filled: tuple[WorkspaceStore, list[str]], name: str) -> None:
    store, saved = filled
    database = store._open().database
    ((_, plan),) = database.rows(f"EXPLAIN ANALYZE {_statements()[name]}", (ids.id_key(saved[9]), saved[9]))
    assert "Index Scan" in plan


def test_the_statements_that_ask_for_one_prediction_are_found() -> None:
    assert {"queries._GET", "queries._VALUES", "deleted._OWNERS", "prediction_tables._KEY_OF"} <= set(_statements())


@pytest.mark.parametrize("size", [40, 800])
def test_many_predictions_are_looked_up_by_the_index(filled: tuple[WorkspaceStore, list[str]], size: int) -> None:
    store, saved = filled
    sql = reading._VALUES.format(columns="v.y_pred", rows=reading._ALL)
    database = store._open().database
    with database.looking_up(size, size):
        found = database.select(f"EXPLAIN ANALYZE {sql}", wanted=wanted_of(saved[: size * 2 : 2]))
    assert "Index Scan" in found[1][0].as_py()


@settings(max_examples=examples(20))
@given(
    scores=st.lists(st.sampled_from([None, float("nan"), -1.0, 0.0, 0.5, 2.0, float("inf")]), min_size=1, max_size=40),
    n=st.integers(0, 45),
    ascending=st.booleans(),
    partition=st.sampled_from([None, "val", "test", "none"]),
)
def test_the_best_are_the_same_whether_they_are_looked_up_or_not(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], n: int, ascending: bool, partition: str | None
) -> None:
    with WorkspaceStore(tmp_path_factory.mktemp("best")) as store:
        sweep = begin_sweep(store)
        for number, score in enumerate(scores):
            predict(
                store,
                sweep.pipeline,
                sweep.chain,
                fold_id=str(number),
                partition=("val", "test")[number % 2],
                val_score=score,
            )
        asked = {"n": n, "metric": "val_score", "ascending": ascending, "partition": partition}
        found = store.top_predictions(**asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queries, "_FEW", -1)
            assert store.top_predictions(**asked).equals(found)
        assert found.height == min(n, sum(partition in (None, ("val", "test")[k % 2]) for k in range(len(scores))))


@pytest.mark.parametrize("hoped_for", [reading._HOPED_FOR, 1000])
def test_rows_are_looked_up_in_little_memory_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hoped_for: int
) -> None:
    """DuckDB holds the blocks of all rows that one statement looks up: 900 of 256 KiB here, of which 64 MB are 244. A
    statement that finds no room is followed by smaller ones.
    """
    monkeypatch.setattr(reading, "_HOPED_FOR", hoped_for)
    count = 160_000
    with WorkspaceStore(tmp_path / "wide", memory_limit="64MB") as store:
        columns = {"pipeline_id": begin_sweep(store).pipeline, "dataset_name": "corn", "model_class": "PLS"}
        columns |= {"model_name": [f"m{number}" for number in range(count)], "partition": "val", "fold_id": "0"}
        y_pred = np.random.default_rng(0).normal(size=(count, 100))
        saved = store.save_predictions(columns, y_pred=y_pred)
        places = np.random.default_rng(1).choice(count, 3000, replace=False)
        loaded = store.load_arrays([saved[place] for place in places], columns=["y_pred"])
        assert np.array_equal(loaded.y_pred_2d(), y_pred[places])
        with store.transaction():  # which would be lost with a statement that finds no room
            store.begin_run("beside", {}, [])
            loaded = store.load_arrays([saved[place] for place in places], columns=["y_pred"])
        assert np.array_equal(loaded.y_pred_2d(), y_pred[places])
        assert store.top_predictions(50, metric="val_score").height == 50


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


def test_few_rows_are_counted_where_indexes_may_take_much(
    filled: tuple[WorkspaceStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = filled[0]._open().database
    assert (ways(database, "prediction_values", wanted_of(SAME_KEY[::100])) or Ways([], wanted_of([]))).same_key == 1
    monkeypatch.setattr(type(database), "indexes_may_take_much", True)
    monkeypatch.setattr(positions, "_LOOKED_UP", 9)
    assert ways(database, "prediction_values", wanted_of(SAME_KEY[::100])) is None
