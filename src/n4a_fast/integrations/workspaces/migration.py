"""Foreign workspaces made ours: `migrate` in their own folder, `convert` into another one.

`migrate` of a DuckDB workspace writes a draft beside the original, proves it, links the original under its backup name
and renames the draft over it. The original is only ever read; a kill before the rename leaves it as
it was, a kill after it leaves the finished store. What a killed migration left is removed by the next.
A SQLite workspace takes the steps of `in_place`.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from n4a_fast import platform
from n4a_fast.durable.sync import sync
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.errors import (
    ConflictError,
    CopyDiffersError,
    ForeignStoreError,
    InvalidInputError,
    NotAStoreError,
    NotFoundError,
    StoreUnavailableError,
)
from n4a_fast.integrations.workspaces import in_place
from n4a_fast.integrations.workspaces.batches import Source, reading
from n4a_fast.integrations.workspaces.comparing import compare
from n4a_fast.integrations.workspaces.drafts import draft_in
from n4a_fast.integrations.workspaces.duckdb_source import DuckDBSource
from n4a_fast.integrations.workspaces.intake import Intake
from n4a_fast.integrations.workspaces.reports import Progress, Report, TableReport, silent
from n4a_fast.integrations.workspaces.sqlite_source import SQLiteSource
from n4a_fast.values import checks

BACKUP_FILE = f"{STORE_FILE}.nirs4all"
DRAFT_FOLDER = ".n4a_fast-migration"
_LOG, _JOURNAL = ".wal", ".journal"


def migrate(path: str | Path, *, progress: Progress | None = None, dry_run: bool = False) -> Report:
    """Make a workspace of nirs4all one of ours, in place; what was done, table by table.

    The original stays beside it, as `store.duckdb.nirs4all` (0.7, early 0.8), or as `store.sqlite.nirs4all` and
    `arrays.nirs4all` (later releases); artifacts stay where they are. A workspace that is ours already is left
    alone and reported so. Raises NotFoundError for a path that is not there, NotAStoreError for one that is no
    workspace, ConflictError when a backup would be overwritten, StoreLockedError while another process uses the
    file, CopyDiffersError when the copy is not equal; the original is then as it was.
    `progress(what, done, total)` is called as rows are copied and compared. With `dry_run` everything is copied and
    compared, and then the copy goes instead of taking its place.
    """
    started = time.monotonic()
    checks.flag(dry_run, "dry_run")
    root = _folder(checks.path(path, "path"))
    if not (root / STORE_FILE).is_file():
        done = _migrate_sqlite(root, progress or silent, dry_run)
        return replace(done, seconds=time.monotonic() - started)
    if is_ours(root):
        if not dry_run:
            _finish_a_killed_one(root)
        return Report(root, root, "n4a_fast workspace", (), 0, time.monotonic() - started, already_done=True)
    with draft_in(root / DRAFT_FOLDER) as draft:
        _undo_half_a_swap(root)
        _refuse_to_overwrite(root)
        with reading(root), closing(DuckDBSource(root)) as source:
            report = take_in(source, draft, progress or silent)
            tables = (*report.tables, _artifact_files(source))
            if not dry_run:
                _swap(root, draft)
    backup = None if dry_run else root / BACKUP_FILE
    return replace(report, destination=root, tables=tables, backup=backup, seconds=time.monotonic() - started)


def _finish_a_killed_one(root: Path) -> None:
    """What a migration that was killed before or after its last step has left to do."""
    if (root / in_place.SQLITE_FILE).exists():
        in_place.refuse_to_overwrite(root)
        in_place.set_aside(root)
    shutil.rmtree(root / DRAFT_FOLDER, ignore_errors=True)


def _migrate_sqlite(root: Path, progress: Progress, dry_run: bool) -> Report:
    with draft_in(root / DRAFT_FOLDER) as draft, in_place.nobody_writes(root):
        in_place.refuse_to_overwrite(root)
        with closing(SQLiteSource(root)) as source:
            report = take_in(source, draft, progress)
            tables = (*report.tables, _artifact_files(source))
        if dry_run:
            return replace(report, destination=root, tables=tables)
        in_place.take_its_place(root, draft)
    return replace(report, destination=root, tables=tables, backup=in_place.set_aside(root))


def take_in(source: Source, folder: Path, progress: Progress) -> Report:
    """Write a source into a new store in `folder`, compare the two, and let go of the new one."""
    started, state = time.monotonic(), source.state()
    with reading(source.root), closing(Intake(source, folder, progress)) as intake:
        tables = intake.run()
        arrays = compare(source, intake.workspace, progress)
    if source.state() != state:
        raise CopyDiffersError(source.root, "the files")
    return Report(source.root, folder, source.kind, tables, arrays, time.monotonic() - started)


def _artifact_files(source: Source) -> TableReport:
    """How many files the artifacts name and how many are there; `verify_artifacts` of the store looks into them."""
    with reading(source.root):
        batches = source.rows("artifacts") if source.count("artifacts") else ()
        paths = {path for batch in batches for path in batch["artifact_path"].to_pylist()}
        lost = sum(not (source.root / "artifacts" / path).is_file() for path in paths)
    return TableReport(
        "artifact files", len(paths), len(paths) - lost, f"stay where they are{f'; {lost} are missing' if lost else ''}"
    )


def _folder(path: Path) -> Path:
    root = path.parent if path.name in (STORE_FILE, in_place.SQLITE_FILE) else path
    if not (root / STORE_FILE).is_file():
        require_workspace(root, (STORE_FILE, in_place.SQLITE_FILE))
    return Path(os.path.realpath(root))


def require_workspace(root: Path, files: Sequence[str]) -> list[str]:
    """Which of these store files the folder holds; an error unless it is one of them."""
    if not root.is_dir():
        raise NotFoundError("workspace", str(root), "check the path", where="")
    found = [name for name in files if (root / name).is_file()]
    if len(found) != 1:
        raise NotAStoreError(root, f"it holds {' and '.join(found) or 'no ' + ' and no '.join(files)}")
    return found


def is_ours(root: Path) -> bool:
    """Whether the file is a store of ours; NotAStoreError unless it is one of nirs4all's."""
    try:
        open_workspace(root, read_only=True, lock_timeout=1.0).release()
    except ForeignStoreError:
        return False
    return True


