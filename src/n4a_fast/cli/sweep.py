"""Preprocessing and model variants: which there are, how one is fitted, how one is stored.

`variants_for` lists them, `fit_variant` computes one without touching a store, `store_variant`
writes it through the public API as one pipeline: steps, artifacts, a chain, predictions, logs.

A. Transformers see the spectra of all training rows, never a y or a held-out row, and are shared
   by the folds, as a chain expects; models are fitted per fold.
B. The fold "avg" carries what a replay of the chain gives: the mean of the fold models on the
   held-out rows (classes: the most probable one in the mean of the probabilities). Its
   validation rows are the out-of-fold predictions, and their score ranks the variants.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from chemotools.baseline import LinearCorrection
from chemotools.derivative import SavitzkyGolay
from chemotools.feature_selection import RangeCut
from chemotools.scatter import MultiplicativeScatterCorrection, StandardNormalVariate
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.cli.datasets import Array, Dataset

SEED = 0
METRICS = {"regression": "rmse", "classification": "log_loss"}  # both: the lower the better


@dataclass(frozen=True, slots=True)
class Operator:
    """A transformer or model to be made: its class, its parameters, its name in tables."""

    label: str
    kind: type[Any]
    params: dict[str, Any]

    @property
    def path(self) -> str:
        """The class's importable name."""
        return f"{self.kind.__module__}.{self.kind.__qualname__}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of the sweep."""

    transformers: tuple[Operator, ...]
    model: Operator

    @property
    def preprocessings(self) -> str:
        """Display string, such as "SG1>SNV"."""
        return ">".join(step.label for step in self.transformers) or "none"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions of one fold for one partition, with the rows they belong to."""

    fold: str
    partition: str
    y_true: Array
    y_pred: Array
    y_proba: Array | None
    rows: Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """What fitting one variant gave; durations in milliseconds, one per step."""

    transformers: list[Any]
    models: list[Any]
    predictions: list[Prediction]
    durations: list[int]
    n_features: int


def variants_for(dataset: Dataset) -> list[Variant]:
    """The sweep of a data set: every preprocessing with every model."""
    return list(_classifiers() if dataset.classes else _regressions(dataset.band))


def fit_variant(dataset: Dataset, variant: Variant, folds: int) -> Fitted:
    """Transformers and fold models of one variant, and their predictions."""
    transformers, durations, X, X_test = [], [], dataset.X_train, dataset.X_test
    for operator in variant.transformers:
        began = time.perf_counter()
        transformer = operator.kind(**operator.params).fit(X)
        X, X_test = transformer.transform(X), transformer.transform(X_test)
        transformers.append(transformer)
        durations.append(_milliseconds_since(began))
    began = time.perf_counter()
    splits = list(_splitter(dataset, folds).split(X, dataset.y_train))
    models = [variant.model.kind(**variant.model.params).fit(X[train], dataset.y_train[train]) for train, _ in splits]
    predictions = list(_fold_predictions(dataset, models, splits, X, X_test))
    durations.append(_milliseconds_since(began))
    predictions += [_out_of_fold(predictions, dataset), _mean_of_folds(predictions, dataset)]
    return Fitted(transformers, models, predictions, durations, int(X.shape[1]))


def store_variant(
    store: WorkspaceStore, run_id: str, dataset: Dataset, variant: Variant, number: int, folds: int
) -> str:
    """Fit one variant and store it as a pipeline of the run; the id of its chain."""
    config = {
        "steps": [{"class": step.path, "params": step.params} for step in (*variant.transformers, variant.model)],
        "folds": folds,
    }
    choices = [{"preprocessing": variant.preprocessings}, {"model": variant.model.label}]
    name = f"{number:04d}_{dataset.name}_{variant.preprocessings}_{variant.model.label}"
    began = time.perf_counter()
    pipeline_id = store.begin_pipeline(run_id, name, config, choices, dataset.name, dataset.hash)
    try:
        fitted = fit_variant(dataset, variant, folds)
        chain_id = _store_chain(store, pipeline_id, variant, fitted)
        best = _store_predictions(store, pipeline_id, chain_id, dataset, variant, fitted)
    except BaseException as error:  # an interrupt too must not leave the pipeline "running"
        store.fail_pipeline(pipeline_id, f"{type(error).__name__}: {error}".rstrip(": "))
        raise
    store.complete_pipeline(pipeline_id, best["val"], best["test"], METRICS[dataset.task], _milliseconds_since(began))
    return chain_id


def scores(dataset: Dataset, prediction: Prediction) -> dict[str, float]:
    """The prediction's scores by name, the ranking metric first."""
    if prediction.y_proba is None:
        return {
            "rmse": float(root_mean_squared_error(prediction.y_true, prediction.y_pred)),
            "r2": float(r2_score(prediction.y_true, prediction.y_pred)),
        }
    labels = np.arange(len(dataset.classes))
    return {
        "log_loss": float(log_loss(prediction.y_true, prediction.y_proba, labels=labels)),
        "accuracy": float(accuracy_score(prediction.y_true, prediction.y_pred)),
    }


