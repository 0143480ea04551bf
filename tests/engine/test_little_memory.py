"""Predictions all over large tables are read and deleted with little memory: some at a time, or with more for a while.

DuckDB keeps a block for each row group of which rows were deleted, and the blocks of an index that it has read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from helpers import begin_pipeline

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import ROW_GROUP, Database, Lent, client
from n4a_fast.errors import MemoryLimitError

ROWS, EACH = 64 * ROW_GROUP, 512  # of `EACH` predictions one is of another data set
MEMORY = 24 * 2**20  # bytes: less than a block for each row group of both tables
LIMIT = "SELECT current_setting('memory_limit')"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("filled")
    with WorkspaceStore(folder) as store:
        return folder, save(store, begin_pipeline(store, store.begin_run("r", {}, [])), np.arange(ROWS))


def save(store: WorkspaceStore, pipeline: str, rows: np.ndarray) -> list[str]:
    columns = {
        "pipeline_id": pipeline,
        "dataset_name": ["few" if row % EACH == 0 else "many" for row in rows],
        "model_name": [f"m{row}" for row in rows],
        "model_class": "PLS",
        "partition": "val",
        "fold_id": "0",
        "val_score": rows / 1.0,
    }
    return list(store.save_predictions(columns, y_pred=np.repeat(rows, 2).reshape(-1, 2) * 1.0))


@pytest.fixture
def store(filled: tuple[Path, list[str]], tmp_path: Path) -> Iterator[WorkspaceStore]:
    (tmp_path / "store.duckdb").write_bytes((filled[0] / "store.duckdb").read_bytes())
    with WorkspaceStore(tmp_path) as opened:
        database = opened._open().database
        database.use_memory(MEMORY)
        opened.list_runs()
        assert database.indexes_may_take_much
        yield opened


def require_left(store: WorkspaceStore, ids: list[str], gone: list[str]) -> None:
    left = [name for name in ids if name not in set(gone)]
    assert store.sql("SELECT count(*) FROM predictions").item() == len(left)
    wanted = left[:: ROWS // 10]
    places = {name: place for place, name in enumerate(ids)}
    assert store.load_arrays(wanted, columns=["y_pred"]).y_pred_2d()[:, 0].tolist() == [places[name] for name in wanted]
    assert [store.get_prediction(name) for name in gone[:3]] == [None] * len(gone[:3])
    assert store.sql(LIMIT).item() == "24.0 MiB"
    store._open().database.use_memory(2**29)  # verify counts the rows of each key
    assert store.verify().is_sound


def test_deletions_that_wait_are_done_some_at_a_time(store: WorkspaceStore, filled: tuple[Path, list[str]]) -> None:
    gone = filled[1][:: ROWS // 200]
    for name in gone:
        assert store.delete_prediction(name)
    require_left(store, filled[1], gone)


def test_one_deletion_all_over_may_take_more_memory_until_it_is_done(
    store: WorkspaceStore, filled: tuple[Path, list[str]]
) -> None:
    assert store.delete_dataset_predictions("few") == ROWS // EACH
    require_left(store, filled[1], filled[1][::EACH])


def test_predictions_all_over_are_replaced(store: WorkspaceStore, filled: tuple[Path, list[str]]) -> None:
    pipeline, rows = store.list_pipelines()["pipeline_id"][0], np.arange(0, ROWS, ROWS // 200)
    assert save(store, pipeline, rows) == [filled[1][row] for row in rows]
    require_left(store, filled[1], [])


def test_a_read_without_room_is_done_once_more(store: WorkspaceStore) -> None:
    database, attachments = store._open().database, []

    def look() -> int:
        attachments.append(database.attachment)
        if len(attachments) == 1:
            raise MemoryLimitError(database.path, "no room")
        return len(attachments)

    assert database.with_room(look) == 2
    assert attachments[0] < attachments[1]
    attachments.clear()
    with database.transaction(), pytest.raises(MemoryLimitError):
        database.with_room(look)
    assert len(attachments) == 1


def test_a_lent_file_is_attached_anew_by_its_owner_alone(store: WorkspaceStore) -> None:
    database = store._open().database
    attachment, lent = database.attachment, Lent(database)

    def refused() -> None:
        raise MemoryLimitError(database.path, "no room")

    with pytest.raises(MemoryLimitError):
        lent.with_room(refused)
    lent.give_back()
    assert database.attached == attachment


def test_a_disk_that_takes_nothing_keeps_nobody_from_attaching_anew(
    store: WorkspaceStore, filled: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = store._open().database
    assert store.delete_dataset_predictions("few") == ROWS // EACH
    attachment = database.attachment
    with database.transaction():  # its log is to be put into the file
        database.execute("DELETE FROM deleted_runs")
        database.add_keys(2**20)

    def full(*_: object, **__: object) -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client, "detach_store", full)
        database.yield_turn()
        assert database.attached > attachment
        assert store.sql("SELECT count(*) FROM predictions").item() == ROWS - ROWS // EACH
        places = store._open().database.in_little_memory(2**23, lambda: database.rows("SELECT 42"))
        assert places == [(42,)]
    require_left(store, filled[1], filled[1][::EACH])


@pytest.mark.parametrize("read_only", [False, True])
def test_what_a_killed_process_deleted_all_over_does_not_shut_the_store(
    filled: tuple[Path, list[str]], tmp_path: Path, read_only: bool
) -> None:
    path = tmp_path / "killed" / "store.duckdb"
    path.parent.mkdir()
    (tmp_path / "store.duckdb").write_bytes((filled[0] / "store.duckdb").read_bytes())
    with WorkspaceStore(tmp_path) as store:
        store.delete_dataset_predictions("few")
        for suffix in ("", ".wal"):
            path.with_name(f"store.duckdb{suffix}").write_bytes((tmp_path / f"store.duckdb{suffix}").read_bytes())
    database = Database(path, read_only=read_only)
    try:
        database.use_memory(MEMORY)
        for _ in range(3):
            assert database.rows("SELECT count(*) FROM predictions") == [(ROWS - ROWS // EACH,)]
            database.yield_turn()
        attachments = database.attachment
        database.yield_turn()
        assert database.attachment == attachments
        assert read_only or database.rows(LIMIT) == [("24.0 MiB",)]
    finally:
        database.close()


def test_a_transaction_with_many_new_keys_may_take_their_part_of_the_indexes(store: WorkspaceStore) -> None:
    database = store._open().database
    with database.transaction():
        database.add_keys(100_000)
        assert database.rows(LIMIT) == [("24.0 MiB",)]
        database.add_keys(2**20 - 100_000)
        assert database.rows(LIMIT) == [("56.0 MiB",)]
    store.list_runs()
    assert store.sql(LIMIT).item() == "24.0 MiB"
