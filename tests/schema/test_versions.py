"""What is opened, migrated or refused; a refused file keeps every byte."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from foreign import unpacked
from helpers import child, finish, make_duckdb, names_in, plain_rows, read_line

from n4a_fast import WorkspaceStore, schema
from n4a_fast.engine.connection import Database
from n4a_fast.errors import (
    DamagedStoreError,
    ForeignStoreError,
    InvalidInputError,
    NewerFormatError,
    NotAStoreError,
    NotFoundError,
    ReadOnlyError,
    StoreFormatError,
)
from n4a_fast.schema.creation import create_file
from n4a_fast.schema.versions import FORMAT_VERSION, create, migrate
from n4a_fast.version import __version__

FOREIGN = [
    f"CREATE TABLE {name} (id VARCHAR)"
    for name in ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
]


def refuse(workspace: Path, kind: type[StoreFormatError]) -> StoreFormatError:
    """The error on opening, by both ways; nothing in the file or beside it may change."""
    file = workspace / "store.duckdb"
    before = file.read_bytes()
    beside = {*names_in(workspace), "artifacts"}
    for way in (WorkspaceStore, WorkspaceStore.open_readonly):
        with pytest.raises(kind, match="left unchanged") as caught:
            way(workspace)
        assert file.read_bytes() == before
        assert set(names_in(workspace)) <= beside
        assert str(file) in str(caught.value)
    return caught.value


def test_a_new_store_has_the_current_format(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    assert plain_rows(tmp_path / "store.duckdb", "SELECT format_version, written_by FROM store_info") == [
        (FORMAT_VERSION, __version__)
    ]


def test_a_new_workspace_holds_one_file_and_one_folder(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path / "new" / "nested").close()
    assert names_in(tmp_path / "new" / "nested") == ["artifacts", "store.duckdb"]


def test_creating_where_a_file_is_leaves_that_file(tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    file.write_bytes(b"first")
    create(file)
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_newer_format_is_refused_with_the_version_to_install(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    with duckdb.connect(str(tmp_path / "store.duckdb")) as connection:
        connection.execute("UPDATE store_info SET format_version = 99, written_by = '7.8'")
    error = refuse(tmp_path, NewerFormatError)
    assert isinstance(error, NewerFormatError)
    assert (error.found, error.supported, error.written_by) == (99, FORMAT_VERSION, "7.8")


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\x00" + b"\x00" * 5000, b"x" * 100, b"\x00" * 20000],
    ids=["empty", "sqlite", "short", "zeros"],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.duckdb").write_bytes(content)
    refuse(tmp_path, NotAStoreError)


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.duckdb").mkdir()
    with pytest.raises(NotAStoreError, match="not a file"):
        WorkspaceStore(tmp_path)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    make_duckdb(tmp_path / "store.duckdb", "CREATE TABLE cars (name VARCHAR)", "INSERT INTO cars VALUES ('beetle')")
    refuse(tmp_path, NotAStoreError)


def test_a_table_named_like_ours_with_other_columns_is_refused(tmp_path: Path) -> None:
    make_duckdb(tmp_path / "store.duckdb", "CREATE TABLE store_info (colour VARCHAR)")
    refuse(tmp_path, NotAStoreError)


@pytest.mark.parametrize(
    "row", ["", "INSERT INTO store_info VALUES (NULL, NULL)", "INSERT INTO store_info VALUES ('one', 'two')"]
)
def test_a_store_without_a_readable_version_is_refused(tmp_path: Path, row: str) -> None:
    make_duckdb(
        tmp_path / "store.duckdb",
        "CREATE TABLE store_info (format_version VARCHAR, written_by VARCHAR)",
        row or "SELECT 1",
    )
    refuse(tmp_path, NotAStoreError)


def test_a_cut_off_store_is_refused(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    file = tmp_path / "store.duckdb"
    file.write_bytes(file.read_bytes()[:9000])
    refuse(tmp_path, DamagedStoreError)


def test_a_file_of_nirs4all_is_named_as_such(tmp_path: Path) -> None:
    make_duckdb(tmp_path / "store.duckdb", *FOREIGN)
    refuse(tmp_path, ForeignStoreError)


def test_a_real_workspace_of_nirs4all_is_refused(tmp_path: Path) -> None:
    refuse(unpacked("nirs4all-0.7.1", tmp_path), ForeignStoreError)


def test_a_missing_file_is_not_created_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="store file"):
        WorkspaceStore.open_readonly(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- migration -------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of format 1 of a history in which format 3 is the newest."""
    file = tmp_path / "store.duckdb"
    create_file(
        file,
        (
            "CREATE TABLE store_info (format_version INTEGER, written_by VARCHAR)",
            "INSERT INTO store_info VALUES (1, '0.1')",
            "CREATE TABLE runs (run_id VARCHAR)",
            "INSERT INTO runs VALUES ('r1')",
        ),
    )
    return file


