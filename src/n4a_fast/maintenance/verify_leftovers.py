"""What processes that were killed have left in a workspace: it takes space, or keeps artifacts, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from n4a_fast.engine.workspace import Workspace
from n4a_fast.maintenance.findings import Finding

HOLD, LEFT = "stale claim", "left file"
_YOUNG_SECONDS = 3600.0  # its writer may live
_HOLDERS = "SELECT holder, count(*) FROM artifact_holds GROUP BY holder ORDER BY holder"
# files of a vacuum and of the making of a store
_DRAFT = re.compile(r"store\.duckdb\.(vacuum|[0-9a-f.]+\.new)(\.wal)?")


def stale_claims(workspace: Workspace) -> Iterator[Finding]:
    """Artifacts that sessions hold which have ended: no collection takes them until one looks who lives."""
    path, session = workspace.database.path, workspace.session
    for holder, count in workspace.database.rows(_HOLDERS):
        if not session.is_alive(holder):
            message = f"a process that has ended still holds {count} artifacts"
            cure = "gc_artifacts() or verify(repair=True) lets them go"
            yield Finding(HOLD, f"artifact_holds {holder}", path, message, cure, is_leftover=True)


def left_files(workspace: Workspace) -> Iterator[Finding]:
    """Files of sessions that have ended, with what they claimed, and drafts that were never finished."""
    for path in workspace.database.log.sessions_that_left_nothing():
        yield _left(path, "of a process that has ended")
    for path in sorted(workspace.root.glob("store.duckdb.*")):
        if _DRAFT.fullmatch(path.name) and _age(path) > _YOUNG_SECONDS:
            yield _left(path, "was never finished")


def _left(path: Path, message: str) -> Finding:
    return Finding(LEFT, path.name, path, message, "verify(repair=True) takes it away", is_leftover=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
