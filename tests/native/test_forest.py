"""Sums of trees are those of walking down each tree row by row, to the bit; trees that lead astray are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast._native.kernels import forest_sum, new_nodes, trees_are_sound

Array = np.ndarray[Any, Any]


def forest(trees: int, depth: int, features: int, seed: int) -> tuple[Array, Array]:
    """Trees of any shape: each node is a leaf by chance, or has two children behind it."""
    numbers, nodes, roots = np.random.default_rng(seed), [], []

    def grow(left: int) -> int:
        here = len(nodes)
        nodes.append((0.0, numbers.standard_normal(), 0, (here, here)))
        if left and numbers.random() < 0.8:
            threshold, feature = numbers.choice([0.25, 0.5, 0.75]), int(numbers.integers(features))
            nodes[here] = (threshold, 0.0, feature, (grow(left - 1), grow(left - 1)))
        return here

    for _ in range(trees):
        roots.append(grow(depth))
    return np.array(nodes, dtype=new_nodes(0).dtype), np.array(roots, dtype=np.int32)


def walked(nodes: Array, roots: Array, X: Array) -> Array:
    total = np.zeros(len(X))
    for root in roots:
        for row, values in enumerate(X):
            here = root
            while nodes[here]["children"][0] != here:
                here = nodes[here]["children"][int(values[nodes[here]["feature"]] > nodes[here]["threshold"])]
            total[row] += nodes[here]["value"]
    return total


@settings(max_examples=60, deadline=None)
@given(
    trees=st.integers(0, 6),
    depth=st.integers(0, 5),
    rows=st.integers(0, 40),
    features=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_a_forest_sums_what_each_tree_says(trees: int, depth: int, rows: int, features: int, seed: int) -> None:
    nodes, roots = forest(trees, depth, features, seed)
    X = np.random.default_rng(seed).choice([0.0, 0.25, 0.4, 0.5, 0.75, 1.0], (rows, features)).astype(np.float32)
    for given_rows in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(forest_sum(nodes, roots, given_rows), walked(nodes, roots, X))


@pytest.mark.parametrize(
    ("field", "value"), [("children", -1), ("children", 99), ("children", 0), ("feature", 3), ("feature", -1)]
)
def test_trees_that_lead_astray_are_refused(field: str, value: int) -> None:
    nodes, roots = forest(3, 3, 3, seed=1)
    assert len(nodes) > 4
    nodes[field][-1] = value
    with pytest.raises(ValueError, match="lies outside"):
        forest_sum(nodes, roots, np.zeros((2, 3), np.float32))


def test_roots_and_shapes_are_checked() -> None:
    nodes, roots = forest(3, 3, 3, seed=1)
    with pytest.raises(ValueError, match="lies outside"):
        forest_sum(nodes, roots + len(nodes), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="expected 1, 1 and 2 dimensions, got 1, 1 and 1"):
        forest_sum(nodes, roots, np.zeros(3, np.float32))


def plainly_sound(links: Array, features: int) -> bool:
    """The same, node by node."""
    return len(links) >= 1 and all(
        left == -1 or (at < left < len(links) and at < right < len(links) and 0 <= feature < features)
        for at, (left, right, feature) in enumerate(links.tolist())
    )


numbers_near = st.integers(-3, 5) | st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1])
a_tree = st.lists(st.tuples(numbers_near, numbers_near, numbers_near), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(a_tree, st.integers(0, 3)), max_size=3), st.sampled_from([3, 5]))
def test_trees_are_sound_where_every_node_is(trees: list[tuple[Any, int]], columns: int) -> None:
    nodes = [np.zeros((len(links), columns), np.int64) for links, _ in trees]
    for one, (links, _) in zip(nodes, trees, strict=True):
        one[:, :3] = np.array(links, np.int64).reshape(-1, 3)
    expected = all(plainly_sound(one[:, :3], features) for one, (_, features) in zip(nodes, trees, strict=True))
    assert trees_are_sound(nodes, [features for _, features in trees], 8 * columns) == expected


def test_nodes_of_another_size_are_refused() -> None:
    for nodes, features, stride in (
        ([np.zeros((2, 3), np.int64)], [1], 40),
        ([np.zeros((2, 2), np.int64)], [1], 16),
        ([np.zeros((2, 3), np.int64)], [], 24),
        ([np.zeros((2, 6), np.int64)[:, ::2]], [1], 24),
    ):
        with pytest.raises((ValueError, BufferError)):
            trees_are_sound(nodes, features, stride)