def _undo_half_a_swap(root: Path) -> None:
    """A killed migration may have linked the backup and not renamed the draft: both names mean the original then, or
    two files that are the same where the folder was copied since.
    """
    original, backup = root / STORE_FILE, root / BACKUP_FILE
    if backup.exists() and (backup.samefile(original) or filecmp.cmp(backup, original, shallow=False)):
        log, saved_log = (file.with_name(file.name + _LOG) for file in (original, backup))
        if saved_log.exists() and not log.exists():
            _link(saved_log, log)
        saved_log.unlink(missing_ok=True)
        backup.unlink()


def _refuse_to_overwrite(root: Path) -> None:
    backup = root / BACKUP_FILE
    if backup.exists():
        raise ConflictError("backup", str(backup), "an earlier original", "another one")
    journal = root / f"{STORE_FILE}{_JOURNAL}"
    if journal.exists() and journal.stat().st_size:
        raise InvalidInputError(f"{journal} belongs to a store that is not here any more; move it away")


def _link(existing: Path, name: Path) -> None:
    """Give a file a second name, which must be free."""
    try:
        platform.publish_new(existing, name)
    except OSError as error:
        raise StoreUnavailableError(name, f"{existing.name} cannot get this second name ({error.strerror})") from error


def _swap(root: Path, draft: Path) -> None:
    """Give the finished draft the name of the original, which keeps its backup name."""
    original, backup = root / STORE_FILE, root / BACKUP_FILE
    log = original.with_name(original.name + _LOG)
    shutil.copymode(original, draft / STORE_FILE)  # a group that shares the workspace goes on doing so
    sync(draft / STORE_FILE)
    _link(original, backup)
    if log.exists():  # rows that its writer had no time to put in place; a new file must not meet them
        _link(log, backup.with_name(backup.name + _LOG))
    sync(root)
    log.unlink(missing_ok=True)
    platform.replace(draft / STORE_FILE, original)
    sync(root)
