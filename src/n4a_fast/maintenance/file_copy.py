"""A consistent copy of a store file that others go on writing to.

A first pass copies the blocks in slices, with the file for one slice at a time. The last pass has the file from its
beginning to its end, and copies the blocks whose checksums have changed meanwhile, the heads and what is left of the
log: 8 bytes are read of each block that has not. A helper process reads: a descriptor of the file that is closed in
this process would drop DuckDB's lock on it.
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
from n4a_fast.durable.duckdb_file import CHECKSUM, FIRST_BLOCK, DamagedFileError, DuckDBFile
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
        command = [sys.executable, "-I", "-S", "-c", _HELPER, _PACKAGE, str(source), str(target)]
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
            said = self._helper.communicate()[1].strip().rpartition("\n")[2] or str(error)
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
        file = self._file()
        last = min(first + BLOCKS_AT_ONCE, file.active.blocks)
        for block in range(first, last):
            self._write(file.block(block), file.place_of(block))
        return Copied(max(0, last - first), file.active.blocks)

    def finish(self) -> Copied:
        file, log = self._file(), self._log()
        blocks = file.active.blocks
        if log:  # it may refer to blocks behind those that the header knows
            blocks = max(blocks, -(-(os.fstat(self._source).st_size - FIRST_BLOCK) // file.active.block_size))
        changed = [block for block in range(blocks) if self._has_changed(file.place_of(block))]
        for block in changed:
            self._write(file.block(block), file.place_of(block))
        self._write(self._read(0, FIRST_BLOCK), 0)
        with _writing():
            os.ftruncate(self._target, file.place_of(blocks))
            platform.sync_file(self._target)
        if log:
            self._write_log(log)
        return Copied(len(changed), blocks)

    def _write(self, content: bytes, place: int) -> None:
        with _writing():
            platform.write_at(self._target, content, place)

    def _has_changed(self, place: int) -> bool:
        return self._read(place, CHECKSUM) != platform.read_at(self._target, CHECKSUM, place)

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

    def _file(self) -> DuckDBFile:
        file = DuckDBFile(self._read)
        if not file.is_known:
            raise DamagedFileError("the header does not match its checksum")
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
