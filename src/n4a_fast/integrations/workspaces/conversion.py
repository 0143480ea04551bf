"""`convert`: a workspace written anew in another folder, from nirs4all's form into ours or from ours into nirs4all's.

The source is only read. The new workspace is made in a draft folder beside its place, compared with
the source, made durable, and renamed: it is there whole or not at all. A kill leaves the draft, which
the next conversion to the same place removes.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from n4a_fast import platform
from n4a_fast.artifacts.files import ZSTD, ArtifactFiles
from n4a_fast.durable.plain_files import copy_links_and_files
from n4a_fast.durable.sync import sync
from n4a_fast.engine.connection import Database
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.errors import ArtifactMissingError, InvalidInputError
from n4a_fast.integrations.workspaces.batches import Source, reading
from n4a_fast.integrations.workspaces.comparing import compare
from n4a_fast.integrations.workspaces.drafts import draft_in, make_durable
from n4a_fast.integrations.workspaces.duckdb_source import DuckDBSource
from n4a_fast.integrations.workspaces.migration import is_ours, require_workspace, take_in
from n4a_fast.integrations.workspaces.outgoing import Outgoing
from n4a_fast.integrations.workspaces.reports import Progress, Report, TableReport, silent
from n4a_fast.integrations.workspaces.sqlite_source import SQLiteSource
from n4a_fast.merging.shards import FOLDER as SHARDS
from n4a_fast.merging.shards import shards_below
from n4a_fast.values import checks

_CONVERTED = frozenset({"arrays", "artifacts", SHARDS})
_STORES = (STORE_FILE, "store.sqlite", ".")
_ARTIFACTS = "SELECT artifact_id, artifact_path, content_hash FROM stored_artifacts ORDER BY artifact_id"


def convert(src: str | Path, dst: str | Path, *, progress: Progress | None = None, dry_run: bool = False) -> Report:
    """Write the workspace `src` to the new folder `dst`: nirs4all's (SQLite or DuckDB) as ours, ours as one of nirs4all
    1.4.

    `src` stays as it is. `dst` must not exist, or be an empty folder (InvalidInputError otherwise).
    Every row, array and artifact is compared with the source before `dst` appears; CopyDiffersError,
    ArtifactCorruptError, and `dst` does not appear, if they differ. Raises NotFoundError for a `src`
    that is not there, NotAStoreError for one that is no workspace. With `dry_run` everything is written and compared,
    and then goes instead of appearing at `dst`.
    """
    started = time.monotonic()
    checks.flag(dry_run, "dry_run")
    source = Path(os.path.realpath(checks.path(src, "src")))
    destination = Path(os.path.abspath(checks.path(dst, "dst")))
    _require_free(destination, source)
    told = progress or silent
    with draft_in(destination.with_name(f".{destination.name}.n4a_fast-conversion")) as draft:
        report = _send_out(source, draft, told) if _is_a_store_of_ours(source) else _bring_in(source, draft, told)
        tables = (*report.tables, _copy_the_rest(source, draft))
        if not dry_run:
            make_durable(draft)
            platform.replace(draft, destination)
            sync(destination.parent)
    return replace(report, destination=destination, tables=tables, seconds=time.monotonic() - started)


def _is_a_store_of_ours(root: Path) -> bool:
    return require_workspace(root, (STORE_FILE, "store.sqlite")) == [STORE_FILE] and is_ours(root)


def _bring_in(root: Path, draft: Path, progress: Progress) -> Report:
    with reading(root):
        source: Source = SQLiteSource(root) if (root / "store.sqlite").is_file() else DuckDBSource(root)
    with closing(source):
        report = take_in(source, draft, progress)
    with closing(Database(draft / STORE_FILE, read_only=True)) as database:
        files = _copy_artifacts(database, root, draft, progress)
    return replace(report, tables=(*report.tables, files))


def _send_out(root: Path, draft: Path, progress: Progress) -> Report:
    workspace = open_workspace(root, read_only=True, lock_timeout=30.0)
    try:
        with workspace.lock:  # nobody in this process writes meanwhile, and the file stays attached
            tables = Outgoing(workspace, draft, progress).run()
            with closing(SQLiteSource(draft)) as written:
                arrays = compare(written, workspace, progress, outgoing=True)
            files = _copy_artifacts(workspace.database, root, draft, progress)
            shards = TableReport(
                "shards", sum(1 for _ in shards_below(workspace)), 0, "not in the workspace before they are merged"
            )
    finally:
        workspace.release()
    return Report(root, draft, "n4a_fast workspace", (*tables, files, shards), arrays, 0.0)


def _copy_artifacts(database: Database, root: Path, draft: Path, progress: Progress) -> TableReport:
    """Copy the files that artifacts refer to, each verified; those that the source has lost are counted."""
    source, rows = ArtifactFiles(root / "artifacts"), database.rows(_ARTIFACTS)
    by_path = {path: (artifact_id, content_hash) for artifact_id, path, content_hash in rows}
    lost = 0
    for done, (relative, (artifact_id, content_hash)) in enumerate(by_path.items(), 1):
        target = draft / "artifacts" / relative.removesuffix(ZSTD)
        try:
            content = source.read(artifact_id, relative, content_hash)
        except ArtifactMissingError:
            lost += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        progress("copying artifacts", done, len(by_path))
    return TableReport(
        "artifact files", len(by_path), len(by_path) - lost, f"{lost} are missing in the source" if lost else ""
    )


def _copy_the_rest(root: Path, draft: Path) -> TableReport:
    """Copy what lies beside the store as it is: the library of templates, exports, results of nirs4all's engine,
    logs.
    """
    done = 0
    for entry in sorted(root.iterdir()):
        if entry.name not in _CONVERTED and not entry.name.startswith(_STORES):
            done += copy_links_and_files(entry, draft / entry.name)
    return TableReport("other files", done, done, "copied as they are, links as links, without pipes and devices")


def _require_free(destination: Path, source: Path) -> None:
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise InvalidInputError(
            f"{destination} is there already and is not overwritten; choose another folder, or remove it first"
        )
    if destination.is_relative_to(source):
        raise InvalidInputError(f"{destination} lies inside {source}; choose a folder outside it")