# -- the variants ------------------------------------------------------------------------------

_SNV = Operator("SNV", StandardNormalVariate, {})
_MSC = Operator("MSC", MultiplicativeScatterCorrection, {})
_FIRST = Operator("SG1", SavitzkyGolay, {"window_length": 15, "polyorder": 2, "deriv": 1})
_SECOND = Operator("SG2", SavitzkyGolay, {"window_length": 21, "polyorder": 2, "deriv": 2})
_LINEAR = Operator("Linear", LinearCorrection, {})
_STANDARD = Operator("Standard", StandardScaler, {})
_MIN_MAX = Operator("MinMax", MinMaxScaler, {})
_PCA = Operator("PCA5", PCA, {"n_components": 5, "svd_solver": "full"})


def _regressions(band: tuple[int, int]) -> Iterator[Variant]:
    cut = Operator("Band", RangeCut, {"start": band[0], "end": band[1]})
    models = [Operator(f"PLS {n}", PLSRegression, {"n_components": n, "scale": False}) for n in (2, 3, 4, 5, 6)]
    models += [Operator("Ridge", Ridge, {"alpha": 1e-3})]
    for steps in (
        (),
        (_SNV,),
        (_MSC,),
        (_LINEAR,),
        (_FIRST,),
        (_SECOND,),
        (_LINEAR, _FIRST),
        (_FIRST, _STANDARD),
        (_FIRST, _MIN_MAX),
    ):
        yield from (Variant((cut, *steps), model) for model in models)


def _classifiers() -> Iterator[Variant]:
    logistic = Operator("Logistic", LogisticRegression, {"max_iter": 2000})
    models = [
        ((_STANDARD,), logistic),
        ((_STANDARD, _PCA), logistic),
        ((_PCA,), Operator("Bayes", GaussianNB, {})),
        ((_PCA,), Operator("Neighbours 5", KNeighborsClassifier, {"n_neighbors": 5})),
        ((), Operator("Forest 50", RandomForestClassifier, {"n_estimators": 50, "random_state": SEED})),
    ]
    for steps in ((), (_SNV,), (_MSC,), (_FIRST,), (_FIRST, _SNV)):
        yield from (Variant((*steps, *last), model) for last, model in models)


# -- fitting -----------------------------------------------------------------------------------


def _splitter(dataset: Dataset, folds: int) -> Any:
    kind = StratifiedKFold if dataset.classes else KFold
    return kind(folds, shuffle=True, random_state=SEED)


def _fold_predictions(
    dataset: Dataset, models: list[Any], splits: list[tuple[Array, Array]], X: Array, X_test: Array
) -> Iterator[Prediction]:
    for fold, (model, (train, val)) in enumerate(zip(models, splits, strict=True)):
        for partition, rows in (("train", train), ("val", val)):
            yield _predict(model, str(fold), partition, X[rows], dataset.y_train[rows], dataset.train_rows[rows])
        yield _predict(model, str(fold), "test", X_test, dataset.y_test, dataset.test_rows)


def _predict(model: Any, fold: str, partition: str, X: Array, y: Array, rows: Array) -> Prediction:
    proba = model.predict_proba(X) if hasattr(model, "predict_proba") else None
    return Prediction(fold, partition, y, np.ravel(model.predict(X)), proba, rows)


