"""What DuckDB's errors mean for a store file, told from their kind and text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from n4a_fast import platform
from n4a_fast.errors import (
    DamagedStoreError,
    InvalidInputError,
    MemoryLimitError,
    NotAStoreError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
)

_INTERRUPTED = "Query interrupted"  # the RuntimeError that DuckDB makes of Ctrl-C
_DAMAGE = re.compile("Could not read (enough|all) bytes|Corrupt|corrupt|checksum|replaying WAL|Failed to load metadata")
# of functions that unpack a value that they are given, not of a file
_BAD_VALUE = re.compile("would exceed buffer capacity")
_NO_MEMORY = re.compile(r"failed to pin block")  # in a commit it has no class of its own
_HOLDER = re.compile(r"\(PID (\d+)\)")


@contextmanager
def interrupts_told() -> Iterator[None]:
    """What DuckDB makes of Ctrl-C during a statement is the KeyboardInterrupt that it was."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from error
        raise


def translated(path: Path, error: duckdb.Error) -> StoreError:
    """The error of ours that says the same of the file at `path`."""
    text = str(error).strip()
    if is_lock_conflict(path, error):
        holder = _HOLDER.search(text)
        return StoreLockedError(path, int(holder.group(1)) if holder else None)
    if "replaying WAL" in text and "does not match" in text and "checksum" not in text:
        log = path.with_name(path.name + ".wal")
        cure = f"bring the {path.name} back that it belongs to, or move it out of the folder"
        return StoreUnavailableError(log, f"it is the log of another file than this {path.name}", cure)
    if "Unique file handle conflict" in text:
        return StoreLockedError(path, os.getpid())
    if isinstance(error, duckdb.OutOfMemoryException) or _NO_MEMORY.search(text):
        return MemoryLimitError(path, text.splitlines()[0])
    if isinstance(error, duckdb.IOException) and "not a valid DuckDB database" in text:
        return NotAStoreError(path, "not a DuckDB file")
    if isinstance(error, duckdb.SerializationException):
        return DamagedStoreError(path, text)
    if isinstance(error, duckdb.ProgrammingError | duckdb.DataError):
        return InvalidInputError(text)
    if _BAD_VALUE.search(text):
        return InvalidInputError(text)
    if _DAMAGE.search(text):  # a wrong checksum has no class of its own
        return DamagedStoreError(path, text)
    return StoreUnavailableError(path, text)


def is_lock_conflict(path: Path, error: duckdb.Error) -> bool:
    """Whether another process has the file."""
    return isinstance(error, duckdb.IOException) and platform.is_in_use(path, str(error))
