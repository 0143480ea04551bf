"""Which operators are affine or row statistics: one registry, one entry an operator.

An entry names an exact class, the releases of its library that were looked at, the parameters under
which it holds, and how the linear part is found: by a function of the fitted operator, or, without
one, by probing. Subclasses and unknown releases never match. Offsets are not part of an entry: the
caller takes one exact evaluation of the operator itself and adds the linear part around it, which is
also the more accurate way. Whatever an entry says is checked on real rows before it is used.

A. Probing far out: (f(s e_i) - f(0)) / s with s = 2**30 gives an affine f's row i to the last bits,
   because the offset is then small beside what is divided.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from itertools import takewhile
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.fused.statistics import RowStatistic

Array: TypeAlias = NDArray[np.float64]
When: TypeAlias = Callable[[Any], str | None]  # what hinders, or None
Part: TypeAlias = Callable[[Any, int], Any]

FAR = 2.0**30
WIDEST = 8192  # columns; a probed operator on more would need more memory than it is worth
ROLES = ("transform", "predict", "score", "statistic")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one operator class in one role."""

    name: str
    role: str
    part: Part | None = None
    when: When | None = None
    since: str = "0"
    before: str = "999"
    distribution: str = ""

    def hindrance(self, operator: Any) -> str | None:
        """Why this operator may not be taken as the entry says; None when it may."""
        installed = version_of(self.distribution) if self.distribution else ""
        if installed and not _numbers(self.since) <= _numbers(installed) < _numbers(self.before):
            return f"{self.distribution} {installed} is outside {self.since} to {self.before}"
        return self.when(operator) if self.when else None


class Unfused(Exception):
    """An operator that cannot be written as a matrix or a row statistic; says why. Never leaves this package."""


def entry_of(operator: Any, role: str) -> Entry:
    """The entry that holds for this operator; Unfused without one."""
    kind = type(operator)
    entry = _REGISTERED.get((kind, role)) or _known().get((public_name(kind), role))
    if entry is None or getattr(sys.modules.get(kind.__module__), kind.__qualname__, kind) is not kind:
        raise Unfused(f"{kind.__name__} is not registered as linear")
    try:
        hindrance = entry.hindrance(operator)
    except (AttributeError, TypeError, ValueError) as error:
        hindrance = f"is not what its entry expects ({error})"
    if hindrance:
        raise Unfused(f"{kind.__name__}: {hindrance}")
    return entry


def linear_part(operator: Any, width: int, role: str = "transform") -> Array:
    """How the operator's output follows its input: a matrix (width, outputs), or a vector for one factor a column."""
    entry = entry_of(operator, role)
    found = (
        _asked(entry.part, operator, width)
        if entry.part
        else _asked(lambda one, n: probed(getattr(one, role), n), operator, width)
    )
    if found.ndim not in (1, 2) or len(found) != width or not np.isfinite(found).all():
        raise Unfused(
            f"{type(operator).__name__}: its linear part of shape {found.shape} is not finite or does not fit {width}"
            " columns"
        )
    return found


def row_statistic(operator: Any, width: int) -> RowStatistic:
    """The operator as a row statistic; Unfused when it is none."""
    entry = entry_of(operator, "statistic")
    assert entry.part is not None
    try:
        found = entry.part(operator, width)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unfused(f"{type(operator).__name__} is not what its entry expects ({error})") from error
    assert isinstance(found, RowStatistic)
    return found


def _asked(part: Part, operator: Any, width: int) -> Array:
    """The linear part as the entry gives it; an entry, also a user's, that fails must not fail a replay."""
    try:
        return np.asarray(part(operator, width), dtype=np.float64)
    except Unfused:
        raise
    except Exception as error:
        raise Unfused(f"{type(operator).__name__} is not what its entry expects ({error})") from error


