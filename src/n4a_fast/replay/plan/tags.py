"""What an estimator declares about itself, asked without importing scikit-learn.

The package does not depend on scikit-learn; stored estimators bring it along. Its tags are read as
releases since 1.6 give them (`__sklearn_tags__`) and as older ones did (`_get_tags`,
`_estimator_type`); nirs4all's operators state theirs in `_tags`. Who declares nothing takes no NaN,
needs a fit if it has one, and classifies if it has `classes_`.
"""

from __future__ import annotations

from typing import Any


def allows_nan(operator: Any) -> bool:
    """Whether the operator says that it takes NaN."""
    own = getattr(operator, "_tags", None)
    if isinstance(own, dict) and "allow_nan" in own:
        return bool(own["allow_nan"])
    if hasattr(operator, "__sklearn_tags__"):
        tags = operator.__sklearn_tags__()
        return bool(tags.input_tags.allow_nan or tags.no_validation)
    older = _older(operator)
    return bool(older.get("allow_nan") or older.get("no_validation"))


def needs_fit(operator: Any) -> bool:
    """Whether the operator must be fitted before it transforms."""
    if hasattr(operator, "__sklearn_tags__"):
        return bool(operator.__sklearn_tags__().requires_fit)
    return bool(_older(operator).get("requires_fit", hasattr(operator, "fit")))


def classifies(model: Any) -> bool:
    """Whether a model predicts classes."""
    if hasattr(model, "classes_"):
        return True
    if hasattr(model, "__sklearn_tags__"):
        return bool(model.__sklearn_tags__().estimator_type == "classifier")
    return getattr(model, "_estimator_type", None) == "classifier"


def _older(operator: Any) -> dict[str, Any]:
    """Tags as scikit-learn kept them before 1.6."""
    getter = getattr(operator, "_get_tags", None)
    return dict(getter()) if callable(getter) else {}
