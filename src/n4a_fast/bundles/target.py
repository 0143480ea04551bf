"""Where an export goes: a file or a folder that appears whole, by a rename, or not at all.

Missing parent folders are made. A file of that name is replaced, a folder is refused; a new folder
may take the place of an empty one, and of nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from n4a_fast.durable import sync
from n4a_fast.errors import InvalidInputError, StoreError, StoreUnavailableError


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target`, durably, when the block ends well, and goes away otherwise."""
    if target.is_dir():
        raise InvalidInputError(f"{target} is a folder; give the path of a file")
    draft = target.with_name(f".{uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        sync(draft)
        draft.replace(target)
        sync(target.parent)
    except StoreError:  # some are OSErrors too, and say more
        raise
    except OSError as error:
        raise StoreUnavailableError(target, error.strerror or str(error)) from error
    finally:
        _remove(draft)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `target`, durably, when the block ends well, and goes away otherwise."""
    draft = target.with_name(f".{uuid4().hex}.tmp")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidInputError(f"{target} exists already and is no empty folder; give the path of a new one")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        for path in (*draft.rglob("*"), draft):
            sync(path)
        draft.replace(target)
        sync(target.parent)
    except StoreError:  # some are OSErrors too, and say more
        raise
    except OSError as error:
        raise StoreUnavailableError(target, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_text(target: Path, text: str) -> Path:
    """`target`, once it holds `text` as UTF-8."""
    with new_file(target) as draft:
        draft.write_text(text, encoding="utf-8")
    return target


def _remove(draft: Path) -> None:
    try:
        draft.unlink()
    except OSError:
        pass  # renamed by now, or never made: a parent that is no folder says so in the error above
