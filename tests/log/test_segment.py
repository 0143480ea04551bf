"""A segment on its own: what a record writes beside itself is no record, and spares the disk work."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from n4a_fast import platform
from n4a_fast.log import record
from n4a_fast.log.segment import Segment

STORE = str(uuid4())
SIZES = [300, 20_000, *[5_000] * 60, 3_000_000, *[5_000] * 60]


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    segment = Segment()
    segment.open(tmp_path / "log")
    yield segment
    segment.close()


def append(segment: Segment, contents: list[bytes]) -> None:
    for content in contents:
        segment.append(content, 3, STORE)


def read(segment: Segment) -> list[bytes]:
    assert segment.path is not None
    return [each.content for each in record.read_after(segment.path, 0, STORE, complete=True)]


def length(segment: Segment) -> int:
    assert segment.path is not None
    return segment.path.stat().st_size


def test_most_records_leave_the_length_of_the_file_as_it_is(segment: Segment) -> None:
    lengths = []
    for size in SIZES:
        append(segment, [os.urandom(size)])
        lengths.append(length(segment))
    assert len(set(lengths)) < len(SIZES) / 8
    written = sum(SIZES) + len(SIZES) * record.HEADER_SIZE
    assert written <= lengths[-1] <= written + 2**20


def test_what_lies_behind_the_last_record_is_none(segment: Segment) -> None:
    contents = [os.urandom(size) for size in SIZES]
    append(segment, contents)
    assert read(segment) == contents


def test_a_single_record_takes_no_more_than_itself(segment: Segment) -> None:
    append(segment, [b"only"])
    assert length(segment) == record.HEADER_SIZE + 4


def test_rows_go_on_to_be_logged_where_the_disk_has_room_for_them_alone(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, write_at = 3_000, platform.write_at

    def into_what_is_left(descriptor: int, data: bytes, offset: int) -> None:
        if offset + len(data) > room:
            write_at(descriptor, data[: room - offset], offset)
            raise OSError(errno.ENOSPC, "no space left on the device")
        write_at(descriptor, data, offset)

    append(segment, [b"a" * 1_500])
    monkeypatch.setattr(platform, "write_at", into_what_is_left)
    append(segment, [b"b" * 1_000])
    assert read(segment) == [b"a" * 1_500, b"b" * 1_000]
    with pytest.raises(OSError, match="no space"):
        append(segment, [b"c" * 1_000])
    assert read(segment) == [b"a" * 1_500, b"b" * 1_000, b""]


def test_records_after_a_rewind_do_not_let_the_file_grow(segment: Segment) -> None:
    append(segment, [os.urandom(5_000) for _ in range(9)])
    before = length(segment)
    segment.rewind()
    contents = [os.urandom(5_000) for _ in range(9)]
    append(segment, contents)
    assert length(segment) == before
    assert segment.path is not None
    assert [each.content for each in record.read_after(segment.path, 9, STORE, complete=True)] == contents


def sealed(segment: Segment, behind: int = 3) -> list[bytes]:
    """Records before a seal, and what came after it."""
    append(segment, [os.urandom(5_000) for _ in range(30)])
    assert segment.seal() == 30
    contents = [os.urandom(5_000) for _ in range(behind)]
    append(segment, contents)
    return contents


def read_behind(segment: Segment, *, complete: bool) -> list[bytes]:
    assert segment.path is not None
    return [each.content for each in record.read_after(segment.path, 30, STORE, complete=complete)]


@pytest.mark.parametrize("complete", [True, False], ids=["of a dead process", "of a living one"])
def test_what_came_after_the_seal_moves_to_the_begin_and_goes_on_there(segment: Segment, complete: bool) -> None:
    contents, before = sealed(segment), length(segment)
    segment.rewind_to_seal(3, STORE)
    assert read_behind(segment, complete=complete) == contents
    for _ in range(20):
        contents.append(os.urandom(5_000))
        append(segment, contents[-1:])
        assert read_behind(segment, complete=complete) == contents
    assert length(segment) == before


def test_what_was_sealed_and_is_needed_still_is_not_overwritten(segment: Segment) -> None:
    append(segment, [b"a" * 5_000] * 30)
    segment.seal()
    append(segment, [b"b"])
    segment.unseal()
    segment.rewind_to_seal(3, STORE)
    assert read(segment) == [*[b"a" * 5_000] * 30, b"b"]


def test_what_is_as_long_as_the_room_for_it_stays_where_it_is(segment: Segment) -> None:
    contents = sealed(segment, behind=20)
    segment.rewind_to_seal(3, STORE)
    append(segment, [b"next"])
    assert read_behind(segment, complete=False) == [*contents, b"next"]


@pytest.mark.parametrize("complete", [True, False], ids=["of a dead process", "of a living one"])
@pytest.mark.parametrize("refused", range(6))
@pytest.mark.parametrize("written", [0.0, 0.5, 1.0], ids=["nothing", "a half", "all"])
def test_a_disk_that_refuses_the_move_at_any_step_loses_nothing(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, refused: int, written: float, complete: bool
) -> None:
    contents, steps = sealed(segment), 0
    write_at, sync_data = platform.write_at, platform.sync_data

    def write(descriptor: int, data: bytes, offset: int) -> None:
        nonlocal steps
        steps += 1
        if steps == refused + 1:
            if len(data) > record.HEADER_SIZE or written == 1:  # a header lies in one sector
                write_at(descriptor, data[: int(written * len(data))], offset)
            raise OSError(errno.EIO, "broken")
        write_at(descriptor, data, offset)

    def sync(descriptor: int) -> None:
        nonlocal steps
        steps += 1
        if steps == refused + 1:
            raise OSError(errno.EIO, "broken")
        sync_data(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(platform, "write_at", write)
        patch.setattr(platform, "sync_data", sync)
        segment.rewind_to_seal(3, STORE)
    assert steps > refused
    assert read_behind(segment, complete=complete) == contents
    contents.append(os.urandom(5_000))
    append(segment, contents[-1:])
    assert read_behind(segment, complete=complete) == contents


def test_a_power_loss_in_any_step_of_the_move_leaves_all_records(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was not synced is there in any sectors: none, all, each second one."""
    contents, seen = sealed(segment), 0
    assert segment.path is not None
    disk, sync_data, write_at = bytearray(segment.path.read_bytes()), platform.sync_data, platform.write_at
    written: list[tuple[int, bytes]] = []

    def look() -> None:
        nonlocal seen
        for kept in (lambda sector: True, lambda sector: sector % 2 == 0, lambda sector: sector % 2 == 1):
            torn = bytearray(disk)
            for offset, data in written:
                for place in range(offset, offset + len(data)):
                    if kept(place // 512):
                        torn[place] = data[place - offset]
            (tmp_path / "torn").write_bytes(torn)
            found = record.read_after(tmp_path / "torn", 30, STORE, complete=True)
            assert [each.content for each in found] == contents
            seen += 1

    def write(descriptor: int, data: bytes, offset: int) -> None:
        written.append((offset, data))
        write_at(descriptor, data, offset)
        look()

    def sync(descriptor: int) -> None:
        sync_data(descriptor)
        for offset, data in written:
            disk[offset : offset + len(data)] = data
        written.clear()

    monkeypatch.setattr(platform, "write_at", write)
    monkeypatch.setattr(platform, "sync_data", sync)
    segment.rewind_to_seal(3, STORE)
    assert seen == 9
