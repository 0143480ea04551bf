"""Sums of trees are those of walking down each tree row by row, to the bit; trees that lead astray are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast._native.kernels import forest_sum, grown_trees_need, new_nodes, new_trees, trees_are_sound

Array = np.ndarray[Any, Any]
STEPS = [0.0, 0.25, 0.4, 0.5, 0.75, 1.0]


def forest(count: int, depth: int, features: int, outputs: int, width: int, seed: int) -> tuple[Array, Array, Array]:
    """Trees of any shape: each node is a leaf by chance, or has two children behind it, side by side."""
    numbers = np.random.default_rng(seed)
    nodes: list[tuple[float, int, int]] = []
    trees = []
    for _ in range(count):
        root, level, deep = len(nodes), [len(nodes)], 0
        nodes.append((np.inf, 0, root))
        for _ in range(depth):
            below = []
            for here in level:
                if numbers.random() < 0.8:
                    left = len(nodes)
                    nodes[here] = (numbers.choice([0.25, 0.5, 0.75]), int(numbers.integers(features)), left)
                    below += [left, left + 1]
                    nodes += [(np.inf, 0, left), (np.inf, 0, left + 1)]
            level, deep = below, deep + bool(below)
        trees.append((root, deep, int(numbers.integers(outputs - width + 1))))
    values = numbers.standard_normal((len(nodes), width))
    return np.array(nodes, dtype=new_nodes(0).dtype), values, np.array(trees, dtype=new_trees(0).dtype)


def walked(nodes: Array, values: Array, trees: Array, X: Array, total: Array) -> Array:
    """The same row by row, tree after tree."""
    found = total.copy()
    for row, spectrum in enumerate(X):
        for tree in trees:
            here = tree["root"]
            while nodes[here]["left"] != here:
                here = nodes[here]["left"] + int(spectrum[nodes[here]["feature"]] > nodes[here]["threshold"])
            found[row, tree["column"] : tree["column"] + values.shape[1]] += values[here]
    return found


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(0, 6),
    depth=st.integers(0, 11),
    rows=st.integers(0, 40),
    features=st.integers(1, 4),
    width=st.integers(1, 3),
    more=st.integers(0, 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 999),
)
def test_a_forest_sums_what_each_tree_says(
    count: int, depth: int, rows: int, features: int, width: int, more: int, dtype: Any, seed: int
) -> None:
    every = forest(count, min(depth, 4) if count > 2 else depth, features, width + more, width, seed)
    numbers = np.random.default_rng(seed)
    X = numbers.choice(STEPS, (rows, features)).astype(dtype)
    before = numbers.standard_normal((rows, width + more))
    for given_rows in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        total = before.copy()
        forest_sum(*every, given_rows, total)
        np.testing.assert_array_equal(total, walked(*every, X, before))


def test_rows_of_any_width_and_number_are_cut_into_blocks() -> None:
    every = forest(3, 5, 4000, 1, 1, seed=3)
    for rows in (1, 15, 17, 100):
        X = np.random.default_rng(rows).choice(STEPS, (rows, 4000))
        total = np.zeros((rows, 1))
        forest_sum(*every, X, total)
        np.testing.assert_array_equal(total, walked(*every, X, np.zeros((rows, 1))))


def test_doubles_are_compared_as_doubles() -> None:
    nodes = np.array([(0.1, 0, 1), (np.inf, 0, 1), (np.inf, 0, 2)], dtype=new_nodes(0).dtype)
    trees, values = np.array([(0, 1, 0)], dtype=new_trees(0).dtype), np.array([[0.0], [1.0], [2.0]])
    X = np.array([[0.1], [np.nextafter(0.1, 1)], [np.float32(0.1)], [np.nan], [np.inf]])
    for rows, expected in ((X, [1, 2, 2, 1, 2]), (X.astype(np.float32), [2, 2, 2, 1, 2])):
        total = np.zeros((5, 1))
        forest_sum(nodes, values, trees, rows, total)
        assert total[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("field", "value"), [("left", -1), ("left", 99), ("threshold", 0.5), ("feature", 3), ("feature", -1)]
)
def test_trees_that_lead_astray_are_refused(field: str, value: float) -> None:
    nodes, values, trees = forest(3, 3, 3, 1, 1, seed=1)
    assert len(nodes) > 4
    nodes[field][-1] = value  # a leaf, at the end: one that is no leaf any more leads behind the end
    with pytest.raises(ValueError, match="lies outside"):
        forest_sum(nodes, values, trees, np.zeros((2, 3), np.float32), np.zeros((2, 1)))


def test_roots_and_shapes_are_checked() -> None:
    nodes, values, trees = forest(3, 3, 3, 1, 1, seed=1)
    X, total = np.zeros((2, 3), np.float32), np.zeros((2, 1))
    for name, moved in (("root", len(nodes)), ("root", -1), ("column", 1), ("column", -1)):
        astray = trees.copy()
        astray[name][0] = moved
        with pytest.raises(ValueError, match="lies outside"):
            forest_sum(nodes, values, astray, X, total)
    for arguments in (
        (values[1:], trees, X),
        (values[:, 0], trees, X),
        (values, trees[:, None], X),
        (values, trees, X[0]),
    ):
        with pytest.raises(ValueError, match="expected"):
            forest_sum(nodes, *arguments, total)
    read_only = total.copy()
    read_only.flags.writeable = False
    for other in (total[:1], total[:, 0], total.astype(np.float32), np.zeros((4, 1))[::2], read_only):
        with pytest.raises(ValueError, match="total must be"):
            forest_sum(nodes, values, trees, X, other)


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
@pytest.mark.long
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


GROWN = np.dtype(
    [("left", "<u4"), ("f", "u1"), ("right", "<u4"), ("leaf", "u1"), ("cat", "u1"), ("bits", "<u4"), ("feature", "<i8")]
)
LAYOUT = (GROWN.itemsize, *(GROWN.fields[name][1] for name in ("left", "right", "leaf", "cat", "bits", "feature")))
near = st.integers(0, 5) | st.sampled_from([2**31, 2**32 - 1])
a_grown_node = st.tuples(near, st.just(0), near, st.integers(0, 2), st.integers(0, 2), near, numbers_near)


def plainly_needed(trees: list[Any], rooms: list[int]) -> int:
    """The same, node by node."""
    needed = 0
    for nodes, room in zip(trees, rooms, strict=True):
        for at, (left, _, right, leaf, categories, bits, feature) in enumerate(nodes.tolist()):
            inside = at < left < len(nodes) and at < right < len(nodes) and 0 <= feature < 2**63 - 1
            if not leaf and not (inside and (not categories or bits < room)):
                return -1
            needed = needed if leaf else max(needed, feature + 1)
    return needed if all(map(len, trees)) else -1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.lists(a_grown_node, max_size=3), st.integers(0, 3), st.integers(0, 3)), max_size=3))
@pytest.mark.long
def test_grown_trees_need_as_many_features_as_their_nodes_ask_for(trees: list[tuple[Any, int, int]]) -> None:
    nodes = [np.array(one, GROWN) for one, _, _ in trees]
    bits = [(np.zeros((first, 8), np.uint32), np.zeros((second, 8), np.uint32)) for _, first, second in trees]
    expected = plainly_needed(nodes, [min(first, second) for _, first, second in trees])
    assert grown_trees_need(nodes, bits, LAYOUT) == expected


@pytest.mark.parametrize(
    ("nodes", "bits", "layout"),
    [
        (np.zeros(2, "V7"), np.zeros((1, 8), np.uint32), LAYOUT),
        (np.zeros(4, GROWN)[::2], np.zeros((1, 8), np.uint32), LAYOUT),
        (np.zeros(2, GROWN), np.zeros((1, 7), np.uint32), LAYOUT),
        (np.zeros(2, GROWN), np.zeros((1, 8), np.float32), LAYOUT),
        (np.zeros(2, GROWN), np.zeros(8, np.uint32), LAYOUT),
        (np.zeros(2, GROWN), np.zeros((1, 8), np.uint32), (*LAYOUT[:-1], GROWN.itemsize - 7)),
        (np.zeros(2, GROWN), np.zeros((1, 8), np.uint32), (LAYOUT[0], -1, *LAYOUT[2:])),
        (np.zeros(2, GROWN), np.zeros((1, 8), np.uint32), (0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_grown_nodes_of_another_kind_are_refused(nodes: Any, bits: Any, layout: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, BufferError)):
        grown_trees_need([nodes], [(bits, bits)], layout)
