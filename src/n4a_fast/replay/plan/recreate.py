"""Operators without an artifact, made again from their class and parameters.

Promises that such an operator carries nothing that its training data would have taught it: it is
either declared to need no fit, or fitted on two unlike sets of made-up spectra and found to hold
the same state and to give the same output. Anything else raises, with the cure.
Accepted class names: fully qualified (`chemotools.scatter.StandardNormalVariate`), in
`operator_class` or as `{"class": "...", "params": {...}}` in the step's params, also below the keys
`transform` and `preprocessing`; a short name only if `sklearn.preprocessing` has that class. Other
libraries share short names for different arithmetic (a standard deviation by n or by n-1).
What a name may stand for is for the store's `trusted=` to say: the caller's `resolve` asks it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import joblib
import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import UntrustedArtifactError
from n4a_fast.replay.plan.replay_plan import Place
from n4a_fast.replay.plan.tags import needs_fit

Array: TypeAlias = NDArray[np.float64]
Resolve: TypeAlias = Callable[[str], Any]

SHORT_NAMES_FROM = "sklearn.preprocessing"
_CURE = "save the fitted operator as an artifact of the step"


def create(step: Mapping[str, Any], place: Place, resolve: Resolve) -> Any | None:
    """An unfitted operator from a step without artifacts; None if its class only splits samples."""
    name, params = _recipe(step, place)
    kind = _class_named(name, place, resolve)
    if hasattr(kind, "split") and not hasattr(kind, "transform"):
        return None
    if not hasattr(kind, "transform"):
        raise place.error(
            f'names {name}, which cannot transform spectra; if it acts on training only, add "kind": "skip" to the step'
        )
    if step.get("stateless") is not True:
        raise place.error(f"has no artifact and is not marked stateless; {_CURE}")
    try:
        return kind(**{key: _value(value, place, resolve) for key, value in params.items()})
    except (TypeError, ValueError) as error:
        raise place.error(f"cannot be made from its stored parameters ({error}); {_CURE}") from error


def fitted(operator: Any, spectra: Array, wavelengths: Array | None, place: Place) -> Any:
    """A created operator that is ready for `spectra`; ReplayError if it learns from what it is fitted on."""
    if not needs_fit(operator):
        return operator
    rows = np.linspace(0.0, 1.0, 24)[:, None]
    columns = np.linspace(0.0, 7.0, spectra.shape[1])[None, :]
    probes = (1.5 + np.sin(columns + 5.0 * rows), 4.0 + rows * np.cos(2.0 * columns) + 3.0 * rows**2)
    try:
        first, second = (_fit(copy.deepcopy(operator), probe, wavelengths) for probe in probes)
        same = joblib.hash(first) == joblib.hash(second) and np.array_equal(
            first.transform(spectra.copy()), second.transform(spectra.copy()), equal_nan=True
        )
    except Exception as error:
        raise place.error(f"was saved without an artifact and cannot be made ready again ({error}); {_CURE}") from error
    if not same:
        raise place.error(f"is marked stateless, but learns from its training data; {_CURE}")
    return first


def _recipe(step: Mapping[str, Any], place: Place) -> tuple[str, Mapping[str, Any]]:
    """Class name and constructor arguments, from the forms that chains use."""
    name, params = str(step.get("operator_class") or ""), step.get("params") or {}
    if not isinstance(params, Mapping):
        raise place.error(f"has params of type {type(params).__name__}; they must be a mapping of parameter names")
    for wrapper in ("transform", "preprocessing"):
        inner = params.get(wrapper)
        if isinstance(inner, str):
            return inner, {}
        if isinstance(inner, Mapping) and "class" in inner:
            params = inner
    if isinstance(params.get("class"), str):
        return params["class"], params.get("params") or {}
    return name, params


def _class_named(name: str, place: Place, resolve: Resolve) -> type:
    full = name if "." in name else f"{SHORT_NAMES_FROM}.{name}"
    try:
        found = resolve(full)
    except UntrustedArtifactError:
        raise
    except Exception as error:  # an import runs the module, which may fail in any way
        if full == name:
            raise place.error(
                f"needs {name}, which cannot be imported ({error}); install its package, or {_CURE}"
            ) from error
        hint = f'{{"class": "package.module.{name}", "params": {{...}}}}'
        raise place.error(
            f"has no artifact, and {name!r} does not say where its class lives; give params as {hint}, or {_CURE}"
        ) from error
    if not isinstance(found, type):
        raise place.error(f"names {full}, which is not a class; {_CURE}")
    return found


def _value(value: Any, place: Place, resolve: Resolve) -> Any:
    """A stored parameter; `{"class": ..., "params": ...}` is an operator inside it."""
    if isinstance(value, Mapping) and isinstance(value.get("class"), str) and set(value) <= {"class", "params"}:
        inner = value.get("params") or {}
        return _class_named(value["class"], place, resolve)(
            **{key: _value(item, place, resolve) for key, item in inner.items()}
        )
    return value


def keeps_width(transform: Callable[[Array], Any], width: int) -> bool:
    """Whether spectra of this many columns, and of one more or less, keep their number: then what gives `width`
    columns was given as many. An operator may give as many whatever it is given.
    """
    for columns in (width, width + 1, width - 1):
        probe = 1.0 + np.sin(np.linspace(0.0, 9.0, 4 * columns)).reshape(4, -1)
        try:
            found = np.shape(transform(probe))
        except ValueError:  # it takes another width
            found = probe.shape if columns != width else ()
        if found != probe.shape:
            return False
    return True


def _fit(operator: Any, spectra: Array, wavelengths: Array | None) -> Any:
    flag = getattr(operator, "_requires_wavelengths", None)
    takes = bool(flag) if flag is not None else "wavelengths" in inspect.signature(operator.fit).parameters
    return operator.fit(spectra, wavelengths=wavelengths) if takes else operator.fit(spectra)
