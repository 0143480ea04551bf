"""The trees of an ensemble in one array, as the native walk takes them.

Owns how trees of the libraries are laid out for `kernels.forest_sum`: those of a tree side by side, the children of a
node behind each other, level by level. Promises sums in the order of the trees, so that they have the bits of a loop
over them; what is no tree of numbers (categories, links that lead astray) raises ValueError. Leaves what the sums mean
to `forests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from n4a_fast._native import kernels

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Links:
    """Nodes of all trees, tree after tree: children by their place in their own tree, of a leaf none."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    feature: NDArray[np.int64]
    threshold: Array
    sizes: NDArray[np.int64]  # nodes of each tree


@dataclass(frozen=True, slots=True)
class PackedTrees:
    """Trees that add what their leaves hold to columns of a total."""

    nodes: NDArray[np.void]
    values: Array  # (nodes, columns that a leaf adds to)
    trees: NDArray[np.void]

    def add(self, X: NDArray[Any], total: Array, single: bool = False) -> None:
        """Add the leaves that the rows of X come to, with sums in single precision if `single`; total (n, columns) in C
        order.
        """
        kernels.forest_sum(self.nodes, self.values, self.trees, X, total, single)


def packed(links: Links, values: Array, columns: NDArray[np.int64]) -> PackedTrees:
    """These trees, each adding its `values` (nodes, w) from its column on."""
    roots = np.cumsum(links.sizes) - links.sizes
    tree = np.repeat(np.arange(len(links.sizes)), links.sizes)
    first = roots[tree]
    children = np.stack([links.left + first, links.right + first], axis=1)
    inside = (children >= 0) & (children < len(tree))
    if not (inside.all(axis=1) | links.leaf).all():
        raise ValueError("a child lies outside its trees")
    order, depths = _by_level(children, links.leaf, roots, tree)
    place = np.full(len(tree), -1)
    place[order] = np.arange(len(order))
    leaf = links.leaf[order]
    nodes, trees = kernels.new_nodes(len(order)), kernels.new_trees(len(roots))
    nodes["threshold"] = np.where(leaf, np.inf, links.threshold[order])
    nodes["feature"] = np.where(leaf, 0, links.feature[order])
    nodes["left"] = np.where(leaf, np.arange(len(order)), place[np.where(leaf, 0, children[order, 0])])
    trees["root"], trees["depth"], trees["column"] = place[roots], depths, columns
    return PackedTrees(nodes, np.ascontiguousarray(values[order]), trees)


def _by_level(
    children: NDArray[np.int64], leaf: NDArray[np.bool_], roots: NDArray[np.int64], tree: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nodes tree by tree, in each level by level, and the depth of each tree."""
    found, depths, level, here = 0, np.zeros(len(roots), np.int64), 0, roots
    levels = []
    while len(here):
        found += len(here)
        if found > len(leaf):
            raise ValueError("a node is the child of two")
        levels.append(here)
        depths[tree[here]] = level
        here, level = children[here[~leaf[here]]].reshape(-1), level + 1
    every = np.concatenate(levels) if levels else roots
    return every[np.argsort(tree[every], kind="stable")], depths


def scikit_learn_trees(trees: Sequence[Any]) -> Links:
    """Fitted trees of scikit-learn, as `tree_` of its estimators holds them."""
    left, right, feature, threshold = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("children_left", "children_right", "feature", "threshold")
    )
    return Links(left, right, left < 0, feature, threshold, np.array([tree.node_count for tree in trees]))


def histogram_trees(nodes: Sequence[NDArray[np.void]]) -> Links:
    """Nodes of scikit-learn's histogram-based boosting."""
    every = np.concatenate(nodes)
    leaf = every["is_leaf"].astype(bool)
    if (every["is_categorical"].astype(bool) & ~leaf).any():
        raise ValueError("a split by categories is no comparison of numbers")
    left, right, feature = (every[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
    return Links(left, right, leaf, feature, every["num_threshold"], np.array([len(each) for each in nodes]))


def require_equal(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """ValueError unless these have the same bits."""
    if not np.array_equal(found, expected):
        raise ValueError("its trees are not added as they are here")
