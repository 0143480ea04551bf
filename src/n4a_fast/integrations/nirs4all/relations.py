"""What nirs4all 1.x says of a prediction and how it relates to others: ids, folds, manifests, scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.workspaces.sqlite_schema import RELATION

_RELATION = frozenset(RELATION)


def require_canonical(value: Any, name: str) -> None:
    """What nirs4all takes as an id, or none."""
    if value is not None and (not isinstance(value, str) or not value or value != value.strip() or "\0" in value):
        raise InvalidInputError(
            f"{name} must be a canonical non-empty string, so text without NUL or blanks at its ends, got {value!r}"
        )


def relation_of(given: dict[str, Any]) -> dict[str, Any]:
    """The places in relations among what is given of a prediction, which loses them; None is none."""
    if _RELATION.isdisjoint(given):
        return {}
    return {name: value for name in RELATION if (value := given.pop(name, None)) is not None}


def names_of_fold(fold_id: str) -> list[str]:
    """Both names that a fold may have: with "fold_" before it, and without."""
    return [fold_id, fold_id.removeprefix("fold_") if fold_id.startswith("fold_") else f"fold_{fold_id}"]


def manifest_of(value: Any) -> dict[str, Any] | None:
    """A relation manifest as nirs4all takes it, itself or by its `to_dict()`; TypeError for anything else."""
    if value is None or isinstance(value, Mapping):
        return value if value is None else dict(value)
    if not hasattr(value, "to_dict"):
        raise TypeError("relation_replay_manifest must be a mapping, or have to_dict()")
    return dict(value.to_dict())


def is_nan(value: Any) -> bool:
    """Whether this is a number that SQLite keeps as none."""
    return isinstance(value, float | np.floating) and bool(value != value)  # np.isnan takes ten times as long
