"""Numbered frames in a file: written one after the other, read back whole, or not at all.

A frame is a header (mark, number, length, xxh3-128 of the content seeded with the number) and its
content. Numbers go up by one; a file may begin with old frames that were not overwritten yet. The
last frame may be torn, by a crash or because it is being written while the file is read.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

import xxhash

from n4a_fast import platform
from n4a_fast.errors import NotAStoreError

_HEADER = struct.Struct("<8sQQ16s")  # mark, number, bytes of content, digest
HEADER_SIZE = _HEADER.size
_MARK = b"n4a\x00jrn\x01"


class Frame(NamedTuple):
    """One whole frame and where the next one begins."""

    number: int
    content: bytes
    end: int


def encoded(number: int, content: bytes) -> bytes:
    """The bytes of a frame."""
    return _HEADER.pack(_MARK, number, len(content), _digest(number, content)) + content


def read_after(path: Path, number: int, *, complete: bool) -> list[Frame]:
    """The frames that follow frame `number`, in order; none when the file is gone.

    Of a `complete` file, to which nobody writes any more, a torn frame that whole ones follow is
    reported as damage.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        frames, end = _read_in_sequence(descriptor, _start_after(descriptor, number), number + 1)
        if complete:
            _refuse_damage(path, descriptor, end, number + 1 + len(frames))
        return frames
    finally:
        os.close(descriptor)


def _start_after(descriptor: int, number: int) -> int:
    """Where the frame after `number` begins, or should; headers are hopped over."""
    offset, before = 0, None
    while (header := _header_at(descriptor, offset)) is not None:
        mark, found, length, _ = header
        if mark != _MARK or found > number or (before is not None and found != before + 1):
            break
        offset, before = offset + HEADER_SIZE + length, found
    return offset


def _read_in_sequence(descriptor: int, offset: int, expected: int) -> tuple[list[Frame], int]:
    frames: list[Frame] = []
    while (frame := _frame_at(descriptor, offset)) is not None and frame.number == expected:
        frames.append(frame)
        offset, expected = frame.end, expected + 1
    return frames, offset


def _refuse_damage(path: Path, descriptor: int, offset: int, expected: int) -> None:
    data = (
        platform.read_at(descriptor, os.fstat(descriptor).st_size - offset, offset)
        if os.fstat(descriptor).st_size > offset
        else b""
    )
    place = -1
    while (place := data.find(_MARK, place + 1)) >= 0:
        frame = _frame_at(descriptor, offset + place)
        if frame is not None and frame.number >= expected:
            raise NotAStoreError(
                path,
                f"frame {expected} is damaged or missing, and frame {frame.number} follows; restore the workspace from"
                " a backup",
            )


def _header_at(descriptor: int, offset: int) -> tuple[bytes, int, int, bytes] | None:
    header = platform.read_at(descriptor, HEADER_SIZE, offset)
    return _HEADER.unpack(header) if len(header) == HEADER_SIZE else None


def _frame_at(descriptor: int, offset: int) -> Frame | None:
    """The whole frame that begins at `offset`, if there is one."""
    header = _header_at(descriptor, offset)
    if header is None or header[0] != _MARK:
        return None
    _, number, length, digest = header
    end = offset + HEADER_SIZE + length
    if end > os.fstat(descriptor).st_size:
        return None
    content = platform.read_at(descriptor, length, offset + HEADER_SIZE)
    return Frame(number, content, end) if _digest(number, content) == digest else None


def _digest(number: int, content: bytes) -> bytes:
    return xxhash.xxh3_128(content, seed=number).digest()
