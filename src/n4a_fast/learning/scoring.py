"""Scorers by the names under which their values are stored: errors are positive and have their plain names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from n4a_fast.errors import InvalidInputError

_SHORT = {"root_mean_squared_error": "rmse", "mean_squared_error": "mse", "mean_absolute_error": "mae"}
_REGRESSION = ("neg_root_mean_squared_error", "r2", "neg_mean_absolute_error")
_CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1_macro")


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer of scikit-learn, the name of its values, and the sign they are stored with."""

    name: str
    call: Callable[..., float]
    sign: float

    @property
    def higher_is_better(self) -> bool:
        """Whether stored values are better when they are higher: scorers' own always are."""
        return self.sign > 0


def scorers(scoring: Any, classifies: bool) -> list[Scorer]:
    """What `scoring` means to scikit-learn: one or several; None for the usual ones; the first ranks."""
    from sklearn.metrics import get_scorer

    given = scoring if scoring is not None else _CLASSIFICATION if classifies else _REGRESSION
    if isinstance(given, str):
        given = [given]
    if callable(given):
        return [Scorer("score", given, 1.0)]
    if isinstance(given, Mapping):
        found = [(str(name), get_scorer(call) if isinstance(call, str) else call) for name, call in given.items()]
    else:
        found = [(str(name), get_scorer(name)) for name in given]
    if not found:
        raise InvalidInputError("scoring names nothing; give a scorer, or None for the usual ones")
    return [_stored_as(name, call) for name, call in found]


def stored_name(name: str) -> tuple[str, float]:
    """The name that a scorer's values are stored under, and their sign."""
    if not name.startswith("neg_"):
        return name, 1.0
    plain = name.removeprefix("neg_")
    return _SHORT.get(plain, plain), -1.0


def _stored_as(name: str, call: Any) -> Scorer:
    plain, sign = stored_name(name)
    return Scorer(plain, call, sign)
