"""Targets of classifiers whose labels are texts or integers, as nirs4all 1.4 describes them beside the numbers.

A label payload is JSON: the sorted vocabulary, the place in it of each label, the shape. In the store
integers stay numbers and texts become places in the sorted vocabulary of both targets, so that they
can be compared; the payload is kept beside them, as a converted workspace carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from n4a_fast.values import jsontext

Array = np.ndarray[Any, Any]

_TARGETS = ("y_true", "y_pred")


def encoded(targets: Mapping[str, Any], *, classes: bool) -> tuple[dict[str, Array | None], dict[str, Any]]:
    """The targets as numbers, and the payloads to keep beside them, by name; integers have one if they are
    `classes`.
    """
    arrays = {name: None if value is None else np.asarray(value) for name, value in targets.items()}
    if all(array is None or array.dtype.kind == "f" for array in arrays.values()):
        return arrays, {}
    payloads = {}
    texts = {name: array for name, array in arrays.items() if array is not None and _is_text(array)}
    place = {
        label: at for at, label in enumerate(sorted({label for array in texts.values() for label in _flat(array)}))
    }
    for name, array in arrays.items():
        if array is not None and (name in texts or (classes and array.dtype.kind in "iu")):
            payloads[f"{name}_labels"] = _payload(array, "str" if name in texts else "int64")
        if name in texts and array is not None:
            arrays[name] = np.array([place[label] for label in _flat(array)], np.float64).reshape(array.shape)
    return arrays, payloads


def is_real(target: Any) -> bool:
    """Whether this is an array of numbers that are no labels, as `encoded` leaves it."""
    return type(target) is np.ndarray and target.dtype.kind == "f"


def decoded(row: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """The targets as they were saved."""
    found = {name: row[name] for name in _TARGETS}
    for name in _TARGETS:
        if beside.get(f"{name}_labels"):
            payload = jsontext.decode(beside[f"{name}_labels"])
            labels = np.array(payload["vocabulary"], np.int64 if payload.get("label_type") == "int64" else None)
            places = np.asarray(payload["indices"], np.int64)
            found[name] = (labels[places] if len(labels) else labels).reshape(payload["shape"])
    return found


def _payload(array: Array, label_type: str) -> str | None:
    values = _flat(array)
    labels = sorted(set(values))
    place = {label: at for at, label in enumerate(labels)}
    is_column = array.ndim == 2 and array.shape[1] == 1
    content = {
        "schema_version": 1,
        "label_type": label_type,
        "vocabulary": labels,
        "indices": [place[label] for label in values],
        "shape": [len(array)] if is_column else list(array.shape),
    }
    return jsontext.encode(content, "labels")


def _flat(array: Array) -> list[Any]:
    return [str(label) if array.dtype.kind in "USO" else label for label in array.ravel().tolist()]


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "US" or (array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat))
