"""Replay of ensembles of trees against their estimators with their objects in memory.

The estimators have one thread. The plain path is `reference.replay_one` with loaded objects: no store, no file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from chains import fill, spectra
from harness import Measure, gate, report
from reference import PLAIN, agree, replay_in_turn
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from threadpoolctl import threadpool_limits

from n4a_fast import WorkspaceStore


def _ensemble_gate(name: str, what: str, *needs: str) -> pytest.MarkDecorator:
    workload = f"processor time of replay_chains: 4 chains of 5 {what} behind one preprocessing, on 1,000 rows"
    return gate(name, workload=workload, baseline=PLAIN, size=4, seed=0, threads=1, needs=needs)


def _ensembles(measure: Measure, store: WorkspaceStore, model: Callable[[int], Any], within: float = 1e-15) -> None:
    """The models are in memory on both sides."""
    chains, X = fill(store, 4, pool=7, model=model, samples=120), spectra(1_000)
    load = chains.objects.__getitem__
    with threadpool_limits(limits=1):  # OpenMP's too
        measure.work(
            lambda: replay_in_turn(load, chains.plain, X), lambda: store.replay_chains(chains.ids, X), rounds=9
        )
        found, expected = store.replay_chains(chains.ids, X), replay_in_turn(load, chains.plain, X)
    assert agree(found, np.stack(expected), within)


@_ensemble_gate("replay_forests", "random forests of 100 trees")
def test_replay_forests(measure: Measure, store: WorkspaceStore) -> None:
    _ensembles(measure, store, lambda seed: RandomForestRegressor(100, max_features=0.1, random_state=seed))
    assert measure.done


@_ensemble_gate("replay_boosting", "gradient boosting models of 100 stages")
def test_replay_boosting(measure: Measure, store: WorkspaceStore) -> None:
    _ensembles(measure, store, lambda seed: GradientBoostingRegressor(max_features=0.1, random_state=seed))
    assert measure.done


@_ensemble_gate("replay_histogram_boosting", "histogram-based gradient boosting models of 100 iterations")
def test_replay_histogram_boosting(measure: Measure, store: WorkspaceStore) -> None:
    _ensembles(measure, store, lambda _: HistGradientBoostingRegressor(min_samples_leaf=5))
    assert measure.done


@_ensemble_gate("replay_lightgbm", "lightgbm models of 100 iterations", "lightgbm")
def test_replay_lightgbm(measure: Measure, store: WorkspaceStore) -> None:
    made = import_module("lightgbm").LGBMRegressor
    _ensembles(measure, store, lambda seed: made(min_child_samples=5, n_jobs=1, verbose=-1, random_state=seed))
    assert measure.done


@_ensemble_gate("replay_xgboost", "xgboost models of 100 rounds", "xgboost")
def test_replay_xgboost(measure: Measure, store: WorkspaceStore) -> None:
    made = import_module("xgboost").XGBRegressor
    # the plain path averages folds in single precision
    _ensembles(measure, store, lambda seed: made(n_jobs=1, random_state=seed, colsample_bytree=0.3), within=1e-6)
    assert measure.done


@report(
    "replay_200_forests",
    workload="replay_chains(n_jobs=2): 200 chains of 5 forests of 100 trees on 1,000 rows",
    size=200,
    seed=0,
    threads="n_jobs=2",
    baseline=PLAIN,
)
def test_replay_200_forests(measure: Measure, store: WorkspaceStore) -> None:
    chains = fill(
        store,
        200,
        pool=10,
        model=lambda seed: RandomForestRegressor(100, max_features=0.1, random_state=seed),
        samples=120,
    )
    X = spectra(1_000)
    some = chains.plain[::10]
    measure.ratio(
        lambda: replay_in_turn(chains.objects.__getitem__, some, X),
        lambda: store.replay_chains(chains.ids, X, n_jobs=2),
        rounds=2,
        scale=len(chains.ids) / len(some),
    )
    assert agree(
        store.replay_chains(chains.ids[:2], X),
        np.stack(replay_in_turn(chains.objects.__getitem__, chains.plain[:2], X)),
    )
