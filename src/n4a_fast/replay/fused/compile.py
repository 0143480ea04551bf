"""From a plan to a compiled chain, if it is linear: walked backwards from the models.

Owns the rewriting and its proof. The models give weights, target steps and folds are multiplied in,
then each stage before them its linear part, until a row statistic or a stage that is neither; what is
left in front runs plainly. Promises that no compiled chain leaves here that differs from the plain
path on the rows at hand, or on variations of them, by more than `TOLERANCE`; a chain that is not
compiled comes back with the reasons.

A. The intercept is the plain prediction at the centre, so offsets need no algebra of their own.
B. Rows are varied by smooth factors, so that one spectrum is enough to check all weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.replay.fused.compiled import WHOLE, CompiledChain, PlainChain, content_hash, plain_chain
from n4a_fast.replay.fused.linear_operators import (
    WIDEST,
    Unfused,
    entry_of,
    inverse_is_linear,
    linear_part,
    made_with,
    probed,
    row_statistic,
)
from n4a_fast.replay.fused.links import Link, link_of, scores_of
from n4a_fast.replay.fused.pipeline_models import taken_apart
from n4a_fast.replay.fused.proof_rows import difference_of, evenly, is_far, varied
from n4a_fast.replay.fused.radial import is_radial, radial_part
from n4a_fast.replay.fused.stages import Bench, Stage, line_of, without_models
from n4a_fast.replay.fused.statistics import RowStatistic, front_of_bands
from n4a_fast.replay.plain.calls import asks_for_wavelengths
from n4a_fast.replay.plain.combine import combine
from n4a_fast.replay.plain.execute import plain_features
from n4a_fast.replay.plain.inputs import check_columns, finite, read_spectra, read_wavelengths
from n4a_fast.replay.plan.replay_plan import ReplayPlan, TargetStep
from n4a_fast.replay.plan.tags import classifies, width_of

Array: TypeAlias = NDArray[np.float64]

# Both paths round each sum of products; on spectra with centred weights they differ by 1e-14 to 1e-12.
TOLERANCE = 1e-11


@dataclass(frozen=True, slots=True)
class _Work:
    """One chain on the bench: its stages and what the check needs."""

    plan: ReplayPlan
    models: Mapping[str, Any]
    fold_weights: Array
    stages: tuple[Stage, ...]
    bench: Bench
    link: Link | None = None

    def predict(self, features: Array, given: int) -> Array:
        """What the plain path predicts, of a classifier the scores of each fold."""
        if self.link is not None:
            return scores_of(self.models, features, given, self.plan.model.place)
        return np.asarray(
            combine(self.models, self.fold_weights, features, given, self.plan.targets, self.plan.model.place, False)
        )


def compile_chain(
    plan: ReplayPlan, fold_weights: Array, X: Any, wavelengths: Any, bench: Bench
) -> CompiledChain | PlainChain:
    """The plan as a compiled chain, or the reasons why it stays plain; raises what the plain path raises on X."""
    found = _compiled(plan, fold_weights, X, wavelengths, bench)
    if isinstance(found, CompiledChain) or (apart := taken_apart(plan)) is plan:
        return found
    again = _compiled(apart, fold_weights, X, wavelengths, bench)
    # what runs before a compiled chain is looked up among the chain's own steps
    return again if isinstance(again, CompiledChain) and 0 <= again.start <= len(plan.steps) else found


def _compiled(
    plan: ReplayPlan, fold_weights: Array, X: Any, wavelengths: Any, bench: Bench
) -> CompiledChain | PlainChain:
    models = dict(plan.model.models)
    stages = line_of(plan, bench.names)
    work = _Work(plan, models, fold_weights, stages or (), bench)
    fused = f"{plan.model.place}: fused with {len(models)} folds" if len(models) > 1 else f"{plan.model.place}: fused"
    try:
        if any(classifies(model) for model in models.values()):
            work = replace(work, link=link_of(models, fold_weights, plan.targets, plan.model.place))
            weights = np.hstack([linear_part(model, _width_of(model), "score") for model in models.values()])
        else:
            weights = _in_target_unit(_model_weights(work), plan.targets)
    except Unfused as error:
        return _with_kernels(work, X, wavelengths, fused, str(error), stages is not None)
    if stages is None:
        return _over_features(work, weights, X, wavelengths, fused)
    return _along_line(work, weights, X, wavelengths, fused)


def refusal(plan: ReplayPlan) -> PlainChain | None:
    """Why a chain with such models stays plain whatever its spectra; None when it may fuse."""
    try:
        _require_all_linear(plan)
    except Unfused as error:
        if (apart := taken_apart(plan)) is not plan and refusal(apart) is None:
            return None
        return plain_chain(
            plan,
            (*(f"{step.place}: runs plainly" for step in plan.steps), f"{plan.model.place}: runs plainly, {error}"),
        )
    return None


def _require_all_linear(plan: ReplayPlan) -> None:
    for model in plan.model.models.values():
        if not is_radial(model):
            _require_linear(model)


def _require_linear(model: Any) -> None:
    entry_of(model, "score" if classifies(model) else "predict")


def _with_kernels(
    work: _Work, X: Any, wavelengths: Any, fused: str, reason: str, in_line: bool
) -> CompiledChain | PlainChain:
    """A chain of radial kernel models: the folds share their kernels; what is no filter or scaler runs plainly."""
    try:
        statistic, weights = radial_part(work.models, work.fold_weights)
        if not in_line:
            raise Unfused("several sources or channels")
        weights = _in_target_unit(weights, work.plan.targets)
    except Unfused:
        return plain_chain(work.plan, (*_plain(work.stages), f"{work.plan.model.place}: runs plainly, {reason}"))
    rows, axis, given = _rows(work, X, wavelengths)
    work, between = _run(work, rows, axis)
    alone = _Back(len(work.stages), statistic, weights, (*_plain(work.stages), f"{fused}, {statistic}"))
    for back in (_with_front(work, alone, between), alone):
        found = None if back is None else _behind_statistic(work, back, axis, between, given)
        if isinstance(found, CompiledChain):
            break
    assert found is not None
    return found


def _with_front(work: _Work, alone: _Back, between: Sequence[Array]) -> _Back | None:
    """The same with the filters and scalers before the distances as their front; None if there are none such."""
    assert alone.statistic is not None
    if between[-1].shape[1] > WIDEST:
        return None
    back = _walked_back(work, np.eye(between[-1].shape[1]), [block.shape[1] for block in between])
    if back.start == alone.start:
        return None
    corrected = between[back.start] if back.statistic is None else back.statistic.apply(between[back.start])
    center, values = _centre(work, back, corrected)
    if is_far(center, values[0], back.weights):
        center, values = _centre(work, back, np.zeros_like(corrected))
    front = front_of_bands(back.statistic, center, back.weights, values[0]) if finite(corrected) else None
    if front is None:
        return None
    statistic = replace(alone.statistic, front=front)
    return _Back(back.start, statistic, alone.weights, (*back.notes, f"{alone.notes[-1]}"))


def _model_weights(work: _Work) -> Array:
    """Weights of the averaged folds, (columns, targets)."""
    total: Array | None = None
    for share, model in zip(work.fold_weights, work.models.values(), strict=True):
        _require_linear(model)
        weights = share * _two_dimensional(linear_part(model, _width_of(model), "predict"))
        if total is not None and total.shape != weights.shape:
            raise Unfused("its folds differ in shape")
        total = weights if total is None else total + weights
    assert total is not None
    return total


def _in_target_unit(weights: Array, targets: Sequence[TargetStep]) -> Array:
    """The weights with the target steps undone."""
    for step in reversed(targets):
        for operator in reversed(step.operators):
            weights = weights @ _inverse_part(operator, weights.shape[1])
    return weights


def _width_of(model: Any) -> int:
    width = width_of(model)
    if not width:
        raise Unfused(f"{type(model).__name__} does not say how many columns it takes")
    return width


def _inverse_part(operator: Any, width: int) -> Array:
    if not inverse_is_linear(operator):
        raise Unfused(f"the target step {type(operator).__name__} has no linear inverse")
    return probed(operator.inverse_transform, width)


def _two_dimensional(part: Array) -> Array:
    return part if part.ndim == 2 else np.diag(part)


def _over_features(work: _Work, weights: Array, X: Any, wavelengths: Any, fused: str) -> CompiledChain | PlainChain:
    """For several sources or channels: all steps run plainly, the models as one."""
    features, given = plain_features(work.plan, X, wavelengths)
    notes = (
        *(f"{step.place}: runs plainly, the chain has several sources or channels" for step in work.plan.steps),
        fused,
    )
    some = np.ascontiguousarray(features[evenly(len(features))])
    evidence = _Evidence(some.mean(axis=0), some.mean(axis=0)[None, :], (some, varied(some)), (some, varied(some)))
    return _proved(work, _Back(WHOLE, None, weights, notes), evidence, given)


def _along_line(work: _Work, weights: Array, X: Any, wavelengths: Any, fused: str) -> CompiledChain | PlainChain:
    rows, axis, given = _rows(work, X, wavelengths)
    work, between = _run(work, rows, axis)
    back = _walked_back(work, weights, [block.shape[1] for block in between])
    return _behind_statistic(work, replace(back, notes=(*back.notes, fused)), axis, between, given)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a compiled chain is made at and checked on: its centre, and spectra before it with what the models get of
    them.
    """

    center: Array
    features_at_center: Array
    before: tuple[Array, Array]
    features: tuple[Array, Array]