def _out_of_fold(predictions: list[Prediction], dataset: Dataset) -> Prediction:
    """Each training row as predicted by the one model that did not see it, in the order of the rows."""
    parts = [prediction for prediction in predictions if prediction.partition == "val"]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    proba = (
        np.concatenate([part.y_proba for part in parts if part.y_proba is not None])[order] if dataset.classes else None
    )
    y_pred = np.concatenate([part.y_pred for part in parts])[order]
    return Prediction("avg", "val", np.concatenate([part.y_true for part in parts])[order], y_pred, proba, rows[order])


def _mean_of_folds(predictions: list[Prediction], dataset: Dataset) -> Prediction:
    parts = [prediction for prediction in predictions if prediction.partition == "test"]
    if not dataset.classes:
        return Prediction(
            "avg", "test", dataset.y_test, np.mean([part.y_pred for part in parts], axis=0), None, dataset.test_rows
        )
    proba = np.mean([part.y_proba for part in parts if part.y_proba is not None], axis=0)
    return Prediction("avg", "test", dataset.y_test, proba.argmax(axis=1), proba, dataset.test_rows)


# -- storing -----------------------------------------------------------------------------------


def _store_chain(store: WorkspaceStore, pipeline_id: str, variant: Variant, fitted: Fitted) -> str:
    steps: list[dict[str, Any]] = []
    shared: dict[str, str] = {}
    for index, (operator, transformer) in enumerate(
        zip(variant.transformers, fitted.transformers, strict=True), start=1
    ):
        shared[str(index)] = store.save_artifact(transformer, operator.path, "transformer", "joblib")
        steps.append(_step(index, operator, shared[str(index)]))
    model_index = len(steps) + 1
    steps.append(_step(model_index, variant.model, None))
    models = {
        f"fold_{fold}": store.save_artifact(model, variant.model.path, "model", "joblib")
        for fold, model in enumerate(fitted.models)
    }
    for step, duration in zip(steps, fitted.durations, strict=True):
        store.log_step(pipeline_id, step["step_idx"], step["operator_class"], "end", duration_ms=duration)
    return store.save_chain(
        pipeline_id, steps, model_index, variant.model.path, variant.preprocessings, "per_fold", models, shared
    )


def _step(index: int, operator: Operator, artifact_id: str | None) -> dict[str, Any]:
    return {
        "step_idx": index,
        "operator_class": operator.path,
        "params": operator.params,
        "artifact_id": artifact_id,
        "stateless": False,
    }


def _store_predictions(
    store: WorkspaceStore, pipeline_id: str, chain_id: str, dataset: Dataset, variant: Variant, fitted: Fitted
) -> dict[str, float]:
    """Store every prediction; the ranking scores of the fold "avg" by partition."""
    by_fold: dict[str, dict[str, dict[str, float]]] = {}
    for prediction in fitted.predictions:
        by_fold.setdefault(prediction.fold, {})[prediction.partition] = scores(dataset, prediction)
    metric = METRICS[dataset.task]
    for prediction in fitted.predictions:
        of_fold = by_fold[prediction.fold]
        val, test, train = (
            of_fold[name][metric] if name in of_fold else float("nan") for name in ("val", "test", "train")
        )
        prediction_id = store.save_prediction(
            pipeline_id,
            chain_id,
            dataset.name,
            variant.model.label,
            variant.model.path,
            prediction.fold,
            prediction.partition,
            val_score=val,
            test_score=test,
            train_score=train,
            metric=metric,
            task_type=dataset.task,
            n_samples=len(prediction.y_true),
            n_features=fitted.n_features,
            scores=of_fold,
            best_params=variant.model.params,
            branch_id=None,
            branch_name=None,
            exclusion_count=0,
            exclusion_rate=0.0,
            preprocessings=variant.preprocessings,
        )
        store.save_prediction_arrays(
            prediction_id, prediction.y_true, prediction.y_pred, prediction.y_proba, prediction.rows
        )
    return {partition: values[metric] for partition, values in by_fold["avg"].items()}


def _milliseconds_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
