"""What the caller gives: refused with the cure when it does not fit, never changed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from replay_chains import AnyKeyword, Aware, ChainMaker, Constant, Flagged, Needy, Shifted, spectra
from scipy.sparse import csr_array
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from n4a_fast.errors import InvalidInputError, ReplayError

X = spectra()


def minmax() -> ChainMaker:
    return ChainMaker().step(MinMaxScaler().fit(X)).model(Constant(1.0))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (X[0], r"X has shape \(12,\); for one sample give X\[None, :\]"),
        (X[None], "X has 3 dimensions"),
        (np.float64(1.0), "X has 0 dimensions"),
        (X[:0], r"X has shape \(0, 12\); a prediction needs at least one row"),
        (X[:, :0], "at least one row and one column"),
        ([], r"for one sample"),
        (X.astype(object), r"dtype object; give real numbers, for example X.astype\(float\)"),
        (X.astype(str), "dtype <U32"),
        (X + 0j, "dtype complex128"),
        ([["a"] * 12], "dtype <U1"),
        ([[1.0], [1.0, 2.0]], "no array of numbers"),
        (csr_array(X), "csr_array; give a plain array"),
        (np.ma.masked_greater(X, 1.0), "MaskedArray; give a plain array"),
        (None, "dtype object"),
        (pd.DataFrame(X.astype(object)), "dtype object"),
        (pl.LazyFrame(X), "LazyFrame, which is not computed yet"),
        (X[:, :5], "X has 5 columns, chain 'c1' was fitted on 12; give spectra on the same wavelengths"),
        ([X, X], "one source, X has 2"),
    ],
)
def test_spectra_that_do_not_fit_are_refused(given: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        minmax().predict(given)


def spoiled(value: float) -> Any:
    found = X.copy()
    found[3, 2] = found[3, 4] = found[7, 0] = value
    return found


def test_infinite_values_are_counted() -> None:
    with pytest.raises(InvalidInputError, match="X holds 3 infinite values, the first in row 3"):
        minmax().predict(spoiled(np.inf))


def test_nan_is_refused_by_the_first_operator_that_does_not_take_it() -> None:
    maker = ChainMaker().step(MinMaxScaler().fit(X)).step(Shifted(1.0)).model(Constant(1.0))
    with pytest.raises(InvalidInputError, match=r"3 NaN values, the first in row 3, for step 2 \(Shifted\)"):
        maker.predict(spoiled(np.nan))
    with pytest.raises(InvalidInputError, match=r"for step 2 \(Constant\)"):
        minmax().predict(spoiled(np.nan))


def test_nan_may_pass_to_operators_that_take_it_or_fill_it() -> None:
    bad = spoiled(np.nan)
    filled = ChainMaker().step(SimpleImputer().fit(X)).step(Shifted(1.0)).model(Constant(1.0))
    assert filled.predict(bad).tolist() == [1.0] * len(X)
    trees = HistGradientBoostingRegressor(max_iter=3).fit(X, X[:, 0])
    np.testing.assert_array_equal(
        ChainMaker().step(MinMaxScaler().fit(X)).model(trees).predict(bad),
        trees.predict(MinMaxScaler().fit(X).transform(bad)),
    )


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_values_that_a_table_of_pandas_lacks_are_nan(backend: Any) -> None:
    trees = HistGradientBoostingRegressor(max_iter=3).fit(X, X[:, 0])
    table = pd.DataFrame(spoiled(np.nan)).convert_dtypes(dtype_backend=backend)
    np.testing.assert_array_equal(ChainMaker().model(trees).predict(table), trees.predict(spoiled(np.nan)))


def test_an_operator_that_makes_nan_or_infinity_is_named() -> None:
    maker = ChainMaker().step(FunctionTransformer(np.log)).model(Constant(1.0))
    zero = X.copy()
    zero[5, 1] = 0.0
    with (
        np.errstate(divide="ignore"),
        pytest.raises(ReplayError, match=r"step 1 .* gave 1 NaN or infinite value, the first in row 5"),
    ):
        maker.predict(zero)


def test_a_width_that_an_earlier_step_left_is_a_fault_of_the_chain() -> None:
    maker = ChainMaker().step(FunctionTransformer(first_columns)).step(MinMaxScaler().fit(X)).model(Constant(1.0))
    with pytest.raises(
        ReplayError, match=r"step 2 \(MinMaxScaler\) was fitted on 12 columns, the steps before it give 3"
    ):
        maker.predict(X)


def first_columns(values: Any) -> Any:
    return values[:, :3]


def first_rows(values: Any) -> Any:
    return values[:3]


def words(values: Any) -> Any:
    return values.astype(str)


def fails(values: Any) -> Any:
    raise RuntimeError("out of range")


@pytest.mark.parametrize(
    ("function", "named"),
    [(first_rows, "must keep the samples in rows"), (words, "must stay real numbers"), (fails, "failed to transform")],
)
def test_an_operator_that_breaks_its_promise_is_named(function: Any, named: str) -> None:
    maker = ChainMaker().step(FunctionTransformer(function)).model(Constant(1.0))
    with pytest.raises(ReplayError, match=rf"step 1 \(FunctionTransformer\) .*{named}") as caught:
        maker.predict(X)
    assert (caught.value.__cause__ is not None) == (function is fails)


@pytest.mark.parametrize(
    "given",
    [
        X.tolist(),
        [X],
        (X,),
        list(X),
        (X > 1.0),
        (100 * X).astype(np.int32),
        X.astype(np.float16),
        pd.DataFrame(X).convert_dtypes(),
        pd.DataFrame(X).convert_dtypes(dtype_backend="pyarrow"),
    ],
)
def test_anything_that_is_a_table_of_numbers_is_taken(given: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ChainMaker().step(Shifted(1.0)).model(Constant(1.0, 2.0)).predict(given)
    assert found.shape == (len(X), 2)


def test_sources_are_counted_and_aligned() -> None:
    maker = ChainMaker().step(Shifted(1.0), Shifted(2.0)).model(Constant(1.0))
    maker.chain["shared_artifacts"]["_source_map"] = {"1": {"0": ["a0"], "1": ["a1"]}}
    for given in (X, [X], [X, X, X], X.tolist()):
        with pytest.raises(InvalidInputError, match="joins 2 sources; give X as a list of 2 arrays"):
            maker.predict(given)
    with pytest.raises(InvalidInputError, match=r"\[24, 5\] rows"):
        maker.predict([X, X[:5]])
    maker.chain |= {"source_index": 1}
    maker.chain["shared_artifacts"].pop("_source_map")
    with pytest.raises(InvalidInputError, match="uses source 1, X has 1 sources"):
        maker.predict([X])


# -- wavelengths --------------------------------------------------------------------------------

AXIS = np.linspace(1000.0, 2500.0, 12)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (AXIS[:5], r"wavelengths has shape \(5,\), the spectra have 12 columns"),
        (AXIS[None], r"shape \(1, 12\)"),
        (AXIS.astype(str), "dtype"),
        (np.where(AXIS > 1500, np.nan, AXIS), "must be finite"),
    ],
)
def test_wavelengths_that_do_not_fit_are_refused_even_if_nobody_asks_for_them(given: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        minmax().predict(X, given)


@pytest.mark.parametrize("name", ["Needy", "Flagged"])
def test_wavelengths_that_are_needed_must_be_given(name: str) -> None:
    maker = ChainMaker().step(Needy() if name == "Needy" else Flagged(True)).model(Constant(1.0))
    with pytest.raises(InvalidInputError, match=rf"step 1 \({name}\) of chain 'c1' needs wavelengths"):
        maker.predict(X)
    assert maker.predict(X, AXIS).shape == (24,)


@pytest.mark.parametrize(
    ("operator", "scaled"),
    [(Aware(), True), (Flagged("optional"), True), (Flagged(True), True), (Flagged(False), False)],
)
def test_wavelengths_go_only_to_operators_that_ask(operator: Any, scaled: bool) -> None:
    maker = ChainMaker().step(MinMaxScaler().fit(X)).step(operator).model(Sum())
    expected = MinMaxScaler().fit_transform(X) * (AXIS if scaled else 1.0)
    np.testing.assert_allclose(maker.predict(X, AXIS.tolist()), expected.sum(axis=1), rtol=1e-12)


class Sum:
    """A regression model that adds up the columns."""

    def predict(self, X: Any) -> Any:
        return X.sum(axis=1)


def test_an_operator_with_any_keyword_is_not_given_wavelengths() -> None:
    assert ChainMaker().step(AnyKeyword()).model(Constant(1.0)).predict(X, AXIS).shape == (24,)


def test_wavelengths_are_lost_when_a_step_drops_columns() -> None:
    maker = ChainMaker().step(FunctionTransformer(first_columns)).step(Aware()).model(Constant(1.0))
    assert maker.predict(X).shape == (24,)
    with pytest.raises(
        ReplayError, match=r"step 2 \(Aware\) takes wavelengths, but the steps before it left 3 of 12 columns"
    ):
        maker.predict(X, AXIS)


def test_each_source_has_its_own_wavelengths() -> None:
    maker = ChainMaker().step(Aware(), Aware()).model(Sum())
    maker.chain["shared_artifacts"]["_source_map"] = {"1": {"0": ["a0"], "1": ["a1"]}}
    blocks = [np.ones((1, 2)), np.ones((1, 3))]
    assert maker.predict(blocks, [np.array([1.0, 2.0]), np.array([10.0, 20.0, 30.0])]).tolist() == [63.0]
    for given in (np.arange(5.0), [np.arange(2.0)]):
        with pytest.raises(InvalidInputError, match="give wavelengths as a list of 2 arrays"):
            maker.predict(blocks, given)
    with pytest.raises(InvalidInputError, match=r"wavelengths\[1\] has shape \(2,\)"):
        maker.predict(blocks, [np.arange(2.0), np.arange(2.0)])
    maker.chain["source_index"] = 1
    assert maker.predict(blocks, [np.arange(2.0), np.ones(3)]).tolist() == [3.0]
