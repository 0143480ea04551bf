"""Run by an arm64 Python: the kernels and the same arithmetic in numpy, each call between two marks of `count.c`.

Prints a line for each case: its name, values of X, and how far the results are apart. Both sides are called twice
before they are counted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import kernels
import numpy as np

ROWS, COLUMNS = 200, 700


def main() -> None:
    numbers = np.random.default_rng(0)
    X, center = numbers.random((ROWS, COLUMNS)), numbers.random(COLUMNS)
    _check_single_rows(numbers, X, center)
    for targets in (1, 2, 8):
        W, b = numbers.random((COLUMNS, targets)), numbers.random(targets)
        plain = _counted(lambda W=W, b=b: (X - center) @ W + b, lambda W=W, b=b: kernels.affine(X, W, b, center=center))
        snv = _counted(lambda W=W, b=b: _snv(X) @ W + b, lambda W=W, b=b: kernels.snv_affine(X, W, b))
        print(f"affine {targets} {X.size} {plain}\nsnv_affine {targets} {X.size} {snv}", flush=True)


def _check_single_rows(numbers: np.random.Generator, X: np.ndarray[Any, Any], center: np.ndarray[Any, Any]) -> None:
    """A row has the same products alone and among others, bit for bit, for every way to share out the targets."""
    for targets in range(1, 20):
        W, b = numbers.random((targets, COLUMNS)).T, numbers.random(targets)
        together = kernels.affine(X[:7], W, b, center=center)
        alone = np.concatenate([kernels.affine(X[row : row + 1], W, b, center=center) for row in range(7)])
        if not np.array_equal(alone, together):
            sys.exit(f"a row with {targets} targets has other bits alone than among others")


def _snv(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)


def _counted(by_numpy: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """The largest difference between both, after four marks: before and after the one, before and after the other."""
    results = []
    for call in (by_numpy, ours):
        call(), call()
        os.getpriority(os.PRIO_PROCESS, 0)
        results.append(call())
        os.getpriority(os.PRIO_PROCESS, 0)
    return float(np.abs(results[0] - results[1]).max())


if __name__ == "__main__":
    main()
