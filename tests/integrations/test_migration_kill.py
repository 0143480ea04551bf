"""`kill -9` at any moment of a migration: the original or the finished store is there, and a repetition completes
it.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from foreign import NUMBERS_OF_OLD, OLD, rows, unpacked
from helpers import DEADLINE, child, counts, read_line
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ForeignStoreError
from n4a_fast.integrations.workspaces import migrate
from n4a_fast.integrations.workspaces.migration import DRAFT_FOLDER

ARRAYS = (
    "SELECT prediction_id, y_true, y_pred, y_proba, sample_indices, weights FROM prediction_arrays ORDER BY"
    " prediction_id"
)

TELL_PROGRESS = """
import sys
from n4a_fast.integrations.workspaces import migrate
migrate(sys.argv[1], progress=lambda *told: print(*told, flush=True))
"""
# an audit hook is told of each linking, renaming, removing and opening of a file before it happens
DIE_AT_FILE_EVENT = """
import os, signal, sys
from n4a_fast.integrations.workspaces import migrate
root, last = sys.argv[1], int(sys.argv[2])
seen = [0]
def hook(event, arguments):
    watched = ("os.link", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")
    if event in watched and str(arguments[0]).startswith(root):
        seen[0] += 1
        if seen[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
migrate(root)
print(seen[0], flush=True)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return unpacked(OLD, tmp_path)


def assert_whole_and_complete(old: Path) -> bool:
    """The folder holds the original or the finished store, and a repetition leaves the finished one; whether it was
    finished before.
    """
    original = rows(unpacked(OLD, old.parent / "again") / "store.duckdb", ARRAYS)
    try:
        WorkspaceStore.open_readonly(old).close()
        finished = True
    except ForeignStoreError:
        assert rows(old / "store.duckdb", ARRAYS) == original
        finished = False
    assert migrate(old).already_done is finished
    assert not (old / DRAFT_FOLDER).exists()
    assert rows(old / "store.duckdb", ARRAYS) == original
    with WorkspaceStore(old) as store:
        assert counts(store, *NUMBERS_OF_OLD) == NUMBERS_OF_OLD
    return finished


@pytest.mark.parametrize("lines", some([9, 1, 14], 1))
def test_killed_while_copying_or_comparing(old: Path, lines: int) -> None:
    process = child(TELL_PROGRESS, old)
    for _ in range(lines):
        read_line(process)
    process.send_signal(signal.SIGKILL)  # it went on meanwhile: the moment differs from run to run
    process.communicate(timeout=DEADLINE)
    assert_whole_and_complete(old)


@pytest.mark.parametrize("event", some([-3, -5, -2], 1))
def test_killed_while_swapping(old: Path, event: int) -> None:
    total = number_of_file_events(old.parent)
    process = child(DIE_AT_FILE_EVENT, old, total + event)
    assert process.wait(timeout=DEADLINE) == -signal.SIGKILL
    process.communicate()
    assert_whole_and_complete(old)


def number_of_file_events(parent: Path) -> int:
    if not _EVENTS:
        process = child(DIE_AT_FILE_EVENT, unpacked(OLD, parent / "count"), 0)
        _EVENTS.append(int(read_line(process)))
        process.communicate(timeout=DEADLINE)
    return _EVENTS[0]


_EVENTS: list[int] = []
