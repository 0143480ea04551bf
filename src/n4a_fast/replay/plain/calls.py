"""One call of one operator: what it is given, and what it may give back.

Promises that an operator sees spectra of the width it was fitted on, NaN only where its tags allow
it, and wavelengths only where its signature or `_requires_wavelengths` asks for them; and that what
comes back has the same samples in rows, real numbers, and no infinity or NaN that was not there.
An operator's own error becomes a ReplayError that names the step and chains the cause.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError
from n4a_fast.replay.plain.inputs import count_in_rows, finite
from n4a_fast.replay.plan.replay_plan import Place
from n4a_fast.replay.plan.tags import allows_nan, width_of

Array: TypeAlias = NDArray[np.float64]


def transformed(
    operator: Any, spectra: Array, wavelengths: Array | None, given: int, place: Place, whole: bool = False
) -> Array:
    """The spectra after one operator, all of them finite where those before were; `given` is the width of the caller's
    spectra, `whole` where all values are known to be finite.
    """
    whole = whole or finite(spectra)
    check_input(operator, spectra, given, place, whole)
    arguments = _wavelength_argument(operator, spectra, wavelengths, place)
    had_nan = not whole and bool(np.isnan(spectra).any())
    try:
        raw = operator.transform(spectra, **arguments)
    except Exception as error:
        raise place.error(f"failed to transform the spectra: {error}") from error
    found = np.asarray(raw.toarray() if hasattr(raw, "toarray") else raw)
    if found.ndim != 2 or len(found) != len(spectra):
        raise place.error(
            f"turned spectra of shape {spectra.shape} into {found.shape}; a step of a chain must keep the samples in"
            " rows"
        )
    if found.dtype.kind not in "fiub":
        raise place.error(f"gave values of dtype {found.dtype}; spectra must stay real numbers")
    result = np.ascontiguousarray(found, dtype=np.float64)
    if finite(result):
        return result
    bad = np.isinf(result) if had_nan else ~np.isfinite(result)
    if bad.any():
        raise place.error(
            f"gave {count_in_rows(bad, 'NaN or infinite')}, from spectra without them; check these rows of X"
        )
    return result


def predicted(model: Any, method: str, spectra: Array, place: Place) -> Any:
    """What `model.predict` or `model.predict_proba` gives."""
    try:
        return getattr(model, method)(spectra)
    except Exception as error:
        raise place.error(f"failed to predict: {error}") from error


def check_input(operator: Any, spectra: Array, given: int, place: Place, whole: bool = False) -> None:
    """Refuses spectra that `operator` was not fitted for; `whole` where all values are known to be finite."""
    width, fitted_on = spectra.shape[1], width_of(operator)
    if fitted_on and fitted_on != width:
        if width == given:
            found = f"X has {width} columns, {place} of chain {place.chain_id!r} was fitted on {fitted_on}"
            raise InvalidInputError(f"{found}; give spectra on the same wavelengths")
        raise place.error(
            f"was fitted on {fitted_on} columns, the steps before it give {width}; a step is missing, or belongs to"
            " another chain"
        )
    missing = np.isnan(spectra[:0] if whole else spectra)
    if missing.any() and not allows_nan(operator):
        raise InvalidInputError(
            f"X leaves {count_in_rows(missing, 'NaN')}, for {place}, which takes no missing values; fill or drop these"
            " rows"
        )


def _wavelength_argument(operator: Any, spectra: Array, wavelengths: Array | None, place: Place) -> dict[str, Array]:
    """`{"wavelengths": ...}` for an operator that takes them, else nothing."""
    accepts, requires = asks_for_wavelengths(operator)
    if wavelengths is None:
        if requires:
            raise InvalidInputError(
                f"{place} of chain {place.chain_id!r} needs wavelengths; pass wavelengths=, one a column of X"
            )
        return {}
    if not accepts:
        return {}
    if len(wavelengths) != spectra.shape[1]:
        raise place.error(
            f"takes wavelengths, but the steps before it left {spectra.shape[1]} of {len(wavelengths)} columns; which"
            " ones is not stored"
        )
    return {"wavelengths": wavelengths.copy()}


def asks_for_wavelengths(operator: Any) -> tuple[bool, bool]:
    """Whether `transform` accepts wavelengths, and whether it needs them."""
    flag = getattr(operator, "_requires_wavelengths", None)  # nirs4all: True, False or "optional"
    if flag is not None:
        return bool(flag), flag is True
    try:
        parameter = inspect.signature(operator.transform).parameters.get("wavelengths")
    except (TypeError, ValueError):  # a compiled method without a signature cannot ask by name
        return False, False
    return parameter is not None, parameter is not None and parameter.default is inspect.Parameter.empty
