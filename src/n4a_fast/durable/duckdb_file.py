"""What a DuckDB file and its write-ahead log say of themselves, read without DuckDB.

A file is three heads of 4 KiB (the main one and two database headers, of which the newer counts) and blocks of
one size, each behind its checksum. Metadata blocks are cut into 64 parts; a part begins with a pointer to the
next one, and the header names the first part of the list that tells which blocks and which parts are free.
The log is a sequence of entries: length, checksum, content. Sources: DuckDB's `single_file_block_manager.cpp`,
`metadata_manager.cpp`, `write_ahead_log.cpp`, `checksum.cpp`.

Only the standard library is used: a helper process that starts in 20 ms reads files with this module.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

HEAD = 4096  # bytes of each of the three heads
FIRST_BLOCK = 3 * HEAD
PARTS = 64  # of a metadata block
NOWHERE = 2**64 - 1
CHECKSUM = 8  # bytes of a checksum before what it covers
TAIL = 128  # bytes at the end of a log that hold the mark of a checkpoint

_MAGIC = b"DUCK"
_WORD, _FACTOR, _SEED = 2**64 - 1, 0xBF58476D1CE4E5B9, 5381
_REST_FACTOR, _REST_SEED = 0xC6A4A7935BD1E995, 0xE17A1465
_BLOCK_ID = 2**56 - 1
_FLUSH = b"\x64\x00\x64\xff\xff"  # the entry that ends a transaction
_MARK_BEGINS = b"\x64\x00\x63\x65\x00"  # the entry of a checkpoint: its kind, then the root that it is going to have
_ROOT_FIELD = b"\x64\x00"
_ENTRY = struct.Struct("<QQ")  # before each entry of a log: bytes of its content, their checksum
_LOG_BEGINS = b"\x64\x00\x62"
_SECTOR = 512
_FIRST_ENTRY = 256  # the head of a log, which has no checksum, is shorter
_MARK_SIZES = range(9, 33)
_IDENTIFIER = slice(124, 140)  # in the main head: a log names the file that it belongs to by these bytes


class DamagedFileError(Exception):
    """The file contradicts itself at a place that no checksum of its own covers."""


class Header(NamedTuple):
    """A database header."""

    iteration: int
    root: int
    free_list: int
    blocks: int
    block_size: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the active header says of the blocks: those that are free, and the metadata blocks with the mask of their
    free parts.
    """

    free: frozenset[int]
    metadata: dict[int, int]


class DuckDBFile:
    """The layout of one file; `read(offset, length)` gives its bytes."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        main = read(0, HEAD)
        self.is_known = len(main) == HEAD and main[8:12] == _MAGIC and is_whole(main) and not any(main[20:52])
        self.headers = tuple(_header(read(HEAD * place, HEAD)) for place in (1, 2))

    @property
    def active(self) -> Header:
        """The header that counts; DamagedFileError when one has a wrong checksum, or the file is encrypted or none of
        DuckDB's.
        """
        first, second = self.headers
        if not self.is_known or first is None or second is None:
            raise DamagedFileError("a header has a wrong checksum")
        active = first if first.iteration > second.iteration else second
        if active.block_size < HEAD or active.block_size % HEAD:
            raise DamagedFileError(f"a block size of {active.block_size} bytes")
        return active

    def place_of(self, block: int) -> int:
        """Where a block begins, with its checksum."""
        return FIRST_BLOCK + block * self.active.block_size

    def block(self, block: int) -> bytes:
        """A whole block, its checksum first; shorter at the end of a cut file."""
        return self._read(self.place_of(block), self.active.block_size)

    def blocks(self) -> Blocks:
        """The free list of the active header."""
        if self.active.free_list == NOWHERE:
            return Blocks(frozenset(), {})
        numbers = _Numbers(self._chain(self.active.free_list))
        free = frozenset(numbers.take("q") for _ in range(numbers.count(8)))
        for _ in range(numbers.count(12)):  # blocks that are used more than once
            numbers.take("q"), numbers.take("I")
        metadata = {numbers.take("q"): numbers.take("Q") for _ in range(numbers.count(16))}
        if any(not 0 <= block < self.active.blocks for block in (*free, *metadata)):
            raise DamagedFileError("the free list names a block that does not exist")
        return Blocks(free, metadata)

    def pointers_are_plausible(self, raw: bytes, free_parts: int) -> bool:
        """Whether each part in use of a metadata block leads to a part that exists, or nowhere."""
        used = (part for part in range(PARTS) if not free_parts >> part & 1)
        following = (struct.unpack_from("<Q", raw, CHECKSUM + part * self._part_size)[0] for part in used)
        return all(
            place == NOWHERE or (place & _BLOCK_ID < self.active.blocks and place >> 56 < PARTS) for place in following
        )

    @property
    def _part_size(self) -> int:
        return (self.active.block_size - CHECKSUM) // PARTS // 8 * 8

    def _chain(self, pointer: int) -> bytes:
        content, visited, size = [], set[int](), self._part_size
        while pointer != NOWHERE:
            block, part = pointer & _BLOCK_ID, pointer >> 56
            raw = self._read(self.place_of(block) + CHECKSUM + part * size, size)
            if pointer in visited or part >= PARTS or len(raw) < size:
                raise DamagedFileError("the free list has no end")
            visited.add(pointer)
            content.append(raw[8:])
            (pointer,) = struct.unpack_from("<Q", raw)
        return b"".join(content)


class _Numbers:
    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, kind: str) -> int:
        try:
            (number,) = struct.unpack_from("<" + kind, self._content, self._at)
        except struct.error as error:
            raise DamagedFileError("the free list ends too early") from error
        self._at += struct.calcsize("<" + kind)
        return int(number)

    def count(self, size: int) -> int:
        """A count of items of `size` bytes that follow."""
        count = self.take("Q")
        if count * size > len(self._content) - self._at:
            raise DamagedFileError("the free list ends too early")
        return count


def checksum(content: bytes) -> int:
    """DuckDB's checksum: all words times a factor, joined by exclusive or; what is left of the last word is hashed.

    The words are multiplied as one number with room for 128 bits each: some milliseconds for a block of 256 KiB, a
    fifth of what a loop takes.
    """
    words = len(content) // 8
    lanes = (words + 1) // 2
    mask = _lanes(lanes)
    number = int.from_bytes(content[: 8 * words], "little")
    mixed = ((number & mask) * _FACTOR & mask) ^ ((number >> 64 & mask) * _FACTOR & mask)
    while lanes > 1:
        lanes = (lanes + 1) // 2
        mixed = (mixed >> 128 * lanes) ^ (mixed & (1 << 128 * lanes) - 1)
    rest = content[8 * words :]
    return mixed ^ _SEED ^ (_hash_of_rest(rest) if rest else 0)


def is_whole(raw: bytes) -> bool:
    """Whether a head, or a block, has the checksum of what it holds."""
    return len(raw) > CHECKSUM and struct.unpack_from("<Q", raw)[0] == checksum(raw[CHECKSUM:])


def checksummed(raw: bytes) -> bytes:
    """The checksum that a block should begin with."""
    return struct.pack("<Q", checksum(raw[CHECKSUM:]))


def another_file(content: bytes) -> bytes:
    """A file with the same content that is another one to DuckDB, which refuses it the first one's log."""
    head = bytearray(content[:HEAD])
    head[_IDENTIFIER] = os.urandom(_IDENTIFIER.stop - _IDENTIFIER.start)
    return checksummed(bytes(head)) + head[CHECKSUM:] + content[HEAD:]


