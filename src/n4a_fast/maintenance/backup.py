"""Copies of a workspace: made beside running writers, verified, put in place by one rename, brought back.

A backup is a workspace folder, to be opened like any other, with `backup.json` beside the store. It holds the
store file, the artifacts that its rows name, the templates, and the shards below the workspace, each a workspace
again. Shards are copied first: one that is merged meanwhile is in both, and merging it again adds nothing; one that
is removed then is not in the backup.
Artifacts are never changed in place, so they are linked where the disk allows it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.durable import plain_files
from n4a_fast.durable.publish import new_folder, replaced_folder
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import (
    ArtifactMissingError,
    DamagedStoreError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    StoreLockedError,
)
from n4a_fast.maintenance.file_copy import BLOCKS_AT_ONCE, FileCopy
from n4a_fast.maintenance.findings import Progress
from n4a_fast.maintenance.verify import check_copy
from n4a_fast.merging.shards import FOLDER as SHARDS
from n4a_fast.merging.shards import is_there, opened_shard, shard_files, shards_below, unless_removed
from n4a_fast.values.notebook import report_cell, report_text
from n4a_fast.version import __version__

NOTE = "backup.json"
_FOLDERS = ("library",)  # whole, beside the store and its artifacts
Address = tuple[str, str, str]  # id, path, hash


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A finished backup or restore."""

    path: Path
    artifacts: int
    unchanged: int  # artifacts that the backup before had already
    nbytes: int  # of the store files
    replaced: Path | None  # where a restore keeps what it has replaced
    seconds: float

    def __str__(self) -> str:
        files = f"{self.artifacts:,} artifacts, {self.unchanged:,} of them there already"
        kept = f"; what was there is kept in {self.replaced}" if self.replaced else ""
        return f"{self.path}: {self.nbytes / 1e6:,.1f} MB of rows, {files}, verified in {self.seconds:.1f} s{kept}"

    def __repr__(self) -> str:
        return report_text(str(self))

    def _repr_html_(self) -> str | None:
        return report_cell(str(self), ())


def backup(workspace: Workspace, to: Path, incremental: bool, progress: Progress | None) -> BackupReport:
    """A verified copy of everything committed and flushed at one moment, in place of the one that `to` may hold."""
    begun, target, say = time.monotonic(), Path(os.path.realpath(to)), progress or _silent
    _require_place_for_backup(workspace, target)
    former = target if incremental and (target / NOTE).is_file() else None
    with replaced_folder(target) as draft:
        copied = _copy_all(workspace, draft, former, say)
        (draft / NOTE).write_bytes(_note(workspace).encode())
        check_copy(draft, workspace.root, say)
    return copied.report(target, None, begun)


def restore(source: Path, to: Path, replace: bool, progress: Progress | None) -> BackupReport:
    """A workspace made of a backup, verified before it takes its place; what it replaces is kept beside it."""
    begun, target, say = time.monotonic(), Path(os.path.realpath(to)), progress or _silent
    source = Path(os.path.realpath(source))
    if not (source / STORE_FILE).is_file():
        raise NotFoundError("backup", str(source), "check the path: a backup has a store.duckdb", where="")
    _require_beside(source, target, "the backup")
    for name in (*_FOLDERS, SHARDS):  # a backup holds no links; this may be somebody else's
        plain_files.require_plain_files(source / name)
    kept = None
    if replace and target.exists():
        kept = _kept_beside(target)
        _require_unused(target)
    opened = replaced_folder(target, kept) if kept else new_folder(target)
    workspace = open_workspace(source, read_only=True, lock_timeout=30.0)
    try:
        with opened as draft:
            copied = _copy_all(workspace, draft, None, say)
            check_copy(draft, source, say)
    finally:
        workspace.release()
    return copied.report(target, kept, begun)


def _kept_beside(target: Path) -> Path:
    """A free name for what is replaced, with the time: two restores may come within one second, or a clock go back."""
    name = f"{target.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    names = (target.with_name(f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(path for path in names if not os.path.lexists(path))


class _Copied(NamedTuple):
    """Artifacts of a workspace and its shards, and how many of them a former backup had."""

    artifacts: int
    unchanged: int

    def report(self, target: Path, replaced: Path | None, begun: float) -> BackupReport:
        nbytes = sum(path.stat().st_size for path in (target / STORE_FILE, *shard_files(target)))
        return BackupReport(target, *self, nbytes, replaced, round(time.monotonic() - begun, 3))


def _copy_all(workspace: Workspace, draft: Path, former: Path | None, say: Progress) -> _Copied:
    """A workspace with its templates and shards, below a new folder."""
    shards = _copy_shards(workspace, draft, former)
    for name in _FOLDERS:
        if (workspace.root / name).is_dir():
            plain_files.copy_folder(workspace.root / name, draft / name, hidden=False)
    addresses, known = _copy_at_one_moment(workspace, draft, former and former / "artifacts", say)
    counts = [(len(addresses), known)]
    for path, copied in shards.items():
        if is_there(path):
            counts.append(copied)
        else:
            shutil.rmtree(draft / path.relative_to(workspace.root))
    return _Copied(*map(sum, zip(*counts, strict=True)))


