"""Transactions, frames, and who holds the file when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers import DEADLINE, child, finish, plain_rows, read_line

from n4a_fast.engine.connection import Database, client
from n4a_fast.engine.connection import database as database_module
from n4a_fast.engine.connection.failures import translated
from n4a_fast.errors import DamagedStoreError, InvalidInputError, StoreLockedError, StoreUnavailableError
from n4a_fast.schema.creation import create_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    create_file(tmp_path / "it's a store.duckdb", ["CREATE TABLE t (x INTEGER, name VARCHAR)"])
    return tmp_path / "it's a store.duckdb"


@pytest.fixture
def database(file: Path) -> Iterator[Database]:
    opened = Database(file, lock_timeout=0.1)
    yield opened
    opened.close()


def insert(database: Database, *values: int) -> None:
    with database.transaction():
        for value in values:
            database.execute("INSERT INTO t VALUES (?, NULL)", (value,))


def test_row_groups_are_known_where_a_file_is_read_and_where_it_is_written(file: Path, database: Database) -> None:
    """Without their size DuckDB scans with one thread: it is not in the file."""
    reader, other = Database(file, read_only=True), Database(file.with_name("other.duckdb"))
    create_file(other.path, [])
    with reader.reading() as reading:
        assert row_group_sizes(reading) == {"store": "2048"}
    reader.close()
    with other.beside(database, "shard"), other.reading() as both:
        assert row_group_sizes(both) == {"store": "2048", "shard": "2048"}
    other.close()


def row_group_sizes(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT database_name, options['row_group_size'] FROM duckdb_databases() WHERE path IS NOT NULL"
    ).fetchall()
    return {name: size[0] if isinstance(size, list) else size for name, size in rows}


def give_up(database: Database, work: Callable[[], object]) -> None:
    """Do `work` in a transaction that then fails."""
    with database.transaction():
        work()
        raise ZeroDivisionError


def values(database: Database) -> list[int]:
    return [value for (value,) in database.rows("SELECT x FROM t ORDER BY x")]


def test_a_block_commits_as_one(database: Database, file: Path) -> None:
    insert(database, 1, 2)
    database.close()
    assert plain_rows(file, "SELECT x FROM t") == [(1,), (2,)]


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        give_up(database, lambda: database.execute("INSERT INTO t VALUES (1, NULL)"))
    assert values(database) == []
    insert(database, 2)
    assert values(database) == [2]


def test_a_nested_block_is_part_of_the_outer_one(database: Database) -> None:
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        give_up(database, lambda: [insert(database, 1), seen.extend(values(database))])
    assert seen == [1]
    assert values(database) == []


def test_writing_needs_a_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError, match="open transaction"):
        database.execute("INSERT INTO t VALUES (1, NULL)")
    with pytest.raises(RuntimeError, match="open transaction"):
        database.after_commit(lambda: None)


def test_writes_say_how_many_rows_they_changed(database: Database) -> None:
    batch = pa.table({"x": pa.array([1, 2, 3], pa.int32()), "name": pa.nulls(3, pa.string())})
    with database.transaction():
        assert database.insert("INSERT INTO t SELECT * FROM batch", batch=batch) == 3
        assert database.execute("UPDATE t SET name = 'a' WHERE x > 1") == 2
        assert database.execute("DELETE FROM t WHERE x = 9") == 0
        assert database.execute("DELETE FROM t") == 3


@pytest.mark.parametrize("rows", [1, 2048, 2049, 5000])
def test_rows_inserted_by_several_threads_keep_their_order_and_values(database: Database, rows: int) -> None:
    lists = [None if row % 7 == 0 else [float(row)] * (row % 5) for row in range(rows + 1)]
    names = pa.array([str(row % 3) for row in range(rows + 1)]).dictionary_encode()
    batch = pa.table(
        {"x": pa.array(range(rows + 1), pa.int32()), "name": names, "v": pa.array(lists, pa.list_(pa.float64()))}
    ).slice(1)
    with database.transaction():
        database.execute("ALTER TABLE t ADD COLUMN v DOUBLE[]")
        assert database.insert("INSERT INTO t SELECT * FROM batch", batch=batch) == rows
    assert database.rows("SELECT x, name, v FROM t ORDER BY rowid") == [
        (row, str(row % 3), lists[row]) for row in range(1, rows + 1)
    ]


@pytest.mark.long
def test_what_was_written_does_not_stay_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_CACHE", 16 * 2**20)
    monkeypatch.setattr(database_module, "_TRIM_EVERY", 8 * 2**20)
    batch = pa.table(
        {"x": np.arange(2**18, dtype=np.int32), "name": [f"{hash(number):064x}" for number in range(2**18)]}
    )
    limit = database.rows("SELECT current_setting('memory_limit')")
    for _ in range(6):
        with database.transaction():
            database.insert("INSERT INTO t SELECT * FROM batch", batch=batch)
    ((held, kept),) = database.rows(
        "SELECT (SELECT sum(memory_usage_bytes) FROM duckdb_memory()), (SELECT count(*) FROM t)"
    )
    assert kept == 6 * 2**18
    assert held < 24 * 2**20
    assert database.rows("SELECT current_setting('memory_limit')") == limit


def test_hooks_run_after_the_outermost_commit_only(database: Database, file: Path) -> None:
    seen: list[str] = []
    with database.transaction():
        with database.transaction():
            database.after_commit(lambda: seen.append("kept"))
        assert seen == []
    with pytest.raises(ZeroDivisionError):
        give_up(database, lambda: database.after_commit(lambda: seen.append("never")))
    insert(database, 1)
    assert seen == ["kept"]


def test_frames_are_typed_without_rows(database: Database) -> None:
    frame = database.frame("SELECT x, name, [1.5] AS list FROM t")
    assert dict(frame.schema) == {"x": pl.Int32, "name": pl.String, "list": frame.schema["list"]}
    assert frame.height == 0
    assert database.row("SELECT * FROM t") is None
    insert(database, 1)
    assert database.frame("SELECT name FROM t").schema == {"name": pl.String}
    assert database.row("SELECT * FROM t") == {"x": 1, "name": None}


# -- SQL from outside ------------------------------------------------------------------------

WRITING = [
    "DELETE FROM t",
    "INSERT INTO t VALUES (2, '')",
    "UPDATE t SET x = 2",
    "DROP TABLE t",
    "CREATE TABLE u (x INTEGER)",
    "COPY t TO '{}'",
    "COPY (SELECT 1) TO '{}'",
    "SELECT 1; DELETE FROM t",
    "ATTACH '{}' AS other",
    "DETACH store",
    "SET threads = 1",
    "PRAGMA database_list",
    "EXPLAIN ANALYZE DELETE FROM t",
    "CHECKPOINT",
    "BEGIN",
    "COMMIT",
    "INSTALL httpfs",
    "EXPORT DATABASE '{}'",
    "CALL pragma_version()",
    "PREPARE p AS DELETE FROM t",
    "VACUUM",
    "USE memory",
    "",
    "  ; ",
    "SELEC 1",
    "SELECT nothing FROM t",
    "SELECT CAST('a' AS INTEGER)",
]


@pytest.mark.parametrize("sql", WRITING)
def test_outside_sql_cannot_write(database: Database, tmp_path: Path, sql: str) -> None:
    insert(database, 1)
    outside = tmp_path / "outside"
    with pytest.raises(InvalidInputError):
        database.frame_of_user_sql(sql.format(outside))
    assert values(database) == [1]
    assert not outside.exists()


def test_outside_sql_takes_parameters(database: Database) -> None:
    insert(database, 1, 2, 3)
    assert database.frame_of_user_sql("SELECT x FROM t WHERE x > ? AND x < ?", [1, 3])["x"].to_list() == [2]
    assert database.frame_of_user_sql("WITH a AS (SELECT max(x) AS m FROM t) FROM a")["m"].to_list() == [3]
    for wrong in ([], [1, 2, 3]):
        with pytest.raises(InvalidInputError):
            database.frame_of_user_sql("SELECT x FROM t WHERE x > ? AND x < ?", wrong)


def test_outside_sql_sees_an_open_transaction(database: Database) -> None:
    with database.transaction():
        database.execute("INSERT INTO t VALUES (1, NULL)")
        assert database.frame_of_user_sql("SELECT x FROM t")["x"].to_list() == [1]


# -- the lock --------------------------------------------------------------------------------

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""
WRITE = """
import sys
from pathlib import Path
from n4a_fast.engine.connection import Database
database = Database(Path(sys.argv[1]), lock_timeout=30)
with database.transaction():
    database.execute("INSERT INTO t VALUES (?, NULL)", (int(sys.argv[2]),))