def unfinished_checkpoint(tail: bytes) -> int | None:
    """The root that a checkpoint was about to write when its mark is the last thing in the log whose end this is; None
    when the log ends otherwise.
    """
    if not tail.endswith(_FLUSH_ENTRY):
        return None
    tail = tail[: -len(_FLUSH_ENTRY)]
    for size in _MARK_SIZES:
        content = tail[-size:]
        if content.startswith(_MARK_BEGINS) and tail.endswith(_entry(content)):
            return _root_of(content[len(_MARK_BEGINS) :])
    return None


def end_of_log(log: bytes) -> int | None:
    """Where the last whole transaction of a log ends, when only the tail of one more follows, as a crash leaves it;
    None when the log is whole, or damaged before its last transaction.
    """
    place = next((start for start in range(_FIRST_ENTRY) if _length_at(log, start)), 0)
    end = place if place else 0
    while length := _length_at(log, place):
        place += length
        if log.startswith(_FLUSH_ENTRY, place - len(_FLUSH_ENTRY)):
            end = place
    later = log.find(_FLUSH_ENTRY, place)
    is_torn = later < 0 or later + len(_FLUSH_ENTRY) == len(log)
    is_known = end > 0 or log.startswith(_LOG_BEGINS) or not any(log[:_SECTOR])
    return end if is_torn and is_known and place < len(log) else None


def _length_at(log: bytes, place: int) -> int:
    """The length of the whole entry at this place, 0 when there is none."""
    if place + _ENTRY.size > len(log):
        return 0
    size, digest = _ENTRY.unpack_from(log, place)
    begin = place + _ENTRY.size
    if not 0 < size <= len(log) - begin or checksum(log[begin : begin + size]) != digest:
        return 0
    return int(_ENTRY.size + size)


def _entry(content: bytes) -> bytes:
    return _ENTRY.pack(len(content), checksum(content)) + content


def _root_of(fields: bytes) -> int:
    """The root: zero is not written, other numbers are written seven bits at a time."""
    if not fields.startswith(_ROOT_FIELD):
        return 0
    root = 0
    for place, byte in enumerate(fields[len(_ROOT_FIELD) :]):
        root |= (byte & 127) << 7 * place
        if byte < 128:
            break
    return root & _WORD


def _header(raw: bytes) -> Header | None:
    return Header(*struct.unpack_from("<5Q", raw, CHECKSUM)) if len(raw) == HEAD and is_whole(raw) else None


@lru_cache(maxsize=4)
def _lanes(count: int) -> int:
    return int.from_bytes((b"\xff" * 8 + b"\0" * 8) * count, "little")


def _hash_of_rest(rest: bytes) -> int:
    mixed = _REST_SEED ^ (len(rest) * _REST_FACTOR & _WORD) ^ int.from_bytes(rest, "little")
    mixed = mixed * _REST_FACTOR & _WORD
    mixed ^= mixed >> 47
    mixed = mixed * _REST_FACTOR & _WORD
    return mixed ^ mixed >> 47


_FLUSH_ENTRY = _entry(_FLUSH)
