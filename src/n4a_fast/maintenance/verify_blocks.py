"""The blocks of a store file, each compared with its checksum by a process of its own.

A descriptor that this process closes would drop DuckDB's lock on the file, and DuckDB reads only blocks that a query
wants. The caller has the file while a part of it is read, so nobody writes meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.duckdb_file import CHECKSUM, DamagedFileError, DuckDBFile, is_whole
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.maintenance.findings import RESTORE, Finding

_HELPER = """import sys, types
package = types.ModuleType("n4a_fast"); package.__path__ = [sys.argv[1]]; sys.modules["n4a_fast"] = package
from n4a_fast.maintenance.verify_blocks import main; main(sys.argv[2])"""
_PACKAGE = str(Path(__file__).parents[1])
BLOCK = "damaged block"
_FACTOR, _SEED = 0xBF58476D1CE4E5B9, 5381
BLOCKS_AT_ONCE = 512  # 128 MB: a tenth of a second
_FEW = 32  # blocks, a millisecond each without numpy, which takes 80 to import


class BlockReader:
    """A helper process that compares blocks of one file with their checksums."""

    def __init__(self, path: Path) -> None:
        self._path = path
        command = [sys.executable, "-I", "-B", "-c", _HELPER, _PACKAGE, str(path)]
        self._helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def look(self, first: int, step: int) -> tuple[int, list[Finding]]:
        """How many blocks the file has, and what is wrong with some of them: `BLOCKS_AT_ONCE` from `first` on, of which
        one in `step` is read.
        """
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        try:
            self._helper.stdin.write(f"{first} {step}\n")
            self._helper.stdin.flush()
            count, *wrong = self._helper.stdout.readline().split()
        except (OSError, ValueError) as error:
            said = self._helper.communicate()[1].strip()
            raise StoreUnavailableError(self._path, f"its blocks could not be read: {said or error}") from error
        return int(count), [self._finding(block) for block in wrong]

    def _finding(self, block: str) -> Finding:
        what = "its header or its list of free blocks" if block == "header" else "its content"
        return Finding(BLOCK, block, self._path, f"{what} does not match its checksum", RESTORE)

    def close(self) -> None:
        self._helper.kill()
        self._helper.communicate()

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def wrong_blocks(path: str, first: int, step: int) -> tuple[int, list[str]]:
    """In the helper: the number of blocks, and those of a range that are in use and damaged."""
    descriptor = platform.open_regular(path)
    try:
        file = DuckDBFile(lambda offset, length: platform.read_at(descriptor, length, offset))
        blocks = file.active.blocks
        free = file.blocks().free
        wanted = [block for block in range(first, min(first + BLOCKS_AT_ONCE, blocks), step) if block not in free]
        is_sound = is_whole if len(wanted) <= _FEW else _is_whole_by_numpy
        read, size = ((block, file.block(block)) for block in wanted), file.active.block_size
        return blocks, [str(block) for block, raw in read if len(raw) != size or not is_sound(raw)]
    except DamagedFileError:
        return 0, ["header"]
    finally:
        os.close(descriptor)


def _is_whole_by_numpy(raw: bytes) -> bool:
    import numpy as np

    words = np.frombuffer(raw, "<u8", count=len(raw) // 8)
    found = np.bitwise_xor.reduce(words[CHECKSUM // 8 :] * np.uint64(_FACTOR))
    return int(words[0]) == int(found) ^ _SEED


def _answers(path: str, requests: Iterator[str]) -> Iterator[str]:
    for request in requests:
        first, step = map(int, request.split())
        count, wrong = wrong_blocks(path, first, step)
        yield " ".join((str(count), *wrong))


def main(path: str) -> None:
    """The helper: a line with the number of blocks, and the damaged ones, for each line with a range."""
    for answer in _answers(path, iter(sys.stdin.readline, "")):
        print(answer, flush=True)
