"""Kernels agree with plain numpy on every instruction set, whatever the layout of X, and refuse what they cannot
take.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n4a_fast._native.kernels import affine, instruction_sets, norm_affine, snv, snv_affine

LEVELS = range(len(instruction_sets()))
ORDERS = {"l1": 1, "l2": 2, "max": np.inf}
Array = np.ndarray[Any, np.dtype[np.float64]]


def spectra(rows: int, columns: int, seed: int = 0, offset: float = 0.0) -> Array:
    """Smooth curves with a little noise, as absorbances are."""
    numbers = np.random.default_rng(seed)
    curves = numbers.random((rows, 3)) @ np.sin(np.outer([1.0, 2.0, 5.0], np.linspace(0.1, 3, columns)))
    return curves + 1e-3 * numbers.standard_normal((rows, columns)) + offset


def weights(columns: int, targets: int, seed: int = 1) -> tuple[Array, Array, Array]:
    numbers = np.random.default_rng(seed)
    return (
        np.asfortranarray(numbers.standard_normal((columns, targets))),
        numbers.standard_normal(targets),
        numbers.standard_normal(columns),
    )


def plain_snv(X: Array, ddof: int = 0) -> Array:
    exact = X.astype(np.longdouble)
    found = exact - exact.mean(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return found / np.sqrt((found**2).sum(axis=1, keepdims=True) / (X.shape[1] - ddof))


def assert_close(found: Array, rows: Array, W: Array, b: Array, center: Array | None, condition: float = 1.0) -> None:
    """`found` is (rows - center) @ W + b within 1e-13 of the sum of absolute terms, times the condition of the rows."""
    exact = rows.astype(np.longdouble) - (0 if center is None else center)
    terms = np.abs(exact) @ np.abs(W.astype(np.longdouble)) + np.abs(b)
    assert (np.abs(found - (exact @ W.astype(np.longdouble) + b)) <= 1e-13 * condition * terms).all()


shapes = st.tuples(st.integers(0, 9), st.integers(2, 70), st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 99),
    level=st.sampled_from(LEVELS),
    centred=st.booleans(),
    threads=st.integers(1, 3),
)
def test_affine_is_a_centred_product(
    shape: tuple[int, int, int], seed: int, level: int, centred: bool, threads: int
) -> None:
    rows, columns, targets = shape
    X, (W, b, center) = spectra(rows, columns, seed), weights(columns, targets, seed)
    used = center if centred else None
    found = affine(X, W, b, used, None, threads, level)
    assert found.shape == (rows, targets)
    assert_close(found, X, W, b, used)


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes, seed=st.integers(0, 99), level=st.sampled_from(LEVELS), centred=st.booleans(), ddof=st.integers(0, 1)
)
@pytest.mark.long
def test_snv_affine_is_snv_and_then_the_product(
    shape: tuple[int, int, int], seed: int, level: int, centred: bool, ddof: int
) -> None:
    rows, columns, targets = shape
    X, (W, b, center) = spectra(rows, columns, seed), weights(columns, targets, seed)
    used = center if centred else None
    condition = max(1.0, float((np.abs(X).max(axis=1, initial=0) / X.std(axis=1)).max(initial=0)))
    assert_close(snv_affine(X, W, b, ddof, used, None, 1, level), plain_snv(X, ddof), W, b, used, condition)
    exact = plain_snv(X, ddof) - (0 if used is None else used)
    np.testing.assert_allclose(
        snv(X, ddof, used, level=level), exact.astype(float), rtol=1e-13 * condition, atol=1e-13 * condition
    )


@settings(max_examples=100, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 99),
    level=st.sampled_from(LEVELS),
    order=st.sampled_from(sorted(ORDERS)),
    centred=st.booleans(),
)
def test_norm_affine_divides_by_the_norm(
    shape: tuple[int, int, int], seed: int, level: int, order: str, centred: bool
) -> None:
    rows, columns, targets = shape
    X, (W, b, center) = spectra(rows, columns, seed), weights(columns, targets, seed)
    used = center if centred else None
    normed = X / np.linalg.norm(X, ord=ORDERS[order], axis=1, keepdims=True)
    assert_close(norm_affine(X, W, b, order, used, None, 1, level), normed, W, b, used)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_a_large_offset_costs_no_more_digits_than_it_takes_from_the_spectra(level: int, offset: float) -> None:
    X, (W, b, center) = spectra(40, 700, 3, offset), weights(700, 3)
    found, plain = snv_affine(X, W, b, 0, center, None, 1, level), (np.asarray(plain_snv(X), float) - center) @ W + b
    np.testing.assert_allclose(found, plain, rtol=1e-12 * max(1.0, offset / 1e2), atol=1e-12 * max(1.0, offset))
    if not offset:
        np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("columns", [16, 701])
def test_spikes_where_the_first_guess_of_the_mean_is_taken_cost_no_digits(level: int, columns: int) -> None:
    X, (W, b, center) = spectra(10, columns), weights(columns, 5)
    calm = [snv_affine(X[row : row + 1], W, b, 0, center, None, 1, level) for row in range(10)]
    X[3, [part * columns // 16 for part in range(1, 16, 2)]] += 1e7 if columns > 100 else 0.0
    X[6] = 1.0
    X[6, [part * columns // 16 for part in range(1, 16, 2)]] += np.arange(1.0, 9.0) * 1e9
    found = snv_affine(X, W, b, 0, center, None, 1, level)
    assert_close(found, plain_snv(X), W, b, center, 100.0)
    for row in (0, 1, 2, 4, 5, 7, 8, 9):
        np.testing.assert_array_equal(found[row : row + 1], calm[row])


@pytest.mark.parametrize("level", LEVELS)
def test_rows_that_lie_apart_backwards_or_in_read_only_memory_give_the_same(level: int) -> None:
    X, (W, b, center) = spectra(11, 53), weights(53, 3)
    expected = snv_affine(X.copy(), W, b, 0, center, None, 1, level)
    wide = np.full((22, 60), np.nan)
    wide[::2, 3:56] = X
    frozen = [array.copy("K") for array in (X, W, b, center)]
    for array in frozen:
        array.flags.writeable = False
    for same, order in ((wide[::2, 3:56], 1), (X[::-1], -1)):
        np.testing.assert_array_equal(snv_affine(same, W, b, 0, center, None, 1, level), expected[::order])
    np.testing.assert_array_equal(snv_affine(*frozen[:3], 0, frozen[3], None, 1, level), expected)
    np.testing.assert_array_equal(snv_affine(X, np.ascontiguousarray(W), b, 0, center, None, 1, level), expected)


@pytest.mark.parametrize("level", LEVELS)
def test_one_row_alone_gives_to_the_bit_what_it_gives_among_many(level: int) -> None:
    X, (W, b, center) = spectra(9, 701), weights(701, 7)
    for map_rows in (affine, snv_affine):
        for targets in range(1, 8):
            V, c = W[:, :targets], b[:targets]
            together = map_rows(X, V, c, center=center, level=level)
            alone = np.vstack([map_rows(X[row : row + 1], V, c, center=center, level=level) for row in range(len(X))])
            np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 5, 36])
def test_what_is_not_finite_stays_in_its_row(level: int, bad: float, column: int) -> None:
    X, (W, b, _) = spectra(9, 37), weights(37, 2)
    X[4, column] = bad
    for found in (
        affine(X, W, b, level=level),
        snv_affine(X, W, b, level=level),
        snv(X, level=level),
        norm_affine(X, W, b, "l2", level=level),
    ):
        np.testing.assert_array_equal(np.isfinite(found).all(axis=1), np.arange(9) != 4)


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("level", LEVELS)
def test_a_missing_value_is_not_lost_in_a_norm(level: int, order: str) -> None:
    W, b, _ = weights(37, 2)
    for column in range(37):
        X = spectra(2, 37)
        X[1, column] = np.nan
        np.testing.assert_array_equal(np.isnan(norm_affine(X, W, b, order, level=level)).all(axis=1), [False, True])


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("level", LEVELS)
def test_a_norm_next_to_nothing_gives_nan(level: int, order: str) -> None:
    X, (W, b, _) = spectra(5, 37), weights(37, 2)
    X[1:4] *= np.array([[0.0], [1e-300], [1e-16]])
    expected = [False, True, True, True, False]
    np.testing.assert_array_equal(np.isnan(norm_affine(X, W, b, order, level=level)).all(axis=1), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, 1e6 / 3])
def test_a_row_without_deviation_gives_nan(level: int, constant: float) -> None:
    X, (W, b, _) = spectra(6, 700), weights(700, 1)
    X[2] = constant
    assert np.isnan(snv_affine(X, W, b, level=level)[:, 0]).tolist() == [False, False, True, False, False, False]
    assert np.isnan(snv(X, level=level)[2]).all()


def test_results_go_into_the_callers_array() -> None:
    X, (W, b, _) = spectra(6, 30), weights(30, 2)
    room = np.zeros((6, 5))
    assert snv_affine(X, W, b, out=room[:, 1:3]).base is room
    np.testing.assert_array_equal(room[:, 1:3], snv_affine(X, W, b))
    assert not room[:, [0, 3, 4]].any()


def test_large_inputs_give_the_same_in_any_number_of_threads() -> None:
    X, (W, b, center) = spectra(301, 200), weights(200, 5)
    for map_rows in (affine, snv_affine):
        alone = map_rows(X, W, b, center=center)
        for threads in (2, 7, 400):
            np.testing.assert_array_equal(map_rows(X, W, b, center=center, threads=threads), alone)


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"X": np.zeros((4, 30), np.float32)}, TypeError, "X must hold aligned float64"),
        ({"X": np.zeros((4, 30), ">f8")}, TypeError, "X must hold aligned float64"),
        ({"X": np.zeros((4, 30), np.int64)}, TypeError, "X must hold aligned float64"),
        ({"X": np.zeros(30)}, ValueError, "X has 1 dimensions, expected 2"),
        ({"X": np.zeros((4, 29))}, ValueError, "W has 30 rows, X has 29 columns"),
        ({"X": np.zeros((4, 60))[:, ::2]}, ValueError, "side by side"),
        ({"X": np.zeros((30, 4)).T}, ValueError, "side by side"),
        (
            {"X": np.frombuffer(bytes(4 * 240 + 1), np.float64, offset=1, count=120).reshape(4, 30)},
            TypeError,
            "aligned float64",
        ),
        ({"X": memoryview(bytes(4 * 240 + 16))[1:961].cast("d", (4, 30))}, ValueError, "X is not aligned"),
        ({"X": [[0.0] * 30]}, TypeError, "bytes-like"),
        ({"W": np.zeros((30, 2), np.float32)}, TypeError, "W must hold aligned float64"),
        ({"W": np.zeros(30)}, ValueError, "W has 1 dimensions"),
        ({"W": [[0.0]] * 30}, TypeError, "W must be a numpy array"),
        ({"b": np.zeros(3)}, ValueError, "b has 3 values, expected 2"),
        ({"b": np.zeros((2, 1))}, ValueError, "b has 2 dimensions, expected 1"),
        ({"center": np.zeros(29)}, ValueError, "center has 29 values, expected 30"),
        ({"out": np.zeros((4, 3))}, ValueError, r"out has shape \(4, 3\), expected \(4, 2\)"),
        ({"out": np.zeros((2, 4)).T}, ValueError, "side by side"),
        ({"out": np.zeros((4, 2), np.float32)}, TypeError, "out must hold aligned float64"),
        ({"threads": 0}, ValueError, "threads must be 1 or more"),
        ({"level": 99}, ValueError, "instruction sets of this machine"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    arguments: dict[str, Any], error: type[Exception], told: str
) -> None:
    given = {
        "X": np.zeros((4, 30)),
        "W": np.zeros((30, 2), order="F"),
        "b": np.zeros(2),
        "out": np.full((4, 2), 7.0),
    } | arguments
    before = given["out"].copy()
    for map_rows in (affine, snv_affine, norm_affine):
        with pytest.raises(error, match=told):
            map_rows(**given)
    np.testing.assert_array_equal(given["out"], before)


def test_an_out_that_cannot_be_written_or_lies_in_x_is_refused() -> None:
    X, W, b, out = np.ones((4, 2)), np.ones((2, 2), order="F"), np.ones(2), np.ones((4, 2))
    with pytest.raises(ValueError, match="overlaps"):
        affine(X, W, b, out=X[::-1])
    with pytest.raises(ValueError, match="overlaps"):
        snv(X, out=X)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        affine(X, W, b, out=out)


def test_degrees_of_freedom_and_norms_must_make_sense() -> None:
    X, (W, b, _) = spectra(3, 4), weights(4, 1)
    for ddof in (-1, 4):
        with pytest.raises(ValueError, match="ddof must be from 0 to 3"):
            snv_affine(X, W, b, ddof)
    with pytest.raises(ValueError, match="order must be one of l1, l2, max, not 'l3'"):
        norm_affine(X, W, b, "l3")


def test_nothing_is_kept_of_the_arguments_whether_a_call_works_or_not() -> None:
    arrays = [spectra(40, 30), *weights(30, 2)]
    out = np.empty((40, 2))
    before = [sys.getrefcount(array) for array in (*arrays, out)]
    for _ in range(50):
        snv_affine(*arrays[:3], center=arrays[3], out=out)
        with pytest.raises(ValueError, match="expected 2"):
            affine(arrays[0], arrays[1], arrays[3], out=out)
    assert [sys.getrefcount(array) for array in (*arrays, out)] == before
    alive = [weakref.ref(array) for array in (*arrays, out)]
    del arrays, out
    assert [array() for array in alive] == [None] * 5
