"""The folder in which a new workspace is made: hidden, for one process at a time, gone afterwards."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from n4a_fast.durable.sync import sync
from n4a_fast.errors import StoreError, StoreLockedError, StoreUnavailableError
from n4a_fast.platform import FileLock


@contextmanager
def draft_in(holder: Path) -> Iterator[Path]:
    """An empty folder inside `holder`, which is removed with all that is left in it, from a killed process too.

    StoreLockedError while another process has one there; the kernel lets go of a killed one's lock.
    """
    draft, lock = holder / "new", FileLock(holder)
    try:
        holder.mkdir(parents=True, exist_ok=True)
        if not lock.acquire(0.0):
            raise StoreLockedError(holder, None)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
    except FileNotFoundError as error:  # just removed by the one that held it
        lock.close()
        raise StoreLockedError(holder, None) from error
    except StoreLockedError:
        lock.close()
        raise
    except OSError as error:
        lock.close()
        raise StoreUnavailableError(holder, error.strerror or str(error)) from error
    try:
        yield draft
    except StoreError:
        raise
    except (OSError, sqlite3.Error) as error:  # a full disk, above all
        raise StoreUnavailableError(holder.parent, str(error)) from error
    finally:
        lock.remove_folder()


def make_durable(folder: Path) -> None:
    """Everything in a folder survives a power loss."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
