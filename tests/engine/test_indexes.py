"""Indexes of predictions: what they take of the memory, and that a crash leaves no log behind that only they know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import begin_pipeline, child, kill, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import Database, indexes
from n4a_fast.errors import StoreError

SETTINGS = """SELECT current_setting('dynamic_or_filter_threshold'), current_setting('index_scan_max_count'),
current_setting('force_compression')"""
TAKEN = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'ART_INDEX'"
WANTED = pa.table({"id_key": pa.array([1, 2], pa.uint64())})
FAILS = "SELECT error('boom') FROM predictions p JOIN wanted w ON p.id_key >= w.id_key"
KILLED = """import sys
from helpers import begin_sweep, predict_with_arrays
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
for fold in range(3):
    predict_with_arrays(store, sweep, fold_id=str(fold))
store.list_runs()
print(1)
sys.stdin.readline()"""


def fill(store: WorkspaceStore, rows: int) -> list[str]:
    columns = {"pipeline_id": begin_pipeline(store, store.begin_run("r", {}, [])), "dataset_name": "corn"}
    columns |= {"model_name": [f"m{number}" for number in range(rows)], "model_class": "PLS", "partition": "val"}
    saved = store.save_predictions({**columns, "fold_id": "0"}, y_pred=np.arange(rows * 2.0).reshape(rows, 2))
    store.flush()
    store.list_runs()
    return list(saved)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkspaceStore]:
    with WorkspaceStore(tmp_path / "w") as opened:
        fill(opened, 3000)
        yield opened


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes may take nothing of the memory, whatever the size of the file."""
    monkeypatch.setattr(indexes, "_PART", 2**40)
    monkeypatch.setattr(Database, "indexes_may_take_much", True)


@pytest.mark.usefixtures("little")
def test_what_was_read_of_indexes_is_forgotten_between_calls(store: WorkspaceStore) -> None:
    database = store._open().database
    saved = fill(store, 3000)
    database.detach()
    taken = []
    for number in range(0, 300, 10):
        found = store.get_prediction(saved[number], load_arrays=True)
        assert found is not None
        assert found["y_pred"].tolist() == [2.0 * number, 2.0 * number + 1]
        taken.append(database.rows(TAKEN)[0][0])
    assert max(taken) > 0
    assert min(taken) == 0


@pytest.mark.usefixtures("little")
def test_arrays_are_read_rightly_while_indexes_are_forgotten(store: WorkspaceStore) -> None:
    saved = fill(store, 3000)
    wanted = saved[::100]
    loaded = store.load_arrays(wanted, columns=["y_pred"])
    assert [array[0] for array in loaded.y_pred] == [200.0 * place for place in range(30)]
    streamed = [array[0] for part in store.iter_arrays(wanted, batch_size=7) for array in part.y_pred]
    assert streamed == [200.0 * place for place in range(30)]


