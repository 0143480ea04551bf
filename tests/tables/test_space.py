"""What is saved and deleted, over and over, leaves no more behind than it did the first time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
from helpers import begin_pipeline, predict_many

from n4a_fast import WorkspaceStore
from n4a_fast.tables.deleted_owners import note_in_transaction

ROWS, ROUNDS = 800, 12  # of 200 values: more than what moves together at a detach


def saved(store: WorkspaceStore) -> tuple[str, str]:
    run = store.begin_run("r", {}, [])
    pipeline = begin_pipeline(store, run)
    predict_many(store, pipeline, np.random.default_rng(0).random((ROWS, 200)))
    return run, pipeline


def used_blocks(folder: Path) -> int:
    with duckdb.connect(str(folder / "store.duckdb"), read_only=True) as connection:
        ((used,),) = connection.execute("SELECT used_blocks FROM pragma_database_size()").fetchall()
        return int(used)


def delete_run(store: WorkspaceStore, run: str, _pipeline: str) -> None:
    store.delete_run(run)


def delete_pipeline_that_has_not_ended(store: WorkspaceStore, run: str, pipeline: str) -> None:
    store.delete_pipeline(pipeline)
    store.delete_run(run)


@pytest.mark.parametrize("delete", [delete_run, delete_pipeline_that_has_not_ended])
def test_rounds_of_saving_and_deleting_take_no_more_blocks(
    tmp_path: Path, delete: Callable[[WorkspaceStore, str, str], None]
) -> None:
    used = []
    for _ in range(2):
        for _ in range(ROUNDS):
            with WorkspaceStore(tmp_path) as store:
                delete(store, *saved(store))
        used.append(used_blocks(tmp_path))
    assert used[1] <= used[0] + 2, used
    with WorkspaceStore(tmp_path) as store:
        assert store.verify().is_sound


def test_ids_of_deleted_owners_are_kept_however_many_there_are(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        database = store._open().database
        names = [f"run {number}" for number in range(2100)]
        for start in range(0, len(names), 300):
            with database.transaction():
                note_in_transaction(database, names[start : start + 300])
        assert sorted(store.sql("SELECT run_id FROM deleted_runs")["run_id"]) == sorted(names)
