"""A chain made ready to run: its operators in order, what undoes the targets, its models by fold.

Owns the shape of a plan, which `load` builds, `execute` runs and later fast paths rewrite.
A plan is frozen; the operators it holds are the stored objects themselves and belong to it.
Operators come as one tuple a source: a chain over one block of spectra has one source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from n4a_fast.errors import ReplayError
from n4a_fast.values.chain_input import ChainInput

Action = Literal["extend", "add", "replace"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a chain something is; every refusal names it."""

    chain_id: str
    step_idx: int
    name: str

    def __str__(self) -> str:
        return f"step {self.step_idx} ({self.name})"

    def error(self, reason: str) -> ReplayError:
        return ReplayError(self.chain_id, f"{self} {reason}")


@dataclass(frozen=True, slots=True)
class TransformStep:
    """Operators that follow each other on each source; on several channels, one operator a channel.

    `created` operators were re-created from class and parameters and were never fitted.
    """

    place: Place
    operators: tuple[tuple[Any, ...], ...]
    created: bool = False


@dataclass(frozen=True, slots=True)
class AugmentationStep:
    """Operators that add channels beside those that are there (feature augmentation)."""

    place: Place
    action: Action
    n_operations: int
    operators: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class TargetStep:
    """Operators that were applied to the targets in this order; predictions go back through them."""

    place: Place
    operators: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ModelStep:
    """The models by fold key ("0", "1", ..., "final"); `fold_ids` also names the folds that were not loaded."""

    place: Place
    fold_ids: Mapping[str, str]
    models: Mapping[str, Any]


FeatureStep: TypeAlias = TransformStep | AugmentationStep


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A chain to run: feature steps in order, then the model, then the target steps backwards."""

    chain_id: str
    steps: tuple[FeatureStep, ...]
    targets: tuple[TargetStep, ...]
    model: ModelStep
    n_sources: int = 1
    source_index: int | None = None
    inputs: tuple[ChainInput, ...] = ()  # what is known of the spectra of each source