def _behind_statistic(
    work: _Work, back: _Back, axis: Array | None, between: Sequence[Array], given: int
) -> CompiledChain | PlainChain:
    corrected = between[back.start] if back.statistic is None else back.statistic.apply(between[back.start])
    if not finite(corrected):
        return plain_chain(work.plan, (*back.notes, "not fused: the row statistic fails on the rows at hand"))
    _, others = _run(work, work.bench.once(("varied", id(between[0])), lambda: varied(between[0])), axis)

    def proved(center: Array, at_center: Array) -> CompiledChain | PlainChain:
        before, features = (between[back.start], others[back.start]), (between[-1], others[-1])
        return _proved(work, back, _Evidence(center, at_center, before, features), given)

    if back.statistic is not None and back.statistic.kind == "radial":
        return proved(corrected[0], between[-1][:1])  # a mean of kernels is the kernels of no spectrum
    found = proved(*_centre(work, back, corrected))
    if isinstance(found, CompiledChain) and is_far(found.center, found.intercept, back.weights):
        found = proved(*_centre(work, back, np.zeros_like(corrected)))
    return found


def _centre(work: _Work, back: _Back, corrected: Array) -> tuple[Array, Array]:
    """The mean of the rows before the weights, and what the models get there."""
    center = work.bench.same(corrected.mean(axis=0))
    behind = work.stages[back.start + (back.statistic is not None) :]
    return center, work.bench.after(behind, center[None, :], None, f"centre {back.start} {content_hash(center)}")


