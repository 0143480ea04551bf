"""Tables that a batch may be added to without comparing keys: those with nothing between its keys, and no others."""

from __future__ import annotations

import pyarrow as pa
import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, predict, predict_with_arrays, save_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.memtable.drain import DrainedDatabase
from n4a_fast.memtable.key_ranges import Range, tables_between, tables_beyond

WRITTEN = {"pipelines", "chains", "logs", "predictions", "prediction_values"}


def batch_of(store: WorkspaceStore) -> dict[str, pa.Table]:
    """What the next flush of a store would write."""
    return {name: table for part in store._open().tables.pending for name, table in part.pending().items()}


def full_pipeline(store: WorkspaceStore, run: str) -> str:
    pipeline = begin_pipeline(store, run)
    chain = save_chain(store, pipeline)
    store.log_step(pipeline, 1, "PLS", "end", 5)
    predict_with_arrays(store, Sweep(run, pipeline, chain))
    return pipeline


@pytest.fixture
def database(store: WorkspaceStore) -> DrainedDatabase:
    return store._open().database


def test_new_pipelines_are_beyond_all_that_is_stored(store: WorkspaceStore, database: DrainedDatabase) -> None:
    sweep = begin_sweep(store)
    full_pipeline(store, sweep.run)
    store.list_pipelines()  # in the tables
    full_pipeline(store, sweep.run)
    assert tables_beyond(database, {}) == set()
    with database.undrained():
        assert tables_beyond(database, batch_of(store)) == WRITTEN


def test_a_table_with_a_row_of_the_batch_is_not(store: WorkspaceStore, database: DrainedDatabase) -> None:
    sweep = begin_sweep(store)
    predict(store, sweep.pipeline, sweep.chain)
    store.list_pipelines()
    predict(store, sweep.pipeline, sweep.chain)  # the same key again
    store.log_step(sweep.pipeline, 1, "PLS", "end", 5)
    with database.undrained():
        assert tables_beyond(database, batch_of(store)) == {"logs"}


def test_pipelines_that_were_in_the_tables_while_they_ran_are_there_once_when_they_end(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    store.list_pipelines()  # in the tables, running
    begun = [sweep.pipeline]
    for _ in range(3):  # each ends in one batch with the beginning of the next
        store.complete_pipeline(begun[-1], 0.1, 0.2, "rmse", 5)
        begun.append(full_pipeline(store, sweep.run))
        rows = store.sql("SELECT pipeline_id, status FROM pipelines ORDER BY pipeline_id").rows()
        assert rows == [*((pipeline, "completed") for pipeline in begun[:-1]), (begun[-1], "running")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=st.lists(st.integers(0, 40), min_size=1, unique=True), asked=st.lists(st.integers(0, 40), min_size=1))
def test_what_is_stored_is_never_beyond(database: DrainedDatabase, stored: list[int], asked: list[int]) -> None:
    rows = pa.table({"log_id": [f"{number:02}" for number in stored], "pipeline_id": ["p"] * len(stored)})
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.insert(
            "INSERT INTO logs BY NAME SELECT *, 1 AS step_idx, 'end' AS event, now()::TIMESTAMP AS created_at FROM"
            " batch",
            batch=rows,
        )
        first, last = min(asked), max(asked)
        found = tables_between(database, [Range("logs", "log_id", f"{first:02}", f"{last:02}")])
        assert found == ({"logs"} if any(first <= number <= last for number in stored) else set())
        batch = {"logs": pa.table({"log_id": [f"{number:02}" for number in asked]})}
        assert not (set(stored) & set(asked) and tables_beyond(database, batch))
        raise ZeroDivisionError  # nothing stays
