"""Fixtures that every folder uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Sweep, begin_sweep

from n4a_fast import WorkspaceStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WorkspaceStore]:
    """A new, empty workspace."""
    with WorkspaceStore(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def sweep(store: WorkspaceStore) -> Sweep:
    """A run with one pipeline and one chain, all still in memory."""
    return begin_sweep(store)
