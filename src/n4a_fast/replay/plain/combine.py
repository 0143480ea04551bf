"""From the models of several folds to one prediction.

* Regression: each fold's prediction goes back through the target steps, then the folds are averaged
  (in the unit of the targets, as stored fold averages are). One target gives (n,), several (n, t).
* Classification: one fold answers with its own `predict`; of several the probabilities are averaged
  and the most probable class is the label, the first in `classes_` on a tie. Without `predict_proba`
  the folds vote by their weights, ties again by class order. Labels have the dtype of `classes_` and
  go back through target steps such as a label encoder.
* Others (clusterers, outlier detectors) predict by one fold: their labels cannot be averaged.

A. Sums of probabilities differ in their last bits with the order of the folds, so shares within
   `TIE` of the largest are as large as it: all paths then name the same label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plain.calls import check_input, predicted
from n4a_fast.replay.plain.inputs import finite
from n4a_fast.replay.plan.replay_plan import Place, TargetStep
from n4a_fast.replay.plan.tags import estimator_type, labels_several, width_of

Array: TypeAlias = NDArray[np.float64]

TIE = 1e-12


def combine(
    models: Mapping[str, Any],
    weights: Array,
    spectra: Array,
    given: int,
    targets: Sequence[TargetStep],
    place: Place,
    return_proba: bool,
) -> NDArray[Any]:
    """The prediction of these models together."""
    whole = finite(spectra)
    for model in models.values():
        check_input(model, spectra, given, place, whole)
    kind = common_type(models, place)
    if kind == "classifier":
        return _classified(models, weights, spectra, targets, place, return_proba)
    if return_proba:
        raise InvalidInputError(
            f"return_proba=True: {place} of chain {place.chain_id!r} is a {kind}; it has no probabilities"
        )
    outputs = [_regressed(model, spectra, targets, place) for model in models.values()]
    if len({output.shape for output in outputs}) > 1:
        raise place.error(
            f"has folds that predict different numbers of targets ({sorted({output.shape[1] for output in outputs})})"
        )
    mean = np.einsum("f,fnt->nt", weights, np.stack(outputs)) if len(outputs) > 1 else outputs[0]
    return mean[:, 0] if mean.shape[1] == 1 else mean


def common_type(models: Mapping[str, Any], place: Place) -> str:
    """What kind of estimator the models of all folds are."""
    kinds = {estimator_type(model) for model in models.values()}
    if len(kinds) > 1:
        raise place.error(f"has folds of several kinds ({', '.join(sorted(kinds))}); they cannot be combined")
    kind = kinds.pop()
    if len(models) > 1 and kind in ("clusterer", "outlier_detector"):
        raise place.error(
            f"is a {kind.replace('_', ' ')}, whose labels mean something else in each of its {len(models)} folds;"
            " choose one of them with folds="
        )
    return kind


def _regressed(model: Any, spectra: Array, targets: Sequence[TargetStep], place: Place) -> Array:
    """One fold's prediction in the unit of the targets, shape (n, t)."""
    found = np.asarray(predicted(model, "predict", _own(model, spectra), place))
    if found.dtype.kind not in "fiub" or found.ndim not in (1, 2) or len(found) != len(spectra):
        raise place.error(
            f"predicted {found.dtype} of shape {found.shape} for {len(spectra)} samples; expected real numbers, one row"
            " a sample"
        )
    values = found.astype(np.float64).reshape(len(spectra), -1)
    for step in reversed(targets):
        for operator in reversed(step.operators):
            values = _undone(operator, values, step.place)
    return values


def _own(model: Any, spectra: Array) -> Array:
    """The spectra as a model gets them: a copy, for it may write into what it is given, unless it says otherwise."""
    return spectra if getattr(model, "reads_only", False) else spectra.copy()


def _undone(operator: Any, values: Array, place: Place) -> Array:
    """Predictions back through one operator that was applied to the targets."""
    if getattr(operator, "func", None) is not None and getattr(operator, "inverse_func", operator) is None:
        raise place.error(
            "changed the targets by a function without an inverse, so predictions would stay in its unit; train it with"
            " inverse_func"
        )
    try:
        found = np.asarray(operator.inverse_transform(values))
    except Exception as error:
        raise place.error(f"failed to bring predictions back to the unit of the targets: {error}") from error
    if len(found) != len(values) or found.dtype.kind not in "fiub":
        raise place.error(
            f"brought {values.shape} predictions back as {found.dtype} of shape {found.shape}; expected real numbers,"
            " one row a sample"
        )
    return found.astype(np.float64).reshape(len(values), -1)


