"""Other workspaces absorbed into this one, by DuckDB itself: one transaction for each.

Rows are told apart by their ids, arrays and artifacts by their content, so a second merge of the same
workspace adds nothing, and one that was killed is simply repeated. A known id with other content is
refused by its name, and then nothing of that workspace is taken. A run or pipeline that was still
running when it was merged is brought up to date by a later merge. Artifact files are in place, and
synced, before the rows that name them are committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from n4a_fast import platform
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.durable.plain_files import copy_file
from n4a_fast.engine.connection import Database
from n4a_fast.engine.held_together import held_together
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ConflictError,
    ForeignStoreError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from n4a_fast.memtable.pending_table import Tables
from n4a_fast.merging.logged_tables import read_each
from n4a_fast.schema.columns import ALL
from n4a_fast.schema.ddl import INDEXED
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values.notebook import report_cell, report_text

Progress = Callable[[str, int, int], object]  # the workspace that has been merged, how many have, of how many


@dataclass(frozen=True, slots=True)
class MergedTable:
    """One table: rows found in all sources, and rows that were new."""

    table: str
    found: int
    added: int


@dataclass(frozen=True, slots=True)
class MergeReport:
    """A finished merge."""

    sources: tuple[Path, ...]
    tables: tuple[MergedTable, ...]

    def added(self, table: str) -> int:
        """Rows that were new in `table`."""
        return sum(merged.added for merged in self.tables if merged.table == table)

    def __str__(self) -> str:
        found = sum(merged.found for merged in self.tables if merged.table == "predictions")
        new = "all" if (added := self.added("predictions")) == found else f"{added:,}"
        sources = f"{len(self.sources):,} workspace{'s'[: len(self.sources) != 1]}"
        return f"{sources}: {found:,} predictions, {new} of them new"

    def __repr__(self) -> str:
        return report_text(str(self), [f"{each.table}: {each.added:,} of {each.found:,} new" for each in self._merged])

    def _repr_html_(self) -> str | None:
        return report_cell(str(self), [asdict(merged) for merged in self._merged])

    @property
    def _merged(self) -> list[MergedTable]:
        """The tables of which there was something."""
        return [merged for merged in self.tables if merged.found]


@dataclass(frozen=True, slots=True)
class _Table:
    """How the rows of a table are known again: `key` is unique, `lookup` finds it fast, `ended` columns change until
    the status does.
    """

    name: str
    noun: str
    key: str
    lookup: str = ""
    ended: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def same(self) -> str:
        lookup = f"s.{self.lookup} = t.{self.lookup} AND " if self.lookup else ""
        return f"{lookup}s.{self.key} = t.{self.key}"

    def fields(self, shard: str) -> dict[str, str]:
        return {"shard": shard, "table": self.name, "key": self.key, "by": self.lookup or self.key, "same": self.same}

    @property
    def compared(self) -> list[str]:
        return [name for name in ALL[self.name].names if name not in (self.key, *self.ended, *self.ignored)]


_RUN_END = ("status", "completed_at", "summary", "error")
_PIPELINE_END = ("status", "completed_at", "best_val", "best_test", "metric", "duration_ms", "error")
_CACHE_KEY = (
    "chain_path_hash",
    "input_data_hash",
    "dataset_hash",
    "created_at",
    "origin",
    "libraries",
    "artifact_path",
    "format",
    "size_bytes",
    "operator_class",
)
# the order in which they are written: links to artifacts before the chains, which tell whether they are new
_TABLES = (
    _Table("projects", "project", "project_id"),
    _Table("runs", "run", "run_id", ended=_RUN_END),
    _Table("pipelines", "pipeline", "pipeline_id", ended=_PIPELINE_END),
    _Table("stored_artifacts", "artifact", "artifact_id", ignored=_CACHE_KEY),
    _Table("chains", "chain", "chain_id"),
    _Table("shared_arrays", "array", "content_hash"),
    _Table("shared_indices", "array", "content_hash"),
    _Table("shared_metadata", "metadata", "content_hash"),
    _Table("prediction_metadata", "metadata of prediction", "prediction_id"),
    _Table("prediction_values", "arrays of prediction", "prediction_id", lookup="id_key"),
    _Table("predictions", "prediction", "prediction_id", lookup="id_key"),
    _Table("logs", "log entry", "log_id"),
    _Table("metrics", "direction of metric", "name", ignored=("source",)),
)

_LINKS, _CARRIED = "chain_artifacts", "carried"  # what follows other rows
# how names of tables to be merged begin: in a file that is attached, and in memory
_ATTACHED, _REGISTERED = "shard.main.", "shard_"
_NAMES = (*(table.name for table in _TABLES), _LINKS, _CARRIED)
_FOUND = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {_ATTACHED}{name}" for name in _NAMES)
_CONFLICT = "SELECT s.{key} FROM {shard}{table} s JOIN store.main.{table} t ON {same} WHERE {differs} LIMIT 1"
_SAME_KEY = " AND ".join(f"s.{name} IS NOT DISTINCT FROM t.{name}" for name in KEY)
_KEY_CONFLICT = f"""SELECT s.prediction_id, t.prediction_id FROM {{shard}}predictions s JOIN store.main.predictions t
ON s.nk = t.nk AND {_SAME_KEY} WHERE s.prediction_id <> t.prediction_id LIMIT 1"""
_ANY_KEY = "SELECT 1 FROM store.main.predictions WHERE nk IN (SELECT nk FROM {shard}predictions) LIMIT 1"
_OUTDATED = """DELETE FROM store.main.{table} t USING {shard}{table} s
WHERE {same} AND t.status = 'running' AND s.status <> 'running'"""
# both are answered from zone maps where the ids of the shard are newer than all that is here
_COUNT_KNOWN = "SELECT count(*) FROM store.main.{table} t SEMI JOIN {shard}{table} s ON {same}"
_KNOWN = "SELECT {key} FROM store.main.{table} WHERE {by} IN (SELECT {by} FROM {shard}{table})"
_ADD_ALL = "INSERT INTO store.main.{table} BY NAME SELECT * FROM {shard}{table}"
_ADD_NEW = _ADD_ALL + " WHERE {key} NOT IN (" + _KNOWN + ")"
_ADD_LINKS = """INSERT INTO store.main.chain_artifacts BY NAME SELECT * FROM {shard}chain_artifacts
WHERE chain_id NOT IN (SELECT chain_id FROM store.main.chains WHERE chain_id IN (SELECT chain_id FROM {shard}chains))"""
_ADD_CARRIED = """INSERT INTO store.main.carried BY NAME SELECT * FROM {shard}carried s
WHERE NOT EXISTS (FROM store.main.carried t WHERE t.table_name = s.table_name AND t.row_id = s.row_id)"""
# chains whose predictions, or whose pipeline's state, may have changed
_STALE = {
    "predictions": """INSERT INTO store.main.stale_chains SELECT chain_id, min(nk), max(nk), count(*)
    FROM {shard}predictions WHERE chain_id IS NOT NULL GROUP BY chain_id""",
    "pipelines": """INSERT INTO store.main.stale_chains SELECT chain_id, NULL, NULL, 0
    FROM store.main.chains SEMI JOIN {shard}pipelines USING (pipeline_id)""",
}
_WELCOME_BACK = "DELETE FROM store.main.deleted_runs WHERE run_id IN (SELECT {owner}_id FROM {shard}{owner}s)"
_NEW_FILES = """SELECT artifact_id, artifact_path, content_hash FROM {shard}stored_artifacts
WHERE origin <> 'promised' AND artifact_id NOT IN (SELECT artifact_id FROM store.main.stored_artifacts)"""
# other hashes are seals
_KNOWN_FILES = """SELECT t.artifact_id, t.artifact_path, s.artifact_path, t.content_hash
FROM {shard}stored_artifacts s JOIN store.main.stored_artifacts t ON s.artifact_id = t.artifact_id
WHERE s.origin <> 'promised' AND t.origin <> 'promised' AND s.content_hash = t.content_hash
    AND NOT starts_with(t.content_hash, 'sha256:')"""


class _Rehearsed(Exception):
    """Rolls back what was done for its answer."""

    def __init__(self, tables: list[MergedTable]) -> None:
        self.tables = tables


def merge(target: Workspace, sources: Sequence[Path], progress: Progress, dry_run: bool = False) -> MergeReport:
    """Absorb workspaces, one after the other; each is taken whole or not at all, and with `dry_run` rolled back."""
    roots = tuple(_checked(target, sources))
    found: dict[str, int] = {}
    added: dict[str, int] = {}
    for number, (root, tables) in enumerate(read_each(roots, target.database.lock_timeout), 1):
        taken = _merge_stored(target, root, dry_run) if tables is None else merge_tables(target, root, tables, dry_run)
        for table in taken:
            found[table.table] = found.get(table.table, 0) + table.found
            added[table.table] = added.get(table.table, 0) + table.added
        progress(str(root), number, len(roots))
    return MergeReport(roots, tuple(MergedTable(table, found[table], added[table]) for table in found))


def _checked(target: Workspace, sources: Iterable[Path]) -> Iterable[Path]:
    """The folders of all sources; everything that can be refused before the first is merged is refused here."""
    for source in sources:
        root = Path(os.path.realpath(source))
        if root == target.root:
            raise InvalidInputError(f"{source} is the workspace to merge into; merge others into it")
        if not (root / STORE_FILE).is_file() and not (root / "store.sqlite").is_file():
            raise NotFoundError(
                "workspace", str(source), "check the path: a workspace is a folder with a store.duckdb", where=""
            )
        yield root


def _merge_stored(target: Workspace, root: Path, dry_run: bool) -> list[MergedTable]:
    """Take a workspace from its file: one of ours, or one of nirs4all."""
    if (root / STORE_FILE).is_file():
        with suppress(ForeignStoreError):
            return _merge_attached(target, root, dry_run)
    from n4a_fast.merging.foreign_sources import made_ours  # what brings it in is rarely needed, and needs this module

    with made_ours(root, target.root) as draft:
        return _merge_attached(target, draft, dry_run, ArtifactFiles(root / "artifacts"))


def _merge_attached(
    target: Workspace, root: Path, dry_run: bool, files: ArtifactFiles | None = None
) -> list[MergedTable]:
    source = open_workspace(root, read_only=True, lock_timeout=target.database.lock_timeout)
    try:
        with source.lock:
            source.database.attach()  # whoever else has it is waited for while others go on
        with held_together(target, source):
            source.flush()
            source.database.drain()
            with target.database.beside(source.database, "shard"):
                found, files = dict(target.database.rows(_FOUND)), files or source.artifacts.files
                tables = _take(target, _ATTACHED, found, files, dry_run)
            target.database.yield_turn()
            return tables
    finally:
        source.release()


def merge_tables(target: Workspace, root: Path, tables: Tables, dry_run: bool = False) -> list[MergedTable]:
    """Absorb rows in memory, whose artifacts are below another workspace's folder; whole or not at all."""
    with target.lock:
        with target.database.registered({f"{_REGISTERED}{name}": table for name, table in tables.items()}):
            found = {name: tables[name].num_rows if name in tables else 0 for name in _NAMES}
            merged = _take(target, _REGISTERED, found, ArtifactFiles(root / "artifacts"), dry_run)
        target.database.yield_turn()
        return merged


