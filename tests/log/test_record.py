"""Records in a file: whole ones in order, or none, whatever was cut, overwritten or flipped in it."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

import pytest

from n4a_fast.errors import LogDamagedError
from n4a_fast.log import record
from n4a_fast.log.record import HEADER_SIZE, read_after

STORE, OTHER = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
CONTENTS = [b"first", b"", b"third" * 1000]


def encoded(number: int, content: bytes, store: str = STORE) -> bytes:
    return record.encoded(number, content, 2, store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(b"".join(encoded(number, content) for number, content in enumerate(CONTENTS, 1)))
    return path


def read(path: Path, number: int = 0, *, complete: bool = True) -> list[bytes]:
    return [found.content for found in read_after(path, number, STORE, complete=complete)]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("complete", [True, False])
def test_records_come_back_in_order_from_any_number_on(path: Path, complete: bool) -> None:
    for number in range(5):
        assert read(path, number, complete=complete) == CONTENTS[number:]
    assert [(found.number, found.schema) for found in read_after(path, 1, STORE, complete=True)] == [(2, 2), (3, 2)]
    assert read(path.with_name("missing"), complete=complete) == []


def test_a_file_may_begin_with_new_records_and_go_on_with_old_ones(path: Path) -> None:
    old = path.read_bytes()
    new = encoded(4, b"fourth") + encoded(5, b"fifth")
    path.write_bytes(new + old[len(new) :])
    assert read(path, 3) == [b"fourth", b"fifth"]
    assert read(path, 4) == [b"fifth"]
    assert read(path, 5) == []


def test_a_first_record_torn_while_it_overwrites_old_ones_was_never_acknowledged(path: Path) -> None:
    old = path.read_bytes()
    new = encoded(4, b"fourth" * 20)
    for cut in range(len(new)):
        path.write_bytes(new[:cut] + old[cut:])
        assert read(path, 3) == []


@pytest.mark.parametrize("cut", [1, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 1, 5000])
def test_a_torn_last_record_was_never_acknowledged(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path) == CONTENTS[:2]
    assert read(path, 1) == CONTENTS[1:2]


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_record_before_whole_ones_is_refused(path: Path, number: int) -> None:
    second = len(encoded(1, CONTENTS[0]))
    for place in range(second, second + len(encoded(2, CONTENTS[1]))):
        flip(path, place)
        with pytest.raises(LogDamagedError, match="record 2 is damaged or missing, and record 3 follows"):
            read(path, number)
        assert read(path, number, complete=False) == CONTENTS[number:1]
        flip(path, place)


def test_any_flipped_byte_of_the_last_record_hides_it(path: Path) -> None:
    path.write_bytes(encoded(1, b"kept") + encoded(2, b"flipped"))
    for place in range(len(encoded(1, b"kept")), path.stat().st_size):
        flip(path, place)
        assert read(path) == [b"kept"]
        flip(path, place)
    assert read(path) == [b"kept", b"flipped"]


@pytest.mark.long
def test_a_flipped_bit_in_an_applied_record_hides_nothing_behind_it(path: Path) -> None:
    first = len(encoded(1, CONTENTS[0]))
    for bit in range(8 * first):
        data = bytearray(path.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert read(path, 1) == CONTENTS[1:]
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)


def test_records_of_another_store_are_not_read(path: Path) -> None:
    assert read_after(path, 0, OTHER, complete=True) == []
    path.write_bytes(path.read_bytes() + encoded(4, b"of another", OTHER))
    assert read(path) == CONTENTS
    assert record.store_of(path) == STORE


@pytest.mark.parametrize("content", [b"", b"my notes", b"\0\5\x16\7", b"x" * 1000, b"n4a\0log"])
def test_a_file_of_something_else_holds_no_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "segment"
    path.write_bytes(content)
    assert read(path) == []
    assert record.store_of(path) is None
    assert record.is_torn_at_once(path) == (content in (b"", b"n4a\0log"))


def test_any_random_damage_is_told_or_hides_nothing_acknowledged(tmp_path: Path) -> None:
    """Whatever is flipped: all records that are whole are read in order, or the damage is told by number."""
    dice, path = random.Random(5), tmp_path / "segment"
    for _ in range(300):
        contents = [dice.randbytes(dice.choice([0, 5, 90])) for _ in range(dice.randint(1, 5))]
        data = bytearray(b"".join(encoded(number, content) for number, content in enumerate(contents, 1)))
        applied, place = dice.randint(0, len(contents)), dice.randrange(len(data))
        data[place] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        ends = list(accumulate(len(encoded(1, content)) for content in contents))
        hurt = next(number for number, end in enumerate(ends, 1) if place < end)
        if applied < hurt < len(contents):
            with pytest.raises(LogDamagedError) as raised:
                read(path, applied)
            assert (raised.value.path, raised.value.number) == (path, hurt)
        else:
            assert read(path, applied) == contents[applied : hurt - 1 if hurt > applied else None]
