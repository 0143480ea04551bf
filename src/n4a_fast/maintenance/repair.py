"""Mending what can be mended without losing anything: what is derived is derived again, leftovers go, and what is
whole of a damaged log is taken over. Indexes come first: with a damaged one nothing can be written. What has a damaged
block and is derived, which `verify` need not know, is derived again, too.

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
from n4a_fast.durable.plain_files import copy_file
from n4a_fast.durable.publish import new_file
from n4a_fast.durable.sync import make_folder, sync
from n4a_fast.engine.connection import Database
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import DamagedStoreError
from n4a_fast.maintenance import verify_indexes, verify_keys
from n4a_fast.maintenance.findings import Finding, VerificationReport
from n4a_fast.maintenance.verify_blocks import BLOCK
from n4a_fast.maintenance.verify_derived import COMPILED, LINKS, SCORES, links_to_mend
from n4a_fast.maintenance.verify_files import WAITING, unreadable
from n4a_fast.maintenance.verify_indexes import INDEX, MISSING
from n4a_fast.maintenance.verify_keys import KEY
from n4a_fast.maintenance.verify_leftovers import HOLD, LEFT
from n4a_fast.maintenance.verify_rows import LEFTOVERS, extent
from n4a_fast.schema.columns import CHAIN_ARTIFACTS, table_of
from n4a_fast.schema.ddl import INDEXED
from n4a_fast.tables.stale_chains import CACHED_TABLES, forget_all_in_transaction, note_wrong_in_transaction, refresh

FOLDER = "repairs"
ORPHAN, LOG = "orphaned file", "damaged log"
_MOVED = (ORPHAN, LEFT)
_DELETE_LINKS = "DELETE FROM chain_artifacts WHERE chain_id IN (SELECT chain_id FROM batch)"
_INSERT_LINKS = "INSERT INTO chain_artifacts BY NAME SELECT * FROM batch"
_READ_ALL = "SELECT bit_xor(hash(rows)) FROM {table} rows"
_OF = {  # by kind, the table whose rows go, and the column of the ids that the findings name
    COMPILED: ("compiled_chains", "chain_id"),
    HOLD: ("artifact_holds", "holder"),
}


def repair(workspace: Workspace, report: VerificationReport) -> None:
    """Mend what the findings of a report allow, and say in it what was mended."""
    kept = workspace.root / FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    make_folder(kept)
    with workspace.lock:
        mended = _make_indexes_anew(workspace.database, report.findings)
        if _has_damaged_block(report.findings):
            _forget_unreadable_scores(workspace.database)
        try:
            _take_over_logs(workspace, [finding for finding in report.findings if finding.kind == LOG], kept)
            workspace.flush()
            workspace.database.drain()
            mended |= _mend_rows(workspace.database, report.findings, kept)
        except DamagedStoreError as error:  # rows that are damaged themselves: only a backup has them
            report.findings.append(unreadable(error, workspace.database.path))
        left = verify_keys.still_wrong(workspace.database) if (KEY, "predictions") in mended else set()
        workspace.tables.forget_known()
    _move_files([finding for finding in report.findings if finding.kind in _MOVED], workspace.root, kept)
    report.kept = kept
    gone = {finding.id for finding in report.findings if finding.kind in (*_MOVED, LOG) and not finding.path.exists()}
    report.findings = [
        replace(finding, is_repaired=finding.id not in left and (_place(finding) in mended or finding.id in gone))
        for finding in report.findings
    ]


def _has_damaged_block(findings: list[Finding]) -> bool:
    return any(finding.kind == BLOCK for finding in findings)


def _make_indexes_anew(database: Database, findings: list[Finding]) -> set[tuple[str, str]]:
    """Indexes that are wrong or missing, and all where a damaged block may be an index's; what was mended. Nothing is
    drained before.
    """
    wanted = {finding.id.partition(" ")[0] for finding in findings if finding.kind in (INDEX, MISSING)}
    made = set()
    for table in INDEXED if _has_damaged_block(findings) else wanted:
        try:
            with database.undrained():
                verify_indexes.make_anew(database, table)
            made.add(table)
        except DamagedStoreError:  # the table itself is; it has a finding
            continue
    return {(kind, table) for kind in (INDEX, MISSING) for table in made}


def _forget_unreadable_scores(database: Database) -> None:
    """Where cached rows of chains cannot be read, none of them is kept."""
    with database.undrained():
        try:
            for table in CACHED_TABLES:
                database.rows(_READ_ALL.format(table=table))
        except DamagedStoreError:
            with database.transaction():
                forget_all_in_transaction(database)


def _take_over_logs(workspace: Workspace, damaged: list[Finding], kept: Path) -> None:
    """A damaged segment is kept aside; its whole records go into the tables, and none of another one."""
    for finding in damaged:
        with new_file(kept / finding.path.name) as draft:
            copy_file(finding.path, draft)
    if damaged:
        workspace.database.drain(salvage=True)
        workspace.tables.forget_known()


def _mend_rows(database: Database, findings: list[Finding], kept: Path) -> set[tuple[str, str]]:
    """Delete leftovers, and derive again what is derived; what was mended."""
    wanted = {_place(finding) for finding in findings}
    leftovers = {(check.kind, check.table) for check in LEFTOVERS}
    for check in LEFTOVERS if wanted & leftovers else ():  # with rows go contents that these alone have
        _delete_rows(database, check.table, check.where, kept)
    for kind, (table, column) in _OF.items():
        ids = _ids(findings, kind)
        if ids:
            _delete_rows(database, table, f"list_contains(?, {column})", kept, (ids,))
    if any(kind == KEY for kind, _ in wanted):
        _mend_keys(database, kept)
    if (LINKS, "chains") in wanted:
        _mend_links(database, kept)
    if chains := _ids(findings, SCORES):
        _compute_again(database, chains, kept)
    return {place for place in wanted if place in leftovers or place[0] in (WAITING, KEY, LINKS, SCORES, *_OF)}


def _ids(findings: list[Finding], kind: str) -> list[str]:
    return [finding.id.partition(" ")[2] for finding in findings if finding.kind == kind]


def _mend_keys(database: Database, kept: Path) -> None:
    """Keys follow from other columns; the cached rows of a chain say between which keys its predictions are."""
    with database.transaction():
        before = verify_keys.mend_in_transaction(database)
        for table, rows in before.items():
            _keep_rows(rows, kept / f"{table}.keys.parquet")
        chains = before["predictions"]["chain_id"].drop_null().unique().to_pylist()
        note_wrong_in_transaction(database, chains)
    refresh(database)


def _compute_again(database: Database, chains: list[str], kept: Path) -> None:
    with database.transaction():
        for table in CACHED_TABLES:
            rows = database.arrow(f"FROM {table} WHERE list_contains(?, chain_id)", (chains,))
            _keep_rows(rows, kept / f"{table}.parquet")
        note_wrong_in_transaction(database, chains)
    refresh(database)


def _place(finding: Finding) -> tuple[str, str]:
    """What a finding is, and in which table."""
    return finding.kind, finding.id.partition(" ")[0]


def _delete_rows(database: Database, table: str, where: str, kept: Path, params: tuple[object, ...] = ()) -> None:
    with database.transaction():
        rows = database.arrow(f"FROM {table} WHERE {where}", params)
        if rows.num_rows:
            _keep_rows(rows, kept / f"{table}.parquet")
            database.execute(f"DELETE FROM {table} WHERE {where}", params)


def _mend_links(database: Database, kept: Path) -> None:
    with database.transaction():
        _keep_rows(database.arrow("FROM chain_artifacts"), kept / "all_chain_artifacts.parquet")
        links = links_to_mend(database, 0, extent(database, "chains")[1])
        rows: list[tuple[object, ...]] = [(chain, *link) for chain, named in links.items() for link in named.items()]
        database.insert(_DELETE_LINKS, batch=pa.table({"chain_id": pa.array(list(links), pa.string())}))
        database.insert(_INSERT_LINKS, batch=table_of(rows, CHAIN_ARTIFACTS))


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