def _proved(work: _Work, back: _Back, evidence: _Evidence, given: int) -> CompiledChain | PlainChain:
    """The chain compiled as found, if it agrees with the plain path on the rows at hand and on others like them."""
    blocks = (evidence.features_at_center, *evidence.features)
    predicted = work.predict(np.concatenate(blocks), given).reshape(
        sum(map(len, blocks)), -1
    )  # one call: a model's own checks cost more
    draft = _draft(work, back, evidence.center, predicted[0], given)
    expected = predicted[1:] if len(draft.weights) > 1 else predicted[1:, 0]
    found = np.concatenate([draft.apply(spectra) for spectra in evidence.before])
    error = difference_of(found, expected, len(evidence.before[0]))
    if work.link is not None:
        error = max(error, _difference_of_answers(work, work.link, found, np.concatenate(evidence.features), given))
    if not error <= TOLERANCE:  # so that NaN is given up too
        told = (
            f"not fused: it would differ from the plain path by {error:.2g}, more than {TOLERANCE:.0e}; an operator is"
            " not what its entry says"
        )
        return plain_chain(work.plan, (*draft.notes, told))
    return replace(draft, error=error)


def _difference_of_answers(work: _Work, link: Link, scores: Array, features: Array, given: int) -> float:
    """The largest difference of probabilities, infinite if a label differs."""

    def plain(return_proba: bool) -> NDArray[Any]:
        return combine(
            work.models, work.fold_weights, features, given, work.plan.targets, work.plan.model.place, return_proba
        )

    labels, proba = link.answer(scores, False), link.answer(scores, True) if link.soft else np.zeros(1)
    if labels is None or proba is None or not np.array_equal(labels, plain(False)):
        return np.inf
    return float(np.abs(proba - plain(True)).max()) if link.soft else 0.0


