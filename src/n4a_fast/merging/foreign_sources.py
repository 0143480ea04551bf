"""Workspaces of nirs4all as sources of a merge: made ours in a draft, compared, then taken like any other.

The draft lies in the workspace that takes them in, and goes when that is done. The source is only read;
its artifact files are taken from where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.integrations.workspaces.batches import Source
from n4a_fast.integrations.workspaces.drafts import draft_in
from n4a_fast.integrations.workspaces.duckdb_source import DuckDBSource
from n4a_fast.integrations.workspaces.migration import take_in
from n4a_fast.integrations.workspaces.reports import silent
from n4a_fast.integrations.workspaces.sqlite_source import SQLiteSource

_DRAFT_FOLDER = ".n4a_fast-merge"


@contextmanager
def made_ours(root: Path, target: Path) -> Iterator[Path]:
    """A folder with the rows and arrays of the workspace of nirs4all at `root`, as a store of ours."""
    with draft_in(target / _DRAFT_FOLDER) as draft:
        source: Source = DuckDBSource(root) if (root / STORE_FILE).is_file() else SQLiteSource(root)
        with closing(source):
            take_in(source, draft, silent)
        yield draft
