"""A chain as one line of operators, the most that nirs4all's loader and a script can run.

Owns the rewriting: transforms one after the other, models whose predictions are averaged, and what
brings predictions back to the unit of the targets. What does not lie in a line becomes one operator
of scikit-learn that does the same: channels a FeatureUnion, classifiers by fold a soft vote, folds
before a curved target step a TransformedTargetRegressor each. Promises the predictions of the plain
replay; what cannot be said this way raises a ReplayError with step and reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.trust import Trust
from n4a_fast.replay.fused.linear_operators import inverse_is_linear
from n4a_fast.replay.plain.calls import asks_for_wavelengths
from n4a_fast.replay.plain.combine import TIE, common_classes, common_type
from n4a_fast.replay.plan.folds import FINAL
from n4a_fast.replay.plan.load import load_chain
from n4a_fast.replay.plan.recreate import fitted, keeps_width
from n4a_fast.replay.plan.replay_plan import AugmentationStep, FeatureStep, Place, ReplayPlan, TransformStep
from n4a_fast.replay.plan.tags import width_of
from n4a_fast.tables.artifacts import Artifacts

_LEAST_SEEN = 5e-11  # what may be added to probabilities: half of what exports are held to
_ELSEWHERE = "; replay the chain from the store"


@dataclass(frozen=True, slots=True)
class Part:
    """One operator: the step it stands at, the fold of a model, and the artifact it is.

    Without an artifact it was made from the step's parameters, or `composed` of several operators.
    """

    step: int
    operator: Any
    artifact_id: str | None
    fold: str = ""
    composed: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Parts in the order in which they run; `targets` in that in which predictions go back through them."""

    plan: ReplayPlan
    transforms: tuple[Part, ...]
    models: tuple[Part, ...]
    targets: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, by step."""
        return tuple(sorted((*self.transforms, *self.targets, *self.models), key=lambda part: part.step))

    @property
    def predicting(self) -> tuple[Part, ...]:
        """The models that are averaged: the refit alone where there is one."""
        return tuple(part for part in self.models if part.fold == FINAL) or self.models

    @property
    def is_whole(self) -> bool:
        """Whether it holds every operator of the chain as it is, so that the chain's own rows describe it."""
        return not any(part.composed for part in self.parts)


def line_of_chain(chain: Mapping[str, Any], artifacts: Artifacts, trust: Trust | None = None) -> Line:
    """The chain as a line; its operators are loaded for it, as the store or a stricter `trust` lets them."""
    trust = trust or artifacts.trust
    loaded: dict[int, tuple[str, Any]] = {}  # by id; the object is kept, so that its id stays its own

    def load(artifact_id: str) -> Any:
        found = artifacts.load(artifact_id, trust)
        loaded[id(found)] = artifact_id, found
        return found

    plan = load_chain(chain, load, resolve=trust.class_named)
    ids = {key: artifact_id for key, (artifact_id, _) in loaded.items()}
    if plan.n_sources != 1:
        raise plan.model.place.error(
            f"predicts from {plan.n_sources} sources, and a file takes one table of spectra{_ELSEWHERE}"
        )
    transforms = _transforms(plan, ids)
    models, targets = _models_and_targets(plan, ids)
    for part in transforms:
        if asks_for_wavelengths(part.operator)[1]:
            place = Place(plan.chain_id, part.step, type(part.operator).__name__)
            raise place.error(f"needs wavelengths, which nobody passes to a file's operators{_ELSEWHERE}")
    return Line(plan, transforms, models, targets)


def _transforms(plan: ReplayPlan, ids: Mapping[int, str]) -> tuple[Part, ...]:
    first = next((turn for turn, step in enumerate(plan.steps) if isinstance(step, AugmentationStep)), len(plan.steps))
    found = [
        Part(
            step.place.step_idx, _ready(operator, step, plan) if _is_created(step) else operator, ids.get(id(operator))
        )
        for step in plan.steps[:first]
        for operator in step.operators[0]
    ]
    if first < len(plan.steps):
        found.append(Part(plan.steps[first].place.step_idx, _union(plan.steps[first:], plan), None, composed=True))
    return tuple(found)


def _is_created(step: FeatureStep) -> bool:
    return isinstance(step, TransformStep) and step.created


def _ready(operator: Any, step: FeatureStep, plan: ReplayPlan) -> Any:
    """An operator made from parameters, fitted on as many columns as what comes after it takes."""
    later = plan.steps[plan.steps.index(step) + 1 :]
    following = [*(each for one in later for each in one.operators[0]), *plan.model.models.values()]
    width = next((width for each in following if (width := width_of(each))), 0)
    probe = 1.0 + np.sin(np.linspace(0.0, 9.0, 4 * max(width, 1))).reshape(4, -1)
    made = fitted(operator, probe, None, step.place)
    if made is not operator and not (
        width and keeps_width(lambda rows: fitted(operator, rows, None, step.place).transform(rows), width)
    ):
        raise step.place.error(
            "is made again from its parameters for each replay, on a width that the chain does not tell; save it as an"
            " artifact"
        )
    return made


