"""Row statistics: corrections that treat each spectrum by numbers of its own, as plain arithmetic.

Owns SNV, norms and regressions on reference spectra (MSC, EMSC, areas) in a form that can be stored
as a name and arrays, so that a compiled chain needs no operator object. Promises values that differ
from the operator's own by rounding only; a row with a vanishing denominator gives NaN, and the
caller then asks the operator itself. Which operator is which statistic is for `operators` to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast._native import kernels

Array: TypeAlias = NDArray[np.float64]

NATIVE_TARGETS = 24  # docs/native.md: BLAS wins from about 32 columns
_NORMS = {1.0: "l1", 2.0: "l2", np.inf: "max"}
_RADIAL_ROWS, _DISTANCE_ROWS = 64, 256
_BLOCK = 32  # columns of a product with bands: 64 would multiply half as many zeros again
_EXACT = 2e-16  # of a kernel value, which is at most 1
_TERMS = 12  # of a series instead of an exponential for each fold; 8 for gammas that differ by a twentieth
LEAST = 1e-9  # an area or a norm below this may be replaced by 1 in an operator; so in row_map.c and scripts/weights.py


@dataclass(frozen=True, slots=True, eq=False)
class RowStatistic:
    """What is done to each row x.

    * "snv": (x - mean) / standard deviation, with `number` degrees of freedom less.
    * "norm": x / norm of order `number`.
    * "radial": exp(-gamma * squared distance) to some of `spectra`, `functionals` telling gamma and which; of rows
      behind `front`, if there is one.
    * "regression": c = x @ functionals; (x - c[:-1] @ spectra) / c[-1].
    """

    kind: str
    number: float = 0.0
    functionals: Array | None = None
    spectra: Array | None = None
    front: Front | None = None
    _held: tuple[Array, Array] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind == "radial" and self.spectra is not None:
            object.__setattr__(self, "_held", _around_their_mean(self.spectra))

    def __str__(self) -> str:
        if self.functionals is not None and self.kind == "radial":
            return f"{len(self.functionals)} radial kernels{self.front or ''}"
        if self.functionals is not None:
            return f"regression on {self.functionals.shape[1]} spectra"
        return f"{self.kind}({self.number:g})"

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays it consists of."""
        own = tuple(array for array in (self.functionals, self.spectra) if array is not None)
        return own if self.front is None else (*own, self.front.center, self.front.bands)

    def gives(self, width: int) -> bool:
        """Whether this is a statistic whose arrays fit each other and leave rows of this width."""
        functionals, spectra = self.functionals, self.spectra
        if self.kind == "snv":
            return functionals is None and 0 <= self.number < width
        if self.kind == "norm":
            return functionals is None
        if functionals is None or functionals.ndim != 2:
            return False
        if self.kind == "radial":
            which = functionals[:, -1]
            inside = spectra is not None and bool(((which >= 0) & (which < len(spectra))).all())
            fits = self.front is None or (spectra is not None and self.front.gives(spectra.shape[1]))
            return inside and fits and functionals.shape == (width, 2)
        fitting = spectra is None or spectra.shape == (functionals.shape[1] - 1, width)
        return self.kind == "regression" and len(functionals) == width and fitting

    def takes(self, width: int) -> int:
        """Columns of the rows that it leaves with this width."""
        if self.front is not None:
            return len(self.front.center[0])
        return self.spectra.shape[1] if self.kind == "radial" and self.spectra is not None else width

    def apply(self, X: Array) -> Array:
        """The corrected rows of X, in a new array."""
        with np.errstate(all="ignore"):
            if self.kind == "snv":
                return kernels.snv(X, int(self.number))
            if self.kind == "norm":
                return np.asarray(X / _or_nan(np.linalg.norm(X, ord=self.number, axis=1, keepdims=True)))
            return self._radial(X) if self.kind == "radial" else self._regressed(X)

    def _radial(self, X: Array) -> Array:
        assert self.functionals is not None
        found = np.empty((len(X), len(self.functionals)))
        for rows, squares in self.squares(X):
            found[rows] = self.of_squares(squares)
        return found

    def squares(self, X: Array) -> Iterator[tuple[slice, Array]]:
        """Squared distances of the rows of X to `spectra`, some rows at a time: a product with lengths as columns."""
        assert self._held is not None
        (middle, held), width = self._held, self._held[1].shape[1] - 2
        for first in range(0, len(X), _DISTANCE_ROWS):
            some = X[first : first + _DISTANCE_ROWS]
            rows = np.empty((len(some), width + 2))
            if self.front is None:
                np.subtract(some, middle, out=rows[:, :width])
            else:
                self.front.apply(some, middle, rows[:, :width])
            rows[:, width], rows[:, width + 1] = _lengths(rows[:, :width]), 1.0
            yield slice(first, first + len(some)), rows @ held.T  # rounding may leave a little less than nothing

    def of_squares(self, squares: Array) -> Array:
        """Kernel values from squared distances."""
        assert self.functionals is not None
        found = np.take(squares, self.functionals[:, 1].astype(np.int64), axis=1)
        found *= -self.functionals[:, 0]
        return np.asarray(np.exp(found, out=found))

    def _regressed(self, X: Array) -> Array:
        assert self.functionals is not None
        found = X @ self.functionals
        rest = X if self.spectra is None else X - found[:, :-1] @ self.spectra
        return np.asarray(rest / _or_nan(found[:, -1:]))


