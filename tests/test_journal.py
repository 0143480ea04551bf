"""The journal file: whole frames in order or none, whatever was cut, overwritten or flipped in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from n4a_fast import schema
from n4a_fast.database import Database
from n4a_fast.errors import NotAStoreError, StoreUnavailableError
from n4a_fast.journal import Journal

CONTENTS = [b"first", b"", b"third" * 1000]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.duckdb")
    schema.prepare(database)
    yield database
    database.close()


def written(database: Database, contents: list[bytes]) -> Journal:
    journal = Journal(database)
    assert journal.unseen() == []
    for content in contents:
        journal.append(content)
    return journal


def placed(journal: Journal, database: Database) -> None:
    with database.transaction():
        journal.place_in_transaction()
    journal.rewind()


def reopened(database: Database) -> list[bytes] | None:
    return Journal(database).unseen()


def test_frames_come_back_in_order_until_they_are_placed(database: Database) -> None:
    journal = written(database, CONTENTS)
    assert reopened(database) == CONTENTS
    placed(journal, database)
    assert reopened(database) == []


def test_frames_are_looked_at_once_for_each_attachment(database: Database) -> None:
    journal = written(database, CONTENTS)
    assert journal.unseen() is None
    database.detach()
    assert journal.unseen() == CONTENTS
    assert journal.unseen() is None


def test_a_rolled_back_transaction_leaves_the_frames_waiting(database: Database) -> None:
    journal = written(database, CONTENTS)
    with pytest.raises(ZeroDivisionError), database.transaction():
        journal.place_in_transaction()
        raise ZeroDivisionError
    assert reopened(database) == CONTENTS


def test_new_frames_overwrite_placed_ones(database: Database) -> None:
    journal = written(database, CONTENTS)
    size = journal.path.stat().st_size
    placed(journal, database)
    for count in range(1, 4):
        journal.append(b"new")
        assert reopened(database) == [b"new"] * count
    assert journal.path.stat().st_size == size


@pytest.mark.parametrize("cut", [1, 39, 40, 41, 5000])
def test_a_torn_last_frame_was_never_acknowledged(database: Database, cut: int) -> None:
    journal = written(database, CONTENTS)
    os.truncate(journal.path, journal.path.stat().st_size - cut)
    assert reopened(database) == CONTENTS[:2]


@pytest.mark.parametrize("place", [0, 9, 30, 41])
def test_a_damaged_frame_before_whole_ones_is_refused(database: Database, place: int) -> None:
    journal = written(database, CONTENTS)
    flip(journal.path, place)
    with pytest.raises(NotAStoreError, match="frame 1 is damaged"):
        reopened(database)


def test_any_flipped_byte_of_the_last_frame_hides_it(database: Database) -> None:
    journal = written(database, [b"kept", b"flipped"])
    start = journal.path.stat().st_size - len(b"flipped") - 40
    for place in range(start, journal.path.stat().st_size):
        flip(journal.path, place)
        assert reopened(database) == [b"kept"]
        flip(journal.path, place)
    assert reopened(database) == [b"kept", b"flipped"]


def test_a_refused_frame_does_not_turn_up_later(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = written(database, [b"kept"])

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            journal.append(b"refused")
    assert reopened(database) == [b"kept"]
    journal.append(b"again")
    assert reopened(database) == [b"kept", b"again"]


def test_a_closed_journal_is_empty_once_everything_is_placed(database: Database) -> None:
    journal = written(database, CONTENTS)
    journal.close()
    assert reopened(database) == CONTENTS
    journal = Journal(database)
    journal.unseen()
    placed(journal, database)
    journal.append(b"last")
    placed(journal, database)
    journal.close()
    assert journal.path.stat().st_size == 0


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
