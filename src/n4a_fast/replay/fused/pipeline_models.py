"""Models that are pipelines, taken apart: what the folds share in front becomes steps of the chain.

A row statistic inside scikit-learn's `Pipeline` hides from `compile`, which looks at whole models. Leading
operators that are the same in all folds run the same spectra, so they are as well steps before the model;
what is left of each fold is a model of its own. Promises plans that predict what the given ones do.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from n4a_fast.replay.fused.linear_operators import public_name
from n4a_fast.replay.plan.replay_plan import Place, ReplayPlan, TransformStep

_PIPELINE = "sklearn.pipeline.Pipeline"


def taken_apart(plan: ReplayPlan) -> ReplayPlan:
    """The plan with the operators that all of its pipelines begin with as steps of their own."""
    steps, models = list(plan.steps), {key: _flat(model) for key, model in plan.model.models.items()}
    while plan.n_sources == 1 and (first := _common_first(models)) is not None:
        place = plan.model.place
        steps.append(TransformStep(Place(place.chain_id, place.step_idx, type(first).__name__), ((first,),)))
        models = {key: _rest(model) for key, model in models.items()}
    if len(steps) == len(plan.steps):
        return plan
    return replace(plan, steps=tuple(steps), model=replace(plan.model, models=MappingProxyType(models)))


def last_of(model: Any) -> Any:
    """The estimator that a pipeline ends with; any other model is its own."""
    return model.steps[-1][1] if _is_pipeline(model) else model


def _common_first(models: Mapping[str, Any]) -> Any:
    """The operator that all of these pipelines begin with, or None."""
    firsts = []
    for model in models.values():
        if not _is_pipeline(model) or len(model.steps) < 2:
            return None
        firsts.append(model.steps[0][1])
    if not firsts or not all(hasattr(first, "transform") for first in firsts):
        return None
    try:
        return firsts[0] if len({pickle.dumps(first) for first in firsts}) == 1 else None
    except Exception:  # what cannot be pickled stays where it is, whatever it raises
        return None


def _flat(model: Any) -> Any:
    """A pipeline without pipelines at its beginning."""
    while _is_pipeline(model) and _is_pipeline(model.steps[0][1]):
        model = type(model)([*model.steps[0][1].steps, *model.steps[1:]])
    return model


def _is_pipeline(model: Any) -> bool:
    return public_name(type(model)) == _PIPELINE


def _rest(model: Any) -> Any:
    """The pipeline without its first step."""
    return model.steps[1][1] if len(model.steps) == 2 else _flat(type(model)(model.steps[1:]))
