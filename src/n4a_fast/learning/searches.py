"""`save_search`: a fitted search of scikit-learn, a pipeline for each candidate with the scores of its folds.

scikit-learn keeps no fold models of a search, so candidates have scores only; the refitted best one can predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from n4a_fast.errors import InvalidInputError
from n4a_fast.learning.records import Store, class_name, described, json_params, parts_of, save_estimators
from n4a_fast.learning.scoring import stored_name

_COLUMNS = ("pipeline_id", "chain_id", "fold_id", "val_score", "best_params", "preprocessings", "model_name")


def save_search(store: Store, search: Any, *, dataset: str, run: str | None, name: str | None) -> str:
    """Store a fitted search; the id of its run."""
    if not hasattr(search, "cv_results_"):
        raise InvalidInputError(f"{type(search).__name__} is not fitted; call fit(X, y) first")
    scored_by, key = _scorer_of(search)
    metric, sign = stored_name(scored_by)
    title = name or f"{type(search).__name__} of {parts_of(search.estimator)[1]}"
    with store.transaction():
        if store.metric_direction(metric) is None:
            store.set_metric_direction(metric, sign > 0)
        run_id = run or store.begin_run(title, {"search": repr(search)}, [{"name": dataset}])
        rows = []
        for place, params in enumerate(search.cv_results_["params"]):
            values = [float(sign * each) for each in _of_folds(search, key, place)]
            pipeline, chain, estimator = _candidate(store, run_id, search, place, dataset)
            parts = parts_of(estimator)
            rows += [(pipeline, chain, str(n), value, json_params(params), *parts) for n, value in enumerate(values)]
            store.complete_pipeline(pipeline, float(np.mean(values)), float("nan"), metric, 0)
        _save_rows(store, search, rows, dataset, metric)
        if run is None:
            store.complete_run(run_id, {"metric": metric, "candidates": len(search.cv_results_["params"])})
    return str(run_id)


def _scorer_of(search: Any) -> tuple[str, str]:
    """The name of the scorer that chose the best candidate, and its key among the results."""
    if search.multimetric_:
        chosen = search.refit if isinstance(search.refit, str) else next(iter(search.scorer_))
        return chosen, chosen
    return (search.scoring if isinstance(search.scoring, str) else "score"), "score"


def _of_folds(search: Any, key: str, place: int) -> Iterator[float]:
    return (search.cv_results_[f"split{fold}_test_{key}"][place] for fold in range(search.n_splits_))


def _candidate(store: Store, run_id: str, search: Any, place: int, dataset: str) -> tuple[str, str, Any]:
    """A pipeline and its chain for one candidate; the best one's has the refitted model."""
    from sklearn.base import clone

    params = search.cv_results_["params"][place]
    estimator = clone(search.estimator).set_params(**params)
    told = ", ".join(f"{name}={value}" for name, value in params.items()) or "default"
    pipeline = store.begin_pipeline(run_id, told, described(estimator), [json_params(params)], dataset, "")
    best = hasattr(search, "best_estimator_") and place == search.best_index_
    fitted = {"fold_final": search.best_estimator_} if best else {}
    width = getattr(search, "n_features_in_", None) if best else None
    return (
        pipeline,
        save_estimators(store, pipeline, estimator, fitted, {"n_features": width}, json_params(params)),
        estimator,
    )


def _save_rows(store: Store, search: Any, rows: list[tuple[Any, ...]], dataset: str, metric: str) -> None:
    from sklearn.base import is_classifier

    columns = dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    fixed = {"dataset_name": dataset, "model_class": class_name(search.estimator), "partition": "val", "metric": metric}
    task = "classification" if is_classifier(search.estimator) else "regression"
    store.save_predictions({**fixed, "task_type": task, **columns})
