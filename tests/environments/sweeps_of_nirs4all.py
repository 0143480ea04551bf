"""Run by a release of nirs4all, with whatever store it uses: sweeps_of_nirs4all.py WORKSPACE TARGET.npz ENGINE KIND ...

Each kind of sweep goes into a workspace of its own; what nirs4all then says of it, by names that do not depend
on ids, is written to the target: scores and arrays of every prediction, rankings, summaries, replays.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import sys
from pathlib import Path
from typing import Any

import nirs4all
import nirs4all.operators.filters as filters
import nirs4all.operators.transforms as transforms
import numpy as np
from nirs4all.data.predictions import Predictions
from nirs4all.pipeline.storage.workspace_store import WorkspaceStore
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import MinMaxScaler, StandardScaler

SAMPLES, TRAINED, REPLAYED = 72, 54, 3
FOLDS = KFold(3, shuffle=True, random_state=0)


class Broken(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A model that cannot be fitted."""

    def fit(self, X: Any, y: Any) -> Any:
        raise RuntimeError("this model breaks")

    def predict(self, X: Any) -> Any:
        return X[:, 0]


def spectra(columns: int = 40) -> tuple[Any, Any]:
    made = np.random.default_rng(5).normal(size=(SAMPLES, columns)).cumsum(axis=1)
    return made, made[:, 7] - 0.5 * made[:, 30]


def models(*sizes: int) -> dict[str, Any]:
    return {"_or_": [{"model": PLSRegression(size)} for size in sizes]}


def sweep(kind: str) -> tuple[list[Any], Any]:
    """The pipeline and the data set of a kind of sweep."""
    X, y = spectra()
    plain = (X, y, {"train": TRAINED})
    steps = {
        "cars": transforms.CARS(n_components=3, n_sampling_runs=5, random_state=0),
        "mcuve": transforms.MCUVE(n_components=3, random_state=0),
        "exclude": {"exclude": filters.YOutlierFilter(method="iqr")},
        "tag": {"tag": filters.YOutlierFilter(method="iqr")},
        "concat": {"concat_transform": [PCA(3), StandardScaler()]},
    }
    if kind in steps:
        return [steps[kind], FOLDS, PLSRegression(3)], plain
    if kind == "variants":
        scatters = {"_or_": [StandardScaler(), transforms.Detrend()]}
        return [MinMaxScaler(), scatters, FOLDS, models(1, 2, 3, 4, 5)], plain
    if kind == "labels":
        names = np.array(["barley", "maize", "wheat"])[np.digitize(y, np.quantile(y, [0.3, 0.6]))]
        return [StandardScaler(), StratifiedKFold(3), {"model": LogisticRegression(max_iter=50)}], (
            X,
            names,
            {"train": TRAINED},
        )
    if kind == "classes":
        codes = np.digitize(y, np.quantile(y, [0.5]))
        return [StandardScaler(), StratifiedKFold(3), {"model": LogisticRegression(max_iter=50)}], (
            X,
            codes,
            {"train": TRAINED},
        )
    if kind == "branches":
        return [FOLDS, {"branch": {"a": [StandardScaler()], "b": [MinMaxScaler()]}}, PLSRegression(2)], plain
    if kind == "merged":
        branched = {"branch": [[StandardScaler(), PLSRegression(2)], [MinMaxScaler(), Ridge(1.0)]]}
        return [FOLDS, branched, {"merge": "predictions"}, {"model": Ridge(0.5)}], plain
    if kind == "targets":
        return [StandardScaler(), FOLDS, {"model": PLSRegression(3)}], (X, np.column_stack([y, -y]), {"train": TRAINED})
    if kind == "failing":
        return [FOLDS, {"model": PLSRegression(2)}, {"model": Broken()}], plain
    raise ValueError(kind)