def _copy_shards(workspace: Workspace, draft: Path, former: Path | None) -> dict[Path, _Copied]:
    """Copies of the shards, also parts of those that are removed meanwhile."""
    copies: dict[Path, _Copied] = {}
    for path in shards_below(workspace):
        relative, copies[path] = path.relative_to(workspace.root), _Copied(0, 0)
        (draft / relative).mkdir(parents=True)
        with unless_removed(path), opened_shard(workspace, path) as shard:
            copies[path] = _copy_all(shard, draft / relative, former and former / relative, _silent)
    return copies


def _copy_at_one_moment(
    workspace: Workspace, draft: Path, former: Path | None, say: Progress
) -> tuple[Sequence[Address], int]:
    """Store file and artifacts as they are at the end of the last pass."""
    database, files = workspace.database, workspace.artifacts.files
    plain_files.require_no_link(database.path)
    with FileCopy(database.path, draft / STORE_FILE) as copying:
        with workspace.lock:
            workspace.flush()
            _checkpoint(workspace)  # rows that only the log names would all be left to the last pass
        first, blocks = 0, 1
        while first < blocks:
            with workspace.lock:
                with database.open_to_readers():
                    blocks = copying.copy(first).blocks
                database.yield_turn()
            first += BLOCKS_AT_ONCE
            say("blocks", min(first, blocks), blocks)
        with workspace.lock:
            early = workspace.artifacts.addresses()
        unchanged = _copy_artifacts(files, early, draft / "artifacts", former, say)
        with workspace.lock:
            workspace.flush()
            with database.reading():
                addresses: list[Address] = workspace.artifacts.addresses()
                _checkpoint(workspace)
                with database.open_to_readers():
                    copying.finish()
                    late = set(addresses).difference(early)  # while the file is ours, no collection takes them away
                    unchanged += _copy_artifacts(files, sorted(late), draft / "artifacts", former, _silent)
            database.yield_turn()
    _remove_deleted(draft / "artifacts", set(early).difference(addresses), {path for _, path, _ in addresses})
    return addresses, unchanged


def _checkpoint(workspace: Workspace) -> None:
    if not workspace.database.read_only:
        with workspace.database.reading():
            workspace.database.checkpoint()


def _copy_artifacts(
    files: ArtifactFiles, addresses: Iterable[Address], target: Path, former: Path | None, say: Progress
) -> int:
    """Put the files of artifacts below `target`, by links where that can be; how many the former backup had."""
    target.mkdir(exist_ok=True)
    wanted, unchanged, known = list(addresses), 0, None if former is None else ArtifactFiles(former)
    for done, address in enumerate(wanted, 1):
        place = target / address[1]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        if known is not None and _holds(known, address):
            _link_or_copy(known.path(address[1]), place)
            unchanged += 1
            continue
        try:
            files.read(*address)
            _link_or_copy(files.path(address[1]), place)
        except ArtifactMissingError:
            pass  # collected meanwhile; the last pass knows which must be there, and the check misses what is not
        say("artifacts", done, len(wanted))
    return unchanged


def _holds(former: ArtifactFiles, address: Address) -> bool:
    """Whether a former backup has a file as it was stored: copied again are those that its disk has damaged."""
    try:
        former.read(*address)
    except (StoreError, OSError):
        return False
    return True


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        platform.publish_new(source, place)
    except OSError:  # another disk, or one without links
        plain_files.copy_file(source, place)


def _remove_deleted(root: Path, deleted: Iterable[Address], used: set[str]) -> None:
    for _, relative, _ in deleted:
        if relative not in used:
            (root / relative).unlink(missing_ok=True)


def _require_place_for_backup(workspace: Workspace, target: Path) -> None:
    _require_beside(workspace.root, target, "the workspace")
    if not target.is_dir() or not any(target.iterdir()):
        return
    try:
        of = json.loads(plain_files.read_text(target / NOTE))["store"]
    except (OSError, ValueError, KeyError, TypeError):
        of = None
    if of is None:
        raise InvalidInputError(f"{target} is no backup and not empty; give a new folder, or one of a backup")
    if of != _store_id(workspace):
        raise InvalidInputError(f"{target} holds the backup of another workspace; give a folder of its own")


def _require_beside(root: Path, target: Path, what: str) -> None:
    if target == root or root in target.parents or target in root.parents:
        raise InvalidInputError(f"{target} is, or lies in, or holds {what}; give a folder beside it")


def _store_id(workspace: Workspace) -> str:
    with workspace.lock:
        workspace.database.attach()  # which looks whose file it is
        return workspace.database.identity.store_id


def _require_unused(target: Path) -> None:
    """StoreLockedError while another process has the store that is to be replaced."""
    if not (target / STORE_FILE).is_file():
        raise InvalidInputError(f"{target} holds no workspace to replace; give an empty or a new folder")
    try:
        workspace = open_workspace(target, read_only=True, lock_timeout=1.0)
    except DamagedStoreError:
        return  # what a restore is for
    try:
        if workspace.users > 1:
            raise InvalidInputError(f"{target} is open in this process; close it before it is replaced")
        session = workspace.session
        if writing := next(filter(session.is_alive, session.listed()), None):
            holder = session.holder_of(writing)
            raise StoreLockedError(target / STORE_FILE, None if holder is None else holder.pid)
    finally:
        workspace.release()


def _note(workspace: Workspace) -> str:
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    told = {"made_at": made, "of": str(workspace.root), "store": _store_id(workspace), "written_by": __version__}
    return json.dumps(told)


def _silent(_part: str, _done: int, _of: int) -> None:
    pass
