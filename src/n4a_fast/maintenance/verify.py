"""Whether a workspace still holds what was written: blocks, rows, files, logs, templates, shards.

Each step has the file for a moment only, so a sweep in other processes goes on. A step that cannot read
what it wants to check is a finding, and the next one follows. Repairs are in `repair`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from n4a_fast.engine.registry import open_workspace, release_workspace
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import DamagedStoreError, InvalidInputError, StoreError, StoreFormatError
from n4a_fast.maintenance import repair, verify_files, verify_rows
from n4a_fast.maintenance.findings import Finding, Progress, VerificationReport
from n4a_fast.maintenance.verify_blocks import BLOCKS_AT_ONCE, BlockReader
from n4a_fast.merging.shards import shards_below

_FILES_AT_ONCE = 256


class Verification:
    """One check of one workspace; the report grows as it goes."""

    def __init__(self, workspace: Workspace, quick: bool, sample: float | None, progress: Progress | None) -> None:
        self._workspace, self._database = workspace, workspace.database
        self._quick, self._step = quick, _step(sample)
        self._progress = progress or (lambda _part, _done, _of: None)
        self.report = VerificationReport(workspace.root)

    def run(self) -> None:
        """All steps; quick ones leave out what reads every row or every file as a whole."""
        for step in (self._logs, self._blocks, self._rows, self._links, self._artifacts, self._templates, self._shards):
            try:
                step()
            except StoreError as error:
                self.report.findings.append(verify_files.unreadable(error, self._database.path))

    def _note(self, part: str, count: int, findings: Iterable[Finding] = ()) -> None:
        self.report.checked[part] = self.report.checked.get(part, 0) + count
        self.report.findings.extend(findings)

    def _logs(self) -> None:
        """What waits in segments of this and other processes can be read, and goes into the tables."""
        with self._workspace.lock:
            if not self._database.read_only:
                self._workspace.flush()
            with self._database.reading():
                if not self._quick and not self._database.read_only:
                    self._database.checkpoint()  # blocks that only the log names are not looked at
            self._note("logs", 1)

    def _blocks(self) -> None:
        if not self._quick:
            self.read_blocks()

    def read_blocks(self) -> None:
        """Compare the blocks with their checksums, in slices."""
        with BlockReader(self._database.path) as reader:
            first, count = 0, 1
            while first < count:
                with self._workspace.lock:
                    with self._database.open_to_readers():
                        count, found = reader.look(first, self._step)
                    self._database.yield_turn()
                self._note("blocks", len(range(first, min(first + BLOCKS_AT_ONCE, count), self._step)), found)
                first += BLOCKS_AT_ONCE
                self._progress("blocks", min(first, count), count)

    def _rows(self) -> None:
        checks = (*verify_rows.REFERENCES, *verify_rows.LEFTOVERS)
        if not self._quick:
            checks = (*checks, *verify_rows.DUPLICATES, *verify_rows.CONTENTS)
        for done, check in enumerate(checks, 1):
            self._try("checks of rows", partial(verify_rows.run, self._database, check))
            self._progress("rows", done, len(checks))
        if not self._quick:
            self._keys()
            self._try("scores of chains", partial(verify_rows.wrong_caches, self._database))
            for table in verify_rows.SHARED:
                self._try("shared contents", partial(verify_rows.wrong_contents, self._database, table))

    def _keys(self) -> None:
        last = verify_rows.last_row(self._database, "predictions")
        for first in range(0, last, verify_rows.ROWS_AT_ONCE):
            self._try("predictions", partial(verify_rows.wrong_keys, self._database, first))
            self._progress("predictions", min(first + verify_rows.ROWS_AT_ONCE, last), last)

    def _links(self) -> None:
        """The artifacts of each chain, which keep them from a collection, follow from the chain."""
        self._try("links of chains", partial(repair.wrong_links, self._database))

    def _artifacts(self) -> None:
        with self._workspace.lock:
            addresses = self._workspace.artifacts.addresses()
        files, found = self._workspace.artifacts.files, list[Finding]()
        for done, address in enumerate(addresses, 1):
            read = not self._quick and done % self._step == 0
            wrong = verify_files.artifact(files, address, read=read)
            found += [wrong] if wrong else []
            if done % _FILES_AT_ONCE == 0 or done == len(addresses):
                self._progress("artifacts", done, len(addresses))
        found += verify_files.orphans(files, {path for _, path, _ in addresses}) if not self._quick else ()
        with self._workspace.lock:  # a file that was collected meanwhile is not missing
            stored = {f"artifact {address[0]}" for address in self._workspace.artifacts.addresses()} if found else set()
        self._note("artifacts", len(addresses), [one for one in found if one.is_leftover or one.id in stored])

    def _templates(self) -> None:
        self._note("templates", *verify_files.templates(self._workspace.root))

    def _shards(self) -> None:
        for path in shards_below(self._workspace):
            try:
                shard = open_workspace(path, read_only=True, lock_timeout=self._database.lock_timeout)
            except StoreError as error:
                self._note("shards", 1, [verify_files.unreadable(error, path)])
                continue
            try:
                inner = Verification(shard, self._quick, 1 / self._step, None)
                inner.run()
                self._note("shards", 1, inner.report.findings)
            finally:
                release_workspace(shard)

    def _try(self, part: str, step: Callable[[], Iterable[Finding]]) -> None:
        """A step on rows, with the file for as long as it takes."""
        try:
            with self._workspace.lock:
                self._note(part, 1, step())
                self._database.yield_turn()
        except StoreFormatError as error:
            finding = verify_files.unreadable(error, self._database.path)
            if finding not in self.report.findings:
                self.report.findings.append(finding)


def verify(
    workspace: Workspace,
    quick: bool,
    sample: float | None,
    wants_repair: bool,
    progress: Progress | None,
) -> VerificationReport:
    """Look at a workspace, and mend what can be mended without losing anything."""
    begun = time.monotonic()
    verification = Verification(workspace, quick, sample, progress)
    verification.run()
    report = verification.report
    if wants_repair and report.findings:
        repair.repair(workspace, report)
    report.seconds = round(time.monotonic() - begun, 3)
    return report


def check_copy(root: Path, progress: Progress) -> None:
    """DamagedStoreError unless a copy is sound: all its blocks, its references, and that all its files are there."""
    workspace = open_workspace(root, read_only=True, lock_timeout=30.0)
    try:
        verification = Verification(workspace, quick=True, sample=None, progress=progress)
        verification.run()
        verification.read_blocks()
    finally:
        release_workspace(workspace)
    for finding in verification.report.findings:
        if not finding.is_leftover:
            raise DamagedStoreError(finding.path, f"the copy was given up: {finding.kind} {finding.id}")


def verify_closed(root: Path, error: StoreError) -> VerificationReport:
    """What can be said of a store that cannot be opened: why, and which of its blocks are damaged."""
    report = VerificationReport(root, findings=[verify_files.unreadable(error, root)])
    path = root / "store.duckdb"
    if path.is_file():
        with BlockReader(path) as reader:
            first, count = 0, 1
            while first < count:
                count, found = reader.look(first, 1)
                report.findings += found
                first += BLOCKS_AT_ONCE
            report.checked["blocks"] = count
    return report


def _step(sample: float | None) -> int:
    if sample is None:
        return 1
    if not 0 < sample <= 1:
        raise InvalidInputError(f"sample must be a share above 0 and up to 1, got {sample!r}")
    return max(1, round(1 / sample))
