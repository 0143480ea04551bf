"""The folder in which a new workspace is made: hidden, for one process at a time, gone afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from n4a_fast.durable.sync import sync
from n4a_fast.errors import StoreError, StoreLockedError, StoreUnavailableError


@contextmanager
def draft_in(holder: Path) -> Iterator[Path]:
    """An empty folder inside `holder`, which is removed with all that is left in it, from a killed process too.

    StoreLockedError while another process has one there; the kernel lets go of a killed one's lock.
    """
    draft = holder / "new"
    try:
        holder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(holder, os.O_RDONLY)
    except OSError as error:
        raise StoreUnavailableError(holder, error.strerror or str(error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
    except (BlockingIOError, FileNotFoundError) as error:  # held, or just removed by the one that held it
        os.close(descriptor)
        raise StoreLockedError(holder, None) from error
    try:
        yield draft
    except StoreError:
        raise
    except (OSError, sqlite3.Error) as error:  # a full disk, above all
        raise StoreUnavailableError(holder.parent, str(error)) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        os.close(descriptor)


def make_durable(folder: Path) -> None:
    """Everything in a folder survives a power loss."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
