"""Damaged blocks of files with few blocks and with many, which are compared with their checksums in two ways."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest

from n4a_fast.durable.duckdb_file import CHECKSUM, DuckDBFile, checksummed, is_whole
from n4a_fast.maintenance.verify_blocks import BlockReader, _is_whole_by_numpy

SIZE = 4096


@pytest.mark.parametrize("seed", range(20))
def test_both_ways_tell_the_same_of_any_block(seed: int) -> None:
    dice = random.Random(seed)
    content = bytes(CHECKSUM) + dice.randbytes(SIZE - CHECKSUM)
    block = bytearray(checksummed(content) + content[CHECKSUM:])
    assert is_whole(bytes(block))
    assert _is_whole_by_numpy(bytes(block))
    block[dice.randrange(SIZE)] ^= 1 << dice.randrange(8)
    assert not is_whole(bytes(block))
    assert not _is_whole_by_numpy(bytes(block))


@pytest.mark.parametrize("rows", [1_000, 1_500_000], ids=["few", "many"])
def test_a_damaged_block_is_told_in_a_file_of_few_blocks_and_of_many(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT hash(i) AS x FROM range({rows}) r(i)")
    file = layout(path)
    assert (file.active.blocks > 40) == (rows > 1_000)
    with BlockReader(path) as reader:
        assert reader.look(0, 1) == (file.active.blocks, [])
    damaged = next(b for b in range(file.active.blocks) if b not in file.blocks().free | file.blocks().metadata.keys())
    with open(path, "r+b") as opened:
        opened.seek(file.place_of(damaged) + 1000)
        opened.write(b"damage")
    with BlockReader(path) as reader:
        count, found = reader.look(0, 1)
    assert count == file.active.blocks
    assert [finding.id for finding in found] == [str(damaged)]


def layout(path: Path) -> DuckDBFile:
    content = path.read_bytes()
    return DuckDBFile(lambda offset, length: content[offset : offset + length])
