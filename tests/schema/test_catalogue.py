"""A file whose tables and views, by our names, are somebody else's is not opened; what lies beside them stays alone."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

import duckdb
import pytest
from helpers import begin_sweep, predict_with_arrays

import n4a_fast
from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, NotAStoreError
from n4a_fast.schema import catalogue, ddl

DATA = Path(__file__).parents[1] / "data"
HOSTILE = {
    "a view of another file": "CREATE OR REPLACE VIEW chain_scores AS SELECT * FROM read_text('{canary}')",
    "a view through another view": "CREATE VIEW beside AS FROM read_text('{canary}');"
    " CREATE OR REPLACE VIEW artifacts AS FROM beside",
    "the view that is replaced in our own statements": "CREATE OR REPLACE VIEW v_aggregated_predictions AS"
    " FROM read_text('{canary}')",
    "a view in the place of a table": "DROP TABLE runs; CREATE VIEW runs AS SELECT content FROM read_text('{canary}')",
    "a view named in capitals": "DROP VIEW artifacts; CREATE VIEW \"ARTIFACTS\" AS FROM read_text('{canary}')",
    "a computed column": "DROP TABLE projects; CREATE TABLE projects (project_id VARCHAR,"
    " name VARCHAR GENERATED ALWAYS AS (upper(project_id)) VIRTUAL)",
    "a default": "ALTER TABLE projects ALTER COLUMN name SET DEFAULT getvariable('x')",
    "an index that computes": "CREATE INDEX slow ON runs ((length(name)))",
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
        made.execute("CREATE TYPE mood AS ENUM ('a'); CREATE TYPE json AS ENUM ('x'); CREATE INDEX fast ON runs (name)")
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


def test_no_query_of_ours_reads_a_view_of_the_file() -> None:
    """A view finds macros of its file before DuckDB's functions; `sql()` refuses files that have any."""
    views = "|".join(name for text in ddl.STATEMENTS for name in re.findall(r"CREATE (?:OR REPLACE )?VIEW (\w+)", text))
    reads = re.compile(rf"\b(FROM|JOIN) ({views})\b")
    sources = Path(n4a_fast.__file__).parent
    found = {path.name for path in sources.rglob("*.py") if reads.search(path.read_text("utf-8"))}
    assert found == {"held_out.py", "sections.py", "sqlite_tables.py"}  # which ask `sql()`


def empty_copy(folder: Path, empty_workspace: Path) -> Path:
    return Path(shutil.copytree(empty_workspace, folder / "workspace"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound workspace, and one in whose file each function of DuckDB has a macro by its name."""
    folder = tmp_path_factory.mktemp("both")
    fill(folder / "sound")
    shutil.copytree(folder / "sound", folder / "theirs")
    assert shadow_functions(folder / "theirs" / "store.duckdb") > 500
    return folder


@pytest.mark.long
def test_macros_by_the_names_of_functions_change_nothing(tmp_path: Path, both: Path) -> None:
    for name in ("sound", "theirs"):
        shutil.copytree(both / name, tmp_path / name)
    for opens in (WorkspaceStore.open_readonly, WorkspaceStore):  # the first computes what the second keeps
        with opens(tmp_path / "sound") as sound, opens(tmp_path / "theirs") as theirs:
            assert told(theirs) == told(sound)
            with pytest.raises(InvalidInputError, match="macros"):
                theirs.sql("SELECT count(*) FROM chains")
    with WorkspaceStore(tmp_path / "sound") as sound, WorkspaceStore(tmp_path / "theirs") as theirs:
        for store in (sound, theirs):
            (run,) = store.list_runs()["run_id"]
            (pipeline,) = store.list_pipelines(run)["pipeline_id"]
            store.delete_pipeline(pipeline)
            store.vacuum()
        assert told(theirs) == told(sound)


@pytest.mark.long
def test_macros_of_a_source_change_nothing_of_a_merge(tmp_path: Path, both: Path) -> None:
    for name in ("sound", "theirs"):
        shutil.copytree(both / name, tmp_path / name)
    with duckdb.connect() as made:
        made.execute(f"ATTACH '{tmp_path / 'theirs' / 'store.duckdb'}' AS theirs")
        for schema in ("store", "shard", "system"):  # names that could be taken for files
            made.execute(f"CREATE SCHEMA theirs.{schema}; CREATE TABLE theirs.{schema}.runs AS SELECT 'x' AS run_id")
    for source in ("sound", "theirs"):
        with WorkspaceStore(tmp_path / f"of-{source}") as store:
            assert store.merge(tmp_path / source).added("predictions") == 3
    with WorkspaceStore(tmp_path / "of-sound") as sound, WorkspaceStore(tmp_path / "of-theirs") as theirs:
        assert told(theirs) == told(sound)


def test_an_older_file_with_macros_is_not_migrated(tmp_path: Path) -> None:
    with tarfile.open(DATA / "workspaces" / "n4a_fast-format-1.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    (file,) = tmp_path.rglob("store.duckdb")
    with duckdb.connect(str(file)) as made:
        made.execute("CREATE MACRO duckdb_functions() AS TABLE SELECT 'nothing' AS function_name WHERE false")
        made.execute("CREATE MACRO min(a) AS 42")
    before = file.read_bytes()
    with pytest.raises(NotAStoreError, match="macro (min|duckdb_functions)"):
        WorkspaceStore(file.parent)
    assert file.read_bytes() == before


def fill(root: Path) -> None:
    with WorkspaceStore(root) as store:
        sweep = begin_sweep(store)
        for fold in range(3):
            predict_with_arrays(store, sweep, fold_id=str(fold), val_score=float(fold), metric="rmse")
        store.save_artifact({"coef": [1.0]}, "Ridge", "model", "joblib")
        store.complete_pipeline(sweep.pipeline, 0.0, None, "rmse", 5)
        store.complete_run(sweep.run, {})


def told(store: WorkspaceStore) -> list[object]:
    """What reads of each kind say."""
    predictions = store.query_predictions()
    frames = [
        store.list_runs(),
        store.query_chain_summaries(),
        store.query_top_chains(metric="rmse"),
        store.query_aggregated_predictions(),
        predictions.sort("prediction_id"),
    ]
    arrays = store.load_arrays(predictions["prediction_id"].sort().to_list())
    return [frame.to_dicts() for frame in frames] + [
        [each.tolist() for each in arrays.y_pred],
        [board.frame.to_dicts() for board in store.leaderboard().boards],
    ]


def shadow_functions(path: Path) -> int:
    """Macros by the names of all functions and operators of DuckDB, which say something else than these; how many."""
    with duckdb.connect(str(path)) as made:
        listed = made.execute(
            "SELECT DISTINCT function_name, suffix(function_type, 'table') OR function_type = 'table_macro'"
            " FROM duckdb_functions() WHERE internal"
        ).fetchall()
        made.execute("BEGIN")
        for name, is_table in listed:
            text = "TABLE (SELECT 'theirs' AS table_name)" if is_table else "'theirs'"
            overloads = ", ".join(f"({', '.join('ab'[:count])}) AS {text}" for count in range(3))
            made.execute(f'CREATE OR REPLACE MACRO "{name}" {overloads}')
        made.execute("COMMIT")
        return len(listed)
