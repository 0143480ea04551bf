"""Row statistics: corrections that treat each spectrum by numbers of its own, as plain arithmetic.

Owns SNV, norms and regressions on reference spectra (MSC, EMSC, areas) in a form that can be stored
as a name and arrays, so that a compiled chain needs no operator object. Promises values that differ
from the operator's own by rounding only; a row with a vanishing denominator gives NaN, and the
caller then asks the operator itself. Which operator is which statistic is for `operators` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast._native import kernels

Array: TypeAlias = NDArray[np.float64]

NATIVE_TARGETS = 24  # docs/native.md: BLAS wins from about 32 columns
_NORMS = {1.0: "l1", 2.0: "l2", np.inf: "max"}
_RADIAL_ROWS = 64
LEAST = 1e-9  # an area below this may be replaced by 1 in an operator


@dataclass(frozen=True, slots=True, eq=False)
class RowStatistic:
    """What is done to each row x.

    * "snv": (x - mean) / standard deviation, with `number` degrees of freedom less.
    * "norm": x / norm of order `number`.
    * "radial": exp(-gamma * squared distance) to some of `spectra`, `functionals` telling gamma and which.
    * "regression": c = x @ functionals; (x - c[:-1] @ spectra) / c[-1].
    """

    kind: str
    number: float = 0.0
    functionals: Array | None = None
    spectra: Array | None = None

    def __str__(self) -> str:
        if self.functionals is not None and self.kind == "radial":
            return f"{len(self.functionals)} radial kernels"
        if self.functionals is not None:
            return f"regression on {self.functionals.shape[1]} spectra"
        return f"{self.kind}({self.number:g})"

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays it consists of."""
        return tuple(array for array in (self.functionals, self.spectra) if array is not None)

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
            return inside and functionals.shape == (width, 2)
        fitting = spectra is None or spectra.shape == (functionals.shape[1] - 1, width)
        return self.kind == "regression" and len(functionals) == width and fitting

    def takes(self, width: int) -> int:
        """Columns of the rows that it leaves with this width."""
        return self.spectra.shape[1] if self.kind == "radial" and self.spectra is not None else width

    def apply(self, X: Array) -> Array:
        """The corrected rows of X, in a new array."""
        with np.errstate(all="ignore"):
            if self.kind == "snv":
                return kernels.snv(X, int(self.number))
            if self.kind == "norm":
                return np.asarray(X / np.linalg.norm(X, ord=self.number, axis=1, keepdims=True))
            return self._radial(X) if self.kind == "radial" else self._regressed(X)

    def _radial(self, X: Array) -> Array:
        return self.of_squares(self.squares(X))

    def squares(self, X: Array) -> Array:
        """Squared distances of the rows of X to `spectra`."""
        assert self.spectra is not None
        middle = self.spectra.mean(axis=0)
        rows, held = X - middle, self.spectra - middle
        found = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", held, held) - 2.0 * (rows @ held.T)
        return np.asarray(np.maximum(found, 0.0, out=found))  # rounding may leave a little less than nothing

    def of_squares(self, squares: Array) -> Array:
        """Kernel values from squared distances."""
        assert self.functionals is not None
        found = np.take(squares, self.functionals[:, 1].astype(np.int64), axis=1)
        found *= -self.functionals[:, 0]
        return np.asarray(np.exp(found, out=found))

    def _regressed(self, X: Array) -> Array:
        assert self.functionals is not None
        found = X @ self.functionals
        scale = np.where(np.abs(found[:, -1:]) < LEAST, np.nan, found[:, -1:])
        rest = X if self.spectra is None else X - found[:, :-1] @ self.spectra
        return np.asarray(rest / scale)


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
    found, squares = np.empty((len(X), len(weights))), statistic.squares(X)
    for first in range(0, len(X), _RADIAL_ROWS):
        chunk = slice(first, first + _RADIAL_ROWS)
        found[chunk] = (statistic.of_squares(squares[chunk]) - center) @ weights.T + intercept
    return found


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