def _or_nan(denominators: Array) -> Array:
    """These; NaN for those next to nothing."""
    return np.where(np.abs(denominators) < LEAST, np.nan, denominators)


def _around_their_mean(spectra: Array) -> tuple[Array, Array]:
    """Their mean, and -2 times each spectrum less it, one, and its squared length: times a row less the mean, the
    squared length of that and one, this gives the squared distance.
    """
    middle, width = spectra.mean(axis=0), spectra.shape[1]
    held = np.empty((len(spectra), width + 2))
    np.subtract(spectra, middle, out=held[:, :width])
    held[:, width], held[:, width + 1] = 1.0, _lengths(held[:, :width])
    held[:, :width] *= -2.0
    return middle, held


def _lengths(rows: Array) -> Array:
    """Squared lengths; one that is not finite tells nothing, and is NaN."""
    found = np.einsum("ij,ij->i", rows, rows)
    return np.where(np.isfinite(found), found, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """What comes before distances: a row statistic S without arrays, or none, then (S - center) @ P + values there.

    Each column of P has weights for a few columns beside each other alone, as those of filters have. `bands` (outputs,
    2 + w) tells the first of these, the value at the centre and the weights; `center` is (1, columns).
    """

    statistic: RowStatistic | None
    center: Array
    bands: Array
    _blocks: tuple[tuple[slice, slice, Array], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_blocks", tuple(self._products()) if self.gives(len(self.bands)) else ())

    def __str__(self) -> str:
        return f" behind a filter of {self.bands.shape[1] - 2} columns" + (
            f" and {self.statistic}" if self.statistic else ""
        )

    def gives(self, width: int) -> bool:
        """Whether its arrays fit each other and leave rows of this width."""
        (ones, columns), (outputs, more) = self.center.shape, self.bands.shape
        first = self.bands[:, 0]
        inside = bool(((first >= 0) & (first <= columns - (more - 2)) & (first == np.floor(first))).all())
        alone = self.statistic is None or (not self.statistic.arrays and self.statistic.gives(columns))
        return ones == 1 and outputs == width and more > 2 and inside and alone

    def apply(self, X: Array, less: Array, out: Array) -> None:
        """The rows of X behind it, less these values, into `out`."""
        rows = centred(self.statistic, X, self.center[0])
        for taken, given, weights in self._blocks:
            np.matmul(rows[:, taken], weights, out=out[:, given])
        out += self.bands[:, 1] - less

    def _products(self) -> Iterator[tuple[slice, slice, Array]]:
        """Columns taken, columns given, and the weights between them."""
        reach = np.arange(self.bands.shape[1] - 2)
        for start in range(0, len(self.bands), _BLOCK):
            some = self.bands[start : start + _BLOCK]
            first = some[:, 0].astype(np.int64)
            low, high = int(first.min()), int(first.max()) + len(reach)
            weights = np.zeros((high - low, len(some)))
            weights[first[None, :] - low + reach[:, None], np.arange(len(some))] = some[:, 2:].T
            yield slice(low, high), slice(start, start + len(some)), weights


def front_of_bands(statistic: RowStatistic | None, center: Array, weights: Array, values: Array) -> Front | None:
    """A front of these weights (columns, outputs), if each output follows few columns beside each other."""
    columns = len(weights)
    used = weights != 0
    first = np.where(used.any(axis=0), used.argmax(axis=0), 0)
    last = np.where(used.any(axis=0), columns - used[::-1].argmax(axis=0), 1)
    reach = int((last - first).max())
    if reach > columns // 4 or (statistic is not None and statistic.arrays):
        return None
    first = np.minimum(first, columns - reach)
    bands = weights[first[None, :] + np.arange(reach)[:, None], np.arange(weights.shape[1])].T
    return Front(statistic, center[None, :], np.column_stack([first, values, bands]))


def mapped(statistic: RowStatistic | None, X: Array, weights: Array, intercept: Array, center: Array) -> Array:
    """(corrected rows of X - center) @ weights.T + intercept, (n, targets); X in C order, weights (targets, columns)
    too.
    """
    if len(weights) <= NATIVE_TARGETS:
        if statistic is None:
            return kernels.affine(X, weights.T, intercept, center)
        if statistic.kind == "snv":
            return kernels.snv_affine(X, weights.T, intercept, int(statistic.number), center)
        if statistic.kind == "norm" and statistic.number in _NORMS:
            return kernels.norm_affine(X, weights.T, intercept, _NORMS[statistic.number], center)
        if statistic.kind == "radial":
            with np.errstate(all="ignore"):
                return _mapped_radially(statistic, X, weights, intercept, center)
    with np.errstate(all="ignore"):
        return np.asarray(centred(statistic, X, center) @ weights.T + intercept)


def centred(statistic: RowStatistic | None, X: Array, center: Array, out: Array | None = None) -> Array:
    """The corrected rows of X less `center`, in a new array or in `out`."""
    if statistic is not None and statistic.kind == "snv":
        return kernels.snv(X, int(statistic.number), center, out)
    with np.errstate(all="ignore"):
        return np.asarray(np.subtract(X if statistic is None else statistic.apply(X), center, out=out))


def _mapped_radially(statistic: RowStatistic, X: Array, weights: Array, intercept: Array, center: Array) -> Array:
    """Some rows at a time, so that the kernel values, several for each distance, stay in the cache."""
    found = np.empty((len(X), len(weights)))
    series = _Series.of(statistic, weights) if len(X) >= _RADIAL_ROWS else None  # fewer do not make up for making it
    for rows, squares in statistic.squares(X):
        for first in range(0, len(squares), _RADIAL_ROWS):
            chunk = slice(first, first + _RADIAL_ROWS)
            if series is None:
                found[rows][chunk] = (statistic.of_squares(squares[chunk]) - center) @ weights.T + intercept
            else:
                found[rows][chunk] = series.summed(squares[chunk]) + (intercept - weights @ center)
    return found


@dataclass(frozen=True, slots=True)
class _Series:
    """Kernels of almost the same gamma at one distance d: one exponential of the gamma in their middle, g.

    With t = g d and gamma = g (1 + e), weight exp(-gamma d) = exp(-t) sum over j of weight (-e)^j / j! t^j. Of a series
    of n terms this misses at most (|e| / (1 - |e|))^n / sqrt(2 pi n), whatever the distance: where the powers are
    large, exp(-t) is small.
    """

    gamma: float
    coefficients: Array  # (terms, spectra, targets)

    @classmethod
    def of(cls, statistic: RowStatistic, weights: Array) -> _Series | None:
        """None where gammas are too far from each other."""
        assert statistic.functionals is not None
        assert statistic.spectra is not None
        gammas, which = statistic.functionals[:, 0], statistic.functionals[:, 1].astype(np.int64)
        gamma = (gammas.min() + gammas.max()) / 2
        apart = gammas / gamma - 1.0
        reach = np.abs(apart).max()
        terms = next((n for n in range(1, _TERMS + 1) if reach < 0.5 and _missed(reach, n) < _EXACT), None)
        if terms is None:
            return None
        found, share = np.empty((terms, len(statistic.spectra), len(weights))), weights.T
        for number in range(terms):
            for target, column in enumerate(share.T):
                found[number, :, target] = np.bincount(which, column, len(statistic.spectra))
            share = share * (-apart / (number + 1))[:, None]
        return cls(float(gamma), found)

    def summed(self, squares: Array) -> Array:
        """Weighted kernel values (rows, targets) at these squared distances, which are overwritten."""
        squares *= self.gamma
        powers = np.exp(-squares)
        found: Array = powers @ self.coefficients[0]
        for more in self.coefficients[1:]:
            powers *= squares
            found += powers @ more
        return found


def _missed(reach: float, terms: int) -> float:
    """The most that a series of so many terms misses of a kernel value, for gammas within `reach` of their middle."""
    return float((reach / (1.0 - reach)) ** terms / np.sqrt(2 * np.pi * terms))


def snv(ddof: int) -> RowStatistic:
    """Centre each row and divide it by its standard deviation."""
    return RowStatistic("snv", float(ddof))


def norm(order: float) -> RowStatistic:
    """Divide each row by its norm."""
    return RowStatistic("norm", float(order))


def regression(functionals: Any, spectra: Any = None) -> RowStatistic:
    """Subtract what the functionals but the last find of `spectra`, and divide by what the last one finds."""
    rows = None if spectra is None else np.ascontiguousarray(spectra, dtype=np.float64)
    return RowStatistic("regression", 0.0, np.ascontiguousarray(functionals, dtype=np.float64), rows)
