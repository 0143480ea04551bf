"""Frames in a file: whole ones in order, or none, whatever was cut, overwritten or flipped in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from n4a_fast.errors import NotAStoreError
from n4a_fast.log.record import encoded, read_after

CONTENTS = [b"first", b"", b"third" * 1000]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    path.write_bytes(b"".join(encoded(number, content) for number, content in enumerate(CONTENTS, 1)))
    return path


def read(path: Path, number: int = 0, *, complete: bool = True) -> list[bytes]:
    return [frame.content for frame in read_after(path, number, complete=complete)]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("complete", [True, False])
def test_frames_come_back_in_order_from_any_number_on(path: Path, complete: bool) -> None:
    for number in range(5):
        assert read(path, number, complete=complete) == CONTENTS[number:]
    assert [frame.number for frame in read_after(path, 1, complete=True)] == [2, 3]
    assert read(path.with_name("missing"), complete=complete) == []


def test_a_file_may_begin_with_new_frames_and_go_on_with_old_ones(path: Path) -> None:
    old = path.read_bytes()
    new = encoded(4, b"fourth") + encoded(5, b"fifth")
    path.write_bytes(new + old[len(new) :])
    assert read(path, 3) == [b"fourth", b"fifth"]
    assert read(path, 4) == [b"fifth"]
    assert read(path, 5) == []


def test_a_first_frame_torn_while_it_overwrites_old_ones_was_never_acknowledged(path: Path) -> None:
    old = path.read_bytes()
    new = encoded(4, b"fourth" * 20)
    for cut in range(len(new)):
        path.write_bytes(new[:cut] + old[cut:])
        assert read(path, 3) == []


@pytest.mark.parametrize("cut", [1, 39, 40, 41, 5000])
def test_a_torn_last_frame_was_never_acknowledged(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path) == CONTENTS[:2]
    assert read(path, 1) == CONTENTS[1:2]


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_frame_before_whole_ones_is_refused(path: Path, number: int) -> None:
    second = len(encoded(1, CONTENTS[0]))
    for place in range(second, second + len(encoded(2, CONTENTS[1]))):
        flip(path, place)
        with pytest.raises(NotAStoreError, match="frame 2 is damaged or missing, and frame 3 follows"):
            read(path, number)
        assert read(path, number, complete=False) == CONTENTS[number:1]
        flip(path, place)


def test_any_flipped_byte_of_the_last_frame_hides_it(path: Path) -> None:
    path.write_bytes(encoded(1, b"kept") + encoded(2, b"flipped"))
    for place in range(len(encoded(1, b"kept")), path.stat().st_size):
        flip(path, place)
        assert read(path) == [b"kept"]
        flip(path, place)
    assert read(path) == [b"kept", b"flipped"]
