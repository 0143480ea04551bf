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
    assert read(segment) == [b"a" * 1_500, b"b" * 1_000]


def test_records_after_a_rewind_do_not_let_the_file_grow(segment: Segment) -> None:
    append(segment, [os.urandom(5_000) for _ in range(9)])
    before = length(segment)
    segment.rewind()
    contents = [os.urandom(5_000) for _ in range(9)]
    append(segment, contents)
    assert length(segment) == before
    assert segment.path is not None
    assert [each.content for each in record.read_after(segment.path, 9, STORE, complete=True)] == contents
