"""Chains of scikit-learn's operators for the tests of bundles and scripts, each with predictions that come from its
operators alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import begin_pipeline, save_chain
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, Normalizer, PowerTransformer, StandardScaler

from n4a_fast import WorkspaceStore

WIDTH = 6
Steps = list[tuple[str, Any]]  # kind ("transform", "y_processing", "augment", "made", "skip") and what stands there


def spectra(rows: int = 20, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(loc=2.0, size=(rows, WIDTH))


def save(store: WorkspaceStore, steps: Steps, models: dict[str, Any], pipeline: str | None = None) -> str:
    """A chain of these fitted operators; steps are numbered from 1, the model comes last."""
    rows: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for index, (kind, what) in enumerate(steps, start=1):
        rows.append(
            row := {"step_idx": index, "operator_class": "?", "params": {}, "artifact_id": None, "stateless": True}
        )
        if kind == "made":
            row["operator_class"] = what
        elif kind == "skip":
            row["operator_class"] = "ShuffleSplit"
        else:
            operators = what if isinstance(what, list) else [what]
            shared[str(index)] = [
                store.save_artifact(each, type(each).__name__, "transformer", "joblib") for each in operators
            ]
            row |= {
                "operator_class": type(operators[0]).__name__,
                "artifact_ids": shared[str(index)],
                "stateless": False,
            }
            if kind == "y_processing":
                row["operator_type"] = kind
            if kind == "augment":
                row["params"] = {
                    "feature_augmentation": [type(each).__name__ for each in operators],
                    "action": "extend",
                }
    model = len(steps) + 1
    kind = type(next(iter(models.values()))).__name__
    rows.append({"step_idx": model, "operator_class": kind, "params": {}, "artifact_id": None, "stateless": False})
    folds = {f"fold_{key}": store.save_artifact(each, kind, "model", "joblib") for key, each in models.items()}
    pipeline = pipeline or begin_pipeline(store, store.begin_run("run", {}, []))
    return save_chain(
        store,
        pipeline,
        steps=rows,
        model_step_idx=model,
        model_class=kind,
        fold_artifacts=folds,
        shared_artifacts=shared,
    )


def case(name: str) -> tuple[Steps, dict[str, Any]]:
    """Fitted operators of one kind of chain."""
    X = spectra(40, 1)
    y = 3.0 + X[:, 0] - 2.0 * X[:, 3]
    labels = np.array(["high", "low", "mid"])[np.digitize(y, np.quantile(y, [0.3, 0.6]))]
    scaler, normalizer, minmax = StandardScaler().fit(X), Normalizer().fit(X), MinMaxScaler().fit(X)
    Z, halves = scaler.transform(X), (slice(0, 20), slice(20, 40))
    if name == "folds":
        return [("transform", scaler), ("skip", None)], {
            str(fold): Ridge(0.1 + fold).fit(Z[half], y[half]) for fold, half in enumerate(halves)
        }
    if name == "refit":
        models = {str(fold): Ridge(0.1).fit(Z[half], y[half]) for fold, half in enumerate(halves)}
        return [("transform", scaler)], {**models, "final": Ridge(0.5).fit(Z, y)}
    if name == "several_in_a_step":
        return [("transform", [normalizer, StandardScaler().fit(normalizer.transform(X))])], {
            "0": PLSRegression(2).fit(Z, y)
        }
    if name == "target":
        target = StandardScaler().fit(y[:, None])
        return [("transform", scaler), ("y_processing", target)], {
            str(fold): Ridge(0.1).fit(Z[half], (y[half] - 3) / 4) for fold, half in enumerate(halves)
        }
    if name == "two_targets":
        targets = [StandardScaler().fit(y[:, None]), MinMaxScaler().fit((y[:, None] - 3) / 4)]
        return [("y_processing", targets), ("transform", scaler)], {"0": Ridge(0.1).fit(Z, y / 9)}
    if name == "curved_target":
        curve = PowerTransformer().fit(y[:, None])
        bent = curve.transform(y[:, None]).ravel()
        return [("transform", scaler), ("y_processing", curve)], {
            str(fold): Ridge(0.1).fit(Z[half], bent[half]) for fold, half in enumerate(halves)
        }
    if name == "made":
        return [("made", "sklearn.preprocessing.Normalizer"), ("transform", scaler)], {"0": Ridge(0.1).fit(Z, y)}
    if name == "augmented":
        channels = [MinMaxScaler().fit(each) for each in (X, normalizer.transform(X), Z)]
        wide = np.hstack(
            [channel.transform(each) for channel, each in zip(channels, (X, normalizer.transform(X), Z), strict=True)]
        )
        return [("transform", minmax), ("augment", [normalizer, scaler]), ("transform", channels)], {
            "0": Ridge(0.1).fit(wide, y)
        }
    if name == "classes":
        return [("transform", scaler)], {
            str(fold): LogisticRegression(C=fold + 1.0).fit(Z[fold::2], labels[fold::2]) for fold in range(2)
        }
    encoder = LabelEncoder().fit(labels)
    return [("transform", scaler), ("y_processing", encoder)], {
        "final": LogisticRegression().fit(Z, encoder.transform(labels))
    }


CASES = (
    "folds",
    "refit",
    "several_in_a_step",
    "target",
    "two_targets",
    "curved_target",
    "made",
    "augmented",
    "classes",
    "encoded_classes",
)
