"""The registry's entries for scikit-learn, chemotools and nirs4all, by class name: none is imported.

Left out on purpose: whatever looks at several rows at once (nirs4all's `Derivate`, anything with
axis=0), clips, or has a value that depends on the data in any other way than these entries say.
Models that hold other estimators are probed when all of them are affine themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from n4a_fast.replay.fused.linear_operators import Entry, Part, Unfused, When, entry_of, inverse_is_linear, probed
from n4a_fast.replay.fused.statistics import RowStatistic, norm, regression, snv

# -- parameters that matter --------------------------------------------------------------------


def _needs(**wanted: Any) -> When:
    """Parameters that must have one of these values where they exist."""

    def when(operator: Any) -> str | None:
        for name, allowed in wanted.items():
            value = getattr(operator, name, allowed[0])
            if not (isinstance(value, type(None) | bool | int | float | str) and value in allowed):
                return f"{name}={value!r} is not one of {allowed}"
        return None

    return when


def _all_linear(members: Callable[[Any], Iterable[tuple[Any, str]]]) -> When:
    """Every estimator inside must be affine in its role."""

    def when(operator: Any) -> str | None:
        try:
            for member, role in members(operator):
                if not (isinstance(member, str) and member in ("passthrough", "drop")):
                    entry_of(member, role)
        except Unfused as error:
            return f"holds one that is not linear ({error})"
        return None

    return when


def _pipeline(role: str) -> Callable[[Any], Iterator[tuple[Any, str]]]:
    def members(operator: Any) -> Iterator[tuple[Any, str]]:
        steps = [step for _, step in operator.steps if step is not None]
        yield from ((step, "transform") for step in steps[: None if role == "transform" else -1])
        if role != "transform":
            yield steps[-1], role

    return members


def _predictors(attribute: str) -> Callable[[Any], Iterator[tuple[Any, str]]]:
    def members(operator: Any) -> Iterator[tuple[Any, str]]:
        found = getattr(operator, attribute)
        yield from ((one, "predict") for one in (found if isinstance(found, list | tuple) else [found]))

    return members


def _stacking(operator: Any) -> Iterator[tuple[Any, str]]:
    yield from ((one, "predict") for one in (*operator.estimators_, operator.final_estimator_))


def _union(operator: Any) -> Iterator[tuple[Any, str]]:
    listed = operator.transformer_list if hasattr(operator, "transformer_list") else operator.transformers_
    yield from ((entry[1], "transform") for entry in listed)


def _identity(operator: Any) -> str | None:
    return None if operator.func is None else "calls a function"


def _mean_pooling(operator: Any) -> str | None:
    return None if operator.pooling_func is np.mean else "pools by another function than the mean"


def _transformed_target(operator: Any) -> str | None:
    if not inverse_is_linear(operator.transformer_):
        return "its target transformer has no linear inverse"
    return _all_linear(_predictors("regressor_"))(operator)


def _link_is_known(operator: Any) -> str | None:
    return "clips its scores to probabilities" if getattr(operator, "loss", "") == "modified_huber" else None


def _fills_only_nan(operator: Any) -> str | None:
    plain = operator.missing_values is np.nan or (
        isinstance(operator.missing_values, float) and np.isnan(operator.missing_values)
    )
    return None if plain and not operator.add_indicator else "marks or fills values that are not NaN"


# -- linear parts that the fitted attributes give --------------------------------------------------


def _inverse_scale(operator: Any, width: int) -> Any:
    return np.ones(width) if operator.scale_ is None else 1.0 / operator.scale_


def _direct_scale(operator: Any, width: int) -> Any:
    return operator.scale_


def _unit(operator: Any, width: int) -> Any:
    return np.ones(width)


def _min_max(operator: Any, width: int) -> Any:
    return 1.0 / (operator.max_ - operator.min_)


def _normalize(operator: Any, width: int) -> Any:
    return operator.f_ if operator.user_defined else 1.0 / operator.linalg_norm_


def _column_msc(operator: Any, width: int) -> Any:
    return 1.0 / operator.a_


def _pca(operator: Any, width: int) -> Any:
    scale = np.sqrt(operator.explained_variance_)[:, None] if operator.whiten else 1.0
    return (operator.components_ / scale).T


def _components(operator: Any, width: int) -> Any:
    return operator.components_.T


def _coefficients(operator: Any, width: int) -> Any:
    found = operator.coef_.toarray() if hasattr(operator.coef_, "toarray") else np.asarray(operator.coef_)
    return found.T if found.ndim == 2 else found[:, None]


def _scores(operator: Any, width: int) -> Any:
    return probed(operator.decision_function, width)


def _pls_inside(operator: Any, width: int) -> Any:
    return _coefficients(operator.pls_, width)


def _linear_kernel(operator: Any, width: int) -> Any:
    return (operator.X_fit_.T @ operator.dual_coef_).reshape(width, -1)


# -- row statistics --------------------------------------------------------------------------------


def _snv(operator: Any, width: int) -> RowStatistic:
    return snv(int(getattr(operator, "ddof", 0)))


def _normalizer(operator: Any, width: int) -> RowStatistic:
    return norm({"l1": 1.0, "l2": 2.0, "max": np.inf}[operator.norm])


def _norm_scaler(operator: Any, width: int) -> RowStatistic:
    return norm(float(operator.l_norm))


def _point(operator: Any, width: int) -> RowStatistic:
    return regression(np.eye(width)[:, [int(operator.point_index_)]])


def _area(operator: Any, width: int) -> RowStatistic:
    if operator.method == "abs_sum":
        return norm(1.0)
    column = np.ones(width)
    if operator.method == "trapz":
        column[[0, -1]] = 0.5
    return regression(column[:, None])


def _msc(operator: Any, width: int) -> RowStatistic:
    slope, intercept = np.asarray(operator.pinv_A_) * np.reshape(operator.weights_, (1, -1))
    return regression(np.stack([intercept, slope], axis=1), np.ones((1, width)))


def _emsc(operator: Any, width: int) -> RowStatistic:
    solver = (np.linalg.pinv(operator.WA_) * np.reshape(operator.weights_, (1, -1))).T
    basis, reference = np.asarray(operator.A_), operator.order + 1
    others = [column for column in range(basis.shape[1]) if column != reference]
    return regression(solver[:, [*others, reference]], basis[:, others].T)


def _row_msc(operator: Any, width: int) -> RowStatistic:
    reference = np.asarray(operator.reference_)
    away = reference - reference.mean()
    slope = away / (away @ away)
    return regression(np.stack([1.0 / width - reference.mean() * slope, slope], axis=1), np.ones((1, width)))


def _row_emsc(operator: Any, width: int) -> RowStatistic:
    design = np.asarray(operator.design_matrix_)
    solver = np.linalg.pinv(design, rcond=np.finfo(float).eps * max(design.shape)).T
    return regression(np.roll(solver, -1, axis=1), design[:, 1:].T)


# -- the entries -----------------------------------------------------------------------------------


def _entries(
    prefix: str, names: str, role: str = "transform", part: Part | None = None, when: When | None = None, **more: str
) -> Iterator[Entry]:
    distribution, since, before = _LIBRARIES[prefix.partition(".")[0]]
    fields = {"since": since, "before": before, **more}
    yield from (
        Entry(f"{prefix}.{name}", role, part, when, distribution=distribution, **fields) for name in names.split()
    )


_LIBRARIES = {
    "sklearn": ("scikit-learn", "1.3", "2"),
    "chemotools": ("chemotools", "0.1.5", "1"),
    "nirs4all": ("nirs4all", "0.7", "1.5"),
}
_NO_CLIP = _needs(clip=(False,))
_ALONG_ROWS = _needs(axis=(1, -1))
_NUMPY = _needs(backend=("numpy",))
_LINEAR_MODELS = (
    "LinearRegression Ridge RidgeCV Lasso LassoCV LassoLars LassoLarsCV LassoLarsIC Lars LarsCV ElasticNet ElasticNetCV"
    " MultiTaskLasso MultiTaskLassoCV MultiTaskElasticNet MultiTaskElasticNetCV BayesianRidge ARDRegression"
    " HuberRegressor SGDRegressor PassiveAggressiveRegressor OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV"
    " TheilSenRegressor QuantileRegressor"
)
_SELECTORS = (
    "SelectKBest SelectPercentile SelectFpr SelectFdr SelectFwe GenericUnivariateSelect SelectFromModel RFE RFECV"
    " VarianceThreshold SequentialFeatureSelector"
)

_SKLEARN = (
    *_entries("sklearn.preprocessing", "StandardScaler RobustScaler", part=_inverse_scale),
    *_entries("sklearn.preprocessing", "MaxAbsScaler", part=_inverse_scale, when=_NO_CLIP),
    *_entries("sklearn.preprocessing", "MinMaxScaler", part=_direct_scale, when=_NO_CLIP),
    *_entries("sklearn.preprocessing", "FunctionTransformer", part=_unit, when=_identity),
    *_entries("sklearn.preprocessing", "Normalizer", "statistic", _normalizer, _needs(norm=("l2", "l1", "max"))),
    *_entries("sklearn.decomposition", "PCA IncrementalPCA", part=_pca),
    *_entries("sklearn.decomposition", "TruncatedSVD FastICA", part=_components),
    *_entries("sklearn.random_projection", "GaussianRandomProjection SparseRandomProjection"),
    *_entries("sklearn.cluster", "FeatureAgglomeration", when=_mean_pooling),
    *_entries("sklearn.feature_selection", _SELECTORS),
    *_entries("sklearn.impute", "SimpleImputer", when=_fills_only_nan),
    *_entries("sklearn.cross_decomposition", "PLSRegression PLSCanonical CCA PLSSVD"),
    *_entries("sklearn.pipeline", "Pipeline", when=_all_linear(_pipeline("transform"))),
    *_entries("sklearn.pipeline", "FeatureUnion", when=_all_linear(_union)),
    *_entries("sklearn.compose", "ColumnTransformer", when=_all_linear(_union)),
    *_entries("sklearn.cross_decomposition", "PLSRegression PLSCanonical CCA", "predict", _coefficients),
    *_entries("sklearn.linear_model", _LINEAR_MODELS, "predict", _coefficients),
    *_entries("sklearn.svm", "LinearSVR", "predict", _coefficients),
    *_entries("sklearn.svm", "SVR NuSVR", "predict", _coefficients, _needs(kernel=("linear",))),
    *_entries("sklearn.kernel_ridge", "KernelRidge", "predict", _linear_kernel, _needs(kernel=("linear",))),
    *_entries("sklearn.dummy", "DummyRegressor", "predict"),
    *_entries("sklearn.linear_model", "RANSACRegressor", "predict", when=_all_linear(_predictors("estimator_"))),
    *_entries(
        "sklearn.ensemble", "VotingRegressor BaggingRegressor", "predict", when=_all_linear(_predictors("estimators_"))
    ),
    *_entries("sklearn.ensemble", "StackingRegressor", "predict", when=_all_linear(_stacking)),
    *_entries("sklearn.multioutput", "MultiOutputRegressor", "predict", when=_all_linear(_predictors("estimators_"))),
    *_entries(
        "sklearn.model_selection",
        "GridSearchCV RandomizedSearchCV",
        "predict",
        when=_all_linear(_predictors("best_estimator_")),
    ),
    *_entries("sklearn.compose", "TransformedTargetRegressor", "predict", when=_transformed_target),
    *_entries(
        "sklearn.linear_model",
        "LogisticRegression LogisticRegressionCV RidgeClassifier RidgeClassifierCV",
        "score",
        _coefficients,
        _link_is_known,
    ),
    *_entries(
        "sklearn.linear_model",
        "SGDClassifier Perceptron PassiveAggressiveClassifier",
        "score",
        _coefficients,
        _link_is_known,
    ),
    *_entries("sklearn.svm", "LinearSVC", "score", _coefficients),
    *_entries("sklearn.discriminant_analysis", "LinearDiscriminantAnalysis", "score", _coefficients),
    *_entries("sklearn.pipeline", "Pipeline", "predict", when=_all_linear(_pipeline("predict"))),
    *_entries("sklearn.pipeline", "Pipeline", "score", _scores, when=_all_linear(_pipeline("score"))),
)
_CHEMOTOOLS = (
    *_entries("chemotools.scatter", "StandardNormalVariate", "statistic", _snv),
    *_entries("chemotools.scatter", "MultiplicativeScatterCorrection", "statistic", _msc, since="0.3"),
    *_entries("chemotools.scatter", "ExtendedMultiplicativeScatterCorrection", "statistic", _emsc, since="0.3"),
    *_entries("chemotools.scale", "NormScaler", "statistic", _norm_scaler, _needs(l_norm=(1, 2))),
    *_entries("chemotools.scale", "PointScaler", "statistic", _point),
    *_entries("chemotools.scale", "ParetoScaler", part=_inverse_scale),
    *_entries("chemotools.derivative", "SavitzkyGolay NorrisWilliams"),
    *_entries("chemotools.smooth", "SavitzkyGolayFilter ModifiedSincFilter", when=_ALONG_ROWS),
    *_entries("chemotools.smooth", "MeanFilter WhittakerSmooth"),
    *_entries(
        "chemotools.baseline",
        "LinearCorrection PolynomialCorrection ConstantBaselineCorrection CubicSplineCorrection SubtractReference",
    ),
    *_entries("chemotools.feature_selection", "RangeCut IndexSelector SRSelector VIPSelector"),
    *_entries(
        "chemotools.projection",
        "ExternalParameterOrthogonalization OrthogonalSignalCorrection DirectOrthogonalization OrthogonalPLS",
    ),
    *_entries("chemotools.adaptation", "DirectStandardization PiecewiseDirectStandardization SpectralSpaceTransform"),
    *_entries("chemotools.regression", "PLSRegression", "predict"),
)
_TRANSFORMS = "nirs4all.operators.transforms"
_MODELS = "nirs4all.operators.models.sklearn"
_NIRS4ALL = (
    *_entries(
        f"{_TRANSFORMS}.scalers",
        "StandardNormalVariate",
        "statistic",
        _snv,
        _needs(axis=(1, -1), with_mean=(True,), with_std=(True,)),
    ),
    *_entries(
        f"{_TRANSFORMS}.nirs", "AreaNormalization", "statistic", _area, _needs(method=("sum", "abs_sum", "trapz"))
    ),
    *_entries(
        f"{_TRANSFORMS}.nirs", "SavitzkyGolay FirstDerivative SecondDerivative Wavelet Haar WaveletPCA WaveletSVD"
    ),
    *_entries(
        f"{_TRANSFORMS}.nirs", "MultiplicativeScatterCorrection", part=_column_msc, before="1"
    ),  # by columns, without a look at the row
    *_entries(f"{_TRANSFORMS}.nirs", "MultiplicativeScatterCorrection", "statistic", _row_msc, since="1"),
    *_entries(f"{_TRANSFORMS}.nirs", "ExtendedMultiplicativeScatterCorrection", "statistic", _row_emsc, since="1"),
    *_entries(f"{_TRANSFORMS}.norris_williams", "NorrisWilliams", since="1"),
    *_entries(f"{_TRANSFORMS}.orthogonalization", "OSC EPO", since="1"),
    *_entries(f"{_TRANSFORMS}.signal", "Detrend Gaussian"),
    *_entries(f"{_TRANSFORMS}.signal", "Baseline", part=_unit),
    *_entries(f"{_TRANSFORMS}.scalers", "SimpleScale", part=_min_max),
    *_entries(f"{_TRANSFORMS}.scalers", "Normalize", part=_normalize),
    *_entries(f"{_TRANSFORMS}.features", "CropTransformer ResampleTransformer"),
    *_entries(
        f"{_TRANSFORMS}.resampler",
        "Resampler",
        when=_needs(method=("linear", "cubic", "quadratic", "slinear", "nearest", "zero", "previous", "next")),
    ),
    *_entries(f"{_TRANSFORMS}.signal_conversion", "PercentToFraction FractionToPercent"),
    *_entries(f"{_TRANSFORMS}.feature_selection", "CARS MCUVE FlexiblePCA FlexibleSVD"),
    *_entries(f"{_MODELS}.simpls", "SIMPLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.ikpls", "IKPLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.opls", "OPLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.sparsepls", "SparsePLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.robust_pls", "RobustPLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.recursive_pls", "RecursivePLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.ipls", "IntervalPLS", "predict", when=_NUMPY),
    *_entries(f"{_MODELS}.plsda", "PLSDA", "score", _pls_inside, when=_all_linear(_predictors("pls_"))),
)

ENTRIES: tuple[Entry, ...] = (*_SKLEARN, *_CHEMOTOOLS, *_NIRS4ALL)