def _run(work: _Work, rows: Array, wavelengths: Array | None) -> tuple[_Work, list[Array]]:
    """The rows before, between and behind the stages, and the stages ready for them."""
    tag, between, stages = work.bench.once(("tag", id(rows)), lambda: content_hash(rows)), [rows], []
    for stage in work.stages:
        stages.append(work.bench.ready(stage, between[-1], wavelengths))
        between.append(work.bench.after(stages, rows, wavelengths, tag))
    return replace(work, stages=tuple(stages)), between


@dataclass(frozen=True, slots=True)
class _Back:
    """How far a chain fuses: the stages left in front, the statistic and the weights there, what became of each
    stage.
    """

    start: int
    statistic: RowStatistic | None
    weights: Array
    notes: tuple[str, ...]


def _walked_back(work: _Work, weights: Array, widths: Sequence[int]) -> _Back:
    notes: list[str] = []
    for number in range(len(work.stages) - 1, -1, -1):
        stage, width = work.stages[number], widths[number]
        try:
            part = _part(stage, width, work.bench)
        except Unfused as error:
            try:
                statistic = row_statistic(stage.operator, width)
            except Unfused:
                return _Back(
                    number + 1,
                    None,
                    weights,
                    (*_plain(work.stages[:number]), f"{stage.place}: runs plainly, {error}", *notes),
                )
            return _Back(
                number,
                statistic,
                weights,
                (*_plain(work.stages[:number]), f"{stage.place}: row statistic {statistic}", *notes),
            )
        weights = part[:, None] * weights if part.ndim == 1 else part @ weights
        notes.insert(0, f"{stage.place}: fused")
    return _Back(0, None, weights, tuple(notes))


def _part(stage: Stage, width: int, bench: Bench) -> Array:
    found = bench.parts.get((stage.name, width))
    if found is None:
        if asks_for_wavelengths(stage.operator)[0]:
            raise Unfused("it takes wavelengths")
        found = bench.parts.put((stage.name, width), linear_part(stage.operator, width))
    return found


def _draft(work: _Work, back: _Back, center: Array, intercept: Array, given: int) -> CompiledChain:
    plan, front = work.plan, max(back.start, 0)
    fused = work.stages[front:] if back.start != WHOLE else ()
    operators = [
        *(stage.operator for stage in fused),
        *work.models.values(),
        *(one for step in plan.targets for one in step.operators),
    ]
    return CompiledChain(
        plan.chain_id,
        back.start,
        tuple(stage.name for stage in work.stages[:front]),
        given,
        back.statistic,
        center,
        np.ascontiguousarray(back.weights.T),
        intercept.copy(),
        0.0,
        back.notes,
        made_with(operators),
        plan.n_sources,
        plan.source_index,
        without_models(plan) if back.start else None,
        work.link,
        plan.inputs,
    )


def _rows(work: _Work, X: Any, wavelengths: Any) -> tuple[Array, Array | None, int]:
    """Some rows of the caller's spectra, evenly spread, and the wavelengths."""

    def read() -> tuple[Array, Array | None, int]:
        spectra = read_spectra(work.plan, X)
        rows = np.ascontiguousarray(spectra[0][evenly(len(spectra[0]))])
        return rows, read_wavelengths(work.plan, wavelengths, spectra)[0], rows.shape[1]

    check_columns(work.plan, X)  # of each chain; the rows are read for all
    found: tuple[Array, Array | None, int] = work.bench.once(("rows", id(X), work.plan.source_index), read)
    return found


def _plain(stages: Sequence[Stage]) -> list[str]:
    return [f"{stage.place}: runs plainly" for stage in stages]
