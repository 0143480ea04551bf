"""From a stored chain to a plan: which artifacts run at which step, in order, for which source.

Promises that every artifact of the chain either has its place in the plan or is known to be of no
use to a prediction (training-only steps, other branches, other models); what cannot be told from
the stored rows raises a ReplayError with step and reason. How the rows are read:

* `shared_artifacts` (step index, int or text -> id or ids in order) is what the chain uses. Where it
  is silent the step's own `artifact_id` or `artifact_ids` count, except in a chain with a
  `branch_path`, where they belong to another branch. Steps inside branches and nested lists share
  an index: then a step runs those of its own ids that are shared.
* `_source_map` (step index -> source -> ids) gives each source its own operators; the sources are
  joined side by side for the model. Other keys that start with "_" are metadata.
* A model without folds lies in `shared_artifacts` at the model's step; it counts as fold "final".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from n4a_fast.artifacts.trust import Trust
from n4a_fast.errors import ReplayError, StoreError
from n4a_fast.replay.plan.folds import FINAL, Folds, choose, read_folds
from n4a_fast.replay.plan.kinds import calls_itself_model, kind_of, refuse_unknown_effect
from n4a_fast.replay.plan.known_input import known_inputs
from n4a_fast.replay.plan.recreate import Resolve, create
from n4a_fast.replay.plan.replay_plan import (
    AugmentationStep,
    FeatureStep,
    ModelStep,
    Place,
    ReplayPlan,
    TargetStep,
    TransformStep,
)

_CLASS_NAMED = Trust().class_named  # what a store says that trusts its own


def load_chain(
    chain: Mapping[str, Any],
    load_artifact: Callable[[str], Any],
    *,
    folds: Folds | None = None,
    models: bool = True,
    resolve: Resolve = _CLASS_NAMED,
) -> ReplayPlan:
    """The plan of a chain as `get_chain` returns it, its operators and models loaded.

    `folds` loads only the models of these folds, all without it, `models=False` none; `resolve` gives
    the classes of stateless steps by their full names, or refuses.
    """
    plan = _Reader(_facts_of(chain), load_artifact, resolve).plan(folds, models)
    return replace(plan, inputs=known_inputs(plan, chain.get("input")))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a chain's row says, keys brought into one form."""

    chain_id: str
    steps: tuple[Mapping[str, Any], ...]
    model_step_idx: int
    shared: Mapping[int, tuple[str, ...]]
    sources: Mapping[int, Mapping[int, tuple[str, ...]]]
    fold_artifacts: Mapping[Any, Any]
    in_branch: bool
    source_index: int | None

    @property
    def n_sources(self) -> int:
        """Sources that the stored operators expect."""
        return max((max(by_source) + 1 for by_source in self.sources.values() if by_source), default=1)

    def place(self, step: Mapping[str, Any]) -> Place:
        return Place(self.chain_id, int(step["step_idx"]), str(step.get("operator_class") or "?"))

    def twins(self, step_idx: int) -> int:
        """How many steps share this index."""
        return sum(int(step["step_idx"]) == step_idx for step in self.steps)


