"""A compiled chain: what is left of a linear one, and its application to spectra.

Owns the shape of a compiled chain and its arithmetic: the spectra before it (the first `start` stages
run plainly), a row statistic, then (S - centre) @ weights + intercept with the folds and the target
steps already in the weights. Promises float64 and that what cannot be right is not finite: the caller
then takes the plain path, which finds the words. Leaves making one to `fuse`.

A. Centred on a mean spectrum, not on zero: the offset of absorbances would cost two digits.
B. Weights lie in rows, one a target, so that many chains are stacked by copying whole rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from n4a_fast.replay.fused.links import Link
from n4a_fast.replay.fused.statistics import RowStatistic, mapped
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.replay_plan import ReplayPlan
from n4a_fast.values.chain_input import ChainInput

Array: TypeAlias = NDArray[np.float64]

_ROUNDING = 1e-12  # of scores, relative to what they are sums of
WHOLE = -1  # `start` of a chain over several sources or channels: all of its steps run plainly


@dataclass(frozen=True, slots=True, eq=False)
class CompiledChain:
    """Predictions as one affine map; `error` is the largest relative difference to the plain path that was found."""

    chain_id: str
    start: int
    prefix: tuple[str, ...]  # names of the stages before it; equal names are equal stages
    n_features: int  # columns that the caller gives
    statistic: RowStatistic | None
    center: Array
    weights: Array  # (n_targets, columns)
    intercept: Array  # (n_targets,)
    error: float
    notes: tuple[str, ...]
    made_with: str = ""  # libraries and their versions; empty when it must not outlive the process
    n_sources: int = 1
    source_index: int | None = None
    plan: ReplayPlan | None = None  # without models; only where stages run before it
    link: Link | None = None  # of a classifier, whose weights give the scores of each fold
    inputs: tuple[ChainInput, ...] = ()  # what is known of the spectra of each source
    group: Hashable = field(init=False)  # equal for chains that one matrix product serves

    def __post_init__(self) -> None:
        apart = self.chain_id if self.start == WHOLE else ""
        group = (
            self.start,
            self.prefix,
            apart,
            self.n_features,
            self.source_index,
            self.weights.shape,
            self.link is None,
            _key_of(self.statistic),
        )
        object.__setattr__(self, "group", group)  # once: a call over thousands of chains asks each of them

    def holds_together(self) -> bool:
        """Whether sizes and indices fit each other, as those of a stored chain must before anything is computed."""
        numbers = (self.start, self.n_features, self.n_sources, self.error)
        return (
            all(isinstance(number, int | float) for number in numbers)
            and self.start >= WHOLE
            and all(isinstance(text, str) for text in (*self.prefix, *self.notes))
            and (self.source_index is None or isinstance(self.source_index, int))
            and len(self.weights) == len(self.intercept) >= 1
            and self.weights.shape[1] == len(self.center)
            and (self.statistic is None or self.statistic.gives(len(self.center)))
            and (self.start != 0 or self.width == self.n_features)
            and (self.link is None or self.link.takes(len(self.weights)))
        )

    @property
    def width(self) -> int:
        """Columns that it takes, once the stages before it have run."""
        return len(self.center) if self.statistic is None else self.statistic.takes(len(self.center))

    @property
    def nbytes(self) -> int:
        """What it takes in memory, shared arrays included; operators, whose size nobody knows, count as 1 MB."""
        arrays = (self.weights, self.center, *(self.statistic.arrays if self.statistic else ()))
        return sum(array.nbytes for array in arrays) + (2**20 if self.plan else 1024)

    def apply(self, spectra: Array) -> Array:
        """Predictions, or scores of a classifier, (n,) or (n, targets) from spectra in C order as the stages before
        leave them.
        """
        found = mapped(self.statistic, spectra, self.weights, self.intercept, self.center)
        return found[:, 0] if len(self.weights) == 1 else found

    def answers(self, return_proba: bool) -> bool:
        """Whether it can tell this; else the plain path says why not."""
        return not return_proba or (self.link is not None and self.link.soft)

    def answer(self, spectra: Array, return_proba: bool = False) -> NDArray[Any] | None:
        """What the chain predicts; None where it is not finite, or a class that rounding would decide: the plain path
        must have its say.
        """
        found = self.apply(spectra)
        if not finite(found):
            return None
        if self.link is None:
            return found
        size = np.abs(self.weights) @ np.abs(self.center) + np.abs(self.intercept)
        return self.link.answer(found, return_proba, _ROUNDING * float(size.max()))


@dataclass(frozen=True, slots=True)
class PlainChain:
    """A chain that is not compiled: why, step by step."""

    chain_id: str
    notes: tuple[str, ...]
    n_sources: int = 1
    source_index: int | None = None
    inputs: tuple[ChainInput, ...] = ()


def plain_chain(plan: ReplayPlan, notes: Iterable[str]) -> PlainChain:
    """This plan as a chain that is not compiled."""
    return PlainChain(plan.chain_id, tuple(notes), plan.n_sources, plan.source_index, plan.inputs)


def _key_of(statistic: RowStatistic | None) -> Hashable:
    """Equal for equal row statistics."""
    if statistic is None:
        return None
    front = statistic.front and (_key_of(statistic.front.statistic),)
    return (statistic.kind, statistic.number, *(content_hash(array) for array in statistic.arrays), front)


def content_hash(array: Array) -> str:
    """The hash of an array's shape and values."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).data, seed=array.shape[-1])
