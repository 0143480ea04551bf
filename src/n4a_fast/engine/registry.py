"""The workspaces that are open in this process: one for each store file, shared by all stores on it.

DuckDB refuses a second attachment of a file in one process. What nobody closed is closed at exit;
after a fork the child's workspaces start anew.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path

from n4a_fast import platform, schema
from n4a_fast.artifacts.settings import DEFAULTS, ArtifactSettings
from n4a_fast.durable.sync import make_folder
from n4a_fast.engine.refusals import told
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import InvalidInputError, StoreMovedError, StoreUnavailableError
from n4a_fast.memtable.buffer import FlushLimits
from n4a_fast.values import checks


def open_workspace(
    path: Path,
    *,
    read_only: bool,
    lock_timeout: float,
    limits: FlushLimits | None = None,
    artifacts: ArtifactSettings = DEFAULTS,
) -> Workspace:
    """The workspace at `path`, shared with the stores of this process that have it open; created if need be; `limits`
    are those of the last to give any.
    """
    checks.seconds(lock_timeout, "lock_timeout")
    if "\0" in str(path):
        raise InvalidInputError(f"{str(path)!r} cannot be the path of a folder")
    root = Path(os.path.realpath(path))
    refused = sorted(set(str(root)).intersection("?\\") - {os.sep})
    if refused:
        raise InvalidInputError(
            f"{str(root)!r} cannot be the path of a workspace: DuckDB does not take"
            f" {' and '.join(map(repr, refused))} in a path literally; rename the folder"
        )
    if root.is_file():
        folder = repr(str(root.parent)) if root.name == STORE_FILE else "of the workspace"
        raise StoreUnavailableError(root, "it is a file", f"give the folder {folder}")
    with _OPENING:
        shared = _open_on(root)
        if not read_only and (shared is None or shared.database.read_only):
            _make_folders(root)
        if shared is None:
            shared = _opened(root, read_only, lock_timeout, limits or FlushLimits())
            _OPEN.append(shared)
        elif not read_only:
            shared.buffer.log.begin()
            shared.database.read_only = False  # the next statement attaches the file for writing
        shared.buffer.limits = limits or shared.buffer.limits
        shared.artifacts.use(artifacts)
        shared.users += 1
        return shared


def _open_on(root: Path) -> Workspace | None:
    """The open workspace whose file lies at `root`, under whatever path it was opened. Workspaces whose file has
    gone, or lies elsewhere now, give way: the path is another one's.
    """
    store = root / STORE_FILE
    file = platform.identity(store) if store.is_file() else None
    for workspace in list(_OPEN):
        if workspace.root == root or workspace.database.identity.file == file:
            try:
                workspace.database.require_same_file()
                return workspace
            except StoreMovedError as error:
                workspace.database.abandon(error.happened)
                _OPEN.remove(workspace)
    return None


def _opened(root: Path, read_only: bool, lock_timeout: float, limits: FlushLimits) -> Workspace:
    workspace = Workspace(root, read_only=read_only, lock_timeout=lock_timeout, limits=limits)
    try:
        if not read_only:
            workspace.session.begin()
        schema.prepare(workspace.database)
        if not read_only:
            workspace.buffer.log.begin()
    except BaseException:
        workspace.session.end()
        workspace.database.close()
        raise
    return workspace


def release_workspace(workspace: Workspace, artifacts: ArtifactSettings = DEFAULTS) -> None:
    """One user less; the last one closes the file. What could not be written raises, and can be tried again, unless the
    file is no longer there.
    """
    with told(workspace.root), _OPENING, workspace.lock:
        try:
            (workspace.flush if workspace.users > 1 else workspace.close)()
        except StoreMovedError:
            _leave(workspace, artifacts)
            raise
        _leave(workspace, artifacts)


def _leave(workspace: Workspace, artifacts: ArtifactSettings) -> None:
    workspace.users -= 1
    workspace.artifacts.leave(artifacts)
    if not workspace.users and workspace in _OPEN:  # it is not when its file had gone, and the path was opened again
        _OPEN.remove(workspace)


def _make_folders(root: Path) -> None:
    try:
        make_folder(root / "artifacts")
        if not platform.is_writable_folder(root):
            raise PermissionError("the folder is not writable")
    except OSError as error:
        raise StoreUnavailableError(root, error.strerror or str(error)) from error


def _forget_all_after_fork() -> None:
    global _OPENING
    _OPENING = threading.RLock()
    for workspace in _OPEN:
        workspace.forget_after_fork()


def _close_all_at_exit() -> None:
    """A store that nobody closed still keeps what was saved."""
    for workspace in list(_OPEN):
        try:
            workspace.close()
        except StoreMovedError as error:  # a temporary folder that has gone: nothing can be done for it
            print(f"n4a_fast: {error}", file=sys.stderr)
    _OPEN.clear()


_OPEN: list[Workspace] = []
_OPENING = threading.RLock()
os.register_at_fork(after_in_child=_forget_all_after_fork)
atexit.register(_close_all_at_exit)
