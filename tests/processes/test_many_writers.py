"""Eight writers killed and restarted, readers and deletions beside them: every row is counted."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from helpers import DEADLINE, child, counts, names_in, read_line

from n4a_fast import WorkspaceStore

WRITERS, PIPELINES, KILLS = 8, 200, 4
PER_PIPELINE = {"chains": 1, "predictions": 3, "logs": 1}

WRITE = """
import sys
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1], lock_timeout=300)
for number in range(int(sys.argv[3])):
    pipeline = begin_pipeline(store, sys.argv[2])
    artifact = store.save_artifact({"model": number % 7}, "PLS", "model", "joblib")
    sweep = Sweep(sys.argv[2], pipeline, save_chain(store, pipeline, fold_artifacts={"fold_0": artifact}))
    for fold in range(3):
        predict_with_arrays(store, sweep, number, fold_id=str(fold))
    store.log_step(pipeline, 1, "SNV", "end")
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    print(pipeline, flush=True)
store.close()
"""
UNTIL_TOLD = """
import json, sys, threading
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from n4a_fast import WorkspaceStore
told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
"""
READ = (
    UNTIL_TOLD
    + """
WHOLE = '''SELECT count(*) AS pipelines, count(*) FILTER (predictions = 3 AND arrays = 3 AND chains = 1 AND logs = 1) AS
whole FROM (
SELECT pipeline_id, (SELECT count(*) FROM predictions p WHERE p.pipeline_id = l.pipeline_id) AS predictions,
    (SELECT count(*) FROM predictions p JOIN prediction_arrays a USING (prediction_id) WHERE p.pipeline_id =
    l.pipeline_id AND len(y_pred) = 5) AS arrays,
    (SELECT count(*) FROM chains c WHERE c.pipeline_id = l.pipeline_id) AS chains,
    (SELECT count(*) FROM logs g WHERE g.pipeline_id = l.pipeline_id) AS logs FROM pipelines l)'''
seen = []
while not told.is_set():  # opened anew each time, as a notebook or the command line does
    with WorkspaceStore.open_readonly(sys.argv[1], lock_timeout=300) as store:
        for _ in range(3):
            ((pipelines, whole),) = store.sql(WHOLE).rows()
            assert pipelines == whole, (pipelines, whole)
            best = store.top_predictions(3).height  # pipelines have three each
            assert best == 3 or (best == 0 and (not pipelines or sys.argv[2] == "deletions")), (best, pipelines)
            seen.append(pipelines)
            told.wait(0.05)
assert seen == sorted(seen) or sys.argv[2] == "deletions", seen
print(json.dumps(seen))
"""
)
DELETE = (
    UNTIL_TOLD
    + """
store = WorkspaceStore(sys.argv[1], lock_timeout=300)
deleted = []
while not told.is_set():
    run = store.begin_run("temporary", {}, [])
    for number in range(3):
        pipeline = begin_pipeline(store, run)
        artifact = store.save_artifact({"model": number}, "PLS", "model", "joblib")  # the writers save the same ones
        sweep = Sweep(run, pipeline, save_chain(store, pipeline, fold_artifacts={"fold_0": artifact}))
        for fold in range(3):
            predict_with_arrays(store, sweep, fold_id=str(fold))
        store.log_step(pipeline, 1, "SNV", "end")
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    store.complete_run(run, {})
    deleted.append(store.delete_run(run))
    store.gc_artifacts()
    told.wait(0.2)
