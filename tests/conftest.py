"""Fixtures that every folder uses."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import SHARE, Sweep, begin_sweep, examples
from hypothesis import HealthCheck, settings

from n4a_fast import WorkspaceStore
from n4a_fast.engine import registry
from n4a_fast.errors import StoreError

pytest_plugins = ["progress", *(["lacking"] if sys.platform == "win32" else [])]

# how long an example takes says how busy the machine is. Examples are the same in each run, so that a change is not
# refused for what another one brought; `make thorough` and `make machine` draw new ones
settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=examples(100),
    derandomize=SHARE <= 1 and "N4A_MACHINE_STEPS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

# packages of another environment that this one has not got: `make test-embedded` finds nirs4all so
sys.path += filter(None, [os.environ.get("N4A_PACKAGES_BESIDE")])


# the system, or the one whose rules are obeyed (see tests/systems)
SYSTEM = os.environ.get("N4A_STRICT") or {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")


# of one system alone: its own calls, its faults made by a library that is loaded before all others, its signals
if SYSTEM == "windows":
    collect_ignore = ["platform/test_posix.py", "durable/test_sync.py", "crash", "engine/test_fork.py", "fuzz"]
    collect_ignore += ["engine/test_notebook.py", "replay/test_backends.py"]  # without their packages


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("not_on"):
            if SYSTEM in mark.args:
                item.add_marker(pytest.mark.skip(reason=f"{SYSTEM}: {mark.kwargs['reason']}"))
    _put_the_longest_files_first(items)


def _put_the_longest_files_first(items: list[pytest.Item]) -> None:
    """Each file has one process, which makes its fixtures once; a long one that begins last ends after all others."""
    long = Counter(item.path for item in items if item.get_closest_marker("long") or item.get_closest_marker("slow"))
    items.sort(key=lambda item: -long[item.path])


def pytest_collection_finish() -> None:
    """Tests, modules and what these imported stay until the end: no collection of garbage looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    """What a test leaves open is closed behind it, before its folder goes: its thread, its locks and its turn at the
    file are no other test's. Stores of fixtures that outlive the test stay.
    """
    before = registry._all_open()
    yield
    for workspace in [each for each in registry._all_open() if each not in before]:
        with suppress(StoreError, TimeoutError):
            registry._close_at_exit(workspace)
        registry._OPEN.discard(workspace)


@pytest.fixture(scope="session")
def empty_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty workspace, made once and copied: making one costs more than most tests."""
    folder = tmp_path_factory.mktemp("empty") / "workspace"
    WorkspaceStore(folder).close()
    return folder


@pytest.fixture
def store(tmp_path: Path, empty_workspace: Path) -> Iterator[WorkspaceStore]:
    """A new, empty workspace."""
    shutil.copytree(empty_workspace, tmp_path / "workspace")
    with WorkspaceStore(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def sweep(store: WorkspaceStore) -> Sweep:
    """A run with one pipeline and one chain, all still in memory."""
    return begin_sweep(store)