STEPS = {
    1: ["ALTER TABLE runs ADD COLUMN colour VARCHAR", "UPDATE runs SET colour = 'red'"],
    2: ["ALTER TABLE runs RENAME COLUMN colour TO hue"],
}


def test_a_migration_runs_every_step_and_notes_the_new_version(old: Path) -> None:
    database = Database(old)
    migrate(database, 1, 3, STEPS)
    database.close()
    assert plain_rows(old, "SELECT run_id, hue FROM runs") == [("r1", "red")]
    assert plain_rows(old, "SELECT * FROM store_info") == [(3, __version__)]


def test_a_migration_keeps_the_old_file_aside(old: Path) -> None:
    before = old.read_bytes()
    database = Database(old)
    backup = migrate(database, 1, 3, STEPS)
    database.close()
    assert backup.read_bytes() == before
    assert plain_rows(backup, "SELECT * FROM runs") == [("r1",)]


def test_rows_that_were_only_in_the_log_are_in_the_copy(old: Path) -> None:
    database = Database(old)
    with database.transaction():
        database.execute("INSERT INTO runs VALUES ('r2')")
    backup = migrate(database, 1, 3, STEPS)
    database.close()
    assert plain_rows(backup, "SELECT * FROM runs ORDER BY ALL") == [("r1",), ("r2",)]


def test_a_failing_migration_leaves_everything_as_it_was(old: Path) -> None:
    database = Database(old)
    with pytest.raises(InvalidInputError):
        migrate(database, 1, 3, {1: STEPS[1], 2: ["ALTER TABLE nothing ADD COLUMN x INTEGER"]})
    database.close()
    assert plain_rows(old, "SELECT * FROM runs") == [("r1",)]
    assert plain_rows(old, "SELECT * FROM store_info") == [(1, "0.1")]


def test_a_reader_does_not_migrate(old: Path) -> None:
    before = old.read_bytes()
    database = Database(old, read_only=True)
    with pytest.raises(ReadOnlyError):
        migrate(database, 1, 3, STEPS)
    database.close()
    assert old.read_bytes() == before


def test_every_older_format_has_a_way_up() -> None:
    assert set(schema.versions.MIGRATIONS) == set(range(1, FORMAT_VERSION))


def definitions(file: Path) -> tuple[list[tuple[object, ...]], dict[object, list[str]]]:
    """Columns of all tables and views, and the words of each view: DuckDB writes names after EXCLUDE in any order."""
    views = plain_rows(file, "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal")
    columns = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
    return plain_rows(file, columns), {name: sorted(re.findall(r"\w+", str(text))) for name, text in views}


def test_a_store_of_format_1_is_brought_up_to_the_present_one_and_keeps_its_rows(tmp_path: Path) -> None:
    archive = Path(__file__).parents[1] / "data" / "workspaces" / "n4a_fast-format-1.tar.gz"
    shutil.unpack_archive(archive, tmp_path, filter="data")
    with WorkspaceStore(tmp_path) as store:
        assert store.leaderboard().frame["val_score"].to_list() == [pytest.approx(0.2)]
        assert store.load_arrays().y_pred_2d().shape == (3, 5)
        assert store.query_chain_summaries()["cv_fold_count"].to_list() == [3]
        assert store.verify()
    WorkspaceStore(tmp_path / "new").close()
    assert definitions(tmp_path / "store.duckdb") == definitions(tmp_path / "new" / "store.duckdb")
    assert plain_rows(tmp_path / "store.duckdb", "SELECT format_version FROM store_info") == [(FORMAT_VERSION,)]
    assert (tmp_path / "store.duckdb.v1").is_file()


# Opens a store of an older format when it is told to.
OPENER = """
import sys
from n4a_fast import WorkspaceStore
print("ready")
sys.stdin.readline()
with WorkspaceStore(sys.argv[1]) as store:
    store.begin_run("opened", {}, [])
"""


def test_processes_that_open_an_older_format_at_once_migrate_it_once(tmp_path: Path) -> None:
    archive = Path(__file__).parents[1] / "data" / "workspaces" / "n4a_fast-format-1.tar.gz"
    shutil.unpack_archive(archive, tmp_path, filter="data")
    runs = len(plain_rows(tmp_path / "store.duckdb", "SELECT run_id FROM runs"))
    openers = [child(OPENER, tmp_path) for _ in range(3)]
    assert [read_line(opener) for opener in openers] == ["ready"] * 3
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("open\n")
        opener.stdin.flush()
    for opener in openers:
        finish(opener)
    with WorkspaceStore(tmp_path) as store:
        assert store.list_runs().height == runs + 3
    # a second migration would have taken a copy of what the first one had made
    assert plain_rows(tmp_path / "store.duckdb.v1", "SELECT format_version FROM store_info") == [(1,)]