store.close()
print(json.dumps(deleted))
"""
)


class Writer(threading.Thread):
    """Runs one writer, killed at random and started again for what is missing, until all its pipelines are
    acknowledged.
    """

    def __init__(self, folder: Path, run: str, pipelines: int, kills: int, seed: int) -> None:
        super().__init__()
        self._folder, self._run_id, self._pipelines, self._kills = folder, run, pipelines, kills
        self._random = random.Random(seed)
        self.acknowledged: list[str] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for _ in range(self._kills):
                process, missing = self._writer(), self._pipelines - len(self.acknowledged)
                # none is missing when a writer came to its end before it was killed
                for _ in range(min(missing, self._random.randrange(1, self._pipelines // (self._kills + 1)))):
                    self.acknowledged.append(read_line(process))
                self.acknowledged += killed(process).split()
            process = self._writer()
            output, errors = process.communicate(timeout=2 * DEADLINE)
            self.acknowledged += output.split()
            assert (process.returncode, len(self.acknowledged)) == (0, self._pipelines), errors
        except Exception as error:
            self.error = error

    def _writer(self) -> subprocess.Popen[str]:
        return child(WRITE, self._folder, self._run_id, self._pipelines - len(self.acknowledged))


def killed(process: subprocess.Popen[str]) -> str:
    """`kill -9`; every line that was not read yet: `communicate` would lose those that the pipe's file has read
    ahead.
    """
    process.kill()
    assert process.stdout is not None
    output = process.stdout.read()
    process.communicate(timeout=DEADLINE)
    return output


def told_to_stop(process: subprocess.Popen[str]) -> list[int]:
    output, errors = process.communicate("stop\n", timeout=DEADLINE)
    assert process.returncode == 0, errors
    found: list[int] = json.loads(output)
    return found


def write_all(folder: Path, writers: int, pipelines: int, kills: Callable[[int], int]) -> list[str]:
    """All acknowledged pipelines of so many writers in one run."""
    with WorkspaceStore(folder) as store:
        run = store.begin_run("many", {}, [])
    threads = [Writer(folder, run, pipelines, kills(number), seed=number) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [thread.error for thread in threads if thread.error] == []
    return [pipeline for thread in threads for pipeline in thread.acknowledged]


def check_all(folder: Path, acknowledged: list[str], kills: int) -> None:
    """What was acknowledged is there once; beyond it at most one pipeline for each kill, whole as well."""
    with WorkspaceStore(folder) as store:
        stored = store.list_pipelines()["pipeline_id"].to_list()
        assert len(set(acknowledged)) == len(acknowledged)
        assert set(acknowledged) <= set(stored)
        assert len(acknowledged) <= len(stored) <= len(acknowledged) + kills
        expected = {
            "runs": 1,
            "pipelines": len(stored),
            **{table: number * len(stored) for table, number in PER_PIPELINE.items()},
        }
        assert counts(store, *expected, "prediction_arrays") == {**expected, "prediction_arrays": 3 * len(stored)}
        artifacts = store.sql("SELECT artifact_id, ref_count FROM artifacts").rows()
        assert sorted(store.load_artifact(artifact)["model"] for artifact, _ in artifacts) == list(
            range(min(7, len(stored)))
        )
        assert sum(references for _, references in artifacts) == len(stored)
    assert names_in(folder) == ["artifacts", "store.duckdb"]


def test_writers_that_are_killed_and_restarted_lose_and_double_nothing(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    reader = child(READ, tmp_path, "growing")
    acknowledged = write_all(tmp_path, WRITERS, PIPELINES, lambda number: int(number < KILLS))
    seen = told_to_stop(reader)
    assert len(acknowledged) == WRITERS * PIPELINES
    assert seen[-1] > 0, "it has looked at what they wrote"
    check_all(tmp_path, acknowledged, KILLS)


def test_deletions_and_collections_beside_writers_take_only_what_is_theirs(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    deleter, reader = child(DELETE, tmp_path), child(READ, tmp_path, "deletions")
    acknowledged = write_all(tmp_path, 3, 100, lambda _: 0)
    deleted = told_to_stop(deleter)
    told_to_stop(reader)
    assert deleted == [1 + 3 * (1 + 1 + 3 + 3 + 1)] * len(deleted)
    assert deleted
    check_all(tmp_path, acknowledged, 0)
