"""Runs a plan the plain way: operator by operator, fold by fold, in float64.

This is the reference that each fast path is tested against, so it takes no short cuts. It owns the
order of the work and the channels of feature augmentation; `inputs` checks what the caller gives,
`calls` each operator, `combine` the folds. The caller's arrays and the plan stay unchanged.

Channels follow nirs4all: an augmentation keeps what was there as the first channels and appends the
new ones ("extend": each operator on the first live channel; "add" and "replace": each on every live
channel); after "replace" later steps leave the old channels as they are, until another augmentation
takes them up again. Later steps run one operator a live channel, and the model gets all channels of
all sources side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plain.calls import transformed
from n4a_fast.replay.plain.combine import combine
from n4a_fast.replay.plain.inputs import read_spectra, read_wavelengths
from n4a_fast.replay.plan.folds import Folds, FoldWeights, choose, weights_of
from n4a_fast.replay.plan.recreate import fitted
from n4a_fast.replay.plan.replay_plan import AugmentationStep, FeatureStep, ReplayPlan, TransformStep

Array: TypeAlias = NDArray[np.float64]


def execute(
    plan: ReplayPlan,
    X: Any,
    wavelengths: Any = None,
    *,
    folds: Folds = "auto",
    fold_weights: FoldWeights | None = None,
    return_proba: bool = False,
) -> NDArray[Any]:
    """Predictions for the spectra in X; see `n4a_fast.replay_chain`."""
    chosen = choose(tuple(plan.model.fold_ids), folds)
    weights = weights_of(chosen, fold_weights)
    unloaded = [key for key in chosen if key not in plan.model.models]
    if unloaded:
        raise InvalidInputError(
            f"this plan was loaded without the models of the folds {unloaded}; load the chain again with them"
        )
    models = {key: plan.model.models[key] for key in chosen}
    features, given = plain_features(plan, X, wavelengths)
    return combine(models, weights, features, given, plan.targets, plan.model.place, return_proba)


def plain_features(plan: ReplayPlan, X: Any, wavelengths: Any = None) -> tuple[Array, int]:
    """What the models of a plan are given, and how many columns the caller gave."""
    spectra = read_spectra(plan, X)
    axes = read_wavelengths(plan, wavelengths, spectra)
    given = sum(block.shape[1] for block in spectra)
    sources = [_Source(index, axes[index], block.shape[1], [_Channel(block)]) for index, block in enumerate(spectra)]
    for step in plan.steps:
        for source in sources:
            source.run(step)
    channels = [channel.spectra for source in sources for channel in source.channels]
    return channels[0] if len(channels) == 1 else np.hstack(channels), given


@dataclass(frozen=True, slots=True)
class _Channel:
    """One version of a source's spectra; later steps act on it while it is live."""

    spectra: Array
    live: bool = True


@dataclass(slots=True)
class _Source:
    """The channels of one source on their way to the model."""

    index: int
    wavelengths: Array | None
    given: int
    channels: list[_Channel]

    def run(self, step: FeatureStep) -> None:
        if isinstance(step, AugmentationStep):
            self._augment(step)
        else:
            self._transform(step)

    def _transform(self, step: TransformStep) -> None:
        operators = step.operators[self.index]
        live = [position for position, channel in enumerate(self.channels) if channel.live]
        if step.created:
            operators = operators * len(live)
        elif len(live) == 1:
            for operator in operators:
                self._replace(live[0], operator, step)
            return
        if len(operators) != len(live):
            raise step.place.error(
                f"has {len(operators)} artifacts for {len(live)} channels of spectra; each channel needs one"
            )
        for position, operator in zip(live, operators, strict=True):
            self._replace(position, operator, step)

    def _replace(self, position: int, operator: Any, step: TransformStep) -> None:
        channel = self.channels[position]
        if step.created:
            operator = fitted(operator, channel.spectra, self.wavelengths, step.place)
        self.channels[position] = replace(channel, spectra=self._applied(operator, channel.spectra, step))

    def _augment(self, step: AugmentationStep) -> None:
        live = [channel for channel in self.channels if channel.live]
        bases = live[:1] if step.action == "extend" else live
        operators = step.operators[self.index]
        if len(operators) != step.n_operations * len(bases):
            wanted = f"{step.n_operations} operations on {len(bases)} channels"
            raise step.place.error(f"has {len(operators)} artifacts for {wanted}; which belongs to which is not stored")
        inputs = [base.spectra for _ in range(step.n_operations) for base in bases]
        new = [
            _Channel(self._applied(operator, base.copy(), step))
            for operator, base in zip(operators, inputs, strict=True)
        ]
        if len({channel.spectra.shape[1] for channel in (*self.channels, *new)}) > 1:
            raise step.place.error(
                "gave channels of different widths, whose layout is not stored; train it with operators that keep the"
                " width"
            )
        kept = [replace(channel, live=step.action != "replace" or not channel.live) for channel in self.channels]
        self.channels = [*kept, *new]

    def _applied(self, operator: Any, spectra: Array, step: FeatureStep) -> Array:
        return transformed(operator, spectra, self.wavelengths, self.given, step.place)