def _union(steps: Sequence[FeatureStep], plan: ReplayPlan) -> Any:
    """The steps from a feature augmentation on: one pipeline a channel, side by side."""
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import (
        FunctionTransformer,
    )  # at the end, because a pipeline asks its last step whether it was fitted

    channels: list[tuple[tuple[Any, ...], bool]] = [((), True)]
    for step in steps:
        channels = (
            _augmented(channels, step) if isinstance(step, AugmentationStep) else _continued(channels, step, plan)
        )
    return FeatureUnion(
        [
            (f"channel_{turn}", make_pipeline(*operators, FunctionTransformer()))
            for turn, (operators, _) in enumerate(channels)
        ]
    )


def _augmented(
    channels: list[tuple[tuple[Any, ...], bool]], step: AugmentationStep
) -> list[tuple[tuple[Any, ...], bool]]:
    """As `execute` does it: the channels that were there first, then each operator on each base."""
    live = [operators for operators, is_live in channels if is_live]
    bases = [base for _ in range(step.n_operations) for base in (live[:1] if step.action == "extend" else live)]
    if len(bases) != len(step.operators[0]):
        raise step.place.error(
            f"has {len(step.operators[0])} artifacts for {len(bases)} channels; which belongs to which is not stored"
        )
    kept = [(operators, step.action != "replace" or not is_live) for operators, is_live in channels]
    return [*kept, *(((*base, operator), True) for base, operator in zip(bases, step.operators[0], strict=True))]


def _continued(
    channels: list[tuple[tuple[Any, ...], bool]], step: TransformStep, plan: ReplayPlan
) -> list[tuple[tuple[Any, ...], bool]]:
    n_live = sum(is_live for _, is_live in channels)
    operators = step.operators[0]
    if step.created:
        operators = tuple(_ready(operator, step, plan) for operator in operators) * n_live
    runs = [operators] if n_live == 1 else [(operator,) for operator in operators]
    if len(runs) != n_live:
        raise step.place.error(
            f"has {len(operators)} artifacts for {n_live} channels of spectra; each channel needs one"
        )
    following = iter(runs)
    return [((*done, *next(following)), True) if is_live else (done, False) for done, is_live in channels]


def _models_and_targets(plan: ReplayPlan, ids: Mapping[int, str]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    step, fitted_models = plan.model.place.step_idx, plan.model.models
    models = tuple(Part(step, model, ids.get(id(model)), fold) for fold, model in fitted_models.items())
    undo = [
        (target.place.step_idx, operator)
        for target in reversed(plan.targets)
        for operator in reversed(target.operators)
    ]
    first = min(
        (index for index, _ in undo), default=0
    )  # nirs4all's loader undoes one step, all of its operators in order
    targets = tuple(Part(first, operator, ids.get(id(operator))) for _, operator in undo)
    if len(models) == 1 or FINAL in fitted_models:
        return models, targets
    if common_type(fitted_models, plan.model.place) == "classifier":
        return (Part(step, _voting(plan), None, FINAL, composed=True),), targets
    if not all(inverse_is_linear(operator) for _, operator in undo):
        return (
            tuple(Part(step, _untransforming(part.operator, undo), None, part.fold, composed=True) for part in models),
            (),
        )
    return models, targets


def _voting(plan: ReplayPlan) -> Any:
    """The classifiers of all folds as one, by their mean probabilities."""
    from sklearn.ensemble import VotingClassifier
    from sklearn.preprocessing import LabelEncoder

    models = list(plan.model.models.values())
    common_classes(plan.model.models, plan.model.place)  # or an error that names the folds
    classes = [np.asarray(getattr(model, "classes_", ())) for model in models]
    if not all(
        hasattr(model, "predict_proba") and np.array_equal(known, classes[0])
        for model, known in zip(models, classes, strict=True)
    ):
        raise plan.model.place.error(f"has folds that cannot be averaged by probability{_ELSEWHERE}")
    first, weight = _first_on_a_tie(classes[0], len(models))
    named = [*((f"fold_{fold}", model) for fold, model in plan.model.models.items()), ("first_on_a_tie", first)]
    vote = VotingClassifier(named, voting="soft", weights=[1.0] * len(models) + [weight])
    vote.estimators_, vote.le_, vote.classes_ = [*models, first], LabelEncoder().fit(classes[0]), classes[0]
    return vote


def _first_on_a_tie(classes: NDArray[Any], n_folds: int) -> tuple[Any, float]:
    """A member of a vote, and its weight, that prefers the earlier class by hardly more than rounding.

    Means of probabilities that are equal come out unequal in their last bits; replay takes the first of them, and a
    vote that is loaded without this package shall too.
    """
    from sklearn.dummy import DummyClassifier

    ranks = np.arange(len(classes), 0, -1)
    preferring = DummyClassifier(strategy="prior").fit(np.zeros((len(classes), 1)), classes, sample_weight=ranks)
    return preferring, float(n_folds * min(TIE * ranks.sum(), _LEAST_SEEN))


def _untransforming(model: Any, undo: Sequence[tuple[int, Any]]) -> Any:
    """A model that predicts in the unit of the targets."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import make_pipeline

    back = make_pipeline(*(operator for _, operator in reversed(undo)))
    whole = TransformedTargetRegressor(model, transformer=back, check_inverse=False)
    whole.regressor_, whole.transformer_, whole._training_dim = model, back, 1
    return whole


def bytes_of(part: Part, artifacts: Artifacts) -> tuple[bytes, str]:
    """A part as it is stored, and its format; one made here is pickled."""
    return artifacts.content(part.artifact_id) if part.artifact_id else (codec.dumps(part.operator, "joblib"), "joblib")
