"""Predictions of stored chains on new spectra, kept in the store: one replay, one transaction.

They belong to a pipeline of their own, on the new data set, so that they replace nothing that was saved in training;
their fold is "avg", which no ranking of chains counts. Saved again, they are new predictions beside the old ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.learning.records import Store
from n4a_fast.tables.predictions.labels import are_labels

_FACTS = """SELECT c.chain_id, c.model_class, c.preprocessings, c.input->'classes' AS classes, p.model_name, p.task_type
FROM chains c LEFT JOIN (
    SELECT chain_id, min(model_name) AS model_name, min(task_type) AS task_type FROM predictions
    WHERE list_contains(?, chain_id) GROUP BY chain_id) p ON p.chain_id = c.chain_id
WHERE list_contains(?, c.chain_id)"""
_FOLD = "avg"


@dataclass(frozen=True, slots=True)
class NewSpectra:
    """Spectra to predict, what was measured on them, and what they are called."""

    X: Any
    y: Any
    wavelengths: Any
    sample_indices: Any
    dataset: str
    partition: str


def replay_and_save(
    store: Store, chain_ids: Sequence[str], data: NewSpectra, run: str | None, choice: Mapping[str, Any]
) -> list[str]:
    """Ids of the predictions, one for each chain, in order."""
    ids, began = list(chain_ids), time.perf_counter()
    if len(set(ids)) < len(ids):
        raise InvalidInputError("a chain is named twice, and a data set has one prediction of each; name it once")
    facts = {row["chain_id"]: row for row in store.sql(_FACTS, (ids, ids)).iter_rows(named=True)}
    for unknown in (one for one in ids if one not in facts):
        raise NotFoundError("chain", unknown)
    found = store.replay_chains(ids, data.X, data.wavelengths, **choice)
    measured = None if data.y is None else _measured(data.y, found)
    classify = [_classifies(facts[one], predicted) for one, predicted in zip(ids, found, strict=True)]
    scores = [_scores(measured, *each) for each in zip(found, classify, strict=True)]
    metrics = [next(iter(one), "") for one in scores]
    columns = {
        "chain_id": ids,
        "model_name": [facts[one]["model_name"] or _short(facts[one]["model_class"]) for one in ids],
        "model_class": [facts[one]["model_class"] for one in ids],
        "preprocessings": [facts[one]["preprocessings"] or "" for one in ids],
        "task_type": ["classification" if one else "regression" for one in classify],
        "metric": metrics,
        "test_score": [one.get(metric, np.nan) for one, metric in zip(scores, metrics, strict=True)],
        "scores": [{data.partition: one} if one else {} for one in scores],
        "dataset_name": data.dataset,
        "fold_id": _FOLD,
        "partition": data.partition,
        "n_samples": found.shape[1],
        "n_features": int(np.shape(data.X)[1]),
    }
    arrays = {"y_true": measured, "y_pred": found if found.ndim == 2 else list(found), "weights": None}
    with store.transaction():
        title = f"predictions on {data.dataset}"
        owner = run or store.begin_run(title, {"chains": ids}, [{"name": data.dataset, "n_samples": found.shape[1]}])
        pipeline = store.begin_pipeline(owner, title, {"replay": ids}, [], data.dataset, "")
        saved: list[str] = store.save_predictions(
            {**columns, "pipeline_id": pipeline}, sample_indices=data.sample_indices, **arrays
        )
        best = columns["test_score"][0] if len(ids) == 1 else np.nan
        store.complete_pipeline(pipeline, np.nan, best, metrics[0], round(1000 * (time.perf_counter() - began)))
        if run is None:
            store.complete_run(owner, {"predictions": len(saved)})
    return saved


def _measured(y: Any, found: NDArray[Any]) -> NDArray[Any]:
    measured = np.asarray(y)
    if measured.ndim == 2 and measured.shape[1] == 1:
        measured = measured[:, 0]
    if measured.shape != found.shape[1:]:
        raise InvalidInputError(f"y has shape {measured.shape}, the predictions of a chain {found.shape[1:]}")
    if are_labels(measured) != are_labels(found):
        kinds = ("labels", "numbers") if are_labels(measured) else ("numbers", "labels")
        raise InvalidInputError(f"y holds {kinds[0]}, the chains predict {kinds[1]}; give y as the chains predict")
    return measured


def _classifies(facts: Mapping[str, Any], predicted: NDArray[Any]) -> bool:
    told = (facts["task_type"] or "").endswith("classification") or facts["classes"] not in (None, "null", "[]")
    return told or predicted.dtype.kind not in "fiub"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _scores(y: NDArray[Any] | None, predicted: NDArray[Any], classify: bool) -> dict[str, float]:
    """The usual scores by name, the one that ranks first; none where nothing was measured."""
    if y is None:
        return {}
    from sklearn import metrics

    if classify:
        return {
            "accuracy": float(metrics.accuracy_score(y, predicted)),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(y, predicted)),
            "f1_macro": float(metrics.f1_score(y, predicted, average="macro")),
        }
    return {
        "rmse": float(metrics.root_mean_squared_error(y, predicted)),
        "r2": float(metrics.r2_score(y, predicted)),
        "mae": float(metrics.mean_absolute_error(y, predicted)),
    }
