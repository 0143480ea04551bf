"""A consistent copy of a store file that others go on writing to.

A first pass copies the blocks in slices, with the file for one slice at a time. The last pass has the file from its
beginning to its end, and copies the blocks that have changed meanwhile, the heads and what is left of the log. A helper
process reads: a descriptor of the file that is closed in this process would drop DuckDB's lock on it.

What can have changed follows from the headers. Until the checkpoint after the next, DuckDB writes to blocks that are
free in one of the headers, to metadata blocks, and behind the end. So where each look finds the header of the look
before, or the one after it, only these are compared; all are where a look has missed a header, or finds another file.
They are compared byte by byte: DuckDB's checksum of a block does not tell the order of its words, and rows that are
saved again in another order have the same one.

The system copies the slices, and shares them with the file where the disk can (Btrfs, XFS); where it will not, they are
read and written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.durable.duckdb_file import FIRST_BLOCK, NOWHERE, DamagedFileError, DuckDBFile
from n4a_fast.errors import DamagedStoreError, StoreUnavailableError

_HELPER = """import sys, types
package = types.ModuleType("n4a_fast"); package.__path__ = [sys.argv[1]]; sys.modules["n4a_fast"] = package
from n4a_fast.maintenance.file_copy import main; main(sys.argv[2], sys.argv[3])"""
_PACKAGE = str(Path(__file__).parents[1])
BLOCKS_AT_ONCE = 256  # 64 MB
_REFUSED = "refused: "


class Copied(NamedTuple):
    """Blocks that were written, of all that the file has."""

    written: int
    blocks: int


class FileCopy:
    """A helper process that copies one store file; the caller has the file attached during each call."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        command = [sys.executable, "-I", "-S", "-B", "-c", _HELPER, _PACKAGE, str(source), str(target)]
        self._helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def copy(self, first: int) -> Copied:
        """Copy `BLOCKS_AT_ONCE` blocks from `first` on."""
        return self._ask(f"copy {first}")

    def finish(self) -> Copied:
        """Copy what has changed since, the heads and the log; the copy is whole then, and synced."""
        return self._ask("finish")

    def _ask(self, request: str) -> Copied:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        try:
            self._helper.stdin.write(request + "\n")
            self._helper.stdin.flush()
            written, blocks = self._helper.stdout.readline().split()
            return Copied(int(written), int(blocks))
        except (OSError, ValueError) as error:
            said = self._helper.communicate()[1].strip().rpartition("\n")[2] or (
                f"the process that copies it was ended (code {self._helper.returncode}); try again"
            )
            if "DamagedFileError" in said:
                raise DamagedStoreError(self._source, said) from error
            if said.startswith(_REFUSED):  # by the disk of the copy, which the caller names
                refused = int(said.removeprefix(_REFUSED))
                raise OSError(refused, os.strerror(refused)) from error
            raise StoreUnavailableError(self._source, f"it could not be copied: {said}") from error

    def __enter__(self) -> FileCopy:
        return self

    def __exit__(self, *_error: object) -> None:
        self._helper.kill()
        self._helper.communicate()


class _Pass:
    """In the helper: the open source, and the draft of its copy."""

    def __init__(self, source: str, target: str) -> None:
        self._path, self._log_copy = source, f"{target}.wal"
        self._source = -1
        self._pinned = platform.pin(source)  # until this process ends: no other file gets its number
        self._changing: set[int] | None = set()  # blocks that can have changed since the first look; None: all can
        self._ends = NOWHERE  # as can those from here on
        self._looked_at: tuple[tuple[int, int], int] | None = None  # file and header of the last look
        with _writing():
            self._target = platform.open_regular(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def answer(self, request: str) -> Copied:
        """What a line asks for. The source is open meanwhile alone: on some systems it shuts DuckDB out."""
        word, *first = request.split()
        self._source = platform.open_regular(self._path)
        try:
            return self.copy(int(first[0])) if word == "copy" else self.finish()
        finally:
            os.close(self._source)

    def copy(self, first: int) -> Copied:
        file = self._look()
        last = min(first + BLOCKS_AT_ONCE, file.active.blocks)
        size, begin, end = file.active.block_size, file.place_of(first), file.place_of(max(first, last))
        copied = platform.copy_range(self._source, self._target, begin, end)
        for block in range(first + (copied - begin) // size, last):
            self._write(file.block(block), file.place_of(block))
        return Copied(max(0, last - first), file.active.blocks)

    def finish(self) -> Copied:
        file, log = self._look(), self._log()
        blocks = file.active.blocks
        if log:  # it may refer to blocks behind those that the header knows
            blocks = max(blocks, -(-(os.fstat(self._source).st_size - FIRST_BLOCK) // file.active.block_size))
        changed = 0
        for block in range(blocks):
            if self._changing is None or block in self._changing or block >= self._ends:
                changed += self._copy_if_changed(file, block)
        self._write(self._read(0, FIRST_BLOCK), 0)
        with _writing():
            os.ftruncate(self._target, file.place_of(blocks))
            platform.sync_file(self._target)
        if log:
            self._write_log(log)
        return Copied(changed, blocks)

    def _write(self, content: bytes, place: int) -> None:
        with _writing():
            platform.write_at(self._target, content, place)

    def _copy_if_changed(self, file: DuckDBFile, block: int) -> bool:
        content, place = file.block(block), file.place_of(block)
        is_changed = content != platform.read_at(self._target, len(content), place)
        if is_changed:
            self._write(content, place)
        return is_changed

    def _log(self) -> bytes:
        """What is committed and not moved into the file."""
        try:
            with open(f"{self._path}.wal", "rb") as log:
                return log.read()
        except FileNotFoundError:
            return b""

    def _write_log(self, content: bytes) -> None:
        with _writing(), open(self._log_copy, "wb") as copy:
            copy.write(content)
            copy.flush()
            platform.sync_file(copy.fileno())

    def _look(self) -> DuckDBFile:
        """The file as it is now; what can change until the next look is noted."""
        file = DuckDBFile(self._read)
        if not file.is_known:
            raise DamagedFileError("the header does not match its checksum")
        active, blocks, identity = file.active, file.blocks(), platform.identity_of(self._source)
        if self._looked_at not in (None, (identity, active.iteration), (identity, active.iteration - 1)):
            self._changing = None
        if self._changing is not None:
            self._changing |= blocks.free | set(blocks.metadata)
        self._looked_at, self._ends = (identity, active.iteration), min(self._ends, active.blocks)
        return file

    def _read(self, offset: int, length: int) -> bytes:
        return platform.read_at(self._source, length, offset)


@contextmanager
def _writing() -> Iterator[None]:
    """What the disk of the copy refuses ends the helper, with the number of the error as its last words."""
    try:
        yield
    except OSError as error:
        sys.exit(f"{_REFUSED}{error.errno}")


def main(source: str, target: str) -> None:
    """The helper: a line with the numbers of blocks for each line that asks for some."""
    copying = _Pass(source, target)
    for written, blocks in map(copying.answer, iter(sys.stdin.readline, "")):
        print(written, blocks, flush=True)
