"""What a workspace holds and who writes to it, at a glance: nothing is written, and no sweep is disturbed for long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from n4a_fast.engine.workspace import Workspace
from n4a_fast.schema import DOCUMENTED_NAMES

_ROWS = " UNION ALL ".join(
    f"SELECT {place}, '{name}', count(*) FROM {name}" for place, name in enumerate(DOCUMENTED_NAMES)
)


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that has logged something and not ended well yet."""

    pid: int
    is_alive: bool
    flushes: int  # durable, and not in the tables yet


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Rows of the documented tables, bytes on disk, what waits, and the writers."""

    rows: Mapping[str, int]
    nbytes: Mapping[str, int]  # database, log, artifacts
    pending: int  # flushes that are durable in a log and not in the tables: the next read puts them there
    unflushed: int  # rows saved by this process that are only in memory
    writers: tuple[Writer, ...]

    def __repr__(self) -> str:
        rows = ", ".join(f"{n:,} {name}" for name, n in self.rows.items() if n)
        sizes = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in self.nbytes.items())
        alive = sum(writer.is_alive for writer in self.writers)
        waiting = f"{self.pending:,} flushes and {self.unflushed:,} rows wait; {alive} writers live"
        return "\n  ".join([rows or "empty", sizes, waiting])


def stats_of(workspace: Workspace) -> StoreStats:
    """The figures as they are now; what waits in logs is counted, not applied."""
    with workspace.lock:
        workspace.database.refresh()
        writers = tuple(Writer(*found) for found in workspace.database.log.writers())
        rows = {str(name): int(count) for _, name, count in sorted(workspace.database.rows_undrained(_ROWS))}
        return StoreStats(
            rows, _sizes(workspace), sum(writer.flushes for writer in writers), workspace.buffer.unflushed, writers
        )


def _sizes(workspace: Workspace) -> dict[str, int]:
    database, folder = workspace.database.path, workspace.root
    log = list(folder.glob(f"{database.name}.log-*"))
    files = {
        "database": [database, database.with_name(database.name + ".wal")],
        "log": log,
        "artifacts": list((folder / "artifacts").rglob("*")),
    }
    return {name: sum(path.stat().st_size for path in paths if path.is_file()) for name, paths in files.items()}
