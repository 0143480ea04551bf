"""What a plan knows of the spectra it takes: what was stored with its chain, and what its operators remember.

scikit-learn's operators keep the names of a table's columns (`feature_names_in_`); those that meet the
caller's spectra first tell what the columns must be called. Names that a library makes up itself
("Column_0", "Column_1", ...) count only against tables with such names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from n4a_fast.replay.plan.replay_plan import AugmentationStep, ReplayPlan
from n4a_fast.replay.plan.tags import classifies, width_of
from n4a_fast.values.chain_input import ChainInput, read_input


def known_inputs(plan: ReplayPlan, stored: Any) -> tuple[ChainInput, ...]:
    """The facts about each source of the plan; `stored` are those of the chain's row."""
    if plan.n_sources > 1:
        return tuple(_of_operators(_first(plan, source)) for source in range(plan.n_sources))
    told = read_input(stored)
    found = _of_operators(_first(plan, 0))
    if told.columns and found.n_features not in (None, told.n_features):
        found = ChainInput()  # the stored facts are about another table; the width is checked by the operator
    return (told.filled_from(found).filled_from(ChainInput(classes=_classes(plan.model.models))),)


def _first(plan: ReplayPlan, source: int) -> tuple[Any, ...]:
    """The operators that are given the caller's spectra of this source as they are."""
    if not plan.steps:
        return tuple(plan.model.models.values()) if plan.n_sources == 1 else ()
    step = plan.steps[0]
    if isinstance(step, AugmentationStep):
        return step.operators[source]
    return () if step.created else step.operators[source][:1]


def _of_operators(operators: Iterable[Any]) -> ChainInput:
    for operator in operators:
        names = getattr(operator, "feature_names_in_", None)
        if names is not None and len(names) and all(isinstance(name, str) for name in names):
            return ChainInput(n_features=len(names), columns=tuple(map(str, names)))
        if width := width_of(operator):
            return ChainInput(n_features=width)
    return ChainInput()


def _classes(models: Mapping[str, Any]) -> tuple[Any, ...]:
    model = next(iter(models.values()), None)
    classes: Any = getattr(model, "classes_", None) if model is not None and classifies(model) else None
    listed = classes.tolist() if hasattr(classes, "tolist") else []
    return tuple(listed) if all(isinstance(item, str | bool | int | float) for item in listed) else ()
