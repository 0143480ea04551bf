"""Shards whose folders are removed, merged or not wanted, while a call reads them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from helpers import begin_sweep, predict_with_arrays
from sampling import some

from n4a_fast import WorkspaceStore

MOMENTS = (1, 200, 600, 1000)  # calls of functions after the shard is opened


class Remover:
    """Removes a shard's folder in the block, so many calls of functions after it was opened."""

    def __init__(self, shard: Path, after: int) -> None:
        self._shard, self._left, self._is_open = shard, after, False

    def __enter__(self) -> None:
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _what: object) -> None:
        if event == "call" and "n4a_fast" in frame.f_code.co_filename:
            self._is_open |= frame.f_code.co_name == "open_workspace" and frame.f_locals["path"] == self._shard
            self._left -= self._is_open
            if self._left == 0:
                sys.setprofile(None)
                shutil.rmtree(self._shard)


def back_up(store: WorkspaceStore, place: Path) -> None:
    store.backup(place)
    with WorkspaceStore.open_readonly(place) as copy:
        assert copy.list_runs().height == 1


def extract(store: WorkspaceStore, place: Path) -> None:
    store.extract(store.list_runs()["run_id"].to_list(), place)
    with WorkspaceStore.open_readonly(place) as extracted:
        assert extracted.list_runs().height == 1


def verify(store: WorkspaceStore, _place: Path) -> None:
    report = store.verify()
    assert not report.findings, [str(each) for each in report.findings]


@pytest.mark.not_on("windows", reason="a workspace that is open keeps its file and its folder")
@pytest.mark.parametrize("call", some([extract, back_up, verify], 1))
@pytest.mark.long
def test_a_shard_that_is_removed_at_any_moment_of_a_call_is_passed_over(
    store: WorkspaceStore, tmp_path: Path, call: Callable[[WorkspaceStore, Path], None]
) -> None:
    sweep = begin_sweep(store)
    predict_with_arrays(store, sweep)
    shard = store.shard(run_id=sweep.run)
    with shard.open() as inner:
        predict_with_arrays(inner, begin_sweep(inner))
        inner.save_artifact({"is": [0.5] * 300}, "dict", "model", "joblib")
    kept = shutil.copytree(shard.path, tmp_path / "kept")
    for moment in MOMENTS:
        with Remover(shard.path, moment):
            call(store, tmp_path / str(moment))
        assert not shard.path.exists()
        shutil.copytree(kept, shard.path)