def test_a_file_of_which_a_part_was_written_is_attached_anew_between_calls_and_not_each_time(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After as many more bytes as a quarter of the file, and more than a few; its rows are all there."""
    database = store._open().database
    monkeypatch.setattr(indexes, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(indexes, "_WRITTEN", 2**14)
    database.detach()
    store.list_runs()
    attachments = [database.attachment]
    for _ in range(16):
        fill(store, 3000)
        attachments.append(database.attachment)
    assert 1 < attachments[-1] - attachments[0] < 10
    assert len(store.load_arrays(model_class="PLS")) == 17 * 3000
    monkeypatch.setattr(indexes, "_WRITTEN", 2**40)
    before = database.attachment
    fill(store, 3000)
    store.list_runs()
    assert database.attachment == before


@pytest.mark.usefixtures("little")
def test_the_turn_is_kept_while_indexes_are_forgotten(store: WorkspaceStore) -> None:
    database = store._open().database
    left: list[Any] = []
    assert database._turnstile is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database._turnstile, "leave", lambda: left.append(1))
        before = database.attached
        store.get_prediction(fill(store, 3)[0])
        database.begin_anew_if_due()
        assert database.attached > before
    assert left == []


@pytest.mark.usefixtures("little")
def test_nothing_is_forgotten_inside_a_transaction(store: WorkspaceStore) -> None:
    saved, database = fill(store, 3), store._open().database
    with store.transaction():
        assert store.get_prediction(saved[0]) is not None
        fill(store, 1)
        before = database.attached
        for _ in range(20):
            store.get_prediction(saved[0])
        assert database.attached == before
    assert store.query_predictions().height == 3004


def test_a_look_up_that_fails_in_a_transaction_tells_why_and_leaves_no_setting(store: WorkspaceStore) -> None:
    database = store._open().database
    usual = database.rows(SETTINGS)
    with pytest.raises(StoreError), database.transaction():
        with pytest.raises(StoreError, match="boom"), database.looking_up(5000, 5000):
            assert database.rows(SETTINGS) != usual
            database.select(FAILS, wanted=WANTED)
        database.rows(SETTINGS)  # the transaction has failed
    assert database.rows(SETTINGS) == usual


def test_settings_of_an_insert_that_fails_are_as_before_it(store: WorkspaceStore) -> None:
    database = store._open().database
    usual = database.rows(SETTINGS)
    with pytest.raises(StoreError), database.transaction():
        with pytest.raises(StoreError, match="boom"):
            database.insert(f"INSERT INTO deleted_runs {FAILS}", mantissas=True, wanted=WANTED)
        database.rows(SETTINGS)  # the transaction has failed
    assert database.rows(SETTINGS) == usual


def test_a_look_up_that_loses_its_connection_tells_why(store: WorkspaceStore) -> None:
    database = store._open().database
    with pytest.raises(StoreError, match="gone"), database.looking_up(5000, 5000):
        database._drop_connection()
        raise StoreError("gone")
    assert store.query_predictions().height == 3000


@pytest.mark.usefixtures("little")
def test_a_disk_that_refuses_while_indexes_are_forgotten_hinders_no_read_unless_the_file_cannot_be_attached(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise duckdb.IOException("No space left on device")

    saved = fill(store, 300)[::100]
    with monkeypatch.context() as patch:
        patch.setattr("n4a_fast.engine.background._TIMES", 0.0)
        patch.setattr("n4a_fast.engine.connection.client.detach_store", full)
        attachment = store._open().database.attachment
        pieces = store.iter_arrays(saved, columns=["y_pred"], batch_size=2)
        assert [array[0] for part in pieces for array in part.y_pred] == [0.0, 200.0, 400.0]
        assert store._open().database.attached > attachment
        patch.setattr("n4a_fast.engine.connection.client.attach", full)
        with pytest.raises(StoreError, match="No space left on device"):
            next(store.iter_arrays(saved, batch_size=2))
    found = store.iter_arrays(saved, columns=["y_pred"])
    assert [array[0] for part in found for array in part.y_pred] == [0.0, 200.0, 400.0]


@pytest.mark.usefixtures("little")
def test_a_disk_that_has_refused_is_not_asked_again_by_each_call(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def full(*_: object, **__: object) -> None:
        asked.append(True)
        raise duckdb.IOException("No space left on device")

    saved = fill(store, 300)
    with monkeypatch.context() as patch:
        patch.setattr("n4a_fast.engine.background._TIMES", 10**9)
        patch.setattr("n4a_fast.engine.connection.client.detach_store", full)
        for each in saved[::30]:
            assert store.load_arrays([each], columns=["y_pred"]).y_pred[0].tolist()
            store._open().database.begin_anew_if_due()
    assert len(asked) == 1


def test_no_setting_of_a_look_up_reaches_the_next_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with WorkspaceStore(tmp_path / "first") as first:
        fill(first, 10)
        database = first._open().database
        usual = database.rows(SETTINGS)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("n4a_fast.engine.connection.client.reset_settings", interrupted)
            with database.looking_up(5000, 5000):
                pass
        assert database.rows(SETTINGS) != usual
    with WorkspaceStore(tmp_path / "second") as second:
        assert second._open().database.rows(SETTINGS) == usual


@pytest.mark.parametrize("saves", [False, True])
def test_what_a_killed_writer_left_in_the_log_goes_into_file_and_indexes(tmp_path: Path, saves: bool) -> None:
    with WorkspaceStore(tmp_path / "w") as store:
        fill(store, 10)
    killed = child(KILLED, tmp_path / "w")
    assert read_line(killed) == "1"
    kill(killed)
    log = tmp_path / "w" / "store.duckdb.wal"
    assert log.stat().st_size
    with WorkspaceStore(tmp_path / "w") as store:
        if saves:
            store.begin_run("of another", {}, [])
        store._open().database.attach(writing=True)  # no statement reads an index
    assert not os.path.exists(log)
    with duckdb.connect(str(tmp_path / "w" / "store.duckdb"), read_only=True) as connection:
        for table in ("predictions", "prediction_values"):
            rows = connection.execute(f"SELECT rowid, id_key FROM {table}").fetchall()
            assert len(rows) == 13
            for row, key in rows:
                found = connection.execute(f"SELECT rowid FROM {table} WHERE id_key = ?::UBIGINT", (key,)).fetchall()
                assert (row,) in found
