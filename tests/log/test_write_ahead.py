"""The log: a record is either waiting or applied, for its own process and for all others, dead or alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import child, kill, read_line

from n4a_fast import platform, schema
from n4a_fast.engine.connection import Database
from n4a_fast.engine.session import Session
from n4a_fast.errors import LogDamagedError, StoreUnavailableError
from n4a_fast.log.write_ahead import WriteAheadLog

CONTENTS = [b"first", b"", b"third" * 1000]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.duckdb")
    schema.prepare(database)
    yield database
    database.close()


def log_of(database: Database) -> WriteAheadLog:
    return WriteAheadLog(database, Session(database.path))


@pytest.fixture
def log(database: Database) -> Iterator[WriteAheadLog]:
    log = log_of(database)
    for content in CONTENTS:
        log.append(content)
    yield log
    log.close()


def applied(database: Database, log: WriteAheadLog, *, others: bool = False) -> None:
    log.refresh()
    waiting = log.others_waiting() if others else []
    with database.transaction():
        log.apply_in_transaction(waiting)
    log.rewind(waiting)


def seen_by_others(database: Database) -> list[bytes]:
    other = log_of(database)
    other.refresh()
    return [record.content for waiting in other.others_waiting() for record in waiting.records]


def segments(database: Database) -> list[Path]:
    return sorted(database.path.parent.glob("store.duckdb.log-*"))


def test_records_wait_for_everyone_until_they_are_applied(database: Database, log: WriteAheadLog) -> None:
    assert seen_by_others(database) == CONTENTS
    assert not log.is_empty
    applied(database, log)
    assert log.is_empty
    assert seen_by_others(database) == []


def test_a_process_learns_which_of_its_records_others_have_applied(database: Database, log: WriteAheadLog) -> None:
    assert log.refresh() is None
    applied(database, log_of(database), others=True)
    log.append(b"fourth")
    assert log.refresh() is None  # the file has stayed attached
    database.detach()
    assert log.refresh() == [b"fourth"]
    assert log.refresh() is None
    assert seen_by_others(database) == [b"fourth"]
    database.detach()
    assert log.refresh() is None  # nothing more was applied


def test_a_rolled_back_transaction_leaves_the_records_waiting(database: Database, log: WriteAheadLog) -> None:
    log.refresh()
    with pytest.raises(ZeroDivisionError), database.transaction():
        log.apply_in_transaction()
        raise ZeroDivisionError
    assert seen_by_others(database) == CONTENTS


def test_new_records_overwrite_applied_ones(database: Database, log: WriteAheadLog) -> None:
    size = segments(database)[0].stat().st_size
    applied(database, log)
    for count in range(1, 4):
        log.append(b"new")
        assert seen_by_others(database) == [b"new"] * count
    assert segments(database)[0].stat().st_size == size


def test_a_refused_record_does_not_turn_up_later(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(database)
    log.append(b"kept")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(platform, "sync_data", fail)
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            log.append(b"refused")
    assert seen_by_others(database) == [b"kept", b""]
    log.append(b"again")
    assert seen_by_others(database) == [b"kept", b"", b"again"]


@pytest.mark.parametrize("refused", ["sync_data", "sync_data and what makes it void", "the store is elsewhere"])
@pytest.mark.parametrize("times", [1, 3])
def test_what_others_apply_of_a_refused_record_hides_nothing_of_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch, refused: str, times: int
) -> None:
    log = log_of(database)
    log.append(b"kept")

    def applied_and_refused(*_: object) -> None:
        monkeypatch.undo()
        applied(database, log_of(database), others=True)
        if "void" in refused:
            monkeypatch.setattr(platform, "write_at", fail)
        fail()

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    for _ in range(times):
        if "elsewhere" in refused:
            monkeypatch.setattr(database, "require_same_file", applied_and_refused)
        else:
            monkeypatch.setattr(platform, "sync_data", applied_and_refused)
        with pytest.raises(OSError, match="Input/output error"):
            log.append(b"refused")
        monkeypatch.undo()
    log.append(b"acknowledged")
    assert seen_by_others(database) == [b"acknowledged"]
    database.detach()
    log.refresh()
    assert log.own_waiting() == [b"acknowledged"]
    applied(database, log)
    assert log.is_empty
    log.append(b"new")
    assert seen_by_others(database) == [b"new"]


def test_a_log_goes_with_its_process_once_everything_is_applied(database: Database, log: WriteAheadLog) -> None:
    log.close()
    assert [path.stat().st_size > 0 for path in segments(database)] == [True]
    assert seen_by_others(database) == CONTENTS
    heir = log_of(database)
    applied(database, heir, others=True)  # nobody holds it any more
    assert segments(database) == []
    heir.append(b"last")
    applied(database, heir)
    heir.close()
    assert segments(database) == []


KILLED = """
import sys
from pathlib import Path
from n4a_fast.engine.connection import Database
from n4a_fast import schema
from n4a_fast.engine.session import Session
from n4a_fast.log.write_ahead import WriteAheadLog
database = Database(Path(sys.argv[1]))
schema.prepare(database)
database.detach()
log = WriteAheadLog(database, Session(database.path))
for content in sys.argv[2:]:
    log.append(content.encode())
print("ready", flush=True)
sys.stdin.readline()
"""


def test_the_living_and_the_killed_are_told_apart(database: Database) -> None:
    writer = child(KILLED, database.path, "a", "b")
    read_line(writer)
    applied(database, log_of(database), others=True)
    assert len(segments(database)) == 1  # it writes on
    kill(writer)
    assert seen_by_others(database) == []
    assert segments(database) == []


def test_a_damaged_log_of_a_killed_process_is_refused_and_kept(database: Database) -> None:
    writer = child(KILLED, database.path, "a", "b")
    read_line(writer)
    kill(writer)
    (path,) = segments(database)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(LogDamagedError, match="record 1 is damaged"):
        seen_by_others(database)
    assert segments(database) == [path]


def test_what_was_noted_of_logs_is_forgotten_with_them(database: Database, log: WriteAheadLog) -> None:
    applied(database, log)
    log.close()
    for _ in range(3):
        later = log_of(database)
        later.append(b"later")
        applied(database, later)
        later.close()
    assert len(database.rows("FROM log_positions")) == 1


def test_what_a_process_adds_before_it_dies_outlives_the_placing_of_the_rest(
    database: Database, log: WriteAheadLog
) -> None:
    other = log_of(database)
    other.refresh()
    waiting = other.others_waiting()
    log.append(b"last words")
    log.forget()  # as a killed process does
    with database.transaction():
        other.apply_in_transaction(waiting)
    other.rewind(waiting)
    assert seen_by_others(database) == [b"last words"]


def test_a_log_that_others_empty_again_and_again_does_not_grow(database: Database, log: WriteAheadLog) -> None:
    size = segments(database)[0].stat().st_size
    for _ in range(5):
        applied(database, log_of(database), others=True)
        database.detach()
        log.refresh()
        log.append(b"third" * 1000)
    assert segments(database)[0].stat().st_size == size
    assert seen_by_others(database) == [b"third" * 1000]
