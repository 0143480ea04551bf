"""The caller's spectra and wavelengths, checked and copied before any operator sees them.

Promises one private float64 array in C order for each source (operators may write into their
input), with finite or NaN values; whether NaN is allowed is for each operator to say.
An empty X is refused: how many targets a chain predicts is only known from a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast.errors import InvalidInputError

Array: TypeAlias = NDArray[np.float64]


class Sourced(Protocol):
    """A plan, or what became of it: how many sources it joins, or which one it takes."""

    @property
    def n_sources(self) -> int: ...

    @property
    def source_index(self) -> int | None: ...


def read_spectra(plan: Sourced, X: Any) -> list[Array]:
    """One array of spectra for each source of the plan."""
    blocks = [_block(block, name) for block, name in _blocks(plan, X)]
    if len({len(block) for block in blocks}) > 1:
        raise InvalidInputError(
            f"the sources in X have {[len(block) for block in blocks]} rows; give the same samples in each"
        )
    return blocks


def read_wavelengths(plan: Sourced, wavelengths: Any, spectra: Sequence[Array]) -> list[Array | None]:
    """The wavelengths of each source, or None for each without them."""
    if wavelengths is None:
        return [None] * len(spectra)
    if plan.n_sources == 1:
        return [_axis(_of_source(plan, wavelengths), "wavelengths", spectra[0])]
    if not _is_several(wavelengths, 1) or len(wavelengths) != plan.n_sources:
        raise InvalidInputError(
            f"this chain joins {plan.n_sources} sources; give wavelengths as a list of {plan.n_sources} arrays"
        )
    return [_axis(axis, f"wavelengths[{source}]", spectra[source]) for source, axis in enumerate(wavelengths)]


def _blocks(plan: Sourced, X: Any) -> list[tuple[Any, str]]:
    """What the caller gave for each source, and its name in messages."""
    several = _is_several(X, 2)
    if plan.n_sources > 1:
        if not several or len(X) != plan.n_sources:
            raise InvalidInputError(
                f"this chain joins {plan.n_sources} sources; give X as a list of {plan.n_sources} arrays, one a source"
            )
        return [(block, f"X[{source}]") for source, block in enumerate(X)]
    if not several:
        return [(X, "X")]
    if plan.source_index is not None and not 0 <= plan.source_index < len(X):
        raise InvalidInputError(f"this chain uses source {plan.source_index}, X has {len(X)} sources")
    if plan.source_index is None and len(X) != 1:
        raise InvalidInputError(f"this chain has one source, X has {len(X)}; give the array that it was trained on")
    source = plan.source_index or 0
    return [(X[source], f"X[{source}]")]


def _of_source(plan: Sourced, wavelengths: Any) -> Any:
    """The wavelengths meant for the one source of a plan."""
    if not _is_several(wavelengths, 1):
        return wavelengths
    source = plan.source_index or 0
    if source >= len(wavelengths):
        raise InvalidInputError(f"this chain uses source {source}, wavelengths has {len(wavelengths)}")
    return wavelengths[source]


def _is_several(value: Any, ndim: int) -> bool:
    """Whether `value` is a list of arrays (and not an array written as nested lists)."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(getattr(item, "ndim", None) == ndim for item in value)
    )


def _block(value: Any, name: str) -> Array:
    found = _numbers(value, name)
    if found.ndim == 1:
        raise InvalidInputError(f"{name} has shape {found.shape}; for one sample give {name}[None, :]")
    if found.ndim != 2:
        raise InvalidInputError(f"{name} has {found.ndim} dimensions; give samples in rows and wavelengths in columns")
    if 0 in found.shape:
        raise InvalidInputError(f"{name} has shape {found.shape}; a prediction needs at least one row and one column")
    block = np.array(found, dtype=np.float64, order="C", copy=True)
    if np.isinf(block).any():
        raise InvalidInputError(f"{name} holds {_found_in(np.isinf(block))}; no operator takes infinite values")
    return block


def count_in_rows(mask: NDArray[np.bool_], what: str) -> str:
    """How many values `mask` marks, and the first row with one."""
    return (
        f"{int(mask.sum())} {what} value{'' if mask.sum() == 1 else 's'}, the first in row"
        f" {int(mask.any(axis=1).argmax())}"
    )


def _found_in(mask: NDArray[np.bool_]) -> str:
    return count_in_rows(mask, "infinite")


def _axis(value: Any, name: str, spectra: Array) -> Array:
    found = _numbers(value, name)
    if found.shape != (spectra.shape[1],):
        raise InvalidInputError(
            f"{name} has shape {found.shape}, the spectra have {spectra.shape[1]} columns; give one wavelength a column"
        )
    axis = found.astype(np.float64)
    if not np.isfinite(axis).all():
        raise InvalidInputError(f"{name} must be finite numbers")
    return axis


def _numbers(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array of real numbers."""
    if isinstance(value, np.ma.MaskedArray) or hasattr(value, "toarray"):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; give a plain array")
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is no array of numbers ({error})") from error
    if found.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} has dtype {found.dtype}; give real numbers, for example {name}.astype(float)")
    return found
