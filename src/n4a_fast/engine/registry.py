"""The workspaces that are open in this process: one for each folder, shared by all stores on it.

DuckDB refuses a second attachment of a file in one process. What nobody closed is closed at exit;
after a fork the child's workspaces start anew.
"""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import sys
import threading
from pathlib import Path

from n4a_fast import platform
from n4a_fast.artifacts.settings import DEFAULTS, ArtifactSettings
from n4a_fast.engine import ending
from n4a_fast.engine.living import Living
from n4a_fast.engine.refusals import told
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import InvalidInputError, StoreClosedError, StoreMovedError, StoreUnavailableError
from n4a_fast.memtable.buffer import AT_ONCE, FlushLimits
from n4a_fast.values import checks


def open_workspace(
    path: Path,
    *,
    read_only: bool,
    lock_timeout: float,
    limits: FlushLimits | None = None,
    artifacts: ArtifactSettings = DEFAULTS,
    memory_limit: int | None = None,
) -> Workspace:
    """The workspace at `path`, shared with the stores of this process that have it open; created if need be; `limits`
    and `memory_limit` are those of the last to give any.
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
    with told(root):
        if root.is_file():
            folder = repr(str(root.parent)) if root.name == STORE_FILE else "of the workspace"
            raise StoreUnavailableError(root, "it is a file", f"give the folder {folder}")
        workspace = _joined(root, read_only, lock_timeout, limits)
        try:
            workspace.database.use_memory(memory_limit)
            workspace.prepare(writing=not read_only)
            workspace.artifacts.use(artifacts)
            workspace.buffer.use(AT_ONCE if ending.is_ending() else limits)
            workspace.keep_watch()
        except BaseException:
            workspace.leave()
            raise
        return workspace


def _joined(root: Path, read_only: bool, lock_timeout: float, limits: FlushLimits | None) -> Workspace:
    """The workspace of a folder, with one user more. One whose file has gone, or lies elsewhere now, gives way: the
    path is another one's.
    """
    _close_at_end_of_worker()
    while True:
        with _REGISTRY:
            if ending.refuses_this_thread():
                raise StoreClosedError(root)
            workspace = _open_on(root)
            if workspace is None or not workspace.join():
                workspace = Workspace(
                    root, read_only=read_only, lock_timeout=lock_timeout, limits=limits or FlushLimits()
                )
                workspace.join()
                _OPEN.add(workspace)
        try:
            workspace.database.wait_at_most(lock_timeout)
            workspace.database.require_same_file()
            return workspace
        except StoreMovedError as error:
            workspace.database.abandon(error.happened)
            workspace.leave()
            with _REGISTRY:
                _OPEN.discard(workspace)
        except BaseException:
            workspace.leave()
            raise


def _open_on(root: Path) -> Workspace | None:
    """The open workspace whose file lies at `root`, under whatever path it was opened."""
    store = root / STORE_FILE
    file = platform.identity(store) if store.is_file() else None
    return next(
        (each for each in _all_open() if each.root == root or each.database.identity.file == file is not None), None
    )


def _all_open() -> list[Workspace]:
    return [each for each in _OPEN if not each.is_closed]


def _forget_all_after_fork() -> None:
    global _REGISTRY
    _REGISTRY = threading.RLock()
    for workspace in _all_open():
        workspace.forget_after_fork()


def _close_all_at_exit() -> None:
    """A store that nobody closed still keeps what was saved: calls that save end first, later ones raise."""
    with _REGISTRY:
        ending.begin_end()
        workspaces = _all_open()
    for workspace in workspaces:
        try:
            _close_at_exit(workspace)
        except Exception as error:  # whatever it is, the others are closed, too, and it is told
            print(f"n4a_fast: {workspace.root} could not be closed at exit: {error}", file=sys.stderr)
    ending.end_all()


def _close_at_exit(workspace: Workspace) -> None:
    if not workspace.database.acquire_at_end():
        raise TimeoutError("a thread is still inside a call or a transaction(), whose rows are lost")
    try:
        workspace.finish()
    finally:
        workspace.shut()
        workspace.lock.release()


def _close_all_in_worker() -> None:
    """At the end of a child of `multiprocessing`, which runs nothing else at exit."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    _close_all_at_exit()


def _close_at_end_of_worker() -> None:
    if multiprocessing.parent_process() is not None and os.getpid() not in _WORKERS:
        _WORKERS.add(os.getpid())
        multiprocessing.util.Finalize(None, _close_all_in_worker, exitpriority=-10)


_OPEN = Living[Workspace]()
_REGISTRY = threading.RLock()  # held for moments, while nothing is waited for
_WORKERS: set[int] = set()  # this process, once it is told of the end of a worker
platform.at_fork(in_child=_forget_all_after_fork)
atexit.register(_close_all_at_exit)
