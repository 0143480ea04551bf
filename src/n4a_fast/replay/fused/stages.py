"""The operators of a chain one after the other, and the spectra between them.

A chain over one source without augmentation is a line of stages, each applied to what the one
before left; `line_of` gives it. A `Bench` holds what many such chains share during one call: loaded
operators, spectra behind common prefixes and linear parts, each bounded in memory.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from n4a_fast.replay.plain.calls import transformed
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.recreate import fitted
from n4a_fast.replay.plan.replay_plan import Place, ReplayPlan, TransformStep
from n4a_fast.values.ids import uuid7

Array: TypeAlias = NDArray[np.float64]
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Stage:
    """One operator in its place; `name` is equal for equal operators."""

    place: Place
    operator: Any
    created: bool
    name: str

    def run(self, spectra: Array, wavelengths: Array | None, given: int, whole: bool = False) -> Array:
        """The spectra after this stage; `spectra` stays as it is, and is all finite if it is known to be `whole`."""
        operator = fitted(self.operator, spectra, wavelengths, self.place) if self.created else self.operator
        return transformed(operator, spectra.copy(), wavelengths, given, self.place, whole)


class Bounded(Generic[V]):
    """Values by key, the least recently used ones dropped beyond a number of bytes; safe to share between threads."""

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self._most, self._size, self._used = most, size, 0
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
            return found

    def put(self, key: Hashable, value: V) -> V:
        with self._lock:
            self._drop(key)
            self._values[key] = value
            self._used += self._size(value)
            while self._used > self._most and len(self._values) > 1:
                self._used -= self._size(self._values.popitem(last=False)[1])
        return value

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        if key in self._values:
            self._used -= self._size(self._values.pop(key))


def _array_bytes(array: Array) -> int:
    return array.nbytes


@dataclass(slots=True)
class Bench:
    """What the chains of one call share."""

    load_artifact: Callable[[str], Any]
    max_bytes: int = 64 * 2**20
    operators: dict[str, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # id of a loaded operator (kept alive above) -> its artifact
    created: dict[Hashable, Any] = field(default_factory=dict)
    equal: dict[Hashable, Array] = field(default_factory=dict)
    made: dict[Hashable, Any] = field(default_factory=dict)
    spectra: Bounded[Array] = field(init=False)
    parts: Bounded[Array] = field(init=False)

    def __post_init__(self) -> None:
        self.spectra, self.parts = Bounded(self.max_bytes, _array_bytes), Bounded(self.max_bytes, _array_bytes)

    def loader(self, models: frozenset[str]) -> Callable[[str], Any]:
        """A loader that loads each operator once; models, which are many, anew each time."""

        def load(artifact_id: str) -> Any:
            if artifact_id in models:
                return self.load_artifact(artifact_id)
            if artifact_id not in self.operators:
                self.operators[artifact_id] = found = self.load_artifact(artifact_id)
                self.names[id(found)] = artifact_id
            return self.operators[artifact_id]

        return load

    def ready(self, stage: Stage, spectra: Array, wavelengths: Array | None) -> Stage:
        """The stage with its operator fitted, if it was made from parameters."""
        if not stage.created:
            return stage
        key = (stage.name, spectra.shape[1], None if wavelengths is None else wavelengths.tobytes())
        if key not in self.created:
            self.created[key] = fitted(stage.operator, spectra, wavelengths, stage.place)
        return replace(stage, operator=self.created[key], created=False)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gave for this key, which may name an object that lives as long as the bench."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def same(self, array: Array) -> Array:
        """This array, or an equal one that was seen before: chains that share one need not be compared."""
        return self.equal.setdefault((array.shape, array.tobytes()), array)

    def after(self, stages: Sequence[Stage], rows: Array, wavelengths: Array | None, tag: str = "") -> Array:
        """`rows` behind these stages; the same rows and wavelengths must come with the same tag."""
        given, done, spectra = rows.shape[1], len(stages), rows
        while done and (found := self.spectra.get((tag, *_names(stages[:done])))) is None:
            done -= 1
        if done:
            assert found is not None
            spectra = found
        whole = done < len(stages) and finite(spectra)
        for number in range(done, len(stages)):
            spectra = stages[number].run(spectra, wavelengths, given, whole)
            self.spectra.put((tag, *_names(stages[: number + 1])), spectra)
        return spectra


def _names(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages)


def line_of(plan: ReplayPlan, names: dict[int, str]) -> tuple[Stage, ...] | None:
    """The stages of a plan in order; None for several sources or channels."""
    if plan.n_sources > 1 or not all(isinstance(step, TransformStep) for step in plan.steps):
        return None
    return tuple(
        Stage(step.place, operator, step.created, _name(operator, names)) for step, operator in _operators(plan)
    )


def front_of(plan: ReplayPlan, names: Sequence[str]) -> tuple[Stage, ...]:
    """The first stages of a plan that is a line, by names that `line_of` gave them before: its bench may be gone."""
    return tuple(
        Stage(step.place, operator, step.created, name)
        for (step, operator), name in zip(islice(_operators(plan), len(names)), names, strict=True)
    )


def _operators(plan: ReplayPlan) -> Iterator[tuple[TransformStep, Any]]:
    return (
        (step, operator) for step in plan.steps if isinstance(step, TransformStep) for operator in step.operators[0]
    )


def _name(operator: Any, names: dict[int, str]) -> str:
    """The operator's artifact, or for one made from parameters its class and state; a name of its own for what cannot
    be pickled.
    """
    if known := names.get(id(operator)):
        return known
    try:
        state = xxhash.xxh3_128_hexdigest(pickle.dumps(operator))
    except Exception:  # a class that exists twice, or whatever a state may raise: nothing is shared then
        state = uuid7()
    return f"{type(operator).__qualname__}:{state}"


def without_models(plan: ReplayPlan) -> ReplayPlan:
    """The same plan for its feature steps alone."""
    return replace(plan, model=replace(plan.model, models=MappingProxyType({})))
