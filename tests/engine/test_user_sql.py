"""SQL from outside reads the store's tables: no file, row, setting or log changes, by whatever name it is tried."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import duckdb
import polars as pl
import pytest
from helpers import DEADLINE, child, read_line
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.engine.connection import user_sql
from n4a_fast.errors import InvalidInputError, StoreError

CANARY = "canary-4711"
PATTERNS = (
    "SELECT {name}({args})",
    "SELECT * FROM {name}({args})",
    "SELECT {name}({args}) FROM runs",
    "WITH found AS (SELECT * FROM {name}({args})) FROM found",
    "SELECT (SELECT count(*) FROM {name}({args}))",
)
STATEMENTS = (
    "INSERT INTO runs (run_id) VALUES ('x')",
    "UPDATE runs SET name = 'x'",
    "DELETE FROM runs",
    "MERGE INTO runs USING runs r ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE runs",
    "CREATE TABLE x (a INT)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE VIEW x AS SELECT 1",
    "CREATE MACRO upper(x) AS 'x'",
    "CREATE SEQUENCE x",
    "CREATE TYPE x AS ENUM ('a')",
    "CREATE INDEX x ON runs (name)",
    "CREATE SECRET x (TYPE s3)",
    "DROP TABLE runs",
    "ALTER TABLE runs RENAME TO walks",
    "COMMENT ON TABLE runs IS 'x'",
    "COPY runs TO '{out}/copy.csv'",
    "COPY runs FROM '{canary}'",
    "EXPORT DATABASE '{out}/export'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}/other.db' AS other",
    "DETACH store",
    "USE memory",
    "SET threads = 1",
    "SET GLOBAL memory_limit = '1GB'",
    "RESET threads",
    "SET VARIABLE x = 1",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL enable_logging(storage = 'file', storage_path = '{out}/log')",
    "EXPLAIN ANALYZE DELETE FROM runs",
    "EXPLAIN SELECT 1",
    "PREPARE x AS DELETE FROM runs",
    "EXECUTE x",
    "DEALLOCATE x",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "VACUUM",
    "ANALYZE",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "PIVOT runs ON name",
    "SELECT 1; DELETE FROM runs",
    "WITH d AS (DELETE FROM runs RETURNING *) FROM d",
    "WITH d AS (UPDATE runs SET name = 'x' RETURNING *) FROM d",
    "WITH d AS (INSERT INTO runs (run_id) VALUES ('x') RETURNING *) FROM d",
    "WITH d AS (COPY runs TO '{out}/copy.parquet') FROM d",
    "FROM '{canary}'",
    'FROM "{canary}"',
    'WITH "{canary}" AS (SELECT 1) SELECT * FROM (FROM runs), "{canary}"',
    "DESCRIBE '{canary}'",
    "SUMMARIZE '{canary}'",
    "SELECT * FROM query('DELETE FROM runs')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{out}/log')",
    "SELECT write_log('x', level := 'error')",
    "FROM read_text('{canary}')",
    "SELECT * FROM read_csv_auto(['{canary}'])",
    "SELECT x FROM runs, LATERAL (SELECT * FROM read_blob('{canary}')) t(x)",
    "FROM self",
    "FROM sqlite_scan('{canary}', 'x')",
)


class Place:
    """A store with a run, a folder that must stay empty, and a file that nobody may read."""

    def __init__(self, root: Path) -> None:
        self.out, self.canary = root / "out", root / "canary.csv"
        self.out.mkdir()
        self.canary.write_text(f"a,b\n{CANARY},2\n")
        self.store = WorkspaceStore(root / "workspace")
        self.store.begin_run("first", {}, [])
        self.store.flush()
        self.before = self.state()

    def state(self) -> tuple[object, ...]:
        settings = self.store.sql("SELECT name, value FROM duckdb_settings() ORDER BY name").rows()
        objects = self.store.sql("SELECT table_name, sql FROM duckdb_tables() ORDER BY table_name").rows()
        return self.store.sql("SELECT run_id, name FROM runs").rows(), settings, objects, sorted(os.listdir(self.out))

    def tried(self, query: str) -> str:
        """What came of a query, as text."""
        try:
            return str(self.store.sql(query).rows()[:50])
        except (InvalidInputError, pl.exceptions.ComputeError):  # Polars has no intervals
            return "refused"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.store:
        yield made


def _calls(place: Place, each_once: bool) -> Iterator[str]:
    """Every function of DuckDB, with arguments of the types that it takes: paths for texts. `each_once`: with those of
    one of its forms alone.
    """
    values = {
        "BOOLEAN": "true",
        "VARCHAR[]": f"['{place.canary}']",
        "LIST": "[1]",
        "MAP": "map {1: 2}",
        "BLOB": "'a'::BLOB",
    }
    texts = (f"'{place.canary}'", f"'{place.out}/made'", "'runs'")
    listed = duckdb.connect().execute(
        "SELECT DISTINCT function_name, parameter_types, function_type LIKE 'table%' FROM duckdb_functions()"
    )
    seen = set()
    for name, types, gives_rows in listed.fetchall():
        if (kind := (name,) if each_once else (name, len(types or ()), "VARCHAR" in (types or ()))) in seen:
            continue  # numbers of another width
        seen.add(kind)
        called = PATTERNS[1 if gives_rows else 0]
        for text in texts if not each_once and {"VARCHAR", "ANY"} & {*(types or ["ANY"])} else texts[:1]:
            args = [values.get(given, text if given in ("VARCHAR", "ANY", None) else "1") for given in types or ()]
            yield called.format(name=f'"{name}"', args=", ".join(args))
        if gives_rows:
            yield from (pattern.format(name=name, args=texts[0]) for pattern in PATTERNS)


@pytest.mark.long
@pytest.mark.parametrize(("inside", "each_once"), some([(False, True), (True, True), (False, False)], 1))
def test_no_function_of_duckdb_does_more_than_read(place: Place, inside: bool, each_once: bool) -> None:
    answered = 0
    for query in _calls(place, each_once):
        with place.store.transaction() if inside else nullcontext():
            found = place.tried(query)
        assert CANARY not in found, query
        answered += found != "refused"
    assert answered > 300
    assert place.state() == place.before


@pytest.mark.parametrize("inside", [False, True])
def test_no_statement_of_duckdb_does_more_than_read(place: Place, inside: bool) -> None:
    assert {kind.name for kind in duckdb.StatementType.__members__.values()} >= {"SELECT", "COPY", "ATTACH", "PRAGMA"}
    for text in STATEMENTS:
        query = text.format(out=place.out, canary=place.canary)
        if inside:
            with place.store.transaction():
                assert place.tried(query) == "refused", query
        else:
            assert place.tried(query) == "refused", query
    assert place.state() == place.before


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT count(*) FROM runs", [(1,)]),
        ("FROM runs SELECT upper(name)", [("FIRST",)]),
        ("SELECT name FROM store.main.runs WHERE name = ?", [("first",)]),
        ("WITH a AS (SELECT 1 AS x UNION ALL SELECT 2) SELECT sum(x) FROM a", [(3,)]),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT max(n) FROM t", [(4,)]),
        ("SELECT list_transform([1, 2], lambda x: x + 1), count(*) OVER () FROM runs", [([2, 3], 1)]),
        ("SELECT r.name FROM runs r JOIN (SELECT name FROM runs) s USING (name) ORDER BY 1", [("first",)]),
        ("SELECT * FROM (PIVOT runs ON status IN ('running') USING count(*) GROUP BY name)", [("first", 1)]),
        ("SELECT x FROM range(3) t(x) WHERE x = (SELECT max(x) FROM range(3) t(x))", [(2,)]),
        ("SELECT count(*) FROM v_chain_summary", [(0,)]),
        ("SELECT count(*) FROM information_schema.tables WHERE table_name = 'runs'", [(1,)]),
        ("SELECT date_trunc('day', TIMESTAMP '2026-01-02 03:04:05')::VARCHAR", [("2026-01-02 00:00:00",)]),
        ("SELECT json_extract_string('{\"a\": \"b\"}', '$.a'), '{\"a\": 1}'::JSON ->> 'a'", [("b", "1")]),
    ],
)
def test_what_reads_is_answered(place: Place, query: str, expected: list[tuple[object, ...]]) -> None:
    params = ["first"] if "?" in query else []
    assert place.store.sql(query, params).rows() == expected


def test_macros_and_views_in_the_file_reach_no_further(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.store.close()
    with duckdb.connect(str(tmp_path / "workspace" / "store.duckdb")) as made:
        made.execute(f"CREATE VIEW harmful AS SELECT * FROM read_text('{place.canary}')")
        made.execute("CREATE VIEW harmless AS SELECT upper(name) AS n FROM runs")
        made.execute("CREATE VIEW through AS SELECT * FROM harmful")
    with WorkspaceStore(tmp_path / "workspace") as store:
        assert store.sql("FROM harmless").rows() == [("FIRST",)]
        for name in ("harmful", "through"):
            with pytest.raises(InvalidInputError, match="no table"):
                store.sql(f"FROM {name}")
    with duckdb.connect(str(tmp_path / "workspace" / "store.duckdb")) as made:
        made.execute(f"CREATE MACRO count(x) AS (SELECT content FROM read_text('{place.canary}'))")
    with WorkspaceStore(tmp_path / "workspace") as store, pytest.raises(InvalidInputError, match="macros"):
        store.sql("SELECT count(name) FROM runs")


_LONG = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    try:
        print("ready", flush=True)
        store.sql("SELECT count(*) FROM range(100000000000) a, range(100000) b")
    except KeyboardInterrupt:
        print(store.sql("SELECT 42 AS n").item(), flush=True)
"""


