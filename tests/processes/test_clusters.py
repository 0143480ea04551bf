"""Job arrays and joblib's cluster backends: the same tasks on shards, wherever they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import DEADLINE, counts, finish, program

from n4a_fast import WorkspaceStore

EXAMPLE = Path(__file__).parents[2] / "examples" / "job_array.py"
PAGE = Path(__file__).parents[2] / "docs" / "processes.md"
TASKS = 2

SWEEP = """
import sys
import joblib
import numpy as np
from helpers import Sweep, begin_pipeline, predict_with_arrays, save_chain
from sklearn.ensemble import RandomForestRegressor
from n4a_fast import WorkspaceStore

X = np.random.default_rng(0).normal(size=(30, 4))
MODEL = {"steps": [{"step_idx": 1, "operator_class": "model", "params": {}, "artifact_id": None, "stateless": False}],
         "model_step_idx": 1}

def fill(shard, run, number):
    with shard.open() as store:
        for again in range(2):
            pipeline = begin_pipeline(store, run, f"task {number}")
            model = RandomForestRegressor(5, random_state=2 * number + again).fit(X, X[:, 0] + number)
            artifact = store.save_artifact(model, "RandomForestRegressor", "model", "joblib")
            sweep = Sweep(run, pipeline, save_chain(store, pipeline, **MODEL, fold_artifacts={"fold_0": artifact}))
            predict_with_arrays(store, sweep, number)
            store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    return number

def shift(path, prediction):  # a read of the merged workspace, by many workers at once
    with WorkspaceStore.open_readonly(path) as store:
        return float(store.get_prediction_arrays(prediction)["y_pred"][0])

def replay(path, chains):  # each worker has its part of the chains
    with WorkspaceStore.open_readonly(path) as store:
        return store.replay_chains(chains, X)

def sweep(path):
    with WorkspaceStore(path) as store:
        run = store.begin_run("cluster", {}, [])
        filled = joblib.Parallel()(joblib.delayed(fill)(store.shard(run_id=run), run, number) for number in range(4))
        assert filled == [0, 1, 2, 3]
        assert store.merge().added("predictions") == 8
        predictions = store.query_predictions()["prediction_id"].to_list()
        found = joblib.Parallel()(joblib.delayed(shift)(path, prediction) for prediction in predictions)
        assert sorted(found) == [0, 0, 1, 1, 2, 2, 3, 3]
        chains = store.sql("SELECT chain_id FROM chains ORDER BY chain_id")["chain_id"].to_list()
        expected = np.stack([store.replay_chain(chain, X) for chain in chains])
        assert len(np.unique(expected, axis=0)) == 8
        assert np.allclose(store.replay_chains(chains, X, n_jobs=2), expected)
        assert np.allclose(np.vstack(joblib.Parallel()(joblib.delayed(replay)(path, part) for part in (chains[:4],
        chains[4:]))), expected)
        store.complete_run(run, {})
"""
LOKY = """
if __name__ == "__main__":
    with joblib.parallel_config(backend="loky", n_jobs=2):
        sweep(sys.argv[1])
"""
DASK = """
if __name__ == "__main__":
    from distributed import Client, LocalCluster
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, protocol="tcp",
                     host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client, joblib.parallel_config(backend="dask"),
    ):
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        assert len(client.scheduler_info()["workers"]) == 2
        sweep(sys.argv[1])
"""
RAY = """
if __name__ == "__main__":
    import ray
    from ray.util.joblib import register_ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    with joblib.parallel_config(backend="ray", n_jobs=2):
        sweep(sys.argv[1])
    ray.shutdown()
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program printed, once it has ended well; it finds the helpers and no other workspace."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env=environment,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("backend", "needs"),
    [
        (LOKY, "joblib"),
        pytest.param(
            DASK,
            "distributed",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    not find_spec("distributed"), reason="Dask is not installed; pip install 'n4a_fast[test]'"
                ),
            ],
        ),
        pytest.param(
            RAY, "ray", marks=pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed; pip install ray")
        ),
    ],
    ids=["loky", "dask", "ray"],
)
def test_a_sweep_on_shards_runs_unchanged_under_a_backend_of_joblib(tmp_path: Path, backend: str, needs: str) -> None:
    assert find_spec(needs)
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP + backend)
    run(script, tmp_path / "workspace")
    with WorkspaceStore(tmp_path / "workspace") as store:
        assert counts(store, "runs", "pipelines", "predictions", "prediction_arrays") == {
            "runs": 1,
            "pipelines": 8,
            "predictions": 8,
            "prediction_arrays": 8,
        }
        assert store.list_runs()["status"].to_list() == ["completed"]


def test_the_documentation_s_code_works_as_it_is_written(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)))
    run(script, cwd=tmp_path)
    with WorkspaceStore(tmp_path / "sweep") as store:
        assert store.list_runs()["status"].to_list() == ["completed", "completed"]
        assert store.list_pipelines().group_by("run_id").len()["len"].to_list() == [2, 2]


def done(*arguments: str | Path) -> str:
    """What the example printed, once it has ended well."""
    return finish(program(EXAMPLE, *arguments))


def failed(*arguments: str | Path) -> str:
    """The last line that the example left on stderr, once it has failed."""
    with program(EXAMPLE, *arguments) as process:
        errors = process.communicate(timeout=DEADLINE)[1]
    assert process.returncode != 0
    return errors.splitlines()[-1]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with a run, whose id is given, and the shard of the first of its tasks."""
    workspace = tmp_path_factory.mktemp("begun") / "workspace"
    run_id = done("begin", workspace).strip()
    done("task", workspace, run_id, "0", "of", str(TASKS))
    return workspace, run_id


def test_the_job_array_of_the_documentation_gives_one_complete_workspace(
    tmp_path: Path, begun: tuple[Path, str]
) -> None:
    workspace, run_id = shutil.copytree(begun[0], tmp_path / "workspace"), begun[1]
    for _ in range(2):  # submitted again: it replaces its shard
        done("task", workspace, run_id, "1", "of", str(TASKS))
    lines = done("merge", workspace, run_id).splitlines()
    assert lines[0] == "24 predictions in 12 pipelines from 2 shards"
    assert len(lines) == 4
    with WorkspaceStore(workspace) as store:
        assert store.merge().added("predictions") == 0
        assert counts(store, "runs", "pipelines", "predictions", "artifacts") == {
            "runs": 1,
            "pipelines": 12,
            "predictions": 24,
            "artifacts": 12,
        }
        assert set(store.list_pipelines()["status"]) == {"completed"}


def test_the_job_array_keeps_what_is_there_when_its_arguments_are_wrong(
    tmp_path: Path, begun: tuple[Path, str]
) -> None:
    workspace, run_id = shutil.copytree(begun[0], tmp_path / "workspace"), begun[1]
    assert "no store file" in failed("merge", tmp_path / "mistyped", "run")
    assert not (tmp_path / "mistyped").exists()
    assert "mistyped" in failed("task", workspace, "mistyped", "0", "of", str(TASKS))
    assert (workspace / "shards" / "task_0" / "store.duckdb").exists()
    assert "6 of 12 variants" in failed("merge", workspace, run_id)  # task 1 is still to come
    done("task", workspace, run_id, "1", "of", str(TASKS))
    assert len(done("merge", workspace, run_id).splitlines()) == 4
