"""Whether a workspace still holds what was written: blocks, rows, files, logs, templates, shards.

Each step has the file for a moment only, so a sweep in other processes goes on. A step that cannot read
what it wants to check is a finding, and the next one follows. Repairs are in `repair`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from n4a_fast.durable.plain_files import require_no_link
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import (
    DamagedStoreError,
    ForkedProcessError,
    InvalidInputError,
    MemoryLimitError,
    StoreClosedError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMovedError,
)
from n4a_fast.maintenance import repair, verify_derived, verify_files, verify_indexes, verify_leftovers, verify_rows
from n4a_fast.maintenance.findings import Finding, Progress, VerificationReport
from n4a_fast.maintenance.verify_blocks import BLOCK, BLOCKS_AT_ONCE, BlockReader
from n4a_fast.maintenance.verify_files import UNREADABLE
from n4a_fast.merging.shards import is_there, opened_shard, shards_below, unless_removed
from n4a_fast.tables.stale_chains import current_chains

_FILES_AT_ONCE = 256
_MEMORY = 512 * 2**20  # bytes of DuckDB's own
_CHECKS = "checks"  # of whole tables and folders
_UNREAD = (UNREADABLE, BLOCK)
# these say nothing of what is stored, and so are no findings
_ABOUT_THE_CALL = (StoreLockedError, StoreMovedError, StoreClosedError, ForkedProcessError, MemoryLimitError)


class Verification:
    """One check of one workspace; the report grows as it goes."""

    def __init__(
        self, workspace: Workspace, quick: bool, sample: float | None, progress: Progress | None, repairs: bool = False
    ) -> None:
        self._workspace, self._database = workspace, workspace.database
        self._quick, self._step, self._repairs = quick, _step(sample), repairs
        self._progress = progress or (lambda _part, _done, _of: None)
        self._is_drained = True
        self.report = VerificationReport(workspace.root)

    def run(self) -> None:
        """All steps; quick ones leave out what reads every row or every file as a whole. Then the repair, then shards,
        each of which has its own.
        """
        self._look()
        if self._repairs and self.report.findings:
            repair.repair(self._workspace, self.report)
            self._look_again()
        self._shards()

    def _look(self) -> None:
        steps = (self._logs, self._blocks, self._rows, self._derived, self._artifacts, self._templates, self._left)
        for step in steps:
            try:
                step()
            except _ABOUT_THE_CALL:
                raise
            except StoreError as error:
                self.report.findings.append(verify_files.unreadable(error, self._database.path))

    def _look_again(self) -> None:
        """After a repair: whether all that could not be read can be now, or is used no more."""
        if any(finding.kind in _UNREAD for finding in self.report.findings):
            again = Verification(self._workspace, self._quick, 1 / self._step, self._progress)
            again._look()
            left = {(finding.kind, finding.id) for finding in again.report.findings}
            self.report.findings = [
                replace(each, is_repaired=(each.kind, each.id) not in left) if each.kind in _UNREAD else each
                for each in self.report.findings
            ]

    def _note(self, part: str, count: int, findings: Iterable[Finding] = ()) -> None:
        self.report.checked[part] = self.report.checked.get(part, 0) + count
        self.report.findings.extend(findings)

    def _logs(self) -> None:
        """What waits in segments of this and other processes can be read, and goes into the tables. Where one is
        damaged, or a table takes nothing, nothing does, and the rest is looked at as it is.
        """
        with self._workspace.lock:
            self._database.refresh()
            damaged = self._database.log.damaged()
            self._is_drained = not damaged
            if not self._database.read_only and not damaged:
                self._workspace.flush()
            self._note(_CHECKS, 1, map(verify_files.damaged_log, damaged))
            try:
                with self._reading():
                    pass
            except DamagedStoreError as error:
                self._is_drained = False
                self._note(_CHECKS, 0, [verify_files.waiting(error)])
            with self._reading():
                if not self._quick and not self._database.read_only:
                    self._database.checkpoint()  # blocks that only the log names are not looked at

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._database.reading() if self._is_drained else self._database.undrained():
            yield

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
            self._try(_CHECKS, partial(verify_rows.run, self._database, check))
            self._progress("rows", done, len(checks))
        self._try(_CHECKS, partial(verify_indexes.missing_indexes, self._database))
        if not self._quick:
            self._try(_CHECKS, partial(verify_indexes.wrong_indexes, self._database))
        for large in verify_rows.BY_PIECES if not self._quick else ():
            self._look_by_pieces(large)

    def _look_by_pieces(self, check: verify_rows.PieceCheck) -> None:
        with self._workspace.lock, self._reading():
            count, last = verify_rows.extent(self._database, check.table)
        self._note(check.part, count)
        for first in range(0, last, check.rows):
            self._try(check.part, partial(check.look, self._database, first, first + check.rows), 0)
            self._progress(check.part, min(first + check.rows, last), last)

    def _derived(self) -> None:
        """What is kept of chains follows from other rows: their links to artifacts, which keep these from a collection,
        and, not `quick`, scores, summaries and compiled chains.
        """
        self._look_by_pieces(verify_derived.OF_LINKS)
        if self._quick:
            return
        self._try(_CHECKS, partial(verify_derived.wrong_compilations, self._database))
        with self._workspace.lock, self._reading():
            pieces = list(current_chains(self._database))
        for done, chains in enumerate(pieces, 1):
            self._try("scores of chains", partial(verify_derived.wrong_scores, self._database, chains), chains.num_rows)
            self._progress("scores", done, len(pieces))

    def _artifacts(self) -> None:
        with self._workspace.lock, self._reading():
            addresses = self._workspace.artifacts.addresses()
        files, found = self._workspace.artifacts.files, list[Finding]()
        for done, address in enumerate(addresses, 1):
            read = not self._quick and done % self._step == 0
            wrong = verify_files.artifact(files, address, read=read)
            found += [wrong] if wrong else []
            if done % _FILES_AT_ONCE == 0 or done == len(addresses):
                self._progress("artifacts", done, len(addresses))
        found += verify_files.orphans(files, {path for _, path, _ in addresses}) if not self._quick else ()
        with self._workspace.lock, self._reading():  # a file that was collected meanwhile is not missing
            stored = {f"artifact {address[0]}" for address in self._workspace.artifacts.addresses()} if found else set()
        self._note("artifacts", len(addresses), [one for one in found if one.is_leftover or one.id in stored])

    def _templates(self) -> None:
        self._note("templates", *verify_files.templates(self._workspace.root))

    def _left(self) -> None:
        self._try(_CHECKS, partial(verify_leftovers.stale_claims, self._workspace))
        self._try(_CHECKS, partial(verify_leftovers.left_files, self._workspace))

    def _shards(self) -> None:
        found: dict[Path, list[Finding]] = {}
        for path in shards_below(self._workspace):
            with unless_removed(path):
                found[path] = self._found_in(path)
        for path, findings in found.items():
            if is_there(path):
                self._note("shards", 1, findings)

    def _found_in(self, path: Path) -> list[Finding]:
        try:
            with opened_shard(self._workspace, path, read_only=not self._repairs) as shard:
                inner = Verification(shard, self._quick, 1 / self._step, None, self._repairs)
                inner.run()
                return inner.report.findings
        except _ABOUT_THE_CALL:
            raise
        except StoreError as error:
            return [verify_files.unreadable(error, path)]

    def _try(self, part: str, step: Callable[[], Iterable[Finding]], count: int = 1) -> None:
        """A step on so many of a part, with the file meanwhile. DuckDB would keep all wide rows that it reads."""
        try:
            with self._workspace.lock:
                with self._reading():
                    self._database.begin_anew_if_due()
                    read = partial(_listed, step)
                    found = read() if self._quick else self._database.in_little_memory(_MEMORY, read)
                self._note(part, count, found)
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
    if not quick:
        require_no_link(workspace.database.path)  # blocks are read from the file itself
    verification = Verification(workspace, quick, sample, progress, wants_repair)
    verification.run()
    report = verification.report
    report.seconds = round(time.monotonic() - begun, 3)
    return report


def check_copy(root: Path, source: Path, progress: Progress) -> None:
    """DamagedStoreError of the source unless its copy is sound: all blocks and references, and no file is missing."""
    workspace = open_workspace(root, read_only=True, lock_timeout=30.0)
    try:
        verification = Verification(workspace, quick=True, sample=None, progress=progress)
        verification.run()
        verification.read_blocks()
    finally:
        workspace.release()
    for finding in verification.report.findings:
        if not finding.is_leftover:
            wrong = source / finding.path.relative_to(workspace.root)
            raise DamagedStoreError(wrong, f"{finding.kind} {finding.id}; the copy was given up")


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


def _listed(step: Callable[[], Iterable[Finding]]) -> list[Finding]:
    return list(step())


def _step(sample: float | None) -> int:
    if sample is None:
        return 1
    if isinstance(sample, bool) or not isinstance(sample, int | float) or not 0 < sample <= 1:
        raise InvalidInputError(f"sample must be a share above 0 and up to 1, got {sample!r}")
    return max(1, round(1 / sample))
