"""What an estimator declares about itself, asked without importing scikit-learn.

The package does not depend on scikit-learn; stored estimators bring it along. Its tags are read as
releases since 1.6 give them (`__sklearn_tags__`) and as older ones did (`_get_tags`,
`_estimator_type`); nirs4all's operators state theirs in `_tags`. Who declares nothing takes no NaN,
needs a fit if it has one, and classifies if it has classes. A pickle of another release may lack what
its own tags ask for; it counts as one that declares nothing, and fails where it is called.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_WIDEST_ASKED = 2**22  # features, 32 MiB


def allows_nan(operator: Any) -> bool:
    """Whether the operator says that it takes NaN."""
    own = getattr(operator, "_tags", None)
    if isinstance(own, dict) and "allow_nan" in own:
        return bool(own["allow_nan"])
    tags = _declared(operator)
    if tags is not None:
        return bool(tags.input_tags.allow_nan or tags.no_validation)
    older = _older(operator)
    return bool(older.get("allow_nan") or older.get("no_validation"))


def needs_fit(operator: Any) -> bool:
    """Whether the operator must be fitted before it transforms."""
    tags = _declared(operator)
    if tags is not None:
        return bool(tags.requires_fit)
    return bool(_older(operator).get("requires_fit", hasattr(operator, "fit")))


def classifies(model: Any) -> bool:
    """Whether a model predicts classes: what it declares counts, then whether it has any."""
    return estimator_type(model) == "classifier"


def estimator_type(model: Any) -> str:
    """ "classifier", "regressor", "clusterer", ... as the model declares; without a word the classes it has tell."""
    tags = _declared(model)
    declared = getattr(tags, "estimator_type", None) or getattr(model, "_estimator_type", None)
    if declared:
        return str(declared)
    classes = getattr(model, "classes_", None)
    return "classifier" if classes is not None and len(classes) else "regressor"


def labels_several(model: Any, width: int) -> bool:
    """Whether a classifier gives several labels a sample, though its classes are one list: then there is no vote.

    Its fitted state tells in scikit-learn, each estimator in its own words. A classifier of another kind that declares
    to be able to, or declares nothing, is asked for a made-up spectrum, unless it says to be wider than any spectrum:
    a stranger's number would take all memory.
    """
    if (stated := _states_several(model)) is not None:
        return stated
    tags = _declared(model)
    able = getattr(getattr(tags, "classifier_tags", None), "multi_label", tags is None)
    if not able or not 0 < width <= _WIDEST_ASKED:
        return False
    try:
        return np.asarray(model.predict(np.ones((1, width)))).size > 1
    except Exception:  # whatever a foreign model says of a made-up spectrum: those of the caller will be predicted
        return False


def _states_several(model: Any) -> bool | None:
    """What the fitted state says of the number of labels, within a pipeline or a search too; None for nothing."""
    if (best := getattr(model, "best_estimator_", None)) is not None:
        return _states_several(best)
    if isinstance(steps := getattr(model, "steps", None), list) and steps:
        return _states_several(steps[-1][1])
    if isinstance(several := getattr(model, "multilabel_", None), bool):
        return several
    if isinstance(outputs := getattr(model, "n_outputs_", None), int | np.integer):
        targets = getattr(getattr(model, "_label_binarizer", None), "y_type_", "")  # a network has an output a class
        return targets.startswith("multilabel") if targets else bool(outputs > 1)
    if isinstance(wide := getattr(model, "outputs_2d_", None), bool):  # of neighbours
        return wide
    targets = getattr(getattr(model, "_label_binarizer", None), "y_type_", None)  # of ridge classifiers
    return None if targets is None else str(targets).startswith("multilabel")


def width_of(operator: Any) -> int:
    """Columns that the operator was fitted on; 0 where it does not say.

    A CatBoost model that was loaded again says 0, and has the names of its columns; elsewhere these may be the names
    of what an operator makes.
    """
    width = getattr(operator, "n_features_in_", None)
    if not isinstance(width, int | np.integer):
        return 0
    if width > 0:
        return int(width)
    names = getattr(operator, "feature_names_", None)
    return len(names) if isinstance(names, list | tuple) else 0


def _declared(operator: Any) -> Any:
    """scikit-learn's tags of the operator, or None."""
    if not hasattr(operator, "__sklearn_tags__"):
        return None
    try:
        return operator.__sklearn_tags__()
    except AttributeError:  # a pickle of another release, or a mixin without its base
        return None


def _older(operator: Any) -> dict[str, Any]:
    """Tags as scikit-learn kept them before 1.6."""
    getter = getattr(operator, "_get_tags", None)
    return dict(getter()) if callable(getter) else {}
