"""Workspaces of strangers are taken in as data: nothing that they say is run, and what is no workspace is told."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign import NEW, OLD, change, move_arrays_to_parquet, unpacked
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
from n4a_fast.integrations.workspaces import convert, migrate

CANARY = "canary-4711"
# {out}: a file that must not come to be; {canary}: one whose content must not come along
NAMES = (
    "runs; COPY (SELECT 'owned') TO '{out}'; SELECT 0 AS x FROM runs",
    "runs\"; COPY (SELECT 'owned') TO '{out}'; --",
    "'{canary}'",
    "{canary}",
    "read_text('{canary}')",
    "x\ny; ATTACH '{out}' AS z",
)
OF_DUCKDB = {
    "a macro in place of a function": ("CREATE MACRO count(x) AS (SELECT content FROM read_text('{canary}'))",),
    "a macro in place of an operator": ("CREATE MACRO coalesce(x) AS (SELECT content FROM read_text('{canary}'))",),
    "a view that logs": (
        "CREATE VIEW extra AS SELECT * FROM enable_logging(storage = 'file', storage_path = '{out}')",
    ),
    "a table that is a view": (
        "CREATE TABLE kept AS FROM logs",
        "DROP TABLE logs",
        "CREATE VIEW logs AS SELECT k.* REPLACE (t.content AS message) FROM kept k, read_text('{canary}') t",
    ),
    "the version is a view": (
        "CREATE VIEW store_info AS SELECT 1 AS format_version, content AS written_by"
        " FROM read_text('{canary}'), enable_logging(storage = 'file', storage_path = '{out}')",
    ),
    "a computed column": (
        "DROP TABLE logs",
        "CREATE TABLE logs (log_id VARCHAR, message VARCHAR AS (repeat(log_id, 1000000)))",
        "INSERT INTO logs VALUES ('a')",
    ),
    "a table of another schema": (
        "CREATE SCHEMA other",
        "CREATE VIEW other.runs AS SELECT * FROM read_text('{canary}')",
    ),
}
HARMLESS = ("a view that logs", "a table that is a view", "the version is a view", "a table of another schema")
OF_SQLITE = {
    "a view": ("CREATE VIEW extra AS SELECT load_extension('{out}')",),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT load_extension('{out}'); END",),
    "a computed column": ("ALTER TABLE runs ADD COLUMN x TEXT AS (hex(zeroblob(1000000000)))",),
    "a virtual table": ("CREATE VIRTUAL TABLE extra USING fts5(a)",),
    "a table that is virtual": ("DROP TABLE runs", "CREATE VIRTUAL TABLE runs USING fts5(run_id, name)"),
    "a table without row ids": (
        "CREATE TABLE kept AS SELECT * FROM runs",
        "DROP TABLE runs",
        "CREATE TABLE runs (run_id TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID",
        "INSERT INTO runs SELECT run_id, name FROM kept",
    ),
    "texts that are none": ("UPDATE runs SET name = CAST(x'ff00fe' AS TEXT)",),
    "bytes for a number": ("UPDATE predictions SET val_score = x'00'",),
}


class Place:
    """A file nobody may read, and one that nobody may make."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.canary = root, root / "out", root / "canary.csv"
        self.canary.write_text(CANARY)

    def filled(self, text: str) -> str:
        return text.format(out=self.out, canary=self.canary)

    def taken_in(self, call: Callable[[], object], result: Path) -> bool:
        """Whether the workspace came in; it must not have run anything, and not hold what it had no right to."""
        try:
            call()
            done = True
        except StoreError:
            done = False
        assert not self.out.exists()
        if done:
            with WorkspaceStore.open_readonly(result) as store:
                assert CANARY not in str(store.sql("FROM runs").rows()) + str(store.sql("FROM carried").rows())
                assert store.list_runs().height == 1
        return done


