"""An estimator as a store keeps it: one chain whose model step is the whole fitted estimator."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from n4a_fast.tables.predictions.labels import are_labels

_LONGEST_TITLE = 60  # characters

# a WorkspaceStore, which imports this folder
Store = Any


@dataclass(frozen=True, slots=True)
class Target:
    """Measured values and what they are: numbers, or labels among the classes."""

    values: np.ndarray[Any, Any]
    classes: tuple[Any, ...]
    is_text: bool

    def saved(self, values: Any) -> np.ndarray[Any, Any]:
        """Measured values, or predictions, as the store takes them."""
        found = np.asarray(values)
        return found if self.is_text else found.astype(float)


def target_of(y: Any, classifies: bool) -> Target:
    """The target."""
    values = np.asarray(y)
    is_text = are_labels(values)
    classes = tuple(np.unique(values).tolist()) if classifies else ()
    return Target(values, classes, is_text)


def class_name(estimator: Any) -> str:
    """The importable name of an estimator's class."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def parts_of(estimator: Any) -> tuple[str, str]:
    """What comes before the model, for display, and the model with the parameters that were set."""
    steps = [step for _, step in getattr(estimator, "steps", ()) if step not in (None, "passthrough")]
    model = steps[-1] if steps else estimator
    return " > ".join(type(step).__name__ for step in steps[:-1]), _title(model)


def _title(model: Any) -> str:
    """An estimator as scikit-learn prints it, which leaves defaults out, if that is short; else its class.

    The first parameter goes without its name: PLSRegression(5), Ridge(0.1).
    """
    name, told = type(model).__name__, " ".join(repr(model).split())
    first = next(iter(inspect.signature(type(model)).parameters), "")
    told = told.replace(f"{name}({first}=", f"{name}(", 1).removesuffix("()")
    return told if told.startswith(name) and len(told) <= _LONGEST_TITLE else name


def json_params(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON knows them; objects as their text."""
    return {str(name): _plain(value) for name, value in params.items()}


def _plain(value: Any) -> Any:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return value.item() if isinstance(value, np.generic) else repr(value)
    return value


def described(estimator: Any, **more: Any) -> dict[str, Any]:
    """A pipeline's configuration: the estimator, its parameters, scikit-learn's version."""
    import sklearn

    params = json_params(estimator.get_params()) if hasattr(estimator, "get_params") else {}
    return {"estimator": class_name(estimator), "params": params, "sklearn": sklearn.__version__, **more}


def save_estimators(
    store: Store,
    pipeline_id: str,
    estimator: Any,
    fitted: dict[str, Any],
    facts: dict[str, Any],
    params: dict[str, Any],
) -> str:
    """Id of a chain of one step, the whole estimator; `fitted` by fold."""
    kind, (before, _) = class_name(estimator), parts_of(estimator)
    saved = {fold: store.save_artifact(each, kind, "model", "joblib") for fold, each in fitted.items()}
    step = {"step_idx": 1, "operator_class": kind, "params": params, "artifact_id": None, "stateless": False}
    return str(store.save_chain(pipeline_id, [step], 1, kind, before, "per_fold", saved, {}, input=facts))
