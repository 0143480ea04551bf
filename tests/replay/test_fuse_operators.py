"""Every registered operator and model, alone: what the registry says of it holds on spectra it has not seen.

Compiled predictions are compared with the plain path. The tolerance is relative to the largest
prediction: both paths sum the same products in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chemotools.adaptation as ct_adaptation
import chemotools.baseline as ct_baseline
import chemotools.derivative as ct_derivative
import chemotools.feature_selection as ct_selection
import chemotools.projection as ct_projection
import chemotools.regression as ct_regression
import chemotools.scale as ct_scale
import chemotools.scatter as ct_scatter
import chemotools.smooth as ct_smooth
import numpy as np
import pytest
from replay_chains import ChainMaker, spectra, target
from sklearn import (
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    dummy,
    ensemble,
    feature_selection,
    impute,
    kernel_ridge,
    linear_model,
    model_selection,
    multioutput,
    pipeline,
    preprocessing,
    random_projection,
    svm,
)

from n4a_fast.replay import execute
from n4a_fast.replay.fused.compile import TOLERANCE, compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.known_operators import ENTRIES
from n4a_fast.replay.fused.linear_operators import public_name
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plan.folds import weights_of

Array = np.ndarray[Any, Any]

X = spectra(64, 24, seed=1)
y = target(X) + np.random.default_rng(0).normal(0, 0.1, len(X))
Y = np.stack([y, 3.0 - 2.0 * y + X[:, 3]], axis=1)
NEW = spectra(17, 24, seed=2)
Ridge, PLS = linear_model.Ridge, cross_decomposition.PLSRegression

TRANSFORMERS: list[Callable[[], Any]] = [
    preprocessing.StandardScaler,
    lambda: preprocessing.StandardScaler(with_std=False),
    preprocessing.RobustScaler,
    preprocessing.MaxAbsScaler,
    preprocessing.MinMaxScaler,
    preprocessing.FunctionTransformer,
    preprocessing.Normalizer,
    lambda: preprocessing.Normalizer(norm="l1"),
    lambda: preprocessing.Normalizer(norm="max"),
    lambda: decomposition.PCA(5),
    lambda: decomposition.PCA(5, whiten=True),
    lambda: decomposition.IncrementalPCA(4),
    lambda: decomposition.TruncatedSVD(4),
    lambda: decomposition.FastICA(3, random_state=0, max_iter=2000, tol=1e-2),
    lambda: random_projection.GaussianRandomProjection(6, random_state=0),
    lambda: random_projection.SparseRandomProjection(6, random_state=0),
    lambda: cluster.FeatureAgglomeration(5),
    lambda: feature_selection.SelectKBest(feature_selection.f_regression, k=6),
    lambda: feature_selection.SelectPercentile(feature_selection.f_regression),
    lambda: feature_selection.SelectFpr(feature_selection.f_regression),
    lambda: feature_selection.SelectFdr(feature_selection.f_regression),
    lambda: feature_selection.SelectFwe(feature_selection.f_regression),
    lambda: feature_selection.GenericUnivariateSelect(feature_selection.f_regression, mode="k_best", param=5),
    lambda: feature_selection.SelectFromModel(Ridge()),
    lambda: feature_selection.RFE(Ridge(), n_features_to_select=6),
    lambda: feature_selection.RFECV(Ridge()),
    feature_selection.VarianceThreshold,
    lambda: feature_selection.SequentialFeatureSelector(Ridge(), n_features_to_select=3, cv=2),
    impute.SimpleImputer,
    lambda: PLS(3),
    lambda: cross_decomposition.PLSCanonical(1),
    lambda: cross_decomposition.CCA(1),
    lambda: cross_decomposition.PLSSVD(1),
    lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(4)),
    lambda: pipeline.make_union(preprocessing.StandardScaler(), decomposition.PCA(4)),
    lambda: compose.make_column_transformer(
        (preprocessing.StandardScaler(), slice(0, 9)), (decomposition.PCA(3), slice(9, 20))
    ),
    ct_scatter.StandardNormalVariate,
    ct_scatter.MultiplicativeScatterCorrection,
    ct_scatter.ExtendedMultiplicativeScatterCorrection,
    ct_scale.NormScaler,
    lambda: ct_scale.NormScaler(l_norm=1),
    ct_scale.PointScaler,
    ct_scale.ParetoScaler,
    lambda: ct_derivative.SavitzkyGolay(window_length=7, polyorder=2),
    lambda: ct_derivative.NorrisWilliams(window_length=3, gap_size=3),
    lambda: ct_smooth.SavitzkyGolayFilter(window_length=7, polyorder=2),
    lambda: ct_smooth.ModifiedSincFilter(window_length=15),
    ct_smooth.MeanFilter,
    lambda: ct_smooth.WhittakerSmooth(lam=10.0),
    ct_baseline.LinearCorrection,
    lambda: ct_baseline.PolynomialCorrection(order=2),
    lambda: ct_baseline.ConstantBaselineCorrection(start=2, end=5),
    lambda: ct_baseline.CubicSplineCorrection(indices=[0, 7, 15, 23]),
    lambda: ct_baseline.SubtractReference(reference=X[0]),
    lambda: ct_selection.RangeCut(start=3, end=20),
    lambda: ct_selection.IndexSelector(features=np.array([1, 5, 9, 20])),
    lambda: ct_selection.SRSelector(PLS(3).fit(X, y), threshold=0.1),
    lambda: ct_selection.VIPSelector(PLS(3).fit(X, y), threshold=0.8),
    lambda: ct_projection.OrthogonalSignalCorrection(n_components=1),
    lambda: ct_projection.DirectOrthogonalization(n_components=1),
    lambda: ct_projection.OrthogonalPLS(n_components=1),
]


def _voting() -> Any:
    return ensemble.VotingRegressor(
        [("r", Ridge()), ("p", pipeline.make_pipeline(preprocessing.StandardScaler(), PLS(2)))]
    )


REGRESSORS: list[Callable[[], Any]] = [
    lambda: PLS(3),
    lambda: cross_decomposition.CCA(1),
    lambda: cross_decomposition.PLSCanonical(1),
    linear_model.LinearRegression,
    Ridge,
    linear_model.RidgeCV,
    lambda: linear_model.Lasso(0.01),
    lambda: linear_model.LassoCV(cv=3, max_iter=20000),
    lambda: linear_model.LassoLars(0.01),
    lambda: linear_model.LassoLarsCV(cv=3),
    linear_model.LassoLarsIC,
    lambda: linear_model.Lars(n_nonzero_coefs=5),
    lambda: linear_model.LarsCV(cv=3, max_iter=5),
    lambda: linear_model.ElasticNet(0.01),
    lambda: linear_model.ElasticNetCV(cv=3, max_iter=20000),
    linear_model.BayesianRidge,
    linear_model.ARDRegression,
    lambda: linear_model.HuberRegressor(max_iter=30),
    lambda: linear_model.SGDRegressor(random_state=0, max_iter=200),
    lambda: linear_model.OrthogonalMatchingPursuit(n_nonzero_coefs=4),
    lambda: linear_model.OrthogonalMatchingPursuitCV(cv=3),
    lambda: linear_model.TheilSenRegressor(random_state=0, max_subpopulation=30, n_subsamples=26),
    lambda: linear_model.QuantileRegressor(alpha=0.01),
    lambda: linear_model.RANSACRegressor(Ridge(), min_samples=30, random_state=0),
    lambda: svm.LinearSVR(C=10.0, max_iter=20000, random_state=0),
    lambda: svm.SVR(kernel="linear"),
    lambda: svm.NuSVR(kernel="linear"),
    lambda: kernel_ridge.KernelRidge(kernel="linear"),
    dummy.DummyRegressor,
    _voting,
    lambda: ensemble.BaggingRegressor(Ridge(), n_estimators=4, max_features=0.5, random_state=0),
    lambda: ensemble.StackingRegressor([("a", Ridge()), ("b", PLS(2))], final_estimator=Ridge(), cv=3),
    lambda: ensemble.StackingRegressor([("a", Ridge())], final_estimator=Ridge(), cv=3, passthrough=True),
    lambda: model_selection.GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
    lambda: model_selection.RandomizedSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, n_iter=2, cv=2, random_state=0),
    lambda: compose.TransformedTargetRegressor(Ridge(), transformer=preprocessing.StandardScaler()),
    lambda: compose.TransformedTargetRegressor(PLS(2)),
    lambda: pipeline.make_pipeline(preprocessing.MinMaxScaler(), decomposition.PCA(4), Ridge()),
    lambda: ct_regression.PLSRegression(3),
]
SEVERAL_TARGETS: list[Callable[[], Any]] = [
    lambda: PLS(3),
    Ridge,
    linear_model.LinearRegression,
    lambda: linear_model.MultiTaskLasso(0.01),
    lambda: linear_model.MultiTaskElasticNet(0.01),
    lambda: linear_model.MultiTaskLassoCV(cv=3, max_iter=20000),
    lambda: linear_model.MultiTaskElasticNetCV(cv=3, max_iter=20000),
    lambda: multioutput.MultiOutputRegressor(Ridge()),
    lambda: kernel_ridge.KernelRidge(kernel="linear"),
]


def compiled(maker: ChainMaker, given: Array = NEW) -> CompiledChain | PlainChain:
    bench = Bench(maker.shelf)
    plan = maker.load()
    return compile_chain(plan, weights_of(tuple(plan.model.fold_ids), None), given, None, bench)


def check(maker: ChainMaker, new: Array = NEW) -> CompiledChain:
    """The chain compiles whole, on the first rows alone, and predicts the others as the plain path does."""
    found = compiled(maker, new[:3])
    assert isinstance(found, CompiledChain), found.notes
    assert found.start == 0, found.notes
    expected = execute(maker.load(), new)
    assert np.abs(found.apply(new) - expected).max() <= 10 * TOLERANCE * np.abs(expected).max(), found.notes
    return found


@pytest.mark.parametrize("make", TRANSFORMERS)
@pytest.mark.filterwarnings("ignore")
def test_a_registered_transformer_fuses(make: Callable[[], Any]) -> None:
    operator = make().fit(X, y)
    Z = np.asarray(operator.transform(X))
    Z = Z.reshape(len(X), -1)
    check(ChainMaker().step(operator).model(Ridge(1e-3).fit(Z[::2], y[::2]), Ridge(1e-3).fit(Z[1::2], y[1::2])))


@pytest.mark.parametrize("make", REGRESSORS)
@pytest.mark.filterwarnings("ignore")
def test_a_registered_model_fuses(make: Callable[[], Any]) -> None:
    check(ChainMaker().model(make().fit(X[::2], y[::2]), make().fit(X[1::2], y[1::2])))


@pytest.mark.parametrize("make", SEVERAL_TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_a_registered_model_of_several_targets_fuses(make: Callable[[], Any]) -> None:
    found = check(ChainMaker().model(make().fit(X[::2], Y[::2]), make().fit(X[1::2], Y[1::2])))
    assert found.weights.shape == (2, X.shape[1])


@pytest.mark.parametrize(
    "make",
    [preprocessing.StandardScaler, preprocessing.MinMaxScaler, preprocessing.RobustScaler, preprocessing.MaxAbsScaler],
)
def test_linear_target_steps_are_folded_in(make: Callable[[], Any]) -> None:
    scaler = make().fit(Y)
    Z = scaler.transform(Y)
    check(
        ChainMaker().step(scaler, kind="y_processing").model(PLS(3).fit(X[::2], Z[::2]), PLS(4).fit(X[1::2], Z[1::2]))
    )


NOT_LINEAR: list[Callable[[], Any]] = [
    lambda: preprocessing.MinMaxScaler(clip=True),
    lambda: preprocessing.MaxAbsScaler(clip=True),
    preprocessing.PowerTransformer,
    lambda: preprocessing.QuantileTransformer(n_quantiles=10),
    lambda: preprocessing.FunctionTransformer(np.log),
    ct_baseline.NonNegative,
    lambda: ct_smooth.MedianFilter(),
    lambda: ct_smooth.SavitzkyGolayFilter(axis=0),
    lambda: ct_scale.NormScaler(l_norm=3),
    ct_scale.MinMaxScaler,
    lambda: pipeline.make_pipeline(preprocessing.MinMaxScaler(clip=True)),
    lambda: impute.SimpleImputer(add_indicator=True),
    lambda: cluster.FeatureAgglomeration(4, pooling_func=np.max),
    lambda: compose.make_column_transformer((preprocessing.PowerTransformer(), slice(0, 9))),
]


@pytest.mark.parametrize("make", NOT_LINEAR)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_linear_runs_plainly_in_front(make: Callable[[], Any]) -> None:
    try:
        operator = make().fit(X, y)
    except TypeError:
        pytest.skip("this release has no such parameter")
    maker = ChainMaker().step(preprocessing.StandardScaler(with_mean=False).fit(X)).step(operator)
    Z = np.asarray(operator.transform(X)).reshape(len(X), -1)
    found = compiled(maker.model(Ridge().fit(Z, y)))
    assert isinstance(found, CompiledChain)
    assert found.start == 2
    assert "runs plainly" in found.notes[1]


RADIAL: list[Callable[[], Any]] = [
    lambda: svm.SVR(C=10.0),
    lambda: svm.SVR(gamma=0.3),
    lambda: svm.NuSVR(),
    lambda: kernel_ridge.KernelRidge(kernel="rbf", alpha=0.1),
    lambda: kernel_ridge.KernelRidge(kernel="rbf", gamma=0.7),
]


@pytest.mark.parametrize("make", RADIAL)
def test_the_folds_of_a_radial_kernel_model_share_their_kernels(make: Callable[[], Any]) -> None:
    scaler = preprocessing.StandardScaler().fit(X)
    Z = scaler.transform(X)
    folds = [make().fit(np.delete(Z, slice(n, None, 3), 0), np.delete(y, slice(n, None, 3), 0)) for n in range(3)]
    maker = ChainMaker().step(scaler).model(*folds)
    found = compiled(maker, NEW[:3])
    assert isinstance(found, CompiledChain), found.notes
    assert found.statistic is not None
    assert len(found.statistic.arrays[1]) <= len(X)
    expected = execute(maker.load(), NEW)
    assert found.start == 0
    assert np.abs(found.apply(NEW) - expected).max() <= 10 * TOLERANCE * np.abs(expected).max()


MODELS_NOT_LINEAR: list[Callable[[], Any]] = [
    lambda: ensemble.RandomForestRegressor(3),
    lambda: svm.SVR(kernel="poly"),
    lambda: kernel_ridge.KernelRidge(kernel="poly"),
    lambda: linear_model.TweedieRegressor(power=1),
    lambda: ensemble.VotingRegressor([("a", Ridge()), ("b", ensemble.RandomForestRegressor(3))]),
    lambda: compose.TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
    lambda: pipeline.make_pipeline(preprocessing.PowerTransformer(), Ridge()),
]


@pytest.mark.parametrize("make", MODELS_NOT_LINEAR)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_not_linear_stays_plain(make: Callable[[], Any]) -> None:
    found = compiled(ChainMaker().model(make().fit(X, y)))
    assert isinstance(found, PlainChain)
    assert "runs plainly" in found.notes[-1]


def test_a_log_of_the_targets_stays_plain() -> None:
    logged = preprocessing.FunctionTransformer(np.log, inverse_func=np.exp)
    found = compiled(ChainMaker().step(logged, kind="y_processing").model(Ridge().fit(X, np.log(y))))
    assert isinstance(found, PlainChain)
    assert "no linear inverse" in found.notes[-1]


def test_every_entry_of_an_installed_library_is_tried_here() -> None:
    tried = {public_name(type(make())) for make in (*TRANSFORMERS, *REGRESSORS, *SEVERAL_TARGETS)}
    untried = {
        entry.name for entry in ENTRIES if entry.role != "score" and not entry.name.startswith("nirs4all")
    } - tried
    assert untried <= {
        "sklearn.linear_model.PassiveAggressiveRegressor",  # deprecated in favour of SGDRegressor
        *(public_name(kind) for kind in ON_PAIRS),
    }


ON_PAIRS = (
    ct_adaptation.DirectStandardization,
    ct_adaptation.PiecewiseDirectStandardization,
    ct_adaptation.SpectralSpaceTransform,
)
ON_PAIRS += (ct_projection.ExternalParameterOrthogonalization,)


@pytest.mark.parametrize("kind", ON_PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_operators_that_are_fitted_on_pairs_of_spectra_fuse(kind: Any) -> None:
    other = X * 1.02 + 0.01
    if kind is ct_projection.ExternalParameterOrthogonalization:
        operator = kind(n_components=1).fit(
            X, X_external=np.vstack([X[:10], other[:10]]), sample_ids=np.tile(np.arange(10), 2)
        )
    else:
        operator = (kind(window_length=5) if "Piecewise" in kind.__name__ else kind()).fit(X, X_source=other)
    check(ChainMaker().step(operator).model(Ridge().fit(np.asarray(operator.transform(X)), y)))
