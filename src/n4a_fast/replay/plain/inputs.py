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
from n4a_fast.values import checks
from n4a_fast.values.chain_input import ChainInput

Array: TypeAlias = NDArray[np.float64]

_AXIS = 1e-5  # relative: 1000.01 nm written as 1000


class Sourced(Protocol):
    """A plan, or what became of it: how many sources it joins, or which one it takes."""

    @property
    def chain_id(self) -> str: ...

    @property
    def n_sources(self) -> int: ...

    @property
    def source_index(self) -> int | None: ...

    @property
    def inputs(self) -> tuple[ChainInput, ...]: ...


def read_spectra(plan: Sourced, X: Any) -> list[Array]:
    """One array of spectra for each source of the plan."""
    check_columns(plan, X)
    blocks = [_block(block, name) for block, name in _blocks(plan, X)]
    for block, known, (_, name) in zip(blocks, plan.inputs, _blocks(plan, X), strict=False):
        if known.n_features and block.shape[1] != known.n_features:
            raise InvalidInputError(
                f"{name} has {block.shape[1]} columns, chain {plan.chain_id!r} was fitted on {known.n_features}; give"
                " spectra on the same wavelengths"
            )
    if len({len(block) for block in blocks}) > 1:
        raise InvalidInputError(
            f"the sources in X have {[len(block) for block in blocks]} rows; give the same samples in each"
        )
    return blocks


def check_input(plan: Sourced, X: Any, wavelengths: Any) -> None:
    """Refuses the names and wavelengths that reading would refuse, without a look at the spectra."""
    check_columns(plan, X)
    if wavelengths is not None and plan.n_sources == 1:
        axis = np.atleast_1d(real_numbers(_of_source(plan, wavelengths), "wavelengths")).astype(np.float64)
        for known in plan.inputs:
            _check_axis(axis, known, "wavelengths")


def check_columns(plan: Sourced, X: Any) -> None:
    """InvalidInputError for tables whose columns are not those that the plan was trained on, in their order."""
    for (block, name), known in zip(_blocks(plan, X), plan.inputs, strict=False):
        if (given := column_names(block)) is not None:
            _check_names(given, known, name)


def column_names(table: Any) -> list[str] | None:
    """The names of a table's columns; None for an array, and for columns that are merely counted. InvalidInputError
    for a table that is still to be computed.
    """
    if hasattr(table, "collect"):
        raise InvalidInputError(
            f"X holds a {type(table).__name__}, which is not computed yet; give what collect() gives"
        )
    names = getattr(table, "column_names", None) or getattr(table, "columns", None)
    if names is None or callable(names):
        return None
    listed = list(names)
    return None if listed == list(range(len(listed))) else [str(name) for name in listed]


def _check_names(given: list[str], known: ChainInput, name: str) -> None:
    expected: Sequence[Any] = known.columns
    if expected and not (is_counted(expected) and not set(expected) & set(given)):
        wrong = next((place for place, pair in enumerate(zip(given, expected, strict=False)) if not _same(*pair)), None)
        reordered = sorted(map(str, expected)) == sorted(given)
    elif known.wavelengths and all(_number(one) is not None for one in given):
        expected = known.wavelengths
        wrong, reordered = _first_apart([float(one) for one in given], expected), False
    else:
        return
    if wrong is None and len(given) == len(expected):
        return
    place = min(len(given), len(expected)) if wrong is None else wrong
    told = f"column {place} of {name} is {_at(given, place)}, the chain was trained on {_at(expected, place)} there"
    cure = "put the columns in their order by name" if reordered else "give spectra on the same columns"
    raise InvalidInputError(f"{told}; {cure}, or an array without names if you are sure of them")


def is_counted(names: Sequence[str]) -> bool:
    """Whether a library made these names up: one prefix, numbered from 0."""
    prefix = names[0].removesuffix("0")
    return list(names) == [f"{prefix}{number}" for number in range(len(names))]