def test_ctrl_c_ends_a_long_query_and_the_store_goes_on(tmp_path: Path) -> None:
    with child(_LONG, tmp_path) as process:
        assert read_line(process) == "ready"
        stop = threading.Event()
        repeat = threading.Thread(target=lambda: [process.send_signal(signal.SIGINT) for _ in [0] if not stop.wait(1)])
        repeat.start()
        try:
            found = process.communicate(timeout=DEADLINE)[0]
        finally:
            stop.set()
            process.kill()
    assert found == "42\n"


def test_a_refusal_is_one_of_ours(place: Place) -> None:
    for query in ("", "SELECT", "\0", "SELECT '\ud800'", "(" * 5000, "SELECT " + "(" * 3000 + "1" + ")" * 3000):
        with pytest.raises(StoreError):
            place.store.sql(query)


def test_the_functions_that_a_query_may_name_have_no_side_effects_in_any_form() -> None:
    with closing(duckdb.connect()) as connection:
        forms = connection.execute("SELECT function_name, function_type, has_side_effects FROM duckdb_functions()")
        listed = [
            (name, effects)
            for name, kind, effects in forms.fetchall()
            if kind in ("scalar", "aggregate", "macro", "window")
        ]
        allowed = user_sql.Readable(connection).functions
    with_effects = {name for name, effects in listed if effects}
    harmless = {name for name, _ in listed} - with_effects
    assert allowed - harmless == (user_sql._ONLY_VOLATILE | {"unnest"}) - harmless
    assert harmless - allowed == user_sql._SLEEPING & harmless
    assert {"nextval", "setseed"} & with_effects
