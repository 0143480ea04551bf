"""Chains to replay: SNV > Savitzky-Golay > MinMax > PLS in folds, in a store and as plain objects.

A set of many chains shares a few preprocessings and a pool of fold models: each chain averages another
five of them, so thousands are stored in seconds while every one predicts something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import StandardNormalVariate
from sklearn.cross_decomposition import PLSRegression
from sklearn.preprocessing import MinMaxScaler

from n4a_fast import WorkspaceStore

WIDTH, FOLDS = 700, 5
Array = np.ndarray[Any, np.dtype[np.float64]]
PlainChain = tuple[
    Sequence[str], dict[str, str]
]  # shared ids in order, fold models by key, as reference.replay_one takes them


def spectra(rows: int, seed: int = 0) -> Array:
    """Smooth bands on a sloping baseline, a little noise."""
    numbers = np.random.default_rng(seed)
    axis = np.linspace(0.0, 1.0, WIDTH)
    bands = np.exp(-(((axis - np.linspace(0.1, 0.9, 8)[:, None]) / 0.08) ** 2))
    baseline = 0.4 + 0.3 * numbers.random((rows, 1)) * axis
    return baseline + numbers.random((rows, 8)) @ bands + 1e-3 * numbers.standard_normal((rows, WIDTH))


@dataclass(frozen=True, slots=True)
class Chains:
    """Chains in a store, and what they are made of as plain objects by the same ids."""

    ids: list[str]
    plain: list[PlainChain]
    objects: dict[str, Any]


def preprocessed(window: int, deriv: int, X: Array, snv: bool = True) -> tuple[list[Any], Array]:
    """Fitted transformers, and what they leave of X."""
    steps: list[Any] = [StandardNormalVariate()] if snv else []
    done = []
    for step in [*steps, SavitzkyGolay(window_length=window, polyorder=2, deriv=deriv), MinMaxScaler()]:
        done.append(step.fit(X))
        X = np.asarray(step.transform(X))
    return done, X


def fill(
    store: WorkspaceStore,
    chains: int,
    prefixes: int = 1,
    pool: int = FOLDS,
    *,
    snv: bool = True,
    model: Callable[[int], Any] = lambda number: PLSRegression(5),
    samples: int = 60,
) -> Chains:
    """`chains` chains over `prefixes` preprocessings, each with five of `pool` fold models of its preprocessing.

    `model` makes the unfitted fold model of a number; each is fitted on three quarters of `samples` spectra.
    """
    X = spectra(samples, seed=1)
    y = X[:, 100] - X[:, 400] + 0.01 * np.random.default_rng(2).standard_normal(len(X))
    pipeline = store.begin_pipeline(store.begin_run("replay", {}, []), "p", {}, [], "d", "h")
    objects: dict[str, Any] = {}

    def keep(obj: Any, kind: str) -> str:
        artifact_id = store.save_artifact(obj, type(obj).__name__, kind, "cloudpickle")
        objects[artifact_id] = obj
        return artifact_id

    ids: list[str] = []
    plain: list[PlainChain] = []
    for prefix in range(prefixes):
        steps, Z = preprocessed(11 + 2 * (prefix // 2), 1 + prefix % 2, X, snv)
        shared, rows = [keep(step, "transformer") for step in steps], np.random.default_rng(prefix)
        parts = [rows.permutation(samples)[: samples * 3 // 4] for _ in range(pool)]
        models = [keep(model(number).fit(Z[part], y[part]), "model") for number, part in enumerate(parts)]
        for chosen in islice(combinations(models, FOLDS), -(-chains // prefixes)):
            folds = {f"fold_{number}": artifact_id for number, artifact_id in enumerate(chosen)}
            ids.append(_save_chain(store, pipeline, shared, folds))
            plain.append((shared, folds))
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return Chains(ids[:chains], plain[:chains], objects)


def _save_chain(store: WorkspaceStore, pipeline: str, shared: Sequence[str], folds: dict[str, str]) -> str:
    steps = [
        {"step_idx": number + 1, "operator_class": "transformer", "params": {}, "artifact_id": one}
        for number, one in enumerate(shared)
    ]
    model = len(steps) + 1
    steps.append({"step_idx": model, "operator_class": "PLSRegression", "params": {}, "artifact_id": None})
    used = {str(number + 1): [one] for number, one in enumerate(shared)}
    return store.save_chain(pipeline, steps, model, "PLSRegression", "SNV > SG > MinMax", "per_fold", folds, used)