def run(kind: str, workspace: str, engine: str, **options: Any) -> str:
    """Run the sweep; the error that it ends with, or nothing."""
    pipeline, data = sweep(kind)
    known = inspect.signature(nirs4all.run).parameters
    chosen = {"engine": engine} if "engine" in known and engine else {}
    np.random.seed(0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            nirs4all.run(
                pipeline,
                data,
                verbose=0,
                workspace_path=workspace,
                save_charts=False,
                random_state=3,
                **chosen,
                **options,
            )
    except Exception as error:
        return type(error).__name__
    return ""


def arrays_of(store: Any, prediction_id: str) -> dict[str, Any]:
    if hasattr(store, "array_store"):
        return store.array_store.load_single(prediction_id) or {}
    return store.get_prediction_arrays(prediction_id) or {}


SCORES = ("val_score", "test_score", "train_score", "metric", "task_type", "n_samples", "n_features", "preprocessings")
RANKED = ("avg_val_score", "avg_test_score", "cv_val_score", "final_test_score")
SUMMARY = ("model_name", "metric", "dataset_name", "cv_val_score", "cv_test_score", "cv_fold_count", "final_test_score")


def told(kind: str, workspace: str, engine: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the release says of the workspace: plain values, and arrays by name."""
    arrays: dict[str, Any] = {}
    said: dict[str, Any] = {}
    with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
        names = dict(store.list_pipelines().select("pipeline_id", "name").iter_rows())
        rows = store.query_predictions().to_dicts()
        for row in rows:
            place = [
                names[row["pipeline_id"]],
                *(row[name] for name in ("model_name", "branch_id", "fold_id", "partition")),
            ]
            key = "/".join(map(str, [kind, *place, row["refit_context"]]))
            said[key] = [row[name] for name in SCORES] + [json.loads(row["scores"] or "{}")]
            for name, value in arrays_of(store, row["prediction_id"]).items():
                if isinstance(value, np.ndarray):
                    arrays[f"{key}/{name}"] = value
        said[f"{kind}: runs"] = store.list_runs().select("status").rows()
        said[f"{kind}: pipelines"] = sorted(
            store.list_pipelines().select("name", "status", "best_val", "metric").rows(), key=str
        )
        if hasattr(store, "array_store") and rows:
            summaries = store.query_chain_summaries().to_dicts()
            said[f"{kind}: summaries"] = sorted([[row[name] for name in SUMMARY] for row in summaries], key=str)
            for scope in ("cv", "all", "final"):
                ranked = store.query_top_aggregated_predictions(rows[0]["metric"], 50, score_scope=scope)
                shown = [name for name in RANKED if name in ranked.columns]
                scores = ranked.select(shown).rows() if len(ranked) else []
                said[f"{kind}: best by {scope}"] = sorted(scores, key=str)
        ranked = store.top_predictions(5)
        said[f"{kind}: best"] = [
            [names[row["pipeline_id"]], row["fold_id"], row["val_score"]] for row in ranked.to_dicts()
        ]
        chains = {
            names[pipeline] + f"/{place}": chain
            for pipeline in names
            for place, chain in enumerate(_chains(store, pipeline))
        }
        replayable = {key: chain for key, chain in chains.items() if _has_files(store, chain)}
    said[f"{kind}: chains"] = sorted(replayable)
    X = spectra()[0][TRAINED:]
    for key, chain in sorted(replayable.items())[:REPLAYED]:
        try:
            chosen = {"engine": engine} if engine else {}
            found = nirs4all.predict(chain_id=chain, data=X, workspace_path=workspace, verbose=0, **chosen).y_pred
            arrays[f"{kind}: replay of {key}"] = np.ravel(found)
        except Exception:
            said[f"{kind}: replay of {key}"] = "fails"
    if hasattr(Predictions, "from_workspace") and rows and kind != "failing":
        best = Predictions.from_workspace(workspace).top(3)
        said[f"{kind}: top"] = [[row["model_name"], row["fold_id"], row.get("val_score")] for row in best]
    return said, arrays


def _chains(store: Any, pipeline: str) -> list[str]:
    found = store.get_chains_for_pipeline(pipeline)
    return list(found["chain_id"]) if len(found) else []


def _has_files(store: Any, chain_id: str) -> bool:
    """Whether every model of a chain is there: nirs4all 1.x writes those of the best variants only."""
    folds = (store.get_chain(chain_id) or {}).get("fold_artifacts") or {}
    try:
        return bool(folds) and all(store.get_artifact_path(artifact).exists() for artifact in folds.values())
    except KeyError:
        return False


def main(workspace: str, target: str, engine: str, *kinds: str) -> None:
    said: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for kind in kinds:
        folder = f"{workspace}/{kind}"
        said[f"{kind}: ends with"] = run(kind, folder, engine)
        more, found = told(kind, folder, engine)
        said.update(more)
        arrays.update(found)
    said["store"] = WorkspaceStore.__module__
    np.savez(target, told=json.dumps(said, default=str), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