@dataclass(slots=True)
class _Reader:
    """Walks the steps of one chain up to its model."""

    facts: _Facts
    load_artifact: Callable[[str], Any]
    resolve: Resolve

    def plan(self, folds: Folds | None, load_models: bool) -> ReplayPlan:
        facts = self.facts
        model = _model_position(facts)
        features: list[FeatureStep] = []
        targets: list[TargetStep] = []
        for step in facts.steps[:model]:
            place, ids = facts.place(step), _ids_used(facts, step)
            if ids is None:
                continue
            loaded = self._step(step, place, ids)
            if isinstance(loaded, TargetStep):
                targets.append(loaded)
            elif loaded is not None:
                features.append(loaded)
        n_sources = 1 if facts.source_index is not None else facts.n_sources
        models = self._model(facts.steps[model], folds, load_models)
        return ReplayPlan(facts.chain_id, tuple(features), tuple(targets), models, n_sources, facts.source_index)

    def _step(self, step: Mapping[str, Any], place: Place, ids: tuple[str, ...]) -> FeatureStep | TargetStep | None:
        kind = kind_of(step, place, bool(ids))
        if kind == "model" and ids:
            raise place.error(
                "is a second model among the shared artifacts; a model that feeds another one cannot be replayed"
            )
        if kind in ("skip", "model"):
            return None
        if kind == "y_processing":
            return TargetStep(place, self._operators(ids, "inverse_transform", place))
        if kind == "feature_augmentation":
            return self._augmentation(step, place, ids)
        if ids:
            return TransformStep(place, self._by_source(ids, place))
        operator = create(step, place, self.resolve)
        if operator is None:
            return None
        if self.facts.in_branch and self.facts.twins(place.step_idx) > 1:
            raise place.error(
                "has no artifact, and the chain does not say which branch it belongs to; save its operator as an"
                " artifact"
            )
        return TransformStep(
            place, ((operator,),) * (1 if self.facts.source_index is not None else self.facts.n_sources), created=True
        )

    def _augmentation(self, step: Mapping[str, Any], place: Place, ids: tuple[str, ...]) -> AugmentationStep:
        params = step.get("params") or {}
        holder = params if "feature_augmentation" in params else step
        action, listed = holder.get("action", "add"), holder.get("feature_augmentation")
        if not isinstance(listed, list | tuple) or not all(_is_one_operator(item) for item in listed):
            raise place.error(
                "nests operators or leaves out their list, so their stored outputs cannot be put in order; train it"
                " with a flat list"
            )
        if action not in ("extend", "add", "replace"):
            raise place.error(f"has the unknown action {action!r}; it must be extend, add or replace")
        return AugmentationStep(place, action, sum(item is not None for item in listed), self._by_source(ids, place))

    def _by_source(self, ids: tuple[str, ...], place: Place) -> tuple[tuple[Any, ...], ...]:
        """The loaded operators of each source."""
        facts = self.facts
        if facts.n_sources == 1:
            return (self._operators(ids, "transform", place),)
        by_source = facts.sources.get(place.step_idx, {})
        chosen = [tuple(item for item in by_source.get(source, ()) if item in ids) for source in range(facts.n_sources)]
        if not all(chosen) or sorted(item for one in chosen for item in one) != sorted(ids):
            raise place.error(
                f"does not say which of its {len(ids)} artifacts belong to which of {facts.n_sources} sources; save"
                " them in _source_map"
            )
        if facts.source_index is not None:
            chosen = chosen[facts.source_index : facts.source_index + 1]
        return tuple(self._operators(one, "transform", place) for one in chosen)

    def _operators(self, ids: Sequence[str], method: str, place: Place) -> tuple[Any, ...]:
        if not ids:
            raise place.error("has no artifact; save its fitted operator as an artifact of the step")
        return tuple(self._loaded(artifact_id, method, place) for artifact_id in ids)

    def _loaded(self, artifact_id: str, method: str, place: Place) -> Any:
        try:
            found = self.load_artifact(artifact_id)
        except StoreError:
            raise
        except Exception as error:  # unpickling runs the class's own code, which may raise anything
            raise place.error(
                f"has the artifact {artifact_id!r}, which cannot be loaded here ({type(error).__name__}: {error});"
                " install what it was made with"
            ) from error
        if _brings_its_steps(found):
            raise place.error(
                f"has the artifact {artifact_id!r}, in which nirs4all keeps steps that were fitted with each fold;"
                " replay it inside nirs4all, after n4a_fast.install()"
            )
        if not hasattr(found, method):
            raise place.error(
                f"has the artifact {artifact_id!r}, a {type(found).__name__} without {method}(); store the operator"
                " that belongs here"
            )
        if method == "transform" and "augmentation" in type(found).__module__.split("."):
            raise place.error(
                f'adds random changes ({type(found).__name__}); if it was meant for training only, add "kind": "skip"'
                " to the step"
            )
        return found

    def _model(self, step: Mapping[str, Any], folds: Folds | None, load: bool) -> ModelStep:
        facts, place = self.facts, self.facts.place(step)
        refuse_unknown_effect(step, place)
        fold_ids = read_folds(facts.fold_artifacts, place)
        if not fold_ids:
            ids = facts.shared.get(place.step_idx) or _own_ids(step)
            if len(ids) != 1:
                raise place.error(f"has no fold models and {len(ids)} shared ones; save the model in fold_artifacts")
            fold_ids = {FINAL: ids[0]}
        keys = tuple(fold_ids) if folds is None else choose(tuple(fold_ids), folds)
        models = {key: self._loaded(fold_ids[key], "predict", place) for key in keys if load}
        return ModelStep(place, MappingProxyType(fold_ids), MappingProxyType(models))


