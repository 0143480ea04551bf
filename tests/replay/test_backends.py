"""Backends of joblib that the caller sets: a cluster of Dask whose workers have less memory than the spectra."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from chemotools.scatter import StandardNormalVariate
from dask.distributed import Client, LocalCluster
from joblib.parallel import ThreadingBackend
from replay_chains import spectra, target
from replay_stores import begin, put_chain
from sklearn.tree import DecisionTreeRegressor

from n4a_fast import WorkspaceStore

WORKER_MEMORY = 700 * 2**20  # a Python that has imported scikit-learn takes half of it
X = spectra(400, 1000)


@pytest.mark.long  # processes that a thread of Dask starts cannot be left out where they begin
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_workers_of_dask_are_sent_blocks_of_spectra_that_their_memory_does_not_hold(tmp_path: Path, rows: int) -> None:
    large = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float64, (rows, 1000))
    for first in range(0, rows, len(X)):
        large[first : first + len(X)] = X
    large.flush()
    del large
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert mapped.nbytes > WORKER_MEMORY or rows < 100_000
    with WorkspaceStore(tmp_path / "ws") as store:
        steps = [StandardNormalVariate().fit(X)]
        Z = steps[0].transform(X)
        chains = [
            put_chain(store, begin(store), steps, [DecisionTreeRegressor(max_depth=depth).fit(Z, target(X))])
            for depth in (3, 4)
        ]
        expected = store.replay_chains(chains, X)
        with (
            LocalCluster(
                n_workers=2 if rows >= 100_000 else 1,
                threads_per_worker=1,
                memory_limit=WORKER_MEMORY,
                dashboard_address=None,
            ) as cluster,
            Client(cluster) as client,
            joblib.parallel_config(backend="dask"),
        ):
            out = np.empty((len(chains), rows))
            store.replay_chains(chains, mapped, n_jobs=2, out=out, max_bytes=2**23)
            workers = {pid for pid, _ in client.run(_looked_at).values()}
            loaded = any(models for _, models in client.run(_looked_at).values())
    assert os.getpid() not in workers
    assert loaded
    np.testing.assert_array_equal(out, np.tile(expected, (1, rows // len(X))))


class _Together(ThreadingBackend):
    """Gives results when all are there, as Ray's backend does."""

    supports_return_generator = False


@pytest.mark.long
def test_backends_that_give_results_together_are_served(tmp_path: Path) -> None:
    joblib.register_parallel_backend("together", _Together)
    with WorkspaceStore(tmp_path / "ws") as store:
        models = [DecisionTreeRegressor(max_depth=depth).fit(X, target(X)) for depth in (2, 3, 4)]
        chains = [put_chain(store, begin(store), [], [model]) for model in models]
        with joblib.parallel_config(backend="together"):
            found = store.replay_chains(chains, X, n_jobs=2)
    np.testing.assert_array_equal(found, [model.predict(X) for model in models])


def _looked_at() -> tuple[int, bool]:
    """Which process a worker is, and whether it has loaded a model of ours."""
    return os.getpid(), "sklearn.tree" in sys.modules
