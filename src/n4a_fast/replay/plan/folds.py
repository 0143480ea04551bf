"""Folds: their keys, which of them predict, and their weights.

A fold key is "0", "1", ... for a fold of the cross-validation and "final" for the refit; chains
write them also as "fold_0" and "fold_final". "avg" and "w_avg" name averages of predictions, not
models, and are no folds. Folds are ordered by number, whatever the order in which they were stored;
`fold_weights` given as a sequence follows the order of the folds used.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plan.replay_plan import Place

Folds: TypeAlias = str | int | Sequence[str | int]
FoldWeights: TypeAlias = Sequence[float] | Mapping[str | int, float] | NDArray[np.float64]

FINAL = "final"
_AVERAGES = ("avg", "w_avg")
_CURE = "use 'auto', 'final', 'all' or a list of fold keys"


def fold_key(raw: Any) -> str:
    """The key of a fold, however it is written."""
    text = (raw if isinstance(raw, str) else str(operator.index(raw))).strip().removeprefix("fold_")
    return str(int(text)) if text.isdecimal() else text


def read_folds(fold_artifacts: Mapping[Any, Any], place: Place) -> dict[str, str]:
    """Fold key -> artifact id, by number; averages and folds without an artifact left out."""
    found: dict[str, str] = {}
    for raw, value in fold_artifacts.items():
        key = fold_key(raw)
        ids = [value] if isinstance(value, str) else list(value or ())
        if key in _AVERAGES or key.startswith("_") or not ids:
            continue
        if len(ids) > 1 or not isinstance(ids[0], str):
            raise place.error(f"has {len(ids)} models for fold {raw!r}; a fold has one artifact id")
        if found.setdefault(key, ids[0]) != ids[0]:
            raise place.error(f"has two models for fold {key!r}; keep one key a fold")
    return dict(sorted(found.items(), key=_by_number))


def choose(available: Sequence[str], folds: Folds) -> tuple[str, ...]:
    """The keys of the folds that predict; InvalidInputError names the folds there are."""
    cv = tuple(key for key in available if key != FINAL)
    if isinstance(folds, str) and folds in ("auto", "all", "cv", FINAL):
        final = (FINAL,) if FINAL in available else ()
        wanted = {"auto": final or cv, FINAL: final}.get(folds, cv)
        if not wanted:
            raise InvalidInputError(f"folds={folds!r}: this chain has only {_listed(available)}")
        return wanted
    return _named(available, [folds] if isinstance(folds, str | int | np.integer) else folds)


def weights_of(chosen: Sequence[str], fold_weights: FoldWeights | None) -> NDArray[np.float64]:
    """One weight a fold used, summing to 1; equal ones without `fold_weights`."""
    if fold_weights is None:
        return np.full(len(chosen), 1.0 / len(chosen))
    if isinstance(fold_weights, Mapping):
        fold_weights = _in_order(chosen, fold_weights)
    try:
        weights = np.asarray(fold_weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"fold_weights must be numbers ({error})") from error
    if weights.shape != (len(chosen),):
        raise InvalidInputError(
            f"fold_weights has shape {weights.shape}, the folds used are {_listed(chosen)}; give one weight for each"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.max() > 0:
        raise InvalidInputError(f"fold_weights {weights.tolist()} must be finite, not negative, and not all zero")
    weights = weights / weights.max()  # so that the sum of very large weights stays finite
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _named(available: Sequence[str], folds: Any) -> tuple[str, ...]:
    """Folds that the caller named one by one, in the caller's order."""
    try:
        keys = tuple(fold_key(fold) for fold in folds)
    except TypeError as error:
        raise InvalidInputError(f"folds={folds!r} is not a choice of folds; {_CURE}") from error
    unknown = [key for key in keys if key not in available]
    if unknown:
        raise InvalidInputError(
            f"no fold {', '.join(map(repr, unknown))}: this chain has {_listed(available)}; {_CURE}"
        )
    if not keys or len(set(keys)) < len(keys):
        raise InvalidInputError(
            f"folds={list(folds)!r} must name each fold once, and at least one of {_listed(available)}"
        )
    return keys


def _in_order(chosen: Sequence[str], weights: Mapping[Any, float]) -> list[float]:
    try:
        by_key = {fold_key(key): weight for key, weight in weights.items()}
    except TypeError as error:
        raise InvalidInputError(f"the keys of fold_weights must be fold keys ({error})") from error
    if set(by_key) != set(chosen) or len(by_key) < len(weights):
        raise InvalidInputError(
            f"fold_weights names the folds {_listed(list(by_key))}, the folds used are {_listed(chosen)}; give one"
            " weight for each"
        )
    return [by_key[key] for key in chosen]


def _by_number(item: tuple[str, str]) -> tuple[int, int]:
    key = item[0]
    return (0, int(key)) if key.isdecimal() else (1, 0)


def _listed(keys: Sequence[str]) -> str:
    return "folds " + ", ".join(map(repr, keys)) if keys else "no folds"