def _take(
    target: Workspace, shard: str, found: dict[str, int], files: ArtifactFiles, dry_run: bool
) -> list[MergedTable]:
    if found["stored_artifacts"]:
        for name, ours, theirs, content_hash in target.database.rows(_KNOWN_FILES.format(shard=shard)):
            if target.artifacts.files.holds_another(files, ours, theirs, (name, content_hash)):
                raise ConflictError("artifact", name, "of this workspace", "that of another one")
        if not dry_run:
            new = target.database.rows(_NEW_FILES.format(shard=shard))
            _bring_files(target.artifacts.files, files, [(str(name), str(path), seal) for name, path, seal in new])
    try:
        with target.database.transaction():
            tables = _merge_in_transaction(target.database, shard, found)
            if dry_run:
                raise _Rehearsed(tables)
    except _Rehearsed as rehearsed:
        return rehearsed.tables
    target.artifacts.release_claims()
    target.tables.forget_known()
    return tables


def _merge_in_transaction(database: Database, shard: str, found: dict[str, int]) -> list[MergedTable]:
    tables = {table.name: (table, table.fields(shard)) for table in _TABLES if found[table.name]}
    known = {name: database.rows(_COUNT_KNOWN.format(**fields))[0][0] for name, (_, fields) in tables.items()}
    for name, (table, fields) in tables.items():
        if known[name]:
            _refuse_conflicts(database, table, fields)
    # a prediction that is known and equal has its key for itself already
    if known.get("predictions", 0) < found["predictions"] and database.rows(_ANY_KEY.format(shard=shard)):
        for mine, theirs in database.rows(_KEY_CONFLICT.format(shard=shard)):
            raise ConflictError("prediction", mine, f"the key of {theirs}", "the same key")
    for owner in ("run", "pipeline"):
        if found[f"{owner}s"]:
            database.execute(_WELCOME_BACK.format(shard=shard, owner=owner))
    added = dict.fromkeys((table.name for table in _TABLES), 0)
    for name, (table, fields) in tables.items():
        if table.ended and known[name]:
            known[name] -= database.execute(_OUTDATED.format(**fields))
        if name == "chains" and found[_LINKS]:
            database.execute(_ADD_LINKS.format(shard=shard))
        if known[name] < found[name]:
            if name in INDEXED:
                database.add_keys(found[name] - known[name])
            add = _ADD_NEW if known[name] else _ADD_ALL  # where none is known there is nothing to compare
            added[name] = database.execute(add.format(**fields))
    for name, note in _STALE.items():
        if added[name]:
            database.execute(note.format(shard=shard))
    if found[_CARRIED]:
        database.execute(_ADD_CARRIED.format(shard=shard))
    return [MergedTable(name, found[name], added[name]) for name in added]