def probed(function: Callable[[Array], Any], width: int) -> Array:
    """The linear part of an affine function, from its values."""
    if width > WIDEST:
        raise Unfused(f"{width} columns are more than the {WIDEST} that are probed")
    points = np.zeros((width + 1, width))
    np.fill_diagonal(points[1:], FAR)
    raw = function(points)
    found = np.asarray(raw.toarray() if hasattr(raw, "toarray") else raw, dtype=np.float64).reshape(width + 1, -1)
    part = (found[1:] - found[0]) / FAR
    if not np.isfinite(part).all():
        raise Unfused("probing it gave values that are not finite")
    return np.ascontiguousarray(part)


def inverse_is_linear(operator: Any) -> bool:
    """Whether `inverse_transform` of this target operator is affine."""
    if public_name(type(operator)) not in _INVERSES:
        return False
    return getattr(operator, "func", None) is None and not getattr(operator, "clip", False)


def register_linear_operator(
    cls: type, linear_part: Part | None = None, *, role: str = "transform", when: When | None = None
) -> None:
    """Have replay take operators of exactly this class as affine, for this process.

    `linear_part(operator, n_features)` gives the matrix (n_features, n_outputs) by which outputs follow
    inputs, or a vector of one factor a column; without it the operator is probed. `role` is "transform",
    or "predict" for a model. `when(operator)` gives the reason why a certain one is not affine, or None.
    An operator whose output for a row depends on other rows must not be registered. A chain is still
    compared with the plain path before its compiled form is used, and `replay_plan` tells the outcome.
    """
    if not isinstance(cls, type) or not hasattr(cls, role):
        raise InvalidInputError(f"register_linear_operator takes a class with {role}(), got {cls!r}")
    if role not in ("transform", "predict"):
        raise InvalidInputError(f"role={role!r} must be 'transform' or 'predict'")
    _REGISTERED[cls, role] = Entry(public_name(cls), role, linear_part, when)


def public_name(kind: type) -> str:
    """A class's full name without private modules: `sklearn.preprocessing.StandardScaler`."""
    parts = [part for part in kind.__module__.split(".") if not part.startswith("_")]
    return ".".join((*parts, kind.__qualname__))


@lru_cache(maxsize=256)
def version_of(distribution: str) -> str:
    """The installed version of a distribution, or "" when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def made_with(operators: Iterable[Any]) -> str:
    """The libraries of these operators and of what they hold, with versions; "" when one is of no installed
    distribution, or lacks a parameter that its installed release has.
    """
    try:
        members = [member for operator in operators for member in _members(operator)]
    except AttributeError:  # a pickle of another release
        return ""
    names = {_distribution_of(type(member).__module__.partition(".")[0]) for member in members}
    if "" in names:
        return ""
    return " ".join(f"{name}=={version_of(name)}" for name in sorted({*names, "n4a_fast"}))


def _members(operator: Any) -> list[Any]:
    inner = operator.get_params(deep=True).values() if hasattr(operator, "get_params") else ()
    return [operator, *(value for value in inner if hasattr(value, "fit") and not isinstance(value, type))]


@lru_cache(maxsize=1024)
def _distribution_of(top: str) -> str:
    return _DISTRIBUTIONS.get(top) or next(iter(_installed().get(top, ())), "")


@lru_cache(maxsize=1)
def _installed() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _numbers(version: str) -> tuple[int, ...]:
    digits = ("".join(takewhile(str.isdigit, part)) for part in version.split(".")[:3])
    return tuple(int(part or 0) for part in digits)


@lru_cache(maxsize=1)
def _known() -> Mapping[tuple[str, str], Entry]:
    from n4a_fast.replay.fused.known_operators import ENTRIES  # itself built on this module

    return {(entry.name, entry.role): entry for entry in ENTRIES}


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "chemotools": "chemotools", "nirs4all": "nirs4all"}
_INVERSES = frozenset(
    {
        *(
            f"sklearn.preprocessing.{name}"
            for name in ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "FunctionTransformer")
        ),
        "chemotools.scale.ParetoScaler",
        "nirs4all.operators.transforms.scalers.SimpleScale",
        "nirs4all.operators.transforms.scalers.Normalize",
        "nirs4all.operators.transforms.signal.Baseline",
    }
)
# What users register is theirs to change at any time, so it cannot be frozen with the rest.
_REGISTERED: dict[tuple[type, str], Entry] = {}
