"""Where an export goes: a file or a folder that appears whole, by a rename, or not at all.

Missing parent folders are made. A file of that name is replaced, a folder is refused; a new folder
may take the place of an empty one, and of another one only where the caller says so. What is being
written lies in a hidden folder beside its target, which is locked meanwhile: what a killed process
left goes with the next export to the same place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from n4a_fast import platform
from n4a_fast.durable.sync import disk_errors_told, make_folder, sync
from n4a_fast.errors import InvalidInputError
from n4a_fast.platform import FileLock

_SHOWN = 32  # characters of the target's name in that of its draft: names are limited to 255 bytes


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
    places in one step where the system can; elsewhere the old one is `.<name>.<number>.previous` for a moment.
    """
    with _draft_of(target, lambda draft: _take_the_place(draft, target, kept)) as draft:
        if target.exists() and not target.is_dir():
            raise InvalidInputError(f"{target} is no folder; give the path of one")
        draft.mkdir()
        yield draft


def remove_folder(target: Path) -> None:
    """Take a folder away, durably and in one step."""
    with disk_errors_told(target), _hidden_folder(target) as hidden:
        platform.replace(target, hidden / target.name)
        sync(target.parent)


def _take_the_place(draft: Path, target: Path, kept: Path | None) -> None:
    if not target.exists():
        platform.replace(draft, target)
        return
    if kept is not None:  # so that neither is ever hidden
        platform.replace(draft, kept)
        draft = kept
    if not platform.exchange(draft, target):
        previous = target.with_name(f".{target.name}.{uuid4().hex}.previous")
        platform.replace(target, previous)
        try:
            platform.replace(draft, target)
        except BaseException:  # an interrupt, too
            platform.replace(previous, target)
            raise
        platform.replace(previous, draft)


@contextmanager
def _draft_of(target: Path, publish: Callable[[Path], object] | None = None) -> Iterator[Path]:
    if not target.name or "\0" in str(target):
        raise InvalidInputError(f"{str(target)!r} names no file; give the path of one")
    with disk_errors_told(target):
        make_folder(target.parent)
        with _hidden_folder(target) as folder:
            draft = folder / target.name
            yield draft
            for path in (*draft.rglob("*"), draft):
                sync(path)
            (publish or (lambda draft: platform.replace(draft, target)))(draft)
            sync(target.parent)


@contextmanager
def _hidden_folder(target: Path) -> Iterator[Path]:
    """A new folder beside the target, gone at the end; those of processes that were killed go first."""
    beginning = f".{target.name[:_SHOWN]}."
    _remove_left(target.parent, beginning)
    folder, lock = _locked_folder(target.parent, beginning)
    try:
        yield folder
    finally:
        lock.remove_folder()


def _locked_folder(parent: Path, beginning: str) -> tuple[Path, FileLock]:
    while True:
        folder = parent / f"{beginning}{uuid4().hex}.tmp"
        folder.mkdir()
        lock = FileLock(folder)
        with suppress(FileNotFoundError):  # another process took it for a dead one's before it was locked
            with suppress(platform.LocksUnsupportedError):
                lock.acquire()
            if lock.is_this_file():
                return folder, lock
        lock.close()


def _remove_left(parent: Path, beginning: str) -> None:
    pattern = re.compile(re.escape(beginning) + "[0-9a-f]{32}[.]tmp")
    for name in filter(pattern.fullmatch, os.listdir(parent)):
        lock = FileLock(parent / name)
        try:
            if lock.acquire(0.0):
                lock.remove_folder()
        except OSError:  # gone meanwhile, another user's, or a disk without locks
            continue
        finally:
            lock.close()


def with_suffix(target: Path, suffix: str) -> Path:
    """`target` with `suffix`, unless it has one."""
    return target if target.suffix or not target.name else target.with_name(target.name + suffix)


def write_text(target: Path, text: str) -> Path:
    """`target`, once it holds `text` as UTF-8, with its line ends as they are."""
    with new_file(target) as draft:
        draft.write_bytes(text.encode())
    return target