def _facts_of(chain: Mapping[str, Any]) -> _Facts:
    chain_id = str(chain.get("chain_id") or "?")
    steps = tuple(chain.get("steps") or ())
    for step in steps:
        if not isinstance(step, Mapping) or not isinstance(step.get("step_idx"), int):
            raise ReplayError(chain_id, f"the step {step!r} has no step_idx; every step needs its index")
    stored = chain.get("shared_artifacts") or {}
    shared = {
        _index(key, chain_id): _ids(value, chain_id) for key, value in stored.items() if not str(key).startswith("_")
    }
    sources = {
        _index(key, chain_id): {_index(source, chain_id): _ids(value, chain_id) for source, value in by_source.items()}
        for key, by_source in (stored.get("_source_map") or {}).items()
    }
    index, model_idx = chain.get("source_index"), chain.get("model_step_idx")
    if not isinstance(model_idx, int):
        raise ReplayError(chain_id, f"its model_step_idx is {model_idx!r}; it must be the index of the model step")
    unused = {key for key in shared if key < model_idx} - {step["step_idx"] for step in steps}
    if unused:
        raise ReplayError(
            chain_id,
            f"shared_artifacts names the steps {sorted(unused)}, which are not among its steps; save the chain with all"
            " steps",
        )
    facts = _Facts(
        chain_id,
        steps,
        model_idx,
        shared,
        sources,
        chain.get("fold_artifacts") or {},
        bool(chain.get("branch_path")),
        index,
    )
    if index is not None and sources and not 0 <= index < facts.n_sources:
        raise ReplayError(chain_id, f"source_index {index} is not one of its {facts.n_sources} sources")
    return facts


def _index(key: Any, chain_id: str) -> int:
    try:
        return int(key)
    except (TypeError, ValueError) as error:
        raise ReplayError(chain_id, f"shared_artifacts has the key {key!r}, which is no step index") from error


def _ids(value: Any, chain_id: str) -> tuple[str, ...]:
    """Artifact ids written as one text or a list of them."""
    listed = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(item, str) for item in listed):
        raise ReplayError(chain_id, f"{value!r} is neither an artifact id nor a list of them")
    return listed


def _own_ids(step: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids that the step itself names."""
    values = (step.get("artifact_id"), step.get("artifact_ids"))
    listed = [item for value in values for item in ((value,) if isinstance(value, str) else value or ())]
    return tuple(dict.fromkeys(listed))


def _ids_used(facts: _Facts, step: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The artifacts that the chain runs at this step; None when the step is of another branch or model."""
    place, own = facts.place(step), _own_ids(step)
    shared = facts.shared.get(place.step_idx)
    if shared is None:
        elsewhere = bool(own) and (calls_itself_model(step) or (facts.in_branch and bool(facts.shared)))
        return None if elsewhere else own
    twins = facts.twins(place.step_idx)
    if twins == 1:
        return shared
    named = {item for other in facts.steps if other["step_idx"] == place.step_idx for item in _own_ids(other)}
    if not named.issuperset(shared):
        raise place.error(
            f"is one of {twins} steps with this index, which do not name all their artifacts; give each step its"
            " artifact_ids"
        )
    used = tuple(item for item in shared if item in own)
    return None if own and not used else used


def _model_position(facts: _Facts) -> int:
    """Where the chain's model is among the steps."""
    at_index = [position for position, step in enumerate(facts.steps) if step["step_idx"] == facts.model_step_idx]
    if not at_index:
        raise ReplayError(
            facts.chain_id,
            f"no step has the index {facts.model_step_idx} of its model step; save the chain with its model step",
        )
    if len(at_index) == 1:
        return at_index[0]
    models = {item for value in facts.fold_artifacts.values() for item in _ids(value, facts.chain_id)}
    named = [position for position in at_index if models.intersection(_own_ids(facts.steps[position]))]
    found = named or [position for position in at_index if calls_itself_model(facts.steps[position])]
    if len(found) != 1:
        shared_by = f"{len(at_index)} steps have the index {facts.model_step_idx} of its model"
        raise ReplayError(
            facts.chain_id, f"{shared_by}, and {len(found)} of them name its artifacts; give each step its artifact_ids"
        )
    return found[0]


def _is_one_operator(item: Any) -> bool:
    """Whether an entry of a feature augmentation is a single operator, or the None that nirs4all ignores."""
    return item is None or isinstance(item, str) or (isinstance(item, Mapping) and isinstance(item.get("class"), str))


def _brings_its_steps(found: Any) -> bool:
    """Whether this is one of nirs4all 1.4's wrappers, whose input is that of an earlier step."""
    kind = type(found)
    is_wrapper = kind.__module__.startswith("nirs4all.pipeline.execution.")
    return is_wrapper and (hasattr(found, "preprocessing") or getattr(found, "replay", None) is not None)
