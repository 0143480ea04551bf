"""What a kill or a power loss cut in a DuckDB file or in its log, made whole before DuckDB looks at it.

**Blocks.** A checkpoint puts new metadata into free parts of metadata blocks that the durable header still needs,
and writes each such block in place, as a whole, under one checksum. The parts in use do not change. Cut, a block
holds all that the header needs under a wrong checksum, and DuckDB refuses the file for good. All that is new is
also in the log, which ends with the mark of the checkpoint, synced before the first block is written. So metadata
blocks with free parts get the checksum of what they hold, and DuckDB replays its log. A metadata block without free
parts is never rewritten, nor is a data block in use: a wrong checksum there is other damage, and stays an error.

**The log.** DuckDB drops an entry that ends too early, and refuses one of full length with a wrong checksum, which a
power loss leaves where the disk wrote sectors out of order. Nobody was told that this transaction is stored: the log
is cut behind the one before it. With another transaction behind it, it is other damage, and stays an error.

At rest there is no log: looking for it is all that a sound file costs (microseconds). Where there is one, a helper
process looks: a descriptor of the file that is closed in this process would drop the lock of a connection that this
process may have. The helper takes DuckDB's own lock, without waiting, before it reads.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.duckdb_file import (
    TAIL,
    DamagedFileError,
    DuckDBFile,
    checksummed,
    end_of_log,
    is_whole,
    unfinished_checkpoint,
)
from n4a_fast.errors import StoreUnavailableError, UnsafePathError

# those whose checkpoints are known to leave the parts in use alone; `tests/crash/test_torn_pages.py` looks at each
KNOWN_VERSIONS = ("2.0.",)
_SECONDS = 120.0
_WHOLE, _FORBIDDEN, _PASSED_OVER = "whole", "forbidden", "passed over"  # what the helper says
# without this package's own __init__, which imports all of it
_HELPER = """import sys, types
package = types.ModuleType("n4a_fast"); package.__path__ = [sys.argv[1]]; sys.modules["n4a_fast"] = package
from n4a_fast.durable.torn_pages import main; main(sys.argv[2])"""
_PACKAGE = str(Path(__file__).parents[1])


def mend_before_attaching(path: Path, duckdb_version: str) -> None:
    """Make whole what a crash cut. Nothing happens when there is no log, when the file is in use, or when its damage is
    of another kind; StoreUnavailableError when there is something to do and this user may not write, UnsafePathError
    for a log that is no file.
    """
    state = _state(path)
    if state is None or _LOOKED_AT.get(path) == state:
        return
    if not duckdb_version.startswith(KNOWN_VERSIONS) or not sys.executable:
        return
    command = [sys.executable, "-I", "-S", "-B", "-c", _HELPER, _PACKAGE, str(path)]
    try:
        helper = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        raise StoreUnavailableError(path, f"what a crash left could not be looked at: {reason}") from error
    found = helper.stdout.strip()
    if found == _FORBIDDEN:
        raise StoreUnavailableError(
            path, "a crash cut its last write", "open it once with permission to write, which makes it whole"
        )
    if found == _WHOLE:
        _LOOKED_AT[path] = state


def mend(path: str) -> str:
    """In the helper: make file and log whole, durably, if that is allowed, and say so."""
    try:
        opened = platform.open_unshared(path)
    except OSError:
        return _PASSED_OVER  # attaching tells why
    if opened is None:
        return _PASSED_OVER  # in use, and whole
    descriptor, may_write = opened
    try:
        file = DuckDBFile(lambda offset, length: platform.read_at(descriptor, length, offset))
        if not file.is_known:
            return _PASSED_OVER
        mended = _mend_log(f"{path}.wal") and _mend_blocks(path, file, descriptor, may_write)
        return _WHOLE if mended else _FORBIDDEN
    except (FileNotFoundError, DamagedFileError):
        return _PASSED_OVER  # there is no log any more, or damage of another kind: attaching tells
    except PermissionError:
        return _FORBIDDEN
    finally:
        os.close(descriptor)


def _mend_log(path: str) -> bool:
    with open(path, "rb") as log:
        end = end_of_log(log.read())
    if end is not None:
        with open(path, "r+b") as log:
            log.truncate(end)
            platform.sync_file(log.fileno())
    return True


def _mend_blocks(path: str, file: DuckDBFile, descriptor: int, may_write: bool) -> bool:
    torn = _torn_blocks(path, file)
    if torn and not may_write:
        return False
    for place, content in torn.values():
        platform.write_at(descriptor, content, place)
    if torn:
        platform.sync_file(descriptor)
    return True


def _torn_blocks(path: str, file: DuckDBFile) -> dict[int, tuple[int, bytes]]:
    """By block, where its checksum is and what it should be; none when a block is beyond this cure."""
    with open(f"{path}.wal", "rb") as log:
        log.seek(max(os.fstat(log.fileno()).st_size - TAIL, 0))
        root = unfinished_checkpoint(log.read())
    active = file.active
    if root is None or root == active.root:  # with the header of the checkpoint, all else of it is there, too
        return {}
    torn = {}
    for block, free_parts in sorted(file.blocks().metadata.items()):
        if not free_parts:
            continue
        raw = file.block(block)
        if len(raw) < active.block_size or is_whole(raw):
            continue
        if not file.pointers_are_plausible(raw, free_parts):
            return {}
        torn[block] = file.place_of(block), checksummed(raw)
    return torn


def _state(path: Path) -> tuple[int, ...] | None:
    """Another one once anything was written to the file or to its log; None where there is no log, or none to read.
    UnsafePathError for a log that is no file.
    """
    try:
        found = os.lstat(f"{path}.wal"), os.stat(path)
    except OSError:  # attaching tells why
        return None
    if not stat.S_ISREG(found[0].st_mode):  # DuckDB would wait for a pipe, and write through a link
        raise UnsafePathError(f"{path}.wal", path.parent, "is no file")
    numbers = tuple(n for each in found for n in (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns))
    return numbers if found[0].st_size else None


def main(path: str) -> None:
    """The helper."""
    print(mend(path))


_LOOKED_AT: dict[Path, tuple[int, ...]] = {}  # by this process, which attaches a file twice to open it; found whole
