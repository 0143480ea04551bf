"""Where an export goes: a file or a folder that appears whole, by a rename, or not at all.

Missing parent folders are made. A file of that name is replaced, a folder is refused; a new folder
may take the place of an empty one, and of another one only where the caller says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from n4a_fast import platform
from n4a_fast.durable.sync import disk_errors_told, make_folder, sync
from n4a_fast.errors import InvalidInputError


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target`, durably, when the block ends well, and goes away otherwise."""
    with _draft_of(target) as draft:
        if target.is_dir():
            raise InvalidInputError(f"{target} is a folder; give the path of a file")
        yield draft


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `target`, durably, when the block ends well, and goes away otherwise."""
    with _draft_of(target) as draft:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidInputError(f"{target} exists already and is no empty folder; give the path of a new one")
        draft.mkdir()
        yield draft


@contextmanager
def replaced_folder(target: Path, kept: Path | None = None) -> Iterator[Path]:
    """Like `new_folder`, in place of what `target` is now, which goes, or is kept under another name. The two change
    places in one step where the system can; elsewhere the old one is `.<name>.previous` for a moment.
    """
    with _draft_of(target, lambda draft: _take_the_place(draft, target, kept)) as draft:
        if target.exists() and not target.is_dir():
            raise InvalidInputError(f"{target} is no folder; give the path of one")
        draft.mkdir()
        yield draft


def _take_the_place(draft: Path, target: Path, kept: Path | None) -> None:
    if not target.exists():
        platform.replace(draft, target)
        return
    if not platform.exchange(draft, target):
        previous = target.with_name(f".{target.name}.previous")
        platform.replace(target, previous)
        platform.replace(draft, target)
        platform.replace(previous, draft)
    if kept is not None:
        platform.replace(draft, kept)


@contextmanager
def _draft_of(target: Path, publish: Callable[[Path], object] | None = None) -> Iterator[Path]:
    if not target.name or "\0" in str(target):
        raise InvalidInputError(f"{str(target)!r} names no file; give the path of one")
    draft = target.with_name(f".{uuid4().hex}.tmp")
    try:
        with disk_errors_told(target):
            make_folder(target.parent)
            yield draft
            for path in (*draft.rglob("*"), draft):
                sync(path)
            (publish or (lambda draft: platform.replace(draft, target)))(draft)
            sync(target.parent)
    finally:
        _remove(draft)


def with_suffix(target: Path, suffix: str) -> Path:
    """`target` with `suffix`, unless it has one."""
    return target if target.suffix or not target.name else target.with_name(target.name + suffix)


def write_text(target: Path, text: str) -> Path:
    """`target`, once it holds `text` as UTF-8."""
    with new_file(target) as draft:
        draft.write_text(text, encoding="utf-8")
    return target


def _remove(draft: Path) -> None:
    """What is left of a draft: nothing once it was renamed."""
    shutil.rmtree(draft, ignore_errors=True)
    with suppress(OSError):  # never made: a parent that is no folder was told already
        draft.unlink()
