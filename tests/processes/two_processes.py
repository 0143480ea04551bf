"""Calls of two processes on one workspace, in the order in which a test wants them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from helpers import Sweep, child, finish, read_line

from n4a_fast import WorkspaceStore

_OTHER = """
import json, sys
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], flush_interval=None)
for line in sys.stdin:
    call, *arguments = json.loads(line)
    print(json.dumps(getattr(store, call)(*arguments)), flush=True)
"""


class Two(NamedTuple):
    """A store of this process, and calls of one of another process on the same workspace."""

    store: WorkspaceStore
    process: subprocess.Popen[str]

    def elsewhere(self, call: str, *arguments: Any) -> Any:
        """What a call of the other process gives; this one learns nothing of it before it needs the file again."""
        workspace = self.store._open()
        assert self.process.stdin is not None
        with workspace.lock:  # or the background might attach the file in between
            workspace.database.detach()
            self.process.stdin.write(json.dumps([call, *arguments]) + "\n")
            self.process.stdin.flush()
            return json.loads(read_line(self.process))

    def rows_of(self, sweep: Sweep) -> dict[str, int]:
        """How many rows of each table belong to a pipeline."""
        where = f"WHERE pipeline_id = '{sweep.pipeline}'"
        tables = ("pipelines", "chains", "predictions", "logs")
        return {table: self.store.sql(f"SELECT count(*) FROM {table} {where}").item() for table in tables}


@contextmanager
def two_processes(path: Path) -> Iterator[Two]:
    """Both with the workspace open; nothing is flushed by time."""
    with WorkspaceStore(path, flush_interval=None) as store:
        process = child(_OTHER, path)
        yield Two(store, process)
        finish(process)  # closes what it reads, which ends it