def as_sqlite(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "store.sqlite", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("name", some(NAMES, 2))
@pytest.mark.long
def test_the_name_of_a_table_or_column_is_never_run(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path)
    quoted = '"' + place.filled(name).replace('"', '""') + '"'
    statements = (
        f"CREATE TABLE {quoted} (a INT)",
        f"INSERT INTO {quoted} VALUES (1)",
        f"ALTER TABLE runs ADD COLUMN {quoted} TEXT",
    )
    old, new = unpacked(OLD, tmp_path), unpacked(NEW, tmp_path)
    change(old / "store.duckdb", *statements)
    as_sqlite(new, *statements)
    assert place.taken_in(lambda: convert(old, tmp_path / "a"), tmp_path / "a")
    assert place.taken_in(lambda: convert(new, tmp_path / "b"), tmp_path / "b")
    assert place.taken_in(lambda: migrate(old), old)


@pytest.mark.parametrize("trick", some(OF_DUCKDB, 3))
def test_nothing_in_a_duckdb_file_runs(tmp_path: Path, trick: str) -> None:
    place, old = Place(tmp_path), unpacked(OLD, tmp_path)
    change(old / "store.duckdb", *map(place.filled, OF_DUCKDB[trick]))
    done = place.taken_in(lambda: convert(old, tmp_path / "new"), tmp_path / "new")
    assert done == place.taken_in(lambda: migrate(old), old) == (trick in HARMLESS)


def test_artifacts_without_a_hash_are_told_where_they_are_read(tmp_path: Path) -> None:
    old = unpacked(OLD, tmp_path)
    change(
        old / "store.duckdb",
        "CREATE TABLE kept AS SELECT * REPLACE (NULL::VARCHAR AS content_hash) FROM artifacts",
        "DROP TABLE artifacts",
        "ALTER TABLE kept RENAME TO artifacts",
    )
    with pytest.raises(StoreError):
        convert(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("trick", some(OF_SQLITE, 3))
def test_nothing_in_an_sqlite_file_runs(tmp_path: Path, trick: str) -> None:
    place, new = Place(tmp_path), unpacked(NEW, tmp_path)
    as_sqlite(new, *map(place.filled, OF_SQLITE[trick]))
    done = place.taken_in(lambda: convert(new, tmp_path / "new"), tmp_path / "new")
    assert done == (trick in ("a view", "a trigger", "a virtual table"))


def _parquet(table: pa.Table) -> Callable[[Path], None]:
    return lambda file: pq.write_table(table, file)


ARRAYS = {
    "no ids": _parquet(pa.table({"x": [1]})),
    "ids that are numbers": _parquet(pa.table({"prediction_id": [1], "y_pred": [[0.5]]})),
    "numbers for lists": _parquet(pa.table({"prediction_id": ["a"], "y_pred": [0.5]})),
    "texts for numbers": _parquet(pa.table({"prediction_id": ["a"], "y_pred": [["x"]]})),
    "labels that are no JSON": _parquet(pa.table({"prediction_id": ["a"], "y_true_labels": ["{"]})),
    "labels without words": _parquet(
        pa.table({"prediction_id": ["a"], "y_true_labels": ['{"indices": [9], "shape": [1]}']})
    ),
    "labels out of range": _parquet(
        pa.table({"prediction_id": ["a"], "y_true_labels": ['{"vocabulary": ["a"], "indices": [9], "shape": [1]}']})
    ),
    "an id ten million times": _parquet(pa.table({"prediction_id": pa.repeat("a", 10**7)})),
    "more samples than anybody has": _parquet(
        pa.table(
            {
                "prediction_id": ["a"],
                "y_pred": pa.ListArray.from_arrays(pa.array([0, 10**7 + 1], pa.int32()), pa.repeat(0.0, 10**7 + 1)),
            }
        )
    ),
    "no Parquet": lambda file: file.write_bytes(b"PAR1 nothing PAR1"),
    "a pipe": lambda file: os.mkfifo(file),
    "a link": lambda file: file.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("trick", some(ARRAYS, 5))
def test_hostile_arrays_are_told_or_left_out(tmp_path: Path, trick: str) -> None:
    place, old = Place(tmp_path), unpacked(OLD, tmp_path)
    move_arrays_to_parquet(old)
    ARRAYS[trick](old / "arrays" / "zzz.parquet")
    done = place.taken_in(lambda: migrate(old), old)
    assert done == (trick in ("a pipe", "a link"))


@pytest.mark.parametrize("seed", some(range(12), 4))
def test_damaged_files_are_told_and_leave_the_original_alone(tmp_path: Path, seed: int) -> None:
    dice, place = random.Random(seed), Place(tmp_path)
    root = unpacked((OLD, NEW)[seed % 2], tmp_path)
    file = root / ("store.duckdb", "store.sqlite")[seed % 2]
    data = bytearray(file.read_bytes())
    for _ in range(dice.choice([1, 8, 200])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    file.write_bytes(data)
    try:
        convert(root, tmp_path / "new")
    except StoreError:
        assert not (tmp_path / "new").exists()
    assert file.read_bytes() == bytes(data)
    assert not place.out.exists()
