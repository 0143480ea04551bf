"""Workers killed at random moments, again and again on one workspace: what was acknowledged is whole, nothing is
doubled.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from helpers import DEADLINE, SHARE, counts, finish, program
from nursery import BULK_ROWS, FOLDS, PARTITIONS, fill_pipeline
from sampling import some

from n4a_fast import WorkspaceStore
from n4a_fast.merging.logged_tables import logged

KILLS = round(16 * SHARE)  # of each workload
MERGES_KILLED = 6  # each within one
SHARDS, PIPELINES = 15, 3  # to merge, and in each
OF_PIPELINE = FOLDS * len(PARTITIONS)
PER_PIPELINE = {
    "pipelines": 1,
    "chains": 1,
    "predictions": OF_PIPELINE,
    "prediction_arrays": OF_PIPELINE,
    "logs": 1,
    "artifacts": 1,
    "chain_artifacts": 1,
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    with program(Path(__file__).with_name("nursery.py")) as process:
        yield process
        finish(process)


def killed(
    nursery: subprocess.Popen[str], workload: str, folder: Path, acknowledged: Path, dice: random.Random
) -> None:
    """Start a worker and kill it at a random moment after it has come to write, or within one of its first merges."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    before, merges = size(acknowledged), dice.randint(1, 3)
    nursery.stdin.write(f"{workload} {folder} {acknowledged} {dice.randrange(1000)}\n")
    nursery.stdin.flush()
    process = int(nursery.stdout.readline())
    deadline = time.monotonic() + DEADLINE
    while not has_come_to_write(acknowledged, before, workload, merges):
        assert time.monotonic() < deadline, "the worker saved nothing"
        time.sleep(0.0005)
    time.sleep(dice.random() * (0.002 if workload == "merge" else 0.15))
    os.kill(process, signal.SIGKILL)
    assert nursery.stdout.readline() == "gone\n"


def has_come_to_write(acknowledged: Path, before: int, workload: str, merges: int) -> bool:
    """Whether a worker has said something since `before`; of merges, that it is within the one of this number."""
    said = acknowledged.read_bytes()[before:] if acknowledged.exists() else b""
    return said.count(b"taking") >= merges and said.endswith(b"\n") if workload == "merge" else bool(said)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("workload", some(["drop-in", "draining", "bulk", "delete"], 2))
def test_kills_at_random_moments(tmp_path: Path, nursery: subprocess.Popen[str], workload: str) -> None:
    dice = random.Random(workload)
    folder, acknowledged = tmp_path / "workspace", tmp_path / "acknowledged"
    for _ in range(KILLS):
        killed(nursery, workload, folder, acknowledged, dice)
        said = [tuple(line.split()) for line in acknowledged.read_text().splitlines()]
        with WorkspaceStore(folder) as store:
            if workload == "bulk":
                check_bulk(store, {value for _, value in said})
            else:
                check_pipelines(store, said)
            assert (
                store.sql(
                    "SELECT count(*) AS n FROM (SELECT prediction_id FROM predictions GROUP BY ALL HAVING count(*) > 1)"
                )["n"][0]
                == 0
            )


