"""Mending what can be mended without losing anything: what is derived is derived again, leftovers go.

Rows that go are first copied, as Parquet, into a folder of the workspace's `repairs/`; files are moved there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from n4a_fast import platform
from n4a_fast.durable.publish import new_file
from n4a_fast.durable.sync import make_folder, sync
from n4a_fast.engine.connection import Database
from n4a_fast.engine.workspace import Workspace
from n4a_fast.maintenance.findings import Finding, VerificationReport
from n4a_fast.maintenance.verify_rows import CACHE, LEFTOVERS, RowCheck
from n4a_fast.tables.chains import artifacts_of
from n4a_fast.tables.stale_chains import note_wrong_in_transaction

FOLDER = "repairs"
LINKS, ORPHAN = "wrong link", "orphaned file"
_CHAINS = "SELECT chain_id, steps, fold_artifacts, shared_artifacts FROM chains"
_LINKS = "SELECT chain_id, list(artifact_id) FROM chain_artifacts GROUP BY chain_id"
_DELETE_LINKS = "DELETE FROM chain_artifacts WHERE chain_id IN (SELECT chain_id FROM batch)"
_INSERT_LINKS = "INSERT INTO chain_artifacts SELECT chain_id, artifact_id FROM batch WHERE artifact_id IS NOT NULL"


def wrong_links(database: Database) -> list[Finding]:
    """Chains whose rows of used artifacts are not those that the chain itself names."""
    cure = "verify(repair=True) derives them from the chain again"
    return [
        Finding(LINKS, f"chains {chain}", database.path, "its links to artifacts are not what the chain names", cure)
        for chain in _links_to_mend(database)
    ]


def _links_to_mend(database: Database) -> dict[str, list[str]]:
    """By chain, the artifacts that it names, where others are noted."""
    noted: dict[str, list[str]] = dict(database.rows(_LINKS))
    wrong = {}
    for chain, steps, folds, shared in database.rows(_CHAINS):
        try:
            named = artifacts_of({"steps": steps, "fold_artifacts": folds, "shared_artifacts": shared})
        except (ValueError, TypeError, AttributeError):
            continue  # damaged JSON has a finding of its own
        if sorted(named) != sorted(noted.get(chain, [])):
            wrong[chain] = sorted(named)
    return wrong


def repair(workspace: Workspace, report: VerificationReport) -> None:
    """Mend what the findings of a report allow, and say in it what was mended."""
    kept = workspace.root / FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    make_folder(kept)
    with workspace.lock:
        workspace.flush()
        wanted = {_place(finding) for finding in report.findings}
        mended = {(check.kind, check.table): check for check in LEFTOVERS if (check.kind, check.table) in wanted}
        for check in mended.values():
            _delete_rows(workspace.database, check, kept)
        if (LINKS, "chains") in wanted:
            _mend_links(workspace.database, kept)
        wrong = [finding.id.partition(" ")[2] for finding in report.findings if finding.kind == CACHE]
        if wrong:
            with workspace.database.transaction():
                note_wrong_in_transaction(workspace.database, wrong)
        workspace.tables.forget_known()
    _move_files([finding for finding in report.findings if finding.kind == ORPHAN], workspace.root, kept)
    report.kept = kept
    report.findings = [
        replace(finding, is_repaired=True)
        if _place(finding) in mended
        or finding.kind in (LINKS, CACHE)
        or (finding.kind == ORPHAN and not finding.path.exists())
        else finding
        for finding in report.findings
    ]


def _place(finding: Finding) -> tuple[str, str]:
    """What a finding is, and in which table."""
    return finding.kind, finding.id.partition(" ")[0]


def _delete_rows(database: Database, check: RowCheck, kept: Path) -> None:
    with database.transaction():
        rows = database.arrow(f"SELECT * FROM {check.table} WHERE {check.where}")
        _keep_rows(rows, kept / f"{check.table}.parquet")
        database.execute(f"DELETE FROM {check.table} WHERE {check.where}")


def _mend_links(database: Database, kept: Path) -> None:
    with database.transaction():
        _keep_rows(database.arrow("FROM chain_artifacts"), kept / "all_chain_artifacts.parquet")
        links = _links_to_mend(database)
        nothing: list[str | None] = [None]
        pairs = [(chain, name) for chain, names in links.items() for name in names or nothing]
        batch = pa.table(
            {
                "chain_id": pa.array([chain for chain, _ in pairs], pa.string()),
                "artifact_id": pa.array([name for _, name in pairs], pa.string()),
            }
        )
        database.insert(_DELETE_LINKS, batch=batch)
        database.insert(_INSERT_LINKS, batch=batch)


def _keep_rows(rows: pa.Table, target: Path) -> None:
    with new_file(target) as draft:
        pq.write_table(rows, draft)


def _move_files(findings: Iterable[Finding], root: Path, kept: Path) -> None:
    for finding in findings:
        target = kept / finding.path.relative_to(root)
        make_folder(target.parent)
        try:
            platform.replace(finding.path, target)
        except FileNotFoundError:
            continue  # collected meanwhile
        sync(target.parent)
