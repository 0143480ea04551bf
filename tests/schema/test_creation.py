"""New store files of one process begin as copies of one another: each is a store of its own, made of the same DDL."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from helpers import child, finish, names_in, plain_rows, read_line

from n4a_fast import WorkspaceStore
from n4a_fast.durable.duckdb_file import CHECKSUM, HEAD
from n4a_fast.errors import NotAStoreError, StoreError, StoreUnavailableError
from n4a_fast.schema.creation import create_file
from n4a_fast.schema.ddl import STATEMENTS

ALL_MADE = """SELECT table_name AS name, sql FROM duckdb_tables() UNION ALL
SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY name"""
COLUMNS = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
STORE = "store.duckdb"


def texts(file: Path) -> dict[str, list[str]]:
    """The words that made each table and view of a file; the names behind EXCLUDE are in no order."""
    return {name: sorted(re.findall(r"\w+", sql)) for name, sql in plain_rows(file, ALL_MADE)}


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """The files of two workspaces that this process has made."""
    for name in ("first", "second"):
        WorkspaceStore(tmp_path / name).close()
    return tmp_path / "first" / STORE, tmp_path / "second" / STORE


def test_a_copy_is_what_the_statements_make(tmp_path: Path, stores: tuple[Path, Path]) -> None:
    create_file(tmp_path / "made", STATEMENTS)
    assert texts(tmp_path / "made").keys() >= {"store_info", "runs", "chain_scores"}
    for store in stores:
        assert texts(store) == texts(tmp_path / "made")
        assert plain_rows(store, COLUMNS) == plain_rows(tmp_path / "made", COLUMNS)


def test_a_copy_differs_from_what_duckdb_makes_in_its_identifier_alone(tmp_path: Path) -> None:
    """DuckDB keeps it where `another_file` puts another one."""
    common, own = ("CREATE TABLE t (x INTEGER)", "CREATE VIEW v AS FROM t"), ("INSERT INTO t VALUES (1)",)
    for name in ("statements", "copy", "another copy"):
        create_file(tmp_path / name, own, common=common)
    made, *copies = (tmp_path / name for name in ("statements", "copy", "another copy"))
    for copy in copies:
        both = zip(made.read_bytes(), copy.read_bytes(), strict=True)
        differing = {place for place, (ours, other) in enumerate(both) if ours != other}
        assert differing <= {*range(CHECKSUM), *range(124, 140)}
        assert len(differing) > CHECKSUM
        assert plain_rows(copy, "FROM v") == [(1,)]
    assert copies[0].read_bytes()[:HEAD] != copies[1].read_bytes()[:HEAD]


def test_each_store_has_an_id_of_its_own(stores: tuple[Path, Path]) -> None:
    (first,), (second,) = (plain_rows(store, "SELECT store_id, rewrites, began_as FROM store_info") for store in stores)
    assert first[0] != second[0]
    assert first[1:] == second[1:] == (0, 2)


def test_the_log_of_one_is_not_the_log_of_another(stores: tuple[Path, Path]) -> None:
    first, second = stores
    with duckdb.connect(str(first)) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("INSERT INTO metrics VALUES ('rmse', false, 'user')")
    shutil.copy(f"{first}.wal", f"{second}.wal")
    with pytest.raises(StoreUnavailableError, match="wal cannot be used: it is the log of another file"):
        WorkspaceStore(second.parent).list_runs()
    with WorkspaceStore(first.parent) as store:
        assert store.sql("SELECT name FROM metrics")["name"].to_list() == ["rmse"]


OPENER = """
import sys
from pathlib import Path
from n4a_fast import WorkspaceStore

WorkspaceStore(Path(sys.argv[1]) / f"own {sys.argv[2]}").close()
print("ready", flush=True)
sys.stdin.readline()
with WorkspaceStore(Path(sys.argv[1]) / "common") as store:
    store.begin_run("opened", {}, [])
    print(store._open().database.identity.store_id)
"""


def test_processes_that_make_a_workspace_at_once_make_one(tmp_path: Path) -> None:
    openers = [child(OPENER, tmp_path, number) for number in range(3)]
    assert [read_line(opener) for opener in openers] == ["ready"] * 3
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("open\n")
        opener.stdin.flush()
    (store_id,) = {finish(opener).strip() for opener in openers}
    with WorkspaceStore(tmp_path / "common") as store:
        assert store.list_runs().height == 3
    assert plain_rows(tmp_path / "common" / STORE, "SELECT store_id FROM store_info") == [(store_id,)]
    assert names_in(tmp_path / "common") == ["artifacts", STORE]


@pytest.mark.parametrize("column", ["store_id", "rewrites", "began_as"])
def test_a_store_that_does_not_say_which_it_is_is_refused(stores: tuple[Path, Path], column: str) -> None:
    with duckdb.connect(str(stores[0])) as connection:
        connection.execute(f"UPDATE store_info SET {column} = NULL")
    with pytest.raises(NotAStoreError, match="does not say which store it is"):
        WorkspaceStore(stores[0].parent)


def test_a_new_store_that_is_gone_before_its_first_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="removed"), WorkspaceStore(tmp_path / "w") as store:
        (tmp_path / "w" / STORE).unlink()
        store.list_runs()
    assert not (tmp_path / "w" / STORE).exists()
