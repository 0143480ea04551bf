"""What a stored step is: told from its words, never guessed.

In this order: an explicit `"kind"`; `"operator_type"`; a keyword that nirs4all keeps as a key of
`params` (or of the step itself), as in `{"params": {"y_processing": "...StandardScaler"}}`. So a
target step may be written `{"kind": "y_processing"}`, `{"operator_type": "y_processing"}`,
`{"y_processing": ...}` or `{"params": {"y_processing": ...}}`. Without such a word a step with
artifacts transforms spectra; one without is a training-only step if its name says so (splitters,
charts; a bare "dict" or "config", which is how nirs4all stores `split`, `exclude` and `tag` steps,
and those that regroup sources, whose width the model then refuses). Else it is re-created.
Filters, augmented samples and splitters act on training only, so they are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from n4a_fast.replay.plan.replay_plan import Place

Kind = Literal["transform", "feature_augmentation", "y_processing", "model", "skip"]

KINDS = ("transform", "feature_augmentation", "y_processing", "model", "skip")
_BRANCH_CURE = "; replay the chains of the single branches, or predict with the library that made it"
# Steps whose effect on the spectra is not in the stored chain.
_REFUSED = {
    "meta_model": (
        "is a stacked model, whose source models the chain does not name; replay those chains and stack them yourself"
    ),
    "concat_transform": (
        "joins the outputs of operators that nirs4all does not store; train it again with feature_augmentation or a"
        " FeatureUnion"
    ),
    "auto_transfer_preproc": (
        "chose its own preprocessing, which the chain does not name; train it again with that preprocessing"
    ),
    "merge": "merges branches" + _BRANCH_CURE,
    "merge_sources": "merges sources" + _BRANCH_CURE,
    "merge_predictions": "merges predictions" + _BRANCH_CURE,
    "source_branch": "treats sources by branch" + _BRANCH_CURE,
    "sample_partitioner": "sends samples to branches by their values" + _BRANCH_CURE,
    "branch": "opens branches inside the chain" + _BRANCH_CURE,
}
# Words a step or its params may carry, most telling first, and the kind they mean.
_WORDS: Mapping[str, str] = {
    "y_processing": "y_processing",
    "feature_augmentation": "feature_augmentation",
    "sample_augmentation": "skip",
    "sample_filter": "skip",
    "outlier_excluder": "skip",
    "splitter": "skip",
    **dict.fromkeys(_REFUSED, "refused"),
    "model": "model",
}
_TOP_WORDS: Mapping[str, Kind] = {"split": "skip", "exclude": "skip", "tag": "skip"}
_SPLITTER = re.compile(r"(Split|Splitter|Fold|LeaveOneOut|LeavePOut|LeaveOneGroupOut|LeavePGroupsOut)(CV)?$")
_CHARTS = frozenset(
    {
        "chart_2d",
        "chart_3d",
        "2d_chart",
        "3d_chart",
        "y_chart",
        "chart_y",
        "fold_chart",
        "chart_fold",
        "augment_chart",
        "augmentation_chart",
        "augment_details_chart",
        "augmentation_details_chart",
        "exclusion_chart",
        "chart_exclusion",
        "spectra_dist",
        "spectral_distribution",
        "spectra_envelope",
    }
)
_NAMELESS = frozenset({"dict", "config", "Config"})


def kind_of(step: Mapping[str, Any], place: Place, has_artifacts: bool) -> Kind:
    """The kind of a step that is not the chain's model; ReplayError when it is one that cannot be replayed."""
    explicit = step.get("kind")
    if explicit is not None:
        if explicit not in KINDS:
            raise place.error(f"has the unknown kind {explicit!r}; use one of {', '.join(KINDS)}")
        return cast(Kind, explicit)
    refuse_unknown_effect(step, place)
    word = _word_of(step)
    if word:
        return cast(Kind, _WORDS.get(word) or _TOP_WORDS[word])
    if (
        step.get("operator_class") == ""
        and step.get("stateless") is True
        and not step.get("params")
        and not has_artifacts
    ):
        return "skip"  # how nirs4all stores a variant that leaves the step out: None among alternatives
    return _by_name(str(step.get("operator_class") or ""), place, has_artifacts)


def refuse_unknown_effect(step: Mapping[str, Any], place: Place) -> None:
    """ReplayError when the stored chain does not hold what this kind of step did."""
    word = _word_of(step)
    if word in _REFUSED:
        raise place.error(_REFUSED[word])


def calls_itself_model(step: Mapping[str, Any]) -> bool:
    """Whether a step's words say that it is a model."""
    return step.get("kind") == "model" or _word_of(step) in ("model", "meta_model")


def _word_of(step: Mapping[str, Any]) -> str:
    """The word that tells what a step is, or "" when it carries none."""
    stated = step.get("operator_type")
    if isinstance(stated, str) and (stated in _WORDS or stated in _TOP_WORDS):
        return stated
    params = step.get("params")
    words = set(step) | (set(params) if isinstance(params, Mapping) else set())
    found = next((word for word in _WORDS if word in words), "")
    return found or next((word for word in _TOP_WORDS if word in step), "")


def _by_name(name: str, place: Place, has_artifacts: bool) -> Kind:
    """The kind that artifacts and the class name tell."""
    if name in _NAMELESS:
        if has_artifacts:
            raise place.error('was stored without saying what it is, yet with artifacts; add "kind" to the step')
        return "skip"
    if has_artifacts:
        return "transform"
    last = name.rpartition(".")[2]
    return "skip" if last in _CHARTS or last.startswith("fold_") or _SPLITTER.search(last) else "transform"
