"""Copies of a store file that others write to between two slices: equal to the file, whatever they did."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from n4a_fast import platform
from n4a_fast.durable.duckdb_file import CHECKSUM, DuckDBFile, is_whole
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.maintenance.file_copy import FileCopy

ROWS = 20_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A DuckDB file of some blocks, at rest."""
    path = tmp_path / "store.duckdb"
    written(path, f"CREATE TABLE t AS SELECT i, random() AS x, [random()] AS l FROM range({ROWS}) r(i)")
    return path


def written(path: Path, *statements: str) -> None:
    """Each statement, and what it changes moved into the file."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
            connection.execute("CHECKPOINT")


def layout(content: bytes) -> DuckDBFile:
    return DuckDBFile(lambda offset, length: content[offset : offset + length])


def data_blocks(content: bytes) -> list[int]:
    file = layout(content)
    blocks = file.blocks()
    return [block for block in range(file.active.blocks) if block not in blocks.free and block not in blocks.metadata]


def used(path: Path) -> list[bytes]:
    """The heads, and all blocks in use."""
    content = path.read_bytes()
    file = layout(content)
    free = file.blocks().free
    return [content[: file.place_of(0)], *(file.block(b) for b in range(file.active.blocks) if b not in free)]


def copied(source: Path, meanwhile: Callable[[], object]) -> int:
    """Copy a file in one slice, let something happen, and finish; how many blocks had changed."""
    target = source.with_name("copy.duckdb")
    with FileCopy(source, target) as copying:
        copying.copy(0)
        meanwhile()
        changed = copying.finish().written
    assert used(target) == used(source)
    return changed


def swap_words(path: Path) -> None:
    """Two words of a block in use change places, which its checksum does not tell."""
    content = bytearray(path.read_bytes())
    for block in data_blocks(bytes(content)):
        first = layout(bytes(content)).place_of(block) + CHECKSUM
        words = [bytes(content[place : place + 8]) for place in (first, first + 8)]
        if words[0] != words[1]:
            content[first : first + 16] = words[1] + words[0]
            assert is_whole(layout(bytes(content)).block(block))
            path.write_bytes(content)
            return
    raise AssertionError("no block has two different words at its beginning")


def test_blocks_with_the_same_words_in_another_order_are_copied(file: Path) -> None:
    def meanwhile() -> None:
        written(file, "CREATE TABLE a (i INT)", "CREATE TABLE b (i INT)")
        swap_words(file)

    assert copied(file, meanwhile) > 0


def test_nothing_is_copied_again_of_a_file_that_has_not_changed(file: Path) -> None:
    assert copied(file, lambda: None) == 0


def test_after_one_checkpoint_the_rest_is_not_looked_at(file: Path) -> None:
    assert (
        0
        < copied(file, lambda: written(file, "INSERT INTO t VALUES (1, 2, [3])"))
        < len(data_blocks(file.read_bytes()))
    )


def test_another_file_in_its_place_is_copied_whole(file: Path) -> None:
    other = file.with_name("other.duckdb")

    def meanwhile() -> None:
        shutil.copyfile(file, other)
        swap_words(other)
        platform.replace(other, file)

    assert copied(file, meanwhile) > 0


def test_a_helper_that_was_ended_or_refused_says_so(file: Path) -> None:
    with FileCopy(file, file.with_name("copy.duckdb")) as copying:
        copying.copy(0)
        copying._helper.kill()
        copying._helper.wait()
        with pytest.raises(StoreUnavailableError, match="the process that copies it was ended"):
            copying.finish()
    with FileCopy(file, file.with_name("nowhere") / "copy.duckdb") as copying, pytest.raises(FileNotFoundError):
        copying.copy(0)


STATEMENTS = (
    "DELETE FROM t WHERE i % 3 = {n}",
    "DELETE FROM t WHERE i > {n}00",
    "INSERT INTO t SELECT i, random(), [random()] FROM range({n}0000) r(i)",
    "INSERT INTO t SELECT i, i, [i] FROM range(70000) r(i)",
    "UPDATE t SET x = {n}",
    "CREATE OR REPLACE TABLE u{n} AS FROM t ORDER BY random()",
    "DROP TABLE IF EXISTS u{n}",
)


def changes(dice: random.Random) -> Iterator[str]:
    for _ in range(dice.randint(1, 4)):
        yield dice.choice(STATEMENTS).format(n=dice.randint(0, 4))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_meanwhile_is_in_the_copy(file: Path, seed: int) -> None:
    dice = random.Random(seed)
    written(file, *changes(dice))
    copied(file, lambda: written(file, *changes(dice)))