database.close()
"""


def test_a_file_that_another_process_holds_names_that_process(database: Database, file: Path) -> None:
    holder = child(HOLD, file)
    assert read_line(holder) == "held"
    with pytest.raises(StoreLockedError) as caught:
        values(database)
    assert caught.value.pid == holder.pid
    assert str(holder.pid) in str(caught.value)
    holder.communicate("go\n", timeout=DEADLINE)
    assert values(database) == []


def test_a_writer_waits_until_the_file_is_free(file: Path) -> None:
    database = Database(file, lock_timeout=DEADLINE)
    holder = child(HOLD, file)
    read_line(holder)
    thread = threading.Thread(target=insert, args=(database, 1))
    thread.start()
    holder.communicate("go\n", timeout=DEADLINE)
    thread.join(DEADLINE)
    assert values(database) == [1]
    database.close()


IN_TURN = """
import sys
from pathlib import Path
from n4a_fast.engine.connection import Database
database = Database(Path(sys.argv[1]), lock_timeout=30)
with database.transaction():
    database.execute("INSERT INTO t VALUES (0, NULL)")
    print("held", flush=True)
    sys.stdin.readline()
database.close()
"""


def test_threads_that_wait_to_read_alone_and_to_write_both_get_the_file(file: Path) -> None:
    """A file is attached to read alone where its version is looked at."""
    database, seen = Database(file, lock_timeout=DEADLINE), []
    holder = child(IN_TURN, file)
    assert read_line(holder) == "held"
    threads = [
        threading.Thread(target=lambda: seen.append(database.peek("SELECT x FROM t WHERE x = 0"))),
        threading.Thread(target=insert, args=(database, 1)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)  # both wait
    holder.communicate("go\n", timeout=DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    assert seen == [[(0,)]]
    assert values(database) == [0, 1]
    database.close()


def test_processes_take_turns_and_lose_nothing(file: Path) -> None:
    processes = [child(WRITE, file, number) for number in range(4)]
    for process in processes:
        finish(process)
    assert plain_rows(file, "SELECT x FROM t ORDER BY x") == [(0,), (1,), (2,), (3,)]


def test_threads_take_turns(database: Database) -> None:
    threads = [threading.Thread(target=insert, args=(database, *range(start, 40, 4))) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert values(database) == list(range(40))


def test_a_missing_folder_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        Database(tmp_path / "nowhere" / "store.duckdb").rows("SELECT 1")


@pytest.mark.parametrize(
    "told",
    [
        "Could not read enough bytes from file 'a': attempted to read 3288 bytes from location 9000",
        "Could not read all bytes from file 'a': wanted=4096 read=808",  # of Windows
    ],
)
def test_a_file_that_ends_too_early_is_damaged(tmp_path: Path, told: str) -> None:
    assert isinstance(translated(tmp_path / "a", duckdb.IOException(f"IO Error: {told}")), DamagedStoreError)


def test_a_failed_creation_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        create_file(tmp_path / "store.duckdb", ["CREATE TABLE t (x INTEGER)", "CREATE NONSENSE"])
    assert list(tmp_path.iterdir()) == []
