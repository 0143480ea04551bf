"""What a chain has predicted for spectra that its models had not seen, as numbers or as labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from n4a_fast.errors import NotFoundError

_FOLDS = """SELECT prediction_id, task_type FROM predictions
WHERE chain_id = ? AND partition = ? AND refit_context IS NULL AND fold_id NOT IN ('avg', 'w_avg', 'final')
ORDER BY TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id"""
_ANY = "SELECT prediction_id, task_type FROM predictions WHERE chain_id = ? ORDER BY partition, fold_id LIMIT 1"
_DATASETS = """SELECT json_extract_string(r.datasets, '$[*]') AS datasets, p.dataset_name FROM chains c
JOIN pipelines p ON p.pipeline_id = c.pipeline_id JOIN runs r ON r.run_id = p.run_id WHERE c.chain_id = ?"""
_LABELS = """SELECT DISTINCT classes FROM prediction_labels
WHERE prediction_id IN (SELECT prediction_id FROM predictions WHERE chain_id = ?)"""

# a WorkspaceStore, whose module imports this folder
Store = Any
Values = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Measured and predicted values of the same samples, one after another: numbers, or texts where they are labels.

    `classes` are names in their order: of the labels, or of the numbers 0, 1, ... where these stand for classes.
    """

    measured: Values
    predicted: Values
    task: str
    classes: tuple[str, ...]

    @property
    def are_labels(self) -> bool:
        return bool(self.measured.dtype == object)


def held_out(store: Store, chain_id: str) -> HeldOut:
    """The predictions of the chain's folds for their own validation samples, or else for a test set, or else any;
    NotFoundError for a chain without arrays.
    """
    for query, params in ((_FOLDS, (chain_id, "val")), (_FOLDS, (chain_id, "test")), (_ANY, (chain_id,))):
        found = store.sql(query, params)
        if not found.height:
            continue
        arrays = store.load_arrays(found["prediction_id"].to_list(), columns=("y_true", "y_pred"), labels=True)
        pairs = [
            (np.ravel(y_true), np.ravel(y_pred))
            for y_true, y_pred in zip(arrays.y_true, arrays.y_pred, strict=True)
            if y_true is not None and y_pred is not None and np.size(y_true) == np.size(y_pred)
        ]
        if pairs:
            labels = tuple(dict.fromkeys(name for classes in arrays.classes for name in classes or ()))
            measured, predicted = (_joined(each) for each in zip(*pairs, strict=True))
            known = _are_known(measured) & _are_known(predicted)
            measured, predicted = measured[known], predicted[known]
            names = labels or tuple(class_names(store, chain_id))
            if not labels and not are_places(np.concatenate([measured, predicted]), names):
                names = ()
            return HeldOut(measured, predicted, str(found["task_type"][0]), names)
    raise NotFoundError("arrays of chain", chain_id, "no y_true and y_pred of it are stored")


def class_names(store: Store, chain_id: str) -> list[str]:
    """Names of the classes 0, 1, ... of a chain: those that its targets were stored with, or else those of its data
    set; none where there are none, or where its targets were stored with several lists.
    """
    stored = [row[0] for row in store.sql(_LABELS, (chain_id,)).iter_rows()]
    if stored:
        return list(stored[0]) if len(stored) == 1 else []
    for datasets, name in store.sql(_DATASETS, (chain_id,)).iter_rows():
        for dataset in map(json.loads, datasets or ()):
            if isinstance(dataset, dict) and dataset.get("name") == name:
                return [str(each) for each in dataset.get("classes") or ()]
    return []


def are_places(values: Any, names: Sequence[str]) -> bool:
    """Whether these are numbers each of which is the place of a name."""
    found = np.asarray(values)
    if not names or found.dtype.kind not in "iuf":
        return False
    return bool(((found == np.floor(found)) & (found >= 0) & (found < len(names))).all())


def _joined(parts: Iterable[Values]) -> Values:
    """The arrays as one; numbers among labels as their text."""
    listed = list(parts)
    if any(part.dtype == object for part in listed):
        listed = [part if part.dtype == object else np.array([*map(_text, part)], dtype=object) for part in listed]
    return np.concatenate(listed)


def _text(number: float) -> str | None:
    return f"{number:g}" if np.isfinite(number) else None


def _are_known(values: Values) -> Values:
    if values.dtype != object:
        return np.isfinite(values)
    return np.array([each is not None for each in values], bool)
