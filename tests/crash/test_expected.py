"""What the random crash rounds find: everything that is there passes, and each kind of damage is seen."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import duckdb
import pytest
from expected import Verdict, judge
from found import Found
from hands import Hands
from ledger import GaveUp, Ledger, read

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace and the ledger of one writer, which did a bit of everything and acknowledged all of it."""
    folder = tmp_path_factory.mktemp("worked")
    ledger = Ledger(folder / "one")
    with WorkspaceStore(folder / "workspace") as store:
        hands = Hands(store, ledger, random.Random(3))
        for action in (hands.pipeline, hands.bulk, hands.failing, hands.shard, hands.project, hands.save_again):
            action()
        hands.work(15)
    ledger.say("ended")
    return folder


@pytest.fixture
def copy(worked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(worked, tmp_path / "copy"))


def faults(folder: Path) -> set[str]:
    verdict = Verdict()
    with WorkspaceStore(folder / "workspace") as store:
        found = Found(store)
        verdict.faults += found.faults
        judge([folder / "one"], found, verdict)
    assert verdict.looked_at.total() > 50
    return {kind for kind, _ in verdict.faults}


def test_what_was_done_is_found(copy: Path) -> None:
    assert faults(copy) == set()


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        ("DELETE FROM logs WHERE rowid = (SELECT max(rowid) FROM logs)", {"lost", "half"}),
        ("DELETE FROM predictions WHERE model_name = (SELECT max(model_name) FROM predictions)", {"lost", "dangling"}),
        ("INSERT INTO logs FROM logs LIMIT 1", {"doubled"}),
        ("DELETE FROM chain_artifacts", {"dangling"}),
        ("INSERT INTO chain_artifacts FROM chain_artifacts LIMIT 1", {"doubled"}),
        ("UPDATE pipelines SET status = 'running' WHERE status = 'completed'", {"lost"}),
        ("DELETE FROM projects", {"lost"}),
    ],
)
def test_damage_is_seen(copy: Path, statement: str, kinds: set[str]) -> None:
    with duckdb.connect(str(copy / "workspace" / "store.duckdb")) as connection:
        connection.execute(statement)
    assert kinds <= faults(copy)


def test_a_missing_artifact_file_is_seen(copy: Path) -> None:
    for path in (copy / "workspace" / "artifacts").glob("??/*"):
        path.unlink()
    assert "dangling" in faults(copy)


def test_a_call_that_raises_what_it_must_not_is_written_down(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "one")

    def refused() -> None:
        raise NotFoundError("run", "x")

    def broken() -> None:
        raise OSError(5, "Input/output error")

    for work in (refused, broken):
        with pytest.raises(GaveUp):
            ledger.call("look", work)
    assert [line.get("untyped", False) for line in read(tmp_path / "one") if line["said"] == "failed"] == [False, True]