def _classified(
    models: Mapping[str, Any],
    weights: Array,
    spectra: Array,
    targets: Sequence[TargetStep],
    place: Place,
    return_proba: bool,
) -> NDArray[Any]:
    classes = common_classes(models, place)
    soft = classes is not None and all(hasattr(model, "predict_proba") for model in models.values())
    if return_proba and not soft:
        raise InvalidInputError(
            f"return_proba=True: {place} of chain {place.chain_id!r} has no predict_proba; ask for labels"
        )
    if return_proba or (soft and len(models) > 1):
        assert classes is not None  # soft says so
        proba = sum(
            weight * _probabilities(model, len(classes), spectra, place)
            for weight, model in zip(weights, models.values(), strict=True)
        )
        if return_proba:
            return np.asarray(proba, dtype=np.float64)
        labels: NDArray[Any] = np.asarray(classes[most(proba)])
    else:
        labels = _voted([_labels(model, spectra, place) for model in models.values()], weights, classes, place)
    return labels_undone(labels, targets)


def most(shares: Array) -> NDArray[np.intp]:
    """The first column in each row with the largest share, ties within rounding."""
    return np.asarray((shares >= shares.max(axis=1, keepdims=True) - TIE).argmax(axis=1))


def labels_undone(labels: NDArray[Any], targets: Sequence[TargetStep]) -> NDArray[Any]:
    """Labels back through the target steps, such as encoders."""
    for step in reversed(targets):
        for operator in reversed(step.operators):
            labels = _label_undone(operator, labels, step.place)
    return labels


def common_classes(models: Mapping[str, Any], place: Place) -> NDArray[Any] | None:
    """The classes all folds know, in their order; None when the models do not say."""
    first: tuple[str, NDArray[Any]] | None = None
    for key, model in models.items():
        stated = getattr(model, "classes_", None)
        if stated is None:
            return None
        by_target = isinstance(stated, list) and any(np.ndim(one) > 0 for one in stated)
        if by_target or labels_several(model, width_of(model)):
            raise place.error("classifies several targets at once; replay takes classifiers of one target")
        classes = np.asarray(stated)
        if first is None:
            first = key, classes
        elif not np.array_equal(first[1], classes):
            raise place.error(
                f"has folds that know different classes: {first[0]!r} {first[1].tolist()}, {key!r} {classes.tolist()};"
                " choose folds that agree"
            )
    return None if first is None else first[1]


def _probabilities(model: Any, n_classes: int, spectra: Array, place: Place) -> Array:
    found = np.asarray(predicted(model, "predict_proba", _own(model, spectra), place), dtype=np.float64)
    if found.shape != (len(spectra), n_classes):
        raise place.error(
            f"gave probabilities of shape {found.shape} for {len(spectra)} samples and {n_classes} classes"
        )
    return found


def _labels(model: Any, spectra: Array, place: Place) -> NDArray[Any]:
    found = np.asarray(predicted(model, "predict", _own(model, spectra), place))
    if found.shape not in ((len(spectra),), (len(spectra), 1)):
        raise place.error(
            f"predicted labels of shape {found.shape} for {len(spectra)} samples; replay takes classifiers of one"
            " target"
        )
    return found.reshape(-1)


def _voted(votes: Sequence[NDArray[Any]], weights: Array, classes: NDArray[Any] | None, place: Place) -> NDArray[Any]:
    """The label with the most weight in each row."""
    if classes is None:
        classes = np.unique(np.concatenate(votes))
    if len(votes) == 1:
        return votes[0].astype(classes.dtype, copy=False)
    counts = np.zeros((len(votes[0]), len(classes)))
    for vote, weight in zip(votes, weights, strict=True):
        hits = vote[:, None] == classes[None, :]
        if not hits.any(axis=1).all():
            raise place.error("predicted a label that is not among its classes_")
        counts += weight * hits
    return np.asarray(classes[most(counts)])


def _label_undone(operator: Any, labels: NDArray[Any], place: Place) -> NDArray[Any]:
    """Labels back through one operator that encoded them; label encoders take one dimension, scalers two."""
    one_dimensional = hasattr(operator, "classes_")
    if labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels)):
        labels = labels.astype(np.int64)  # encoders index with what they decode
    try:
        found = np.asarray(operator.inverse_transform(labels if one_dimensional else labels[:, None]))
    except Exception as error:
        raise place.error(f"failed to bring labels back: {error}") from error
    if found.shape not in ((len(labels),), (len(labels), 1)):
        raise place.error(f"brought {len(labels)} labels back with shape {found.shape}; expected one label a sample")
    return found.reshape(-1)
