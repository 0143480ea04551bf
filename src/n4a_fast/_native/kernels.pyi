"""Row statistics and affine maps of spectra: SNV or a norm, then X @ W + b, without the spectra in between.

    y = snv_affine(X, W, b)         # (X - mean of the row) / std of the row @ W + b, one pass over X

Arrays are float64, inputs may be read-only; NaN and infinity go through to the rows that have them,
and a row gives the same bits alone, among others and in any thread. Bad arguments raise before any work.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "affine",
    "forest_sum",
    "grown_trees_need",
    "instruction_sets",
    "new_nodes",
    "new_trees",
    "norm_affine",
    "snv",
    "snv_affine",
    "tree_sizes_fit",
    "trees_are_sound",
]

_Doubles = npt.NDArray[np.float64]

def instruction_sets() -> list[str]:
    """Names of the instruction sets that this machine can use, the widest last; for a single target AVX2 is in use at
    most.
    """

def affine(
    X: _Doubles,
    W: _Doubles,
    b: _Doubles,
    center: _Doubles | None = None,
    out: _Doubles | None = None,
    threads: int = 1,
    level: int = -1,
) -> _Doubles:
    """(X - center) @ W + b for float64 X (n, m), W (m, k), b (k,), center (m,): an array (n, k), or `out`.

    Rows of X may lie apart but not their values; W is best in Fortran order, else it is copied. `level` chooses an
    instruction set by its place in `instruction_sets()`. Raises TypeError and ValueError before any work.
    """

def snv_affine(
    X: _Doubles,
    W: _Doubles,
    b: _Doubles,
    ddof: int = 0,
    center: _Doubles | None = None,
    out: _Doubles | None = None,
    threads: int = 1,
    level: int = -1,
) -> _Doubles:
    """Like `affine` for rows that are centred on their mean and divided by their standard deviation first.

    A row whose deviation is zero, or rounding alone, gives NaN.
    """

def norm_affine(
    X: _Doubles,
    W: _Doubles,
    b: _Doubles,
    order: str = "l2",
    center: _Doubles | None = None,
    out: _Doubles | None = None,
    threads: int = 1,
    level: int = -1,
) -> _Doubles:
    """Like `affine` for rows that are divided by their norm first: "l1", "l2" or "max". A norm below 1e-9 gives NaN."""

def snv(
    X: _Doubles,
    ddof: int = 0,
    center: _Doubles | None = None,
    out: _Doubles | None = None,
    threads: int = 1,
    level: int = -1,
) -> _Doubles:
    """The rows of X centred on their mean and divided by their standard deviation, less `center`: an array like X, or
    `out`.
    """

def new_nodes(count: int) -> npt.NDArray[np.void]:
    """An array of nodes for `forest_sum`, to be filled: records of threshold, feature and left child."""

def new_trees(count: int) -> npt.NDArray[np.void]:
    """An array of trees for `forest_sum`, to be filled: records of root, depth and column."""

def forest_sum(
    nodes: npt.NDArray[np.void],
    values: _Doubles,
    trees: npt.NDArray[np.void],
    X: npt.NDArray[np.float32] | _Doubles,
    total: _Doubles,
    single: bool = False,
) -> None:
    """Adds to `total`, tree by tree, what the leaves hold that the rows of X come to.

    X (n, m) is float32 or float64, `total` (n, k) float64 in C order. `nodes` holds those of all trees as `new_nodes`
    makes them: a row goes to the left child if its value of the feature is at most the threshold, else to the node
    behind that child; a leaf is its own child, with an infinite threshold. `values` (nodes, w) are added from the
    column of the tree on, and with `single` each sum is rounded to float32. Infinite values end in some leaf. Raises
    ValueError before any work.
    """

def grown_trees_need(
    nodes: list[npt.NDArray[Any]], bitsets: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]], layout: tuple[int, ...]
) -> int:
    """How many features scikit-learn's trees that were grown by histograms ask for; -1 where a way down one of them
    does not end inside it, a feature lies before the first, or the bits of a split into categories are not there.

    `nodes` holds a contiguous array for each tree, `bitsets` its two of bits. `layout` is the size of a node and where
    it has left child, right child, mark of a leaf, mark of categories, bitset and feature, in bytes. Raises ValueError
    or BufferError for arrays of another kind.
    """

def tree_sizes_fit(n_features: int, n_classes: object, n_outputs: int) -> bool:
    """Whether a tree may be made of these: a number of classes for each output, as int64, all within reason."""

def trees_are_sound(nodes: list[npt.NDArray[Any]], features: list[int], stride: int) -> bool:
    """Whether every way down scikit-learn's trees ends inside them, over features that there are.

    `nodes` holds a contiguous array for each tree, of records or rows of `stride` bytes that begin with left child,
    right child and feature (int64); `features` says how many each has. A left child of -1, and no other number, makes a
    leaf. Raises ValueError or BufferError for arrays of another kind.
    """
