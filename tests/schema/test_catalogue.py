"""A file whose tables and views, by our names, are somebody else's is not opened; what lies beside them stays alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotAStoreError
from n4a_fast.schema import catalogue

HOSTILE = {
    "a view of another file": "CREATE OR REPLACE VIEW chain_scores AS SELECT * FROM read_text('{canary}')",
    "a view through another view": "CREATE VIEW beside AS FROM read_text('{canary}');"
    " CREATE OR REPLACE VIEW artifacts AS FROM beside",
    "a view in the place of a table": "DROP TABLE runs; CREATE VIEW runs AS SELECT content FROM read_text('{canary}')",
    "a view named in capitals": "DROP VIEW artifacts; CREATE VIEW \"ARTIFACTS\" AS FROM read_text('{canary}')",
    "a computed column": "DROP TABLE projects; CREATE TABLE projects (project_id VARCHAR,"
    " name VARCHAR GENERATED ALWAYS AS (upper(project_id)) VIRTUAL)",
    "a default": "ALTER TABLE projects ALTER COLUMN name SET DEFAULT getvariable('x')",
    "a check": "DROP TABLE projects; CREATE TABLE projects (project_id VARCHAR CHECK (length(project_id) > 3))",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_bears_our_names_must_be_ours(tmp_path: Path, empty_workspace: Path, what: str) -> None:
    (canary := tmp_path / "canary").write_text("secret")
    with duckdb.connect(str(empty_copy(tmp_path, empty_workspace) / "store.duckdb")) as made:
        made.execute(HOSTILE[what].format(canary=canary))
    for opens in (WorkspaceStore, WorkspaceStore.open_readonly):
        with pytest.raises(NotAStoreError, match="store.duckdb"):
            opens(tmp_path / "workspace")


def test_a_trigger_on_our_tables_is_somebody_elses(tmp_path: Path, empty_workspace: Path) -> None:
    place = empty_copy(tmp_path, empty_workspace) / "store.duckdb"
    with duckdb.connect() as made:  # our own files are of a version that holds none
        made.execute(f"ATTACH '{place}' AS ours; ATTACH '{tmp_path / 'theirs'}' AS theirs (STORAGE_VERSION 'v2.0.0')")
        made.execute("COPY FROM DATABASE ours TO theirs; USE theirs; CREATE TABLE beside (a INTEGER)")
        made.execute("CREATE TRIGGER t AFTER INSERT ON runs FOR EACH STATEMENT INSERT INTO beside VALUES (1)")
    (tmp_path / "theirs").replace(place)
    for opens in (WorkspaceStore, WorkspaceStore.open_readonly):
        with pytest.raises(NotAStoreError, match="a trigger on runs"):
            opens(tmp_path / "workspace")


def test_what_lies_beside_ours_is_left_alone(tmp_path: Path, empty_workspace: Path) -> None:
    (canary := tmp_path / "canary").write_text("secret")
    with duckdb.connect(str(empty_copy(tmp_path, empty_workspace) / "store.duckdb")) as made:
        made.execute(f"CREATE VIEW beside AS FROM read_text('{canary}')")
        made.execute("CREATE TABLE notes (a INTEGER DEFAULT 3, b INTEGER GENERATED ALWAYS AS (a + 1) VIRTUAL)")
        made.execute("CREATE TYPE mood AS ENUM ('a')")
        made.execute("CREATE OR REPLACE VIEW artifacts AS SELECT *, 1 AS another FROM stored_artifacts")
    with WorkspaceStore(tmp_path / "workspace") as store:
        assert store.list_runs().height == 0
        assert store.sql("SELECT count(*) FROM notes").item() == 0


def test_no_view_of_ours_needs_the_parser(empty_workspace: Path) -> None:
    with duckdb.connect(str(empty_workspace / "store.duckdb"), read_only=True) as made:
        views = made.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    assert len(views) >= 5
    assert {word for (text,) in views for word in catalogue._words(text)} <= catalogue._WORDS
    assert not re.search("read_|glob|http|install", " ".join(catalogue._WORDS))


def empty_copy(folder: Path, empty_workspace: Path) -> Path:

    return Path(shutil.copytree(empty_workspace, folder / "workspace"))