def _refuse_conflicts(database: Database, table: _Table, fields: dict[str, str]) -> None:
    differs = _differ(table.compared)
    if table.ended:
        differs = f"{differs} OR (s.status <> 'running' AND t.status <> 'running' AND {_differ(table.ended)})"
    for (identifier,) in database.rows(_CONFLICT.format(**fields, differs=differs)):
        raise ConflictError(table.noun, identifier, "of this workspace", "that of another one")


def _differ(names: Sequence[str]) -> str:
    return "(" + (" OR ".join(f"s.{name} IS DISTINCT FROM t.{name}" for name in names) or "false") + ")"


def _bring_files(target: ArtifactFiles, source: ArtifactFiles, artifacts: Iterable[tuple[str, str, str]]) -> None:
    """Put the files of artifacts that are new here, by id, path and hash, in their places, verified and durably."""
    for artifact in artifacts:
        artifact_id, relative, _ = artifact
        theirs, ours = source.path(relative), target.path(relative)
        target.claims.claim(artifact_id, relative)
        try:
            if not _place_file(source, artifact, ours):
                raise ConflictError("artifact file", relative, "of this workspace", "that of another one")
        except FileNotFoundError as error:
            raise ArtifactMissingError(artifact_id, theirs) from error
        except ArtifactCorruptError:
            raise
        except OSError as error:
            raise StoreUnavailableError(ours, error.strerror or str(error)) from error
        target.adopt(relative)
    target.sync()


def _place_file(source: ArtifactFiles, artifact: tuple[str, str, str], ours: Path) -> bool:
    """Copy a file to its place, if it holds what its row says; False when other content is there."""
    draft = ours.with_name(f".{ours.name}.{os.getpid()}.draft")
    ours.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy_file(source.path(artifact[1]), draft)
        source.read_at(str(draft), *artifact)
        platform.publish_new(draft, ours)
    except FileExistsError:
        return draft.read_bytes() == ours.read_bytes()
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return True
