"""A nirs4all workspace becomes ours in place: every row and array equal, the original kept, nothing overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pytest
from foreign import BETWEEN, NUMBERS_OF_OLD, OLD, change, move_arrays_to_parquet, rows, unpacked
from helpers import child, counts, finish, kill, names_in, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.errors import (
    ConflictError,
    CopyDiffersError,
    ForeignStoreError,
    InvalidInputError,
    NotAStoreError,
    StoreLockedError,
)
from n4a_fast.integrations.workspaces import migrate
from n4a_fast.integrations.workspaces.migration import BACKUP_FILE, DRAFT_FOLDER

ARRAYS = (
    "SELECT prediction_id, y_true, y_pred, y_proba, sample_indices, weights FROM prediction_arrays ORDER BY"
    " prediction_id"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return unpacked(OLD, tmp_path)


@pytest.mark.long
def test_every_row_and_array_arrives_and_the_original_stays(old: Path) -> None:
    original = (old / "store.duckdb").read_bytes()
    (old / "store.duckdb").chmod(0o664)
    said: list[tuple[str, int, int]] = []
    report = migrate(old, progress=lambda *told: said.append(told))
    assert {table.table: table.written for table in report.tables if table.found} == {
        **NUMBERS_OF_OLD,
        "artifact files": 1,
    }
    assert report.tables[-1].note == "stay where they are; 12 are missing"  # in the test's copy
    assert (report.arrays_compared, report.already_done, report.backup) == (188, False, old / BACKUP_FILE)
    assert (old / BACKUP_FILE).read_bytes() == original
    assert (old / "store.duckdb").stat().st_mode & 0o777 == 0o664
    assert {path.name for path in old.iterdir()} == {"store.duckdb", BACKUP_FILE, "artifacts"}
    assert rows(old / "store.duckdb", ARRAYS) == rows(old / BACKUP_FILE, ARRAYS)
    for table in ("runs", "pipelines", "chains", "predictions", "artifacts", "logs"):
        columns = ", ".join(name for name, *_ in rows(old / BACKUP_FILE, f"DESCRIBE {table}") if name != "ref_count")
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        assert rows(old / "store.duckdb", query) == rows(old / BACKUP_FILE, query), table
    assert ("comparing arrays", 47, 47) in said
    assert all(0 < done <= total for _, done, total in said)


@pytest.mark.long
def test_the_migrated_store_is_worked_with_like_any_other(old: Path) -> None:
    migrate(old)
    with WorkspaceStore(old) as store:
        best = store.top_predictions(1, partition="test").to_dicts()[0]
        found = store.get_prediction(best["prediction_id"], load_arrays=True)
        assert found is not None
        assert np.mean((found["y_true"] - found["y_pred"]) ** 2) == pytest.approx(found["test_score"])
        scaler = store.load_artifact("config_448eaee6$7c1fa10edc2c:all")  # kept under a sha256 that is checked
        assert type(scaler).__name__ == "MinMaxScaler"
        kept = store.save_prediction(
            **{name: found[name] for name in found if name not in ("created_at", "prediction_id", *_ARRAYS)}
        )
        assert store.query_predictions().height == 47
        assert kept == best["prediction_id"]  # a prediction that is saved again keeps its id
        assert np.array_equal((store.get_prediction_arrays(kept) or {})["y_pred"], found["y_pred"])
        (run,) = store.list_runs()["run_id"]
        assert store.delete_run(run) == sum(NUMBERS_OF_OLD.values()) - NUMBERS_OF_OLD["artifacts"]


_ARRAYS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights", "sample_metadata")


def test_a_second_migration_does_nothing_and_says_so(old: Path) -> None:
    migrate(old)
    before = (old / "store.duckdb").read_bytes()
    report = migrate(old / "store.duckdb")
    assert (report.already_done, report.tables) == (True, ())
    assert (old / "store.duckdb").read_bytes() == before


def test_a_backup_is_never_overwritten(old: Path) -> None:
    (old / BACKUP_FILE).write_bytes(b"an earlier original")
    with pytest.raises(ConflictError, match="an earlier original"):
        migrate(old)
    assert (old / BACKUP_FILE).read_bytes() == b"an earlier original"
    with pytest.raises(ForeignStoreError, match="n4a-fast migrate"):
        WorkspaceStore(old)


def test_rows_that_only_the_write_ahead_log_holds_come_along(old: Path) -> None:
    finish(child(CRASH_AFTER_INSERT, old / "store.duckdb"))
    log = old / "store.duckdb.wal"
    assert log.exists()
    assert migrate(old).written("runs") == 2
    assert not log.exists()
    assert (old / f"{BACKUP_FILE}.wal").exists()
    assert rows(old / BACKUP_FILE, "SELECT count(*) FROM runs") == [(2,)]
    with WorkspaceStore(old) as store:
        assert set(store.list_runs()["run_id"]) > {"late"}


CRASH_AFTER_INSERT = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("SET checkpoint_threshold = '1GB'")
connection.execute("INSERT INTO runs (run_id, name) VALUES ('late', 'written just before the end')")
os._exit(0)
"""