def _same(given: str, expected: str) -> bool:
    return given == expected or (_number(given) is not None and _number(given) == _number(expected))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _first_apart(given: Sequence[float], expected: Sequence[float]) -> int | None:
    """Where two axes differ first by more than what printing them rounds off."""
    pairs = enumerate(zip(given, expected, strict=False))
    return next((place for place, (one, other) in pairs if abs(one - other) > _AXIS * abs(other)), None)


def _at(values: Sequence[Any], place: int) -> str:
    return repr(values[place]) if place < len(values) else "nothing"


def _check_axis(axis: Array, known: ChainInput, name: str) -> None:
    numbers = [_number(column) for column in known.columns]
    expected = known.wavelengths or [number for number in numbers if number is not None]
    if len(expected) != len(axis):
        return
    if (place := _first_apart(axis.tolist(), expected)) is not None:
        unit = f" {known.wavelength_unit}" if known.wavelength_unit else ""
        raise InvalidInputError(
            f"{name}[{place}] is {axis[place]:g}, the chain was trained at {expected[place]:g}{unit}; nothing is"
            " interpolated: bring the spectra to its wavelengths first"
        )


def read_wavelengths(plan: Sourced, wavelengths: Any, spectra: Sequence[Array]) -> list[Array | None]:
    """The wavelengths of each source, or None for each without them."""
    if wavelengths is None:
        return [None] * len(spectra)
    if plan.n_sources == 1:
        axis = _axis(_of_source(plan, wavelengths), "wavelengths", spectra[0])
        for known in plan.inputs:
            _check_axis(axis, known, "wavelengths")
        return [axis]
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
    found = real_numbers(value, name)
    if found.ndim == 1:
        raise InvalidInputError(f"{name} has shape {found.shape}; for one sample give {name}[None, :]")
    if found.ndim != 2:
        raise InvalidInputError(f"{name} has {found.ndim} dimensions; give samples in rows and wavelengths in columns")
    if 0 in found.shape:
        raise InvalidInputError(f"{name} has shape {found.shape}; a prediction needs at least one row and one column")
    block = np.array(found, dtype=np.float64, order="C", copy=True)
    if not finite(block) and np.isinf(block).any():
        raise InvalidInputError(f"{name} holds {_found_in(np.isinf(block))}; no operator takes infinite values")
    return block


def finite(values: NDArray[Any]) -> bool:
    """Whether all values are finite; a sum is not if one of them is not."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def count_in_rows(mask: NDArray[np.bool_], what: str) -> str:
    """How many values `mask` marks, and the first row with one."""
    return (
        f"{int(mask.sum())} {what} value{'' if mask.sum() == 1 else 's'}, the first in row"
        f" {int(mask.any(axis=1).argmax())}"
    )


def _found_in(mask: NDArray[np.bool_]) -> str:
    return count_in_rows(mask, "infinite")


def _axis(value: Any, name: str, spectra: Array) -> Array:
    found = real_numbers(value, name)
    if found.shape != (spectra.shape[1],):
        raise InvalidInputError(
            f"{name} has shape {found.shape}, the spectra have {spectra.shape[1]} columns; give one wavelength a column"
        )
    axis = found.astype(np.float64)
    if not np.isfinite(axis).all():
        raise InvalidInputError(f"{name} must be finite numbers")
    return axis


def real_numbers(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array of real numbers; InvalidInputError for anything else, masked values included."""
    checks.no_text(value, name)
    if isinstance(value, np.ma.MaskedArray) or hasattr(value, "toarray"):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; give a plain array")
    try:
        found = value.to_numpy(np.float64, na_value=np.nan) if _is_nullable(value) else np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{name} is no array of numbers ({error})") from error
    if found.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} has dtype {found.dtype}; give real numbers, for example {name}.astype(float)")
    return found


def _is_nullable(table: Any) -> bool:
    """Whether this is a table of pandas whose numbers may be missing: as an array it would be one of objects."""
    kinds = list(getattr(table, "dtypes", ())) if hasattr(table, "iloc") else []
    return any(hasattr(kind, "na_value") for kind in kinds) and all(kind.kind in "fiub" for kind in kinds)
