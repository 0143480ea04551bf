"""Private workspaces for parallel writers: a handle that any process, on any machine, can open.

A shard is a workspace like any other, so nobody waits for anybody while it is filled; `merge`
absorbs it. The handle is small and pickles: it carries the path and the runs that the pipelines
of the shard are to belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from n4a_fast.engine.refusals import told
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import StoreError
from n4a_fast.memtable.buffer import FlushLimits
from n4a_fast.merging.merge import MergeReport, Progress, merge
from n4a_fast.values import checks
from n4a_fast.values.ids import uuid7

FOLDER = "shards"
_LIMITS = FlushLimits(rows=16_384)  # nobody else reads a shard, so its tables can wait
Store = TypeVar("Store")


@dataclass(frozen=True, slots=True)
class Shard(Generic[Store]):
    """Where a private workspace is, or will be; open it as often as you like, merge it when its writer is done."""

    path: Path
    opener: Callable[[Path], Store] = field(repr=False)
    runs: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def open(self) -> Store:
        """The shard's store, created with the first opening; it knows the runs that it was made for."""
        with told(self.path):
            is_new = not (self.path / STORE_FILE).exists()
            workspace = open_workspace(self.path, read_only=False, lock_timeout=30.0)
            try:
                _introduce(workspace, self.runs, is_new)
                store = self.opener(self.path)
                workspace.buffer.use(_LIMITS)
                workspace.database.rest_in_log(is_new)
                return store
            finally:
                workspace.release()


def new_shard(
    workspace: Workspace, path: str | Path | None, run_id: str | None, opener: Callable[[Path], Store]
) -> Shard[Store]:
    """A handle on a workspace that does not exist yet: at `path`, or below this workspace under a name of its own."""
    runs = () if run_id is None else (workspace.runs.require(run_id),)
    return Shard(Path(path) if path is not None else workspace.root / FOLDER / uuid7(), opener, runs)


def shards_below(workspace: Workspace) -> Iterator[Path]:
    """The shards that were made below this workspace, oldest first."""
    return (path.parent for path in shard_files(workspace.root))


@contextmanager
def opened_shard(workspace: Workspace, path: Path, *, read_only: bool = True) -> Iterator[Workspace]:
    """A shard of this workspace, open for the block."""
    shard = open_workspace(path, read_only=read_only, lock_timeout=workspace.database.lock_timeout)
    try:
        yield shard
    finally:
        shard.release()


@contextmanager
def unless_removed(shard: Path) -> Iterator[None]:
    """What the block meets in a shard whose folder is removed meanwhile does not count: it was merged, or is not
    wanted.
    """
    try:
        yield
    except (StoreError, OSError):
        if is_there(shard):
            raise


def is_there(shard: Path) -> bool:
    """Whether its folder was not removed meanwhile."""
    return (shard / STORE_FILE).exists()


def shard_files(root: Path) -> list[Path]:
    """The store files of the shards below a workspace, oldest first."""
    return sorted((root / FOLDER).glob(f"*/{STORE_FILE}"))


def merge_all(
    workspace: Workspace, sources: Sequence[str | Path | Shard[Any]], progress: Progress, dry_run: bool
) -> MergeReport:
    """Merge these workspaces, or all shards below this one when none is named."""
    paths = [source.path if isinstance(source, Shard) else checks.path(source, "a source") for source in sources]
    return merge(workspace, paths or list(shards_below(workspace)), progress, dry_run)


def _introduce(workspace: Workspace, runs: tuple[Mapping[str, Any], ...], is_new: bool) -> None:
    with workspace.lock:
        for run in runs:
            if is_new or not workspace.runs.exists(run["run_id"]):
                workspace.runs.put(dict(run))
        workspace.flush()