def test_arrays_in_parquet_files_come_along_and_the_last_row_of_an_id_counts(old: Path) -> None:
    wanted = rows(old / "store.duckdb", ARRAYS)
    move_arrays_to_parquet(old)
    report = migrate(old)
    assert report.written("prediction_arrays") == 47
    assert "Parquet" in report.kind
    assert rows(old / "store.duckdb", ARRAYS) == wanted
    with WorkspaceStore(old) as store:
        (run,) = store.list_runs().to_dicts()
        assert (store.get_project(run["project_id"]) or {})["name"] == "grain"


@pytest.mark.long
def test_chains_of_a_workspace_in_between_replay_their_stored_predictions(tmp_path: Path) -> None:
    root = unpacked(BETWEEN, tmp_path)
    spectra = np.load(root / "spectra.npy")
    report = migrate(root)
    assert {table.table: table.written for table in report.tables if table.found} == {
        "runs": 1,
        "pipelines": 3,
        "chains": 3,
        "artifacts": 10,
        "logs": 3,
        "predictions": 32,
        "prediction_arrays": 32,
        "artifact files": 9,
    }
    with WorkspaceStore(root) as store:
        rows = store.query_predictions(partition="test", fold_id=["avg", "final"]).to_dicts()  # type: ignore[arg-type]
        assert len(rows) == 3
        for row in rows:
            stored = (store.get_prediction_arrays(row["prediction_id"]) or {})["y_pred"]
            replayed = store.replay_chain(row["chain_id"], spectra)[-len(stored) :]
            assert np.allclose(replayed, stored, rtol=0, atol=1e-6)  # nirs4all trained and predicted in float32


@pytest.mark.long
def test_flattened_arrays_get_their_shape_back(old: Path) -> None:
    identifier = rows(old / "store.duckdb", "SELECT prediction_id FROM prediction_arrays LIMIT 1")[0][0]
    change(
        old / "store.duckdb",
        f"""UPDATE prediction_arrays SET y_true = [1, 2, 3, 4, 'nan'::DOUBLE, 6], y_pred = [1, 2, 3, 4, 5, 6], y_proba =
        [.1, .2, .7, .3, .3, .4, 1, 0, 0],
        sample_indices = [7, 8, 9], weights = NULL WHERE prediction_id = '{identifier}'""",
    )
    migrate(old)
    with WorkspaceStore(old) as store:
        found = store.get_prediction_arrays(identifier)
        assert found is not None
        assert np.array_equal(found["y_true"], [[1, 2], [3, 4], [np.nan, 6]], equal_nan=True)
        assert (found["y_pred"].shape, found["y_proba"].shape, found["weights"]) == ((3, 2), (3, 3), None)


@pytest.mark.long
def test_of_rows_with_one_natural_key_the_newest_counts(old: Path) -> None:
    change(
        old / "store.duckdb",
        "CREATE TABLE again AS SELECT * REPLACE ('newer' AS prediction_id, 42.0 AS val_score) FROM predictions LIMIT 1",
        "INSERT INTO predictions SELECT * FROM again",
        "INSERT INTO prediction_arrays (prediction_id, y_pred) VALUES ('newer', [1, 2])",
    )
    report = migrate(old)
    assert [(table.found, table.written) for table in report.tables if table.table.startswith("prediction")] == [
        (48, 47),
        (48, 47),
    ]
    assert all(table.note for table in report.tables if table.found != table.written)
    with WorkspaceStore(old) as store:
        assert (store.get_prediction("newer") or {})["val_score"] == 42.0


@pytest.mark.long
def test_what_has_no_column_here_is_kept(old: Path) -> None:
    change(
        old / "store.duckdb",
        "ALTER TABLE logs ADD COLUMN host VARCHAR",
        "UPDATE logs SET host = 'node7' WHERE step_idx = 4",
    )
    migrate(old)
    with WorkspaceStore(old) as store:
        kept = store.sql(
            "SELECT table_name, content->>'host' AS host, count(*) AS n FROM carried GROUP BY ALL"
        ).to_dicts()
        assert kept == [{"table_name": "logs", "host": "node7", "n": 4}]


