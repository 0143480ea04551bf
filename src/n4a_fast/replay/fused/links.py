"""Classifiers whose decision is affine: from the scores of all folds to probabilities and labels.

Owns which classes these are, and what they make of their scores; the scores themselves are a compiled
chain like any other, one column a score, folds side by side. Promises what the plain path gives: one
fold answers with its best score, several by the mean of their probabilities or, without
`predict_proba`, by vote. What it makes of a chain is compared with the plain path by `fuse`.

A. Folds cannot be merged into one weight vector: probabilities are averaged, and they are not linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.linear_operators import Unfused, entry_of, public_name
from n4a_fast.replay.fused.pipeline_models import last_of
from n4a_fast.replay.plain.calls import check_input, predicted
from n4a_fast.replay.plain.combine import common_classes, labels_undone, most
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.replay_plan import Place, TargetStep

Array: TypeAlias = NDArray[np.float64]


_DIRECT = frozenset({"nirs4all.operators.models.sklearn.plsda.PLSDA"})


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What scores mean. `kind`: "softmax" or "logistic" (one against the rest) probabilities, "direct" where a score is
    one (of the second class of two), or "vote" without any.
    """

    kind: str
    fold_weights: Array
    labels: NDArray[Any]  # one a class, as the caller gets it

    @property
    def soft(self) -> bool:
        """Whether it knows probabilities."""
        return self.kind != "vote"

    def answer(self, scores: Array, return_proba: bool, rounding: float = 0.0) -> NDArray[Any] | None:
        """Labels (n,) or probabilities (n, classes) from the scores of all folds, (n,) or (n, folds x scores); None
        where only the classifier itself can tell: no class is probable, or two scores differ by less than `rounding`.
        """
        by_fold = scores.reshape(len(scores), len(self.fold_weights), -1)
        if return_proba or (self.soft and len(self.fold_weights) > 1):
            proba = np.einsum("f,nfc->nc", self.fold_weights, self._probabilities(by_fold))
            if not finite(proba):
                return None
            return np.asarray(proba if return_proba else self.labels[most(proba)])
        if (self._leads(by_fold) < rounding).any():
            return None
        best = (by_fold[..., 0] > self._edge).astype(np.int64) if by_fold.shape[2] == 1 else by_fold.argmax(axis=2)
        if len(self.fold_weights) == 1:
            return np.asarray(self.labels[best[:, 0]])
        votes = np.einsum("f,nfc->nc", self.fold_weights, best[:, :, None] == np.arange(len(self.labels)))
        return np.asarray(self.labels[most(votes)])

    def _leads(self, by_fold: Array) -> Array:
        """By how much the best score of each fold leads, (n, folds)."""
        if by_fold.shape[2] == 1:
            return np.abs(by_fold[..., 0] - self._edge)
        first = np.partition(by_fold, -2, axis=2)[..., -2:]
        return np.asarray(first[..., 1] - first[..., 0])

    @property
    def _edge(self) -> float:
        """The score above which the second of two classes is named."""
        return 0.5 if self.kind == "direct" else 0.0

    def _probabilities(self, scores: Array) -> Array:
        if self.kind == "direct":
            return np.concatenate([1 - scores, scores], axis=2) if scores.shape[2] == 1 else scores
        with np.errstate(all="ignore"):
            if self.kind == "softmax" and scores.shape[2] > 1:
                powers = np.exp(scores - scores.max(axis=2, keepdims=True))
                return np.asarray(powers / powers.sum(axis=2, keepdims=True))
            chances = 1.0 / (1.0 + np.exp(-scores))
            if scores.shape[2] == 1:
                return np.concatenate([1.0 - chances, chances], axis=2)
            return np.asarray(chances / chances.sum(axis=2, keepdims=True))  # NaN where all are zero

    def takes(self, n_scores: int) -> bool:
        """Whether this is a link for so many scores: one a fold for two classes, one a fold and class for more."""
        if self.labels.ndim != 1 or self.fold_weights.ndim != 1:
            return False
        classes, folds = len(self.labels), len(self.fold_weights)
        each = 1 if classes == 2 else classes
        known = self.kind in ("vote", "direct", "logistic", "softmax") and self.labels.dtype.kind in "iubUf"
        return known and classes >= 2 and self.fold_weights.dtype.kind == "f" and n_scores == folds * each

    def as_json(self) -> list[Any]:
        """What `link_from_json` makes it of again."""
        return [self.kind, self.fold_weights.tolist(), self.labels.tolist(), self.labels.dtype.str]


def link_from_json(stored: Sequence[Any]) -> Link:
    kind, fold_weights, labels, dtype = stored
    return Link(kind, np.array(fold_weights), np.array(labels, dtype=dtype))


def link_of(models: Mapping[str, Any], fold_weights: Array, targets: Sequence[TargetStep], place: Place) -> Link:
    """The link of these folds, whose classes must agree; Unfused for classifiers that have none here."""
    classes = common_classes(models, place)
    kinds = {_kind_of(model) for model in models.values()}
    if len(kinds) > 1 or classes is None or len(classes) < 2:
        raise Unfused("its folds answer in different ways")
    labels = labels_undone(classes, targets)
    if labels.dtype.kind not in "iubUf":
        raise Unfused(f"labels of dtype {labels.dtype} cannot be kept")
    return Link(kinds.pop(), fold_weights, labels)


def _kind_of(model: Any) -> str:
    entry_of(model, "score")
    if not hasattr(model, "predict_proba"):
        return "vote"
    last = last_of(model)
    if public_name(type(last)) in _DIRECT:
        return "direct"
    logistic = (
        getattr(last, "loss", "") == "log_loss"
        or getattr(last, "solver", "") == "liblinear"
        or getattr(last, "multi_class", "") == "ovr"
    )
    return "logistic" if logistic else "softmax"


def scores_of(models: Mapping[str, Any], features: Array, given: int, place: Place) -> Array:
    """The scores as the models give them, (n, folds x scores)."""
    for model in models.values():
        check_input(model, features, given, place)
    return np.hstack([_scores(model, features.copy(), place) for model in models.values()])


def _scores(model: Any, features: Array, place: Place) -> Array:
    direct = _kind_of(model) == "direct"
    method = "predict_proba" if direct else "decision_function"
    scores = np.asarray(predicted(model, method, features, place), dtype=np.float64).reshape(len(features), -1)
    return scores[:, 1:] if direct and scores.shape[1] == 2 else scores
