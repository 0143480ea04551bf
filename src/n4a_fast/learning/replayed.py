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
from n4a_fast.values import checks

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
    ids, began = checks.texts(chain_ids, "chain_ids"), time.perf_counter()
    if len(set(ids)) < len(ids):
        raise InvalidInputError("a chain is named twice, and a data set has one prediction of each; name it once")
    facts = {row["chain_id"]: row for row in store.sql(_FACTS, (ids, ids)).iter_rows(named=True)}
    for unknown in (one for one in ids if one not in facts):
        raise NotFoundError("chain", unknown)
    found = store.replay_chains(ids, data.X, data.wavelengths, **choice)
    measured = None if data.y is None else _measured(data.y, found)
    columns = _columns(store, data, measured, found, [facts[one] for one in ids])
    arrays = {"y_true": measured, "y_pred": found, "weights": None}
    if found.ndim > 2:  # of one target, a single array is that of all chains
        arrays |= {"y_true": None if measured is None else [measured] * len(ids), "y_pred": list(found)}
    with store.transaction():
        title = f"predictions on {data.dataset}"
        owner = run or store.begin_run(title, {"chains": ids}, [{"name": data.dataset, "n_samples": found.shape[1]}])
        pipeline = store.begin_pipeline(owner, title, {"replay": ids}, [], data.dataset, "")
        saved: list[str] = store.save_predictions(
            {**columns, "pipeline_id": pipeline}, sample_indices=data.sample_indices, **arrays
        )
        best = columns["test_score"][0] if len(ids) == 1 else np.nan
        store.complete_pipeline(
            pipeline, np.nan, best, columns["metric"][0], round(1000 * (time.perf_counter() - began))
        )
        if run is None:
            store.complete_run(owner, {"predictions": len(saved)})
    return saved


def _columns(
    store: Store,
    data: NewSpectra,
    measured: NDArray[Any] | None,
    found: NDArray[Any],
    facts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The columns of the predictions `found` (chains, spectra[, targets]), with their scores."""
    classify = [_classifies(store, chain, predicted) for chain, predicted in zip(facts, found, strict=True)]
    known = None if measured is None else _known(measured)
    scores = [_scores(measured, known, *each) for each in zip(found, classify, strict=True)]
    metrics = [next(iter(one), "") for one in scores]
    return {
        "chain_id": [one["chain_id"] for one in facts],
        "model_name": [one["model_name"] or _short(one["model_class"]) for one in facts],
        "model_class": [one["model_class"] for one in facts],
        "preprocessings": [one["preprocessings"] or "" for one in facts],
        "task_type": ["classification" if one else "regression" for one in classify],
        "metric": metrics,
        "test_score": [one.get(metric, np.nan) for one, metric in zip(scores, metrics, strict=True)],
        "scores": [{data.partition: one} if one else {} for one in scores],
        "dataset_name": data.dataset,
        "fold_id": _FOLD,
        "partition": data.partition,
        "n_samples": found.shape[1],
        "n_features": _width(store, data.X, facts[0]["chain_id"]),
    }


def _width(store: Store, X: Any, chain_id: str) -> int:
    """Columns of the spectra, of all sources together; of spectra in blocks those that the chain was trained on."""
    parts = X if isinstance(X, list | tuple) and all(np.ndim(one) == 2 for one in X) else [X]
    width = sum(np.shape(one)[1] for one in parts if np.ndim(one) == 2)
    return width or store.describe_chain(chain_id).input.n_features or 0


def _measured(y: Any, found: NDArray[Any]) -> NDArray[Any]:
    """What was measured: labels with None, or numbers with NaN, where nothing was."""
    if isinstance(y, np.ma.MaskedArray):
        raise InvalidInputError("y has masked values; fill them, with NaN for instance")
    checks.no_text(y, "y")
    measured = np.asarray(y)
    if measured.ndim == 2 and measured.shape[1] == 1:
        measured = measured[:, 0]
    if measured.shape != found.shape[1:]:
        raise InvalidInputError(f"y has shape {measured.shape}, the predictions of a chain {found.shape[1:]}")
    if are_labels(measured) != are_labels(found):
        kinds = ("labels", "numbers") if are_labels(measured) else ("numbers", "labels")
        raise InvalidInputError(f"y holds {kinds[0]}, the chains predict {kinds[1]}; give y as the chains predict")
    if are_labels(measured):
        return measured
    try:
        numbers = measured.astype(np.float64, casting="unsafe" if measured.dtype.kind == "O" else "same_kind")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"y is no array of numbers ({error})") from error
    if np.isinf(numbers).any():
        raise InvalidInputError("y holds infinite values; give NaN for what was not measured")
    return numbers


def _classifies(store: Store, facts: Mapping[str, Any], predicted: NDArray[Any]) -> bool:
    """Whether these predictions are classes: numbers may be, which the model knows if nothing else tells."""
    told = (facts["task_type"] or "").endswith("classification") or facts["classes"] not in (None, "null", "[]")
    if told or predicted.dtype.kind not in "fiub":
        return True
    whole = not facts["task_type"] and bool((predicted == np.round(predicted)).all())
    return whole and bool(store.describe_chain(facts["chain_id"]).input.classes)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _known(measured: NDArray[Any]) -> NDArray[np.bool_]:
    """The spectra of which all targets were measured."""
    if measured.dtype.kind != "f":
        return np.array([one is not None and one == one for one in measured], dtype=np.bool_)
    return np.asarray(~np.isnan(measured.reshape(len(measured), -1)).any(axis=1))


def _scores(
    y: NDArray[Any] | None, known: NDArray[np.bool_] | None, predicted: NDArray[Any], classify: bool
) -> dict[str, float]:
    """The usual scores by name, the one that ranks first, of the spectra that were measured; none where none was."""
    if y is None or known is None or not known.any():
        return {}
    from sklearn import metrics

    y, predicted = y[known], predicted[known]
    if classify:
        if y.dtype.kind == "f" and (y != np.round(y)).any():
            raise InvalidInputError("y holds numbers that are no classes; give y as the chains predict")
        return {
            "accuracy": float(metrics.accuracy_score(y, predicted)),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(y, predicted)),
            "f1_macro": float(metrics.f1_score(y, predicted, average="macro")),
        }
    if not np.isfinite(predicted).all():
        return dict.fromkeys(("rmse", "r2", "mae"), np.nan)
    return {
        "rmse": float(metrics.root_mean_squared_error(y, predicted)),
        "r2": float(metrics.r2_score(y, predicted)),
        "mae": float(metrics.mean_absolute_error(y, predicted)),
    }
