"""Collecting artifacts that nothing refers to: rows in the transaction, files after its commit.

A crash in between leaves a file without a row, never a row without a file. Such orphans go
with a later collection, once they are an hour old: until then nirs4all may be about to register them.
What a running process claims or holds stays, however old it is (see `claims`).
"""

from __future__ import annotations

import time
from typing import Any

from n4a_fast.artifacts.checkup import Progress, reported
from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import ARTIFACT_HOLDS, table_of
from n4a_fast.tables.artifacts import Artifacts
from n4a_fast.tables.chains import artifact_ids

ORPHAN_AGE_SECONDS = 3600.0

_HOLDERS = "SELECT DISTINCT holder FROM artifact_holds"
_DROP_HOLDER = "DELETE FROM artifact_holds WHERE holder = ?"
_UNUSED = """SELECT artifact_id, artifact_path FROM stored_artifacts WHERE artifact_id NOT IN (SELECT artifact_id FROM
chain_artifacts WHERE released IS NOT TRUE)
AND artifact_id NOT IN (SELECT artifact_id FROM artifact_holds)"""
_DELETE = "DELETE FROM stored_artifacts WHERE artifact_id IN (SELECT artifact_id FROM batch)"
_PATHS = "SELECT DISTINCT artifact_path FROM stored_artifacts WHERE NOT list_contains(?, artifact_id)"
_NAMED = "SELECT 1 FROM stored_artifacts WHERE artifact_path = ? LIMIT 1"
_FOLDS_TO_KEEP = """SELECT DISTINCT chain_id, fold_id FROM predictions
WHERE chain_id IS NOT NULL AND pipeline_id IN (SELECT pipeline_id FROM pipelines WHERE run_id = ? AND dataset_name =
?)"""
_AVERAGES = frozenset({"", "avg", "w_avg"})


class Collector:
    """Removes what nothing refers to."""

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database, self._artifacts = database, artifacts

    def lock(self) -> frozenset[str]:
        """What running processes claim; from now until `unlock` none can claim anything more."""
        return self._artifacts.files.claims.lock()

    def unlock(self) -> None:
        """Let other processes claim files again."""
        self._artifacts.files.claims.unlock()

    def doomed(self, claimed: frozenset[str], *, orphans: bool) -> tuple[list[str], list[str]]:
        """Ids of artifacts that nothing refers to, and the paths of their files; of files without rows too, if
        `orphans` are wanted: that lists the whole folder.
        """
        for (holder,) in self._database.rows(_HOLDERS):
            if not self._artifacts.files.session.is_alive(holder):
                self._database.execute(_DROP_HOLDER, (holder,))
        unused = [row for row in self._database.rows(_UNUSED) if not claimed.intersection(row)]
        ids, gone = [str(artifact_id) for artifact_id, _ in unused], {str(path) for _, path in unused}
        files, limit = self._artifacts.files, time.time() - ORPHAN_AGE_SECONDS
        used = self._paths_of_others(ids) if orphans or unused else set()
        candidates = [path for path in sorted(gone) if files.holds(path)]  # whatever their writer named them
        candidates += [path for path in files.listed() if path not in gone] if orphans else []
        return ids, [
            path
            for path in candidates
            if path not in used and not is_claimed(path, claimed) and (path in gone or files.changed_at(path) < limit)
        ]

    def _paths_of_others(self, artifact_ids: list[str]) -> set[str]:
        """Files that rows of other artifacts name."""
        return {path for (path,) in self._database.rows(_PATHS, (artifact_ids,))}

    def collect_in_transaction(self, claimed: frozenset[str], *, orphans: bool) -> list[str]:
        """Delete unused rows; the files that go after the commit. The caller has the lock, and what was claimed before
        is in the tables.
        """
        unused, paths = self.doomed(claimed, orphans=orphans)
        self._database.insert(_DELETE, batch=table_of([(each, None) for each in unused], ARTIFACT_HOLDS))
        self._artifacts.forget_known()
        return paths

    def unnamed(self, paths: list[str], claimed: frozenset[str]) -> list[str]:
        """Of these files, those that no row names and no process claims."""
        return [path for path in paths if not (is_claimed(path, claimed) or self._database.rows(_NAMED, (path,)))]

    def unlink(self, doomed: list[str], progress: Progress | None) -> None:
        """Remove the files, after the commit."""
        self._artifacts.files.unlink(reported(doomed, progress))

    def transient(
        self, run_id: str, dataset_name: str, chains: list[dict[str, Any]], winners: set[str]
    ) -> list[tuple[str, str]]:
        """Ids of chains, each with that of an artifact that a refit has made unnecessary for it.

        Fold models go unless a stored prediction needs them: its own fold, or every fold for an
        average. The shared artifacts of a losing chain go when no prediction refers to the chain.
        """
        folds: dict[str, set[str]] = {}
        for chain_id, fold_id in self._database.rows(_FOLDS_TO_KEEP, (run_id, dataset_name)):
            folds.setdefault(chain_id, set()).add(str(fold_id or "").removeprefix("fold_"))
        return [
            (chain["chain_id"], artifact_id)
            for chain in chains
            for artifact_id in _unneeded(chain, folds.get(chain["chain_id"]), chain["pipeline_id"] in winners)
        ]


def is_claimed(path: str, claimed: frozenset[str]) -> bool:
    """Whether a process claims this file by its path, or by the hash that is its name."""
    return path in claimed or path.rpartition("/")[2].partition(".")[0] in claimed


def _unneeded(chain: dict[str, Any], folds: set[str] | None, winner: bool) -> list[str]:
    kept_folds = folds or set()
    unneeded: set[str] = set()
    needed: set[str] = set()
    for key, reference in chain["fold_artifacts"].items():
        fold = str(key).removeprefix("fold_")
        permanent = winner and fold in ("final", "avg", "w_avg")
        is_needed = permanent or fold in kept_folds or kept_folds & _AVERAGES
        (needed if is_needed else unneeded).update(artifact_ids(reference))
    shared = set(_shared_ids(chain["shared_artifacts"]))
    (needed if winner or folds is not None else unneeded).update(shared)
    return sorted(unneeded - needed)


def _shared_ids(shared: dict[str, Any]) -> list[str]:
    named = [value for key, value in shared.items() if not str(key).startswith("_")]
    return [*filter(None, artifact_ids(named))]