def test_a_file_in_use_is_left_alone(old: Path) -> None:
    holder = child(HOLD, old / "store.duckdb")
    read_line(holder)
    with pytest.raises(StoreLockedError):
        migrate(old)
    kill(holder)
    assert migrate(old).written("runs") == 1


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("holding", flush=True)
sys.stdin.read()
"""


def test_nobody_writes_to_the_original_while_it_is_copied(old: Path) -> None:
    refused: list[str] = []

    def write_too(what: str, _done: int, _total: int) -> None:
        if what == "copying arrays":
            refused.append(finish(child(TRY_TO_WRITE, old / "store.duckdb")).strip())

    migrate(old, progress=write_too)
    assert refused == ["refused"]


TRY_TO_WRITE = """
import sys, duckdb
try:
    duckdb.connect(sys.argv[1])
    print("open")
except duckdb.IOException:
    print("refused")
"""


@pytest.mark.long
def test_a_file_that_was_exchanged_meanwhile_is_not_replaced(old: Path) -> None:
    def exchange(what: str, _done: int, _total: int) -> None:
        if what == "comparing runs":
            os.utime(old / "store.duckdb")

    with pytest.raises(CopyDiffersError, match="the files differ"):
        migrate(old, progress=exchange)
    assert not (old / BACKUP_FILE).exists()
    assert not (old / DRAFT_FOLDER).exists()
    assert migrate(old).written("predictions") == 47


TAMPERINGS = {
    "rows of predictions": "UPDATE predictions SET val_score = val_score * 1.0000000001 WHERE rowid = 5",
    "rows of chains": "UPDATE chains SET steps = '[]' WHERE rowid = 1",
    "rows of logs": "DELETE FROM logs WHERE rowid = 0",
    "rows of runs": "INSERT INTO runs BY NAME SELECT 'extra' AS run_id",
    "arrays of predictions": "UPDATE prediction_values SET y_pred = list_reverse(y_pred) WHERE rowid = 3",
    "arrays that predictions share": (
        "UPDATE shared_arrays SET array_values = list_reverse(array_values) WHERE rowid = 0"
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_copy_that_differs_never_takes_effect(old: Path, what: str) -> None:
    def tamper(step: str, _done: int, _total: int) -> None:
        if step == "comparing runs":
            with WorkspaceStore(old / DRAFT_FOLDER / "new") as draft, draft._open().units.change():
                draft._open().database.execute(TAMPERINGS[what])

    with pytest.raises(CopyDiffersError, match=f"{what} .*differ|{what} differ"):
        migrate(old, progress=tamper)
    assert names_in(old) == ["artifacts", "store.duckdb"]


def test_what_is_no_old_workspace_is_refused(tmp_path: Path, empty_workspace: Path) -> None:
    with pytest.raises(NotAStoreError, match="holds no store"):
        migrate(tmp_path)
    (tmp_path / "other").mkdir()
    change(tmp_path / "other" / "store.duckdb", "CREATE TABLE runs (run_id VARCHAR)")
    with pytest.raises(NotAStoreError, match="something else"):
        migrate(tmp_path / "other")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "store.duckdb").write_text("no database at all, only text")
    with pytest.raises(NotAStoreError):
        migrate(tmp_path / "text")


def test_a_journal_of_another_store_is_not_replayed_into_the_new_one(old: Path) -> None:
    (old / "store.duckdb.journal").write_bytes(b"n4a something")
    with pytest.raises(InvalidInputError, match="move it away"):
        migrate(old)


@pytest.mark.parametrize("second_name", [os.link, shutil.copyfile], ids=["link", "copy of the folder"])
@pytest.mark.parametrize("with_log", [False, True])
@pytest.mark.long
def test_a_swap_that_was_killed_halfway_is_undone_and_done_again(
    old: Path, with_log: bool, second_name: Callable[[Path, Path], object]
) -> None:
    file, backup, log = old / "store.duckdb", old / BACKUP_FILE, old / "store.duckdb.wal"
    if with_log:
        finish(child(CRASH_AFTER_INSERT, file))
        log.rename(old / f"{BACKUP_FILE}.wal")
    second_name(file, backup)
    assert migrate(old).written("runs") == 1 + with_log
    assert not log.exists()
    assert rows(backup, "SELECT count(*) FROM runs") == [(1 + with_log,)]
    with WorkspaceStore(old) as store:
        assert counts(store, *NUMBERS_OF_OLD) == {**NUMBERS_OF_OLD, "runs": 1 + with_log}


@pytest.mark.long
def test_the_backup_is_the_way_back(old: Path) -> None:
    before = rows(old / "store.duckdb", ARRAYS)
    migrate(old)
    (old / BACKUP_FILE).replace(old / "store.duckdb")
    with duckdb.connect(str(old / "store.duckdb")) as connection:
        assert connection.execute(ARRAYS).fetchall() == before
        connection.execute("UPDATE runs SET name = 'again'")
    assert migrate(old).written("runs") == 1