@pytest.mark.slow
def test_merges_of_shards_in_their_journals_are_killed_and_repeated(
    tmp_path: Path, nursery: subprocess.Popen[str]
) -> None:
    dice = random.Random("merge")
    folder, acknowledged = tmp_path / "workspace", tmp_path / "acknowledged"
    shards = fill_shards(folder)
    inside, undone = 0, 0
    for _ in range(MERGES_KILLED):
        killed(nursery, "merge", folder, acknowledged, dice)
        said = [tuple(line.split()) for line in acknowledged.read_text().splitlines()]
        with WorkspaceStore(folder) as store:
            check_pipelines(store, [])
            there = dict(store.list_pipelines().group_by("name").len().rows())
        assert there == dict.fromkeys(there, PIPELINES)  # each shard is whole
        assert {shard for word, shard in said if word == "taken"} <= set(there)
        inside += said[-1][0] == "taking"
        undone += said[-1][0] == "taking" and said[-1][1] not in there
    assert inside >= MERGES_KILLED // 3, "too few of the kills struck in the middle of a merge"
    assert undone > 0
    assert all(logged(shard, 5.0) for shard in shards)  # and they still rest where they were
    with WorkspaceStore(folder) as store, WorkspaceStore(tmp_path / "at once") as at_once:
        at_once.merge(*shards)
        assert store.merge().added("pipelines") == PIPELINES * (SHARDS - len(there))
        assert sum(table.added for table in store.merge().tables) == 0
        for table, per_pipeline in PER_PIPELINE.items():
            expected = sorted(at_once.sql(f"FROM {table}").rows(), key=repr)
            assert len(expected) == SHARDS * PIPELINES * per_pipeline
            assert sorted(store.sql(f"FROM {table}").rows(), key=repr) == expected, table
        assert store.list_runs()["run_id"].to_list() == at_once.list_runs()["run_id"].to_list()
        artifacts = [store.load_artifact(artifact)["worker"] for artifact in store.sql("FROM artifacts")["artifact_id"]]
        assert sorted(artifacts) == sorted(store.list_pipelines()["pipeline_id"])


def fill_shards(folder: Path) -> list[Path]:
    """So many shards below a new workspace, each closed after some pipelines; all differ."""
    with WorkspaceStore(folder) as store:
        run = store.begin_run("merge", {}, [])
        shards = [store.shard(run_id=run) for _ in range(SHARDS)]
    for number, shard in enumerate(shards):
        with shard.open() as private:
            for _ in range(PIPELINES):
                fill_pipeline(private, run, shard.path.name, shift=10.0 * number)
        assert logged(shard.path, 5.0)
    return [shard.path for shard in shards]


def check_pipelines(store: WorkspaceStore, said: list[tuple[str, ...]]) -> None:
    """Every pipeline is whole; acknowledged ones are there, deleted runs are not, others are there or not."""
    pipelines = store.list_pipelines()
    saved, deleting, deleted = (
        {value for word, value in said if word in words} for words in ({"pipeline", "run"}, {"deleting"}, {"deleted"})
    )
    there = set(pipelines["pipeline_id"]) | set(pipelines["run_id"])
    assert saved - deleting <= there
    assert not deleted & there
    assert not deleted & set(store.list_runs(limit=10_000)["run_id"])
    for table, expected in {"chains": 1, "predictions": OF_PIPELINE, "logs": 1}.items():
        found = dict(store.sql(f"SELECT pipeline_id, count(*) AS n FROM {table} GROUP BY ALL").rows())
        assert found == dict.fromkeys(pipelines["pipeline_id"], expected), table
    of_run = pipelines.filter(pl.col("run_id").is_in(list(saved))).group_by("run_id").len()
    assert of_run["len"].to_list() == [2] * of_run.height
    check_arrays(store, OF_PIPELINE * pipelines.height)
    for artifact in store.sql("SELECT DISTINCT artifact_id FROM chain_artifacts WHERE released IS NOT TRUE")[
        "artifact_id"
    ]:
        assert store.load_artifact(artifact)["worker"] in there


def check_bulk(store: WorkspaceStore, calls: set[str]) -> None:
    """Every bulk call is whole, and every acknowledged one is there."""
    rows = store.sql(
        "SELECT pipeline_id || '/' || split_part(fold_id, '-', 1) AS call, count(*) AS n FROM predictions GROUP BY ALL"
    )
    assert calls <= set(rows["call"])
    assert rows["n"].to_list() == [BULK_ROWS] * rows.height
    check_arrays(store, BULK_ROWS * rows.height)


def check_arrays(store: WorkspaceStore, expected: int) -> None:
    assert counts(store, "prediction_arrays", "predictions") == {"prediction_arrays": expected, "predictions": expected}
    joined = (
        "SELECT count(*) AS n FROM predictions JOIN prediction_arrays USING (prediction_id) WHERE len(y_pred) = 5 AND"
        " len(y_true) = 5"
    )
    assert store.sql(joined)["n"][0] == expected
