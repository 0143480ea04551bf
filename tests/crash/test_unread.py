"""A disk that cannot be read for a moment is told by an error of ours, whatever is called, and harms no later call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import finish, library, program
from sampling import some
from unread import CALLS

from n4a_fast import WorkspaceStore

SHIM = Path(__file__).with_name("unreadable.c")
PROGRAM = Path(__file__).with_name("unread.py")
READING = ("progress", "iter_arrays", "get_prediction", "replay_chain", "inspect_bundle")


@pytest.mark.parametrize(
    ("calls", "faults"), some([(READING, 2), (tuple(CALLS), 12)], 1), ids=["those that read", "all of them"]
)
def test_a_refused_look_is_told_whatever_was_called(tmp_path: Path, calls: tuple[str, ...], faults: int) -> None:
    told = finish(program(PROGRAM, tmp_path, faults, *calls, LD_PRELOAD=str(library(SHIM))), timeout=3000)
    *wrong, done = map(json.loads, told.splitlines())
    assert set(done) == set(calls)
    assert sum(done.values()) >= len(calls)
    assert not wrong, "\n".join(": ".join(each) for each in wrong[:20])


def test_every_public_call_tells_what_is_refused_itself_or_is_tried_here() -> None:
    """A decorator of the store's translates for all others."""
    calls = {name: getattr(call, "__func__", call) for name, call in vars(WorkspaceStore).items() if name[0] != "_"}
    bare = {name for name, call in calls.items() if not isinstance(call, property) and not hasattr(call, "__wrapped__")}
    assert len(bare) < len(calls) / 4
    assert bare <= CALLS.keys()
