"""Workspaces of nirs4all 1.x made ours in their own folder: the original is kept, whatever happens on the way."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from foreign import NEW, unpacked
from helpers import DEADLINE, child

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ConflictError, ForeignStoreError, StoreLockedError
from n4a_fast.integrations.workspaces import migrate
from n4a_fast.integrations.workspaces.migration import DRAFT_FOLDER


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return unpacked(NEW, tmp_path)


def ids_in(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return sorted(name for (name,) in connection.execute("SELECT prediction_id FROM predictions"))


def assert_migrated(root: Path, wanted: list[str]) -> None:
    assert not (root / "store.sqlite").exists()
    assert not (root / "arrays").exists()
    assert not (root / DRAFT_FOLDER).exists()
    assert ids_in(root / "store.sqlite.nirs4all") == wanted
    assert list((root / "arrays.nirs4all").glob("*.parquet"))
    with WorkspaceStore(root) as store:
        assert sorted(store.query_predictions()["prediction_id"].to_list()) == wanted
        assert len(store.load_arrays(wanted)) == len(wanted)


def test_a_workspace_is_migrated_in_its_folder_and_found_migrated_again(theirs: Path) -> None:
    wanted = ids_in(theirs / "store.sqlite")
    report = migrate(theirs)
    assert (report.destination, report.backup) == (theirs, theirs / "store.sqlite.nirs4all")
    assert report.written("predictions") == len(wanted) == 47
    assert_migrated(theirs, wanted)
    assert migrate(theirs).already_done


@pytest.mark.long
def test_the_original_s_names_lead_back_to_it(theirs: Path) -> None:
    wanted = ids_in(theirs / "store.sqlite")
    migrate(theirs / "store.sqlite")
    (theirs / "store.duckdb").unlink()
    (theirs / "store.sqlite.nirs4all").rename(theirs / "store.sqlite")
    (theirs / "arrays.nirs4all").rename(theirs / "arrays")
    migrate(theirs)
    assert_migrated(theirs, wanted)


def test_tables_of_a_studio_are_told_and_stay_in_the_original(theirs: Path) -> None:
    wanted = ids_in(theirs / "store.sqlite")
    with closing(sqlite3.connect(theirs / "store.sqlite")) as connection:
        connection.execute("CREATE TABLE studio_links (link_id TEXT PRIMARY KEY, dataset TEXT)")
        connection.execute("INSERT INTO studio_links VALUES ('a', 'corn')")
        connection.commit()
    report = migrate(theirs)
    (told,) = (table for table in report.tables if table.table == "studio_links")
    assert (told.found, told.written) == (1, 0)
    assert_migrated(theirs, wanted)
    with closing(sqlite3.connect(theirs / "store.sqlite.nirs4all")) as connection:
        assert connection.execute("SELECT dataset FROM studio_links").fetchall() == [("corn",)]


@pytest.mark.long
def test_a_workspace_that_is_being_written_to_is_left_alone(theirs: Path) -> None:
    with closing(sqlite3.connect(theirs / "store.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLockedError):
            migrate(theirs)
    assert not (theirs / "store.duckdb").exists()
    migrate(theirs)


def test_an_earlier_original_is_not_overwritten(theirs: Path) -> None:
    (theirs / "store.sqlite.nirs4all").write_text("an earlier one")
    with pytest.raises(ConflictError, match="store.sqlite.nirs4all"):
        migrate(theirs)
    assert not (theirs / "store.duckdb").exists()
    assert (theirs / "store.sqlite.nirs4all").read_text() == "an earlier one"


DIE_AT_RENAME = """
import os, signal, sys
from n4a_fast.integrations.workspaces import migrate
root, last = sys.argv[1], int(sys.argv[2])
seen = [0]
def hook(event, arguments):
    if event == "os.rename" and str(arguments[0]).startswith(root) and os.path.lexists(arguments[0]):
        seen[0] += 1
        if seen[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
migrate(root)
print(seen[0], flush=True)
"""
TELL_PROGRESS = """
import sys
from n4a_fast.integrations.workspaces import migrate
migrate(sys.argv[1], progress=lambda *told: print(*told, flush=True))
"""


@pytest.mark.parametrize("rename", [1, 2, 3])
def test_a_kill_before_any_of_the_last_steps_leaves_one_whole_store_and_is_mended(theirs: Path, rename: int) -> None:
    wanted = ids_in(theirs / "store.sqlite")
    with child(DIE_AT_RENAME, str(theirs), str(rename)) as process:
        process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL
    if rename == 1:
        with pytest.raises(ForeignStoreError):
            WorkspaceStore(theirs)
    else:
        with WorkspaceStore(theirs) as store:
            assert store.query_predictions().height == len(wanted)
    migrate(theirs)
    assert_migrated(theirs, wanted)


def test_a_kill_while_rows_are_copied_leaves_the_original(theirs: Path) -> None:
    wanted = ids_in(theirs / "store.sqlite")
    with child(TELL_PROGRESS, str(theirs)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.communicate(timeout=DEADLINE)
    if not (theirs / "store.duckdb").exists():
        assert ids_in(theirs / "store.sqlite") == wanted
    migrate(theirs)
    assert_migrated(theirs, wanted)
