"""Parts of nirs4all 1.x that read `store.sqlite` themselves, past the store: here they read ours.

In these modules alone, the names `Path` and `sqlite3` are exchanged. A path tells that `store.sqlite` is
there where a store of ours is, and a connection to it answers from that store, read-only. Files that
are there are nirs4all's own business. `workspace.upgrade` stays out: it works on files of SQLite.
"""

from __future__ import annotations

import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from n4a_fast import platform
from n4a_fast.artifacts.claims import SAVING, Claims
from n4a_fast.artifacts.gc import ORPHAN_AGE_SECONDS, is_claimed
from n4a_fast.engine.session import Session
from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.integrations.nirs4all.hosting import SQLITE_FILE
from n4a_fast.integrations.nirs4all.rows_by_name import RowConnection
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

MODULES = (
    "nirs4all.api.inspector_views",
    "nirs4all.api.studio_lineage",
    "nirs4all.cli.commands.workspace",
    "nirs4all.pipeline.dagml.general_workspace",
    "nirs4all.pipeline.storage.artifacts.artifact_registry",
    "nirs4all.pipeline.storage.model_catalogue",
    "nirs4all.pipeline.storage.prediction_export",
    "nirs4all.pipeline.storage.workspace_read_contract",
    "nirs4all.workspace.compat",
)
_EXCHANGED = "_n4a_fast_exchanged"  # what a module had under the names that were exchanged


class _AnyPath(type):
    """Every path counts as one of these, as it did before the exchange."""

    def __instancecheck__(cls, found: object) -> bool:
        return isinstance(found, pathlib.Path)


class StorePath(type(pathlib.Path()), metaclass=_AnyPath):  # type: ignore[misc]
    """A path to whom a store of ours counts as nirs4all's."""

    def is_file(self, **options: Any) -> bool:
        """Whether the file is there, or a store of ours in its place."""
        return bool(super().is_file(**options)) or _stands_for_ours(self)

    def exists(self, **options: Any) -> bool:
        """Whether something is there, or a store of ours in its place."""
        return bool(super().exists(**options)) or _stands_for_ours(self)

    def rglob(self, pattern: Any, **options: Any) -> Iterator[Any]:
        """Everything below; not what a store of ours keeps for its saves, and not what a running save claims, or
        nirs4all itself is writing: it would delete that as orphans.
        """
        found = (each for each in super().rglob(pattern, **options) if not (_is_for_saves(each) or _is_draft(each)))
        artifacts = _artifacts_around(self)
        if artifacts is None:
            return found
        with _claimed(artifacts) as claimed:
            return iter([each for each in found if not is_claimed(_name_in(artifacts, each), claimed)])

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file; an artifact of a store of ours stays if a save has come to use it since it was listed."""
        artifacts = _artifacts_around(self.parent)
        if artifacts is None or not os.path.lexists(self):
            super().unlink(missing_ok)
            return
        with Store1x(artifacts.parent) as store:
            store._open(writing=True).deletions.delete_file(_name_in(artifacts, self))


class ReadConnection(RowConnection):
    """A connection of its own to a store, as plain SQLite gives one."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._opened = Store1x.open_readonly(folder)
        super().__init__(self._opened, times_as_text=True)

    def close(self) -> None:
        """Let go of the store."""
        self._opened.close()

    def __enter__(self) -> ReadConnection:
        return self

    def __exit__(self, *_: object) -> None:
        """The connection stays open, as SQLite's does."""


class _Sqlite3:
    """The module `sqlite3`, for which a store of ours is a database too."""

    def connect(self, database: Any, *args: Any, **options: Any) -> Any:
        """A connection to a file of SQLite, or to the store that stands in its place."""
        path = pathlib.Path(_path_of(str(database)))
        if not path.exists() and _stands_for_ours(path):
            return ReadConnection(path.parent)
        return sqlite3.connect(database, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


_PLACES: dict[str, Any] = {"Path": StorePath, "sqlite3": _Sqlite3()}


def exchange(module: ModuleType) -> None:
    """Let a module find our stores; again is a no-op."""
    names = vars(module)
    if _EXCHANGED not in names:
        names[_EXCHANGED] = {name: names[name] for name in _PLACES if name in names}
        names.update({name: _PLACES[name] for name in names[_EXCHANGED]})


def give_back(module: ModuleType) -> None:
    """What `exchange` replaced."""
    vars(module).update(vars(module).pop(_EXCHANGED, {}))


def _stands_for_ours(path: pathlib.Path) -> bool:
    return path.name == SQLITE_FILE and pathlib.Path(path.parent, STORE_FILE).is_file()


def _is_for_saves(path: pathlib.Path) -> bool:
    """Whether a path is, or lies below, the folder of drafts and locks of a store's artifacts."""
    parts = path.parts
    return SAVING in parts and pathlib.Path(*parts[: parts.index(SAVING) - 1], STORE_FILE).is_file()


def _is_draft(path: pathlib.Path) -> bool:
    """Whether nirs4all may still write to this file, which it will give another name."""
    if not (path.name.startswith(".") and path.suffix == ".tmp" and _artifacts_around(path.parent)):
        return False
    try:
        return path.lstat().st_mtime > time.time() - ORPHAN_AGE_SECONDS
    except FileNotFoundError:
        return True  # it has it now


def _artifacts_around(path: pathlib.Path) -> pathlib.Path | None:
    """The folder of artifacts of a store of ours that is, or holds, this folder."""
    for folder in (pathlib.Path(path), *pathlib.Path(path).parents):
        if folder.name == "artifacts" and (folder.parent / STORE_FILE).is_file():
            return folder
    return None


@contextmanager
def _claimed(artifacts: pathlib.Path) -> Iterator[frozenset[str]]:
    """What running saves claim; who claims more waits for the end of the block, and looks whether it is there.
    Nothing where nothing can be removed.
    """
    if not platform.is_writable_folder(artifacts):
        yield frozenset()
        return
    claims = Claims(artifacts / SAVING, Session(artifacts.parent / STORE_FILE))
    try:
        yield claims.lock()
    finally:
        claims.unlock()
        claims.close()


def _name_in(artifacts: pathlib.Path, path: pathlib.Path) -> str:
    """The file as rows and claims name it."""
    return path.relative_to(artifacts).as_posix()


def _path_of(database: str) -> str:
    return unquote(urlsplit(database).path) if database.startswith("file:") else database
