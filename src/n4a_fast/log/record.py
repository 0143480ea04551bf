"""Records of the write-ahead log: numbered, checksummed, read back whole or not at all.

A record is a header and its content. The header has the number, the schema of the content (a format version of the
store; the content names its columns), the id of the store, the length and a digest of the content, and a checksum of
all that. Numbers go up by one. A segment may begin with records that were not overwritten yet, and its last record
may be torn: by a crash, or because it is being written while it is read. Format 1 had no schema, no store and no
checksum of the header.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import xxhash

from n4a_fast import platform
from n4a_fast.errors import LogDamagedError

_HEADER = struct.Struct(
    "<8sQQI16s16sI"
)  # mark, number, bytes of content, schema, store, digest, checksum of all before
_MARK = b"n4a\x00log\x02"
_OLD_HEADER = struct.Struct("<8sQQ16s")
_OLD_MARK = b"n4a\x00jrn\x01"
HEADER_SIZE = _HEADER.size
_CHECKED = HEADER_SIZE - 4


class Header(NamedTuple):
    """What a record says of itself."""

    number: int
    length: int
    schema: int
    store: bytes
    digest: bytes
    size: int  # of the header


class Record(NamedTuple):
    """One whole record and where the next one begins."""

    number: int
    schema: int
    content: bytes
    end: int


def encoded(number: int, content: bytes, schema: int, store_id: str) -> bytes:
    """The bytes of a record."""
    head = _HEADER.pack(_MARK, number, len(content), schema, _id_bytes(store_id), _digest(number, content), 0)
    return head[:_CHECKED] + _checksum(head) + content


def hop(number: int, nbytes: int, schema: int, store_id: str) -> bytes:
    """A header without content, of a record that is in the tables: a reader goes on so many bytes behind it."""
    head = _HEADER.pack(_MARK, number, nbytes, schema, UUID(store_id).bytes, bytes(16), 0)
    return head[:_CHECKED] + _checksum(head)


def read_after(path: Path, number: int, store_id: str | None, *, complete: bool, salvage: bool = False) -> list[Record]:
    """The records of one store that follow record `number`, in order; none when the file is gone. Without a store: the
    records of format 1, which name none.

    Damage is passed over where it hides nothing that follows `number`. Of a `complete` segment, to which nobody
    writes any more, a record that is damaged or missing before one that is whole raises LogDamagedError; `salvage`
    passes over it, too. A torn last one was never acknowledged.
    """
    try:
        descriptor = platform.open_regular(path)
    except FileNotFoundError:
        return []
    try:
        reader = _Reader(descriptor, None if store_id is None else UUID(store_id).bytes)
        records = list(reader.in_sequence(0, number + 1))
        while complete:
            expected = (records[-1].number if records else number) + 1
            found = reader.next_whole(records[-1].end if records else 0, expected)
            if found is None:
                break
            offset, follows = found
            if follows != expected and not salvage:
                raise LogDamagedError(path, expected, follows)
            records += reader.in_sequence(offset, follows)
        return records
    finally:
        os.close(descriptor)


def store_of(path: Path) -> str | None:
    """The id of the store whose log a segment is; None when its first record does not tell."""
    with path.open("rb") as file:
        head = _unpacked(file.read(HEADER_SIZE))
    return None if head is None else str(UUID(bytes=head.store))


def is_torn_at_once(path: Path) -> bool:
    """Whether a file is what a crash, or a refused write, leaves of a first record: nothing, or a beginning of one."""
    with path.open("rb") as file:
        head = file.read(HEADER_SIZE)
    return not head.strip(b"\0") or head[:8] == _MARK[: len(head)]


class _Reader:
    """Records in an open file."""

    def __init__(self, descriptor: int, store: bytes | None) -> None:
        self._descriptor, self._store = descriptor, store
        self._size = os.fstat(descriptor).st_size

    def in_sequence(self, offset: int, expected: int) -> Iterator[Record]:
        """From `offset` on, whole records that begin with number `expected`; those of earlier ones are hopped over."""
        while (header := self.header_at(offset)) is not None and header.number <= expected:
            if header.number == expected:
                record = self._record_at(offset, header)
                if record is None:
                    return
                yield record
                expected += 1
            offset += header.size + header.length

    def next_whole(self, offset: int, least: int) -> tuple[int, int] | None:
        """Where the next whole record of at least this number begins, and its number; all bytes are looked at."""
        data = platform.read_at(self._descriptor, max(self._size - offset, 0), offset)
        mark, place = _OLD_MARK if self._store is None else _MARK, -1
        while (place := data.find(mark, place + 1)) >= 0:
            header = self.header_at(offset + place)
            if header is not None and header.number >= least and self._record_at(offset + place, header) is not None:
                return offset + place, header.number
        return None

    def header_at(self, offset: int) -> Header | None:
        """The header that begins at `offset`, if there is one, unhurt and of the store that is asked for."""
        data = platform.read_at(self._descriptor, HEADER_SIZE, offset)
        header = _unpacked_of_format_1(data) if self._store is None else _unpacked(data)
        return header if header is not None and header.store == (self._store or b"") else None

    def _record_at(self, offset: int, header: Header) -> Record | None:
        start = offset + header.size
        if start + header.length > self._size:
            return None
        content = platform.read_at(self._descriptor, header.length, start)
        whole = len(content) == header.length and _digest(header.number, content) == header.digest
        return Record(header.number, header.schema, content, start + header.length) if whole else None


def _unpacked(data: bytes) -> Header | None:
    if len(data) < HEADER_SIZE or data[:8] != _MARK or data[_CHECKED:] != _checksum(data):
        return None
    _, number, length, schema, store, digest, _ = _HEADER.unpack(data)
    return Header(number, length, schema, store, digest, HEADER_SIZE)


def _unpacked_of_format_1(data: bytes) -> Header | None:
    if len(data) < _OLD_HEADER.size or data[:8] != _OLD_MARK:
        return None
    _, number, length, digest = _OLD_HEADER.unpack(data[: _OLD_HEADER.size])
    return Header(number, length, 1, b"", digest, _OLD_HEADER.size)


@lru_cache(maxsize=64)
def _id_bytes(store_id: str) -> bytes:
    return UUID(store_id).bytes


def _digest(number: int, content: bytes) -> bytes:
    return xxhash.xxh3_128(content, seed=number).digest()


def _checksum(header: bytes) -> bytes:
    return xxhash.xxh32(header[:_CHECKED]).digest()
