"""The journals: a frame is either waiting or placed, for its own process and for all others, dead or alive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import child, kill, read_line

from n4a_fast import schema
from n4a_fast.engine.connection import Database
from n4a_fast.errors import NotAStoreError, StoreUnavailableError
from n4a_fast.log.segment import Journal

CONTENTS = [b"first", b"", b"third" * 1000]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.duckdb")
    schema.prepare(database)
    yield database
    database.close()


@pytest.fixture
def journal(database: Database) -> Iterator[Journal]:
    journal = Journal(database)
    for content in CONTENTS:
        journal.append(content)
    yield journal
    journal.close()


def placed(database: Database, journal: Journal, *, others: bool = False) -> None:
    journal.refresh()
    waiting = journal.others_waiting() if others else []
    with database.transaction():
        journal.place_in_transaction(waiting)
    journal.rewind(waiting)


def seen_by_others(database: Database) -> list[bytes]:
    other = Journal(database)
    other.refresh()
    return [content for waiting in other.others_waiting() for content in waiting.contents]


def journals(database: Database) -> list[Path]:
    return sorted(database.path.parent.glob("store.duckdb.journal-*"))


def test_frames_wait_for_everyone_until_they_are_placed(database: Database, journal: Journal) -> None:
    assert seen_by_others(database) == CONTENTS
    assert not journal.is_empty
    placed(database, journal)
    assert journal.is_empty
    assert seen_by_others(database) == []


def test_a_process_learns_which_of_its_frames_others_have_placed(database: Database, journal: Journal) -> None:
    assert journal.refresh() is None
    placed(database, Journal(database), others=True)
    journal.append(b"fourth")
    assert journal.refresh() is None  # the file has stayed attached
    database.detach()
    assert journal.refresh() == [b"fourth"]
    assert journal.refresh() is None
    assert seen_by_others(database) == [b"fourth"]
    database.detach()
    assert journal.refresh() is None  # nothing more was placed


def test_a_rolled_back_transaction_leaves_the_frames_waiting(database: Database, journal: Journal) -> None:
    journal.refresh()
    with pytest.raises(ZeroDivisionError), database.transaction():
        journal.place_in_transaction()
        raise ZeroDivisionError
    assert seen_by_others(database) == CONTENTS


def test_new_frames_overwrite_placed_ones(database: Database, journal: Journal) -> None:
    size = journal.path.stat().st_size
    placed(database, journal)
    for count in range(1, 4):
        journal.append(b"new")
        assert seen_by_others(database) == [b"new"] * count
    assert journal.path.stat().st_size == size


def test_a_refused_frame_does_not_turn_up_later(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(database)
    journal.append(b"kept")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            journal.append(b"refused")
    assert seen_by_others(database) == [b"kept"]
    journal.append(b"again")
    assert seen_by_others(database) == [b"kept", b"again"]


def test_a_journal_goes_with_its_process_once_everything_is_placed(database: Database, journal: Journal) -> None:
    journal.close()
    assert [path.stat().st_size > 0 for path in journals(database)] == [True]
    assert seen_by_others(database) == CONTENTS
    heir = Journal(database)
    placed(database, heir, others=True)  # nobody holds it any more
    assert journals(database) == []
    heir.append(b"last")
    placed(database, heir)
    heir.close()
    assert journals(database) == []


KILLED = """
import sys
from pathlib import Path
from n4a_fast.engine.connection import Database
from n4a_fast.log.segment import Journal
journal = Journal(Database(Path(sys.argv[1])))
for content in sys.argv[2:]:
    journal.append(content.encode())
print("ready", flush=True)
sys.stdin.readline()
"""


def test_the_living_and_the_killed_are_told_apart(database: Database) -> None:
    writer = child(KILLED, database.path, "a", "b")
    read_line(writer)
    placed(database, Journal(database), others=True)
    assert len(journals(database)) == 1  # it writes on
    kill(writer)
    assert seen_by_others(database) == []
    assert journals(database) == []


def test_a_damaged_journal_of_a_killed_process_is_refused_and_kept(database: Database) -> None:
    writer = child(KILLED, database.path, "a", "b")
    read_line(writer)
    kill(writer)
    (path,) = journals(database)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(NotAStoreError, match="frame 1 is damaged"):
        seen_by_others(database)
    assert journals(database) == [path]


def test_what_was_noted_of_journals_is_forgotten_with_them(database: Database, journal: Journal) -> None:
    placed(database, journal)
    journal.close()
    for _ in range(3):
        later = Journal(database)
        later.append(b"later")
        placed(database, later)
        later.close()
    assert len(database.rows("FROM journals")) == 1


def test_what_a_process_adds_before_it_dies_outlives_the_placing_of_the_rest(
    database: Database, journal: Journal
) -> None:
    other = Journal(database)
    other.refresh()
    waiting = other.others_waiting()
    journal.append(b"last words")
    journal.forget()  # as a killed process does
    with database.transaction():
        other.place_in_transaction(waiting)
    other.rewind(waiting)
    assert seen_by_others(database) == [b"last words"]


def test_a_journal_that_others_empty_again_and_again_does_not_grow(database: Database, journal: Journal) -> None:
    size = journal.path.stat().st_size
    for _ in range(5):
        placed(database, Journal(database), others=True)
        database.detach()
        journal.refresh()
        journal.append(b"third" * 1000)
    assert journal.path.stat().st_size == size
    assert seen_by_others(database) == [b"third" * 1000]
