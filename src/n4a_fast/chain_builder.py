"""From the trace of an executed pipeline to the arguments of `WorkspaceStore.save_chain`.

Owns the reading of a trace: any object shaped like nirs4all's `ExecutionTrace` will do, nirs4all
itself is not needed. Promises one chain for every model step; each holds the steps up to its
model that ran on the model's own branch, and the artifacts of those steps, nothing else.
A model after a merge has no branch: its chain holds the steps of all branches.
Writing the chains and registering their artifacts is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plan.folds import fold_key

ChainArguments: TypeAlias = dict[str, Any]


class TracedArtifacts(Protocol):
    """Ids of what a step stored: all of them, its models by fold, and by source."""

    @property
    def artifact_ids(self) -> Sequence[str]: ...
    @property
    def fold_artifact_ids(self) -> Mapping[Any, str]: ...
    @property
    def by_source(self) -> Mapping[Any, Sequence[str]]: ...


class TracedStep(Protocol):
    """One executed step; an empty `branch_path` is outside all branches."""

    @property
    def step_index(self) -> int: ...
    @property
    def operator_type(self) -> str: ...
    @property
    def operator_class(self) -> str: ...
    @property
    def operator_config(self) -> Mapping[str, Any] | None: ...
    @property
    def execution_mode(self) -> Any: ...
    @property
    def artifacts(self) -> TracedArtifacts: ...
    @property
    def branch_path(self) -> Sequence[int] | None: ...


class Trace(Protocol):
    """The steps of one execution, in order."""

    @property
    def steps(self) -> Sequence[TracedStep]: ...
    @property
    def model_step_index(self) -> int | None: ...
    @property
    def preprocessing_chain(self) -> str | None: ...


class ChainBuilder:
    """Chains of one trace, as keyword arguments of `WorkspaceStore.save_chain`.

    >>> for arguments in ChainBuilder(trace).build_all():
    ...     store.save_chain(pipeline_id, **arguments)
    """

    def __init__(self, trace: Trace, artifact_registry: Any = None) -> None:
        """`artifact_registry` is accepted as nirs4all passes it; the trace alone names the artifacts."""
        self._trace = trace
        self._steps = [step for step in trace.steps if not _skipped(step)]

    def build(self) -> ChainArguments:
        """The chain of the trace's `model_step_index`, or of its last model when that is unknown."""
        chains = self.build_all()
        return next((chain for chain in chains if chain["model_step_idx"] == self._trace.model_step_index), chains[-1])

    def build_all(self) -> list[ChainArguments]:
        """One chain for each model step, in the trace's order; without a model, one chain of all steps."""
        models = self._models()
        return [self._chain(model, models) for model in models] or [self._chain_without_model()]

    def _models(self) -> list[TracedStep]:
        """Steps with models by fold, or called models with artifacts; else the one that the trace names."""
        found = [step for step in self._steps if _is_model(step)]
        named = [step for step in self._steps if step.step_index == self._trace.model_step_index]
        return found or named[-1:]

    def _chain(self, model: TracedStep, models: Sequence[TracedStep]) -> ChainArguments:
        branch = tuple(model.branch_path or ())
        steps = [step for step in self._steps if step.step_index <= model.step_index and _on_branch(step, branch)]
        folds = _fold_artifacts(model)
        with_own_chain = {id(step) for step in models} - ({id(model)} if not folds else set())
        sharing = [step for step in steps if id(step) not in with_own_chain]
        return {
            "steps": [_step_fields(step) for step in steps],
            "model_step_idx": model.step_index,
            "model_class": model.operator_class,
            "preprocessings": self._trace.preprocessing_chain or "",
            "fold_strategy": "per_fold" if folds else "shared",
            "fold_artifacts": folds,
            "shared_artifacts": _shared_artifacts(sharing),
            "branch_path": list(branch) or None,
            "source_index": None,
        }

    def _chain_without_model(self) -> ChainArguments:
        return {
            "steps": [_step_fields(step) for step in self._steps],
            "model_step_idx": self._trace.model_step_index or 0,
            "model_class": "",
            "preprocessings": self._trace.preprocessing_chain or "",
            "fold_strategy": "shared",
            "fold_artifacts": {},
            "shared_artifacts": _shared_artifacts(self._steps),
            "branch_path": None,
            "source_index": None,
        }


def _skipped(step: TracedStep) -> bool:
    mode = step.execution_mode
    return str(getattr(mode, "value", mode)).lower() == "skip"


def _is_model(step: TracedStep) -> bool:
    return bool(step.artifacts.fold_artifact_ids) or (
        step.operator_type == "model" and bool(step.artifacts.artifact_ids)
    )


def _on_branch(step: TracedStep, branch: tuple[int, ...]) -> bool:
    """Whether the step lies on the way to `branch`: its own path is the beginning of it."""
    path = tuple(step.branch_path or ())
    return not branch or path == branch[: len(path)]


def _step_fields(step: TracedStep) -> dict[str, Any]:
    """A step as a chain stores it; its type, where it has one, tells a replay what the step does."""
    ids = list(step.artifacts.artifact_ids)
    fields: dict[str, Any] = {
        "step_idx": step.step_index,
        "operator_class": step.operator_class,
        "params": dict(step.operator_config or {}),
        "artifact_ids": ids,
        "stateless": not ids,
    }
    return {**fields, "operator_type": step.operator_type} if step.operator_type else fields


def _fold_artifacts(model: TracedStep) -> dict[str, str]:
    """The model's artifact for each fold, keys in their one form."""
    folds: dict[str, str] = {}
    for key, artifact_id in model.artifacts.fold_artifact_ids.items():
        fold = f"fold_{fold_key(key)}"  # fold_0, fold_final, fold_avg, fold_w_avg
        known = folds.setdefault(fold, artifact_id)
        if known != artifact_id:
            place = f"step {model.step_index} ({model.operator_class})"
            raise InvalidInputError(
                f"{place} names two models, {known!r} and {artifact_id!r}, for {fold}; keep one of them in the trace"
            )
    return folds


def _shared_artifacts(steps: Iterable[TracedStep]) -> dict[str, Any]:
    """Artifact ids by step index; steps that share an index add up. `_source_map` says which source they belong to."""
    shared: dict[str, Any] = {}
    sources: dict[str, dict[str, list[str]]] = {}
    for step in steps:
        if not step.artifacts.artifact_ids:
            continue
        index = str(step.step_index)
        shared.setdefault(index, []).extend(step.artifacts.artifact_ids)
        by_source = step.artifacts.by_source or {}
        for source, ids in by_source.items() if len(by_source) > 1 else ():
            sources.setdefault(index, {}).setdefault(str(source), []).extend(ids)
    return {**shared, "_source_map": sources} if sources else shared
