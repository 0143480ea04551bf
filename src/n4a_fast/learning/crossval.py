"""`save_cross_validation`: scikit-learn's own cross-validation, kept as a run, a pipeline, a chain and its predictions.

Everything is fitted and scored before the first row is written, and all rows are one transaction: a kill at any
moment leaves the whole cross-validation, or nothing of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from n4a_fast.learning.records import Store, Target, described, json_params, parts_of, save_estimators, target_of
from n4a_fast.learning.scoring import Scorer, scorers
from n4a_fast.values import checks

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Data:
    """What a cross-validation is about: spectra, target, and what is known of them."""

    X: Any
    y: Any
    groups: Any
    X_test: Any
    y_test: Any
    dataset: str
    wavelengths: Any
    target: str | None
    unit: str | None

    def __post_init__(self) -> None:
        for name in ("X", "y", "groups", "X_test", "y_test"):
            checks.no_text(getattr(self, name), name)


@dataclass(frozen=True, slots=True)
class Validated:
    """A finished cross-validation: fold models, their rows and scores by scorer, a refit, seconds."""

    estimators: list[Any]
    train: list[Any]
    val: list[Any]
    scores: list[dict[str, dict[str, float]]]
    final: Any
    final_scores: dict[str, dict[str, float]]
    milliseconds: list[int]


def save_cross_validation(
    store: Store,
    estimator: Any,
    data: Data,
    *,
    cv: Any,
    scoring: Any,
    refit: bool,
    run: str | None,
    name: str | None,
    n_jobs: int | None,
) -> str:
    """Cross-validate and store; the id of the chain."""
    from sklearn.base import is_classifier
    from sklearn.model_selection import check_cv

    checks.flag(refit, "refit")
    classifies = is_classifier(estimator)
    used = scorers(scoring, classifies)
    splits = check_cv(cv, data.y, classifier=classifies)
    began = time.perf_counter()
    done = _validated(estimator, data, splits, used, refit, n_jobs)
    target = target_of(data.y, classifies)
    facts = {"n_features": np.shape(data.X)[1], "wavelengths": data.wavelengths, "classes": target.classes or None}
    facts |= {"targets": [data.target] if data.target else None, "target_unit": data.unit}
    before, model = parts_of(estimator)
    title = name or " > ".join(part for part in (before, model) if part)
    with store.transaction():
        for scorer in used:
            if store.metric_direction(scorer.name) is None:
                store.set_metric_direction(scorer.name, scorer.higher_is_better)
        run_id = run or store.begin_run(title, {"cv": repr(splits)}, [_dataset(data, target)])
        config = described(estimator, cv=repr(splits))
        pipeline = store.begin_pipeline(run_id, title, config, [], data.dataset, "")
        folds = {f"fold_{fold}": each for fold, each in enumerate(done.estimators)}
        fitted = folds if done.final is None else {**folds, "fold_final": done.final}
        chain = save_estimators(
            store, pipeline, estimator, fitted, facts, json_params(estimator.get_params(deep=False))
        )
        _Saving(store, pipeline, chain, data, target, used[0].name, model, classifies).all(done)
        means = [_mean(done.scores, partition, used[0].name) for partition in ("val", "test")]
        store.complete_pipeline(pipeline, *means, used[0].name, round((time.perf_counter() - began) * 1000))
        if run is None:
            store.complete_run(run_id, {"metric": used[0].name, "best_val": means[0]})
    return chain


def _validated(
    estimator: Any, data: Data, splits: Any, used: list[Scorer], refit: bool, n_jobs: int | None
) -> Validated:
    from sklearn.base import clone
    from sklearn.model_selection import cross_validate

    found = cross_validate(
        estimator,
        data.X,
        data.y,
        groups=data.groups,
        cv=splits,
        scoring={scorer.name: scorer.call for scorer in used},
        return_estimator=True,
        return_indices=True,
        return_train_score=True,
        error_score="raise",
        n_jobs=n_jobs,
    )
    estimators = list(found["estimator"])
    scores = [
        {
            "train": {scorer.name: float(scorer.sign * found[f"train_{scorer.name}"][fold]) for scorer in used},
            "val": {scorer.name: float(scorer.sign * found[f"test_{scorer.name}"][fold]) for scorer in used},
            **_test_scores(each, data, used),
        }
        for fold, each in enumerate(estimators)
    ]
    final = clone(estimator).fit(data.X, data.y) if refit else None
    final_scores = _test_scores(final, data, used) if refit else {}
    times = [round(1000 * seconds) for seconds in found["fit_time"]]
    indices = found["indices"]
    return Validated(estimators, list(indices["train"]), list(indices["test"]), scores, final, final_scores, times)


def _test_scores(estimator: Any, data: Data, used: list[Scorer]) -> dict[str, dict[str, float]]:
    if data.X_test is None or data.y_test is None:
        return {}
    return {
        "test": {scorer.name: float(scorer.sign * scorer.call(estimator, data.X_test, data.y_test)) for scorer in used}
    }


def _dataset(data: Data, target: Target) -> dict[str, Any]:
    found = {"name": data.dataset, "n_samples": len(target.values), "n_features": int(np.shape(data.X)[1])}
    if target.classes:
        found["classes"] = [str(each) for each in target.classes]
    return {**found, **{key: value for key, value in (("target", data.target), ("unit", data.unit)) if value}}


def _mean(scores: list[dict[str, dict[str, float]]], partition: str, metric: str) -> float:
    values = [fold[partition][metric] for fold in scores if partition in fold]
    return float(np.mean(values)) if values else NAN


@dataclass(frozen=True, slots=True)
class _Saving:
    """Where the predictions of a cross-validation go."""

    store: Store
    pipeline: str
    chain: str
    data: Data
    target: Target
    metric: str
    model: str
    classifies: bool

    def all(self, done: Validated) -> None:
        """Predictions and logs of every fold, and of the refit."""
        for fold, estimator in enumerate(done.estimators):
            for partition, rows in (("train", done.train[fold]), ("val", done.val[fold])):
                self._one(estimator, str(fold), partition, rows, done.scores[fold], None)
            self._test(estimator, str(fold), done.scores[fold], None)
            kind, took = type(estimator).__name__, done.milliseconds[fold]
            self.store.log_step(self.pipeline, 1, kind, "end", duration_ms=took, message=f"fold {fold} fitted")
        if done.final is not None:
            self._one(done.final, "final", "train", np.arange(len(self.target.values)), done.final_scores, "standalone")
            self._test(done.final, "final", done.final_scores, "standalone")

    def _test(self, estimator: Any, fold: str, scores: dict[str, dict[str, float]], refit: str | None) -> None:
        if self.data.X_test is not None and self.data.y_test is not None:
            self._save(estimator, fold, "test", self.data.X_test, self.data.y_test, None, scores, refit)

    def _one(
        self,
        estimator: Any,
        fold: str,
        partition: str,
        rows: Any,
        scores: dict[str, dict[str, float]],
        refit: str | None,
    ) -> None:
        from sklearn.utils import _safe_indexing

        X = _safe_indexing(self.data.X, rows)
        self._save(estimator, fold, partition, X, self.target.values[rows], rows, scores, refit)

    def _save(
        self,
        estimator: Any,
        fold: str,
        partition: str,
        X: Any,
        y: Any,
        rows: Any,
        scores: dict[str, dict[str, float]],
        refit: str | None,
    ) -> None:
        val, test, train = (scores.get(name, {}).get(self.metric, NAN) for name in ("val", "test", "train"))
        before = parts_of(estimator)[0]
        prediction = self.store.save_prediction(
            self.pipeline,
            self.chain,
            self.data.dataset,
            self.model,
            type(estimator).__module__ + "." + type(estimator).__qualname__,
            fold,
            partition,
            val_score=val,
            test_score=test,
            train_score=train,
            metric=self.metric,
            task_type="classification" if self.classifies else "regression",
            n_samples=int(np.shape(X)[0]),
            n_features=int(np.shape(X)[1]),
            scores=scores,
            best_params={},
            branch_id=None,
            branch_name=None,
            exclusion_count=0,
            exclusion_rate=0.0,
            preprocessings=before,
            refit_context=refit,
        )
        proba = estimator.predict_proba(X) if self.classifies and hasattr(estimator, "predict_proba") else None
        y_true, y_pred = self.target.saved(y), self.target.saved(estimator.predict(X))
        classes = self.target.classes if self.target.is_text else None
        self.store.save_prediction_arrays(prediction, y_true, y_pred, proba, rows, classes=classes)
