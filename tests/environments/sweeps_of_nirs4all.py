"""Run by a release of nirs4all, with whatever store it uses: sweeps_of_nirs4all.py WORKSPACE TARGET.npz ENGINE KIND ...

Each kind of sweep goes into a workspace of its own; what nirs4all then says of it, by names that do not depend
on ids, is written to the target: scores and arrays of every prediction, rankings, summaries, replays.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
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
RUNNER = {"verbose": 0, "save_charts": False, "random_state": 3}
FOLDS = KFold(3, shuffle=True, random_state=0)


class Deadly(PLSRegression):  # type: ignore[misc]
    """A model whose third size ends the process, as a kill does."""

    def fit(self, X: Any, y: Any) -> Any:
        if self.n_components == 3:
            os._exit(9)
        return super().fit(X, y)


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
    if kind in VARIANTS:
        scatters = [
            StandardScaler(),
            transforms.Detrend(),
            transforms.StandardNormalVariate(),
            transforms.FirstDerivative(),
        ]
        count, sizes = VARIANTS[kind]
        return [MinMaxScaler(), {"_or_": scatters[:count]}, FOLDS, models(*range(1, sizes + 1))], plain
    if kind in OF_DATA:
        return [FOLDS, PLSRegression(2)], OF_DATA[kind](X, y)
    if kind == "resampler":
        grid = transforms.Resampler(target_wavelengths=np.linspace(9700.0, 9950.0, 20))
        return [grid, FOLDS, PLSRegression(3)], _with_wavelengths(X, y)
    if kind == "transfer":
        return [{"auto_transfer_preproc": {"preset": "fast"}}, FOLDS, PLSRegression(2)], plain
    if kind == "boosters":
        return [StandardScaler(), FOLDS, {"_or_": [{"model": model} for model in _boosters()]}], plain
    if kind == "killed":
        return [FOLDS, {"_or_": [{"model": Deadly(size)} for size in (1, 2, 3, 4)]}], plain
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


def _sources(X: Any, y: Any) -> dict[str, Any]:
    both = [X, X[:, :20] ** 2]
    parts = {f"{part}_x": [source[rows] for source in both] for part, rows in PARTS.items()}
    return {**parts, **{f"{part}_y": y[rows] for part, rows in PARTS.items()}}


def _two_sources(X: Any, y: Any) -> Any:
    """Sources as every release takes them."""
    from nirs4all.data.dataset import SpectroDataset

    data = SpectroDataset("corn")
    for part, rows in PARTS.items():
        data.add_samples([X[rows], X[rows, :20] ** 2], {"partition": part})
        data.add_targets(y[rows])
    return data


def _repetitions(X: Any, y: Any) -> dict[str, Any]:
    import pandas

    parts = {f"{part}_x": X[rows] for part, rows in PARTS.items()} | {
        f"{part}_y": y[rows] for part, rows in PARTS.items()
    }
    samples = np.arange(SAMPLES) // 3
    groups = {f"{part}_group": pandas.DataFrame({"sample": samples[rows]}) for part, rows in PARTS.items()}
    return {**parts, **groups, "repetition": "sample"}


def _with_wavelengths(X: Any, y: Any) -> Any:
    from nirs4all.data.dataset import SpectroDataset

    data = SpectroDataset("corn")
    for part, rows in PARTS.items():
        wavelengths = [str(1000.0 + place) for place in range(X.shape[1])]
        data.add_samples(X[rows], {"partition": part}, headers=wavelengths, header_unit="nm")
        data.add_targets(y[rows])
    return data


def _boosters() -> list[Any]:
    import catboost
    import lightgbm
    import xgboost

    return [
        lightgbm.LGBMRegressor(n_estimators=8, verbose=-1, n_jobs=1, min_child_samples=4, random_state=0),
        xgboost.XGBRegressor(n_estimators=8, n_jobs=1, random_state=0),
        catboost.CatBoostRegressor(iterations=8, verbose=0, thread_count=1, allow_writing_files=False, random_seed=0),
    ]


PARTS = {"train": slice(TRAINED), "test": slice(TRAINED, SAMPLES)}
VARIANTS = {
    "variants": (2, 5),
    "twenty": (4, 5),
    "hundred": (4, 25),
    "jobs": (2, 2),
    "rerun": (1, 2),
    "norefit": (1, 2),
}
VARIANTS |= {"project": (1, 2), "session": (1, 2), "united": (1, 2)}
OF_DATA = {"sources": _sources, "two": _two_sources, "repetitions": _repetitions}
OPTIONS: dict[str, dict[str, Any]] = {
    "jobs": {"n_jobs": 2},
    "norefit": {"refit": False},
    "project": {"project": "grain"},
}


def run_all(kind: str, workspace: str, engine: str) -> str:
    """Run what a kind of sweep consists of; the error that it ends with, or nothing."""
    if kind == "rerun":
        return "".join(run(kind, workspace, engine, name=name) for name in ("first", "second"))
    if kind == "session":
        with nirs4all.session(verbose=0, workspace_path=workspace, save_charts=False, random_state=3) as session:
            return "".join(run(kind, workspace, engine, name=name, session=session) for name in ("first", "second"))
    if kind == "united":
        sources = [f"{workspace} of {part}" for part in ("variants", "norefit")]
        for source, part in zip(sources, ("variants", "norefit"), strict=True):
            run(part, source, engine)
        Predictions.merge_stores(sources, workspace)
        return ""
    if kind == "killed":
        command = [sys.executable, "-W", "ignore", __file__, workspace, "", engine, "killed itself"]
        return str(subprocess.run(command, check=False).returncode)
    return run(kind, workspace, engine, **OPTIONS.get(kind, {}))


def run(kind: str, workspace: str, engine: str, **options: Any) -> str:
    """Run one sweep; the error that it ends with, or nothing."""
    pipeline, data = sweep(kind)
    known = inspect.signature(nirs4all.run).parameters
    chosen = {"engine": engine} if "engine" in known and engine else {}
    np.random.seed(0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            nirs4all.run(
                pipeline,
                data,
                **({} if "session" in options else RUNNER | {"workspace_path": workspace}),
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
        runs = dict(store.list_runs().select("run_id", "name").iter_rows())
        listed = store.list_pipelines().select("pipeline_id", "run_id", "name").rows()
        names = {pipeline: f"{runs[run]}: {name}" if len(runs) > 1 else name for pipeline, run, name in listed}
        rows = store.query_predictions().to_dicts()
        for row in rows:
            place = [
                names[row["pipeline_id"]],
                *(row[name] for name in ("model_name", "branch_id", "fold_id", "partition")),
            ]
            key = "/".join(map(str, [kind, *place, row["refit_context"]]))
            assert key not in said, key
            said[key] = [row[name] for name in SCORES] + [json.loads(row["scores"] or "{}")]
            for name, value in arrays_of(store, row["prediction_id"]).items():
                if isinstance(value, np.ndarray):
                    arrays[f"{key}/{name}"] = value
        said[f"{kind}: runs"] = store.list_runs().select("status").rows()
        pipelines = store.list_pipelines().select("name", "status", "best_val", "metric").rows()
        ended = [each for each in pipelines if each[1] != "running"]  # which a kill leaves is for each store to decide
        said[f"{kind}: pipelines"] = sorted(ended, key=str)
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
            [row["val_score"]] if len(runs) > 1 else [names[row["pipeline_id"]], row["fold_id"], row["val_score"]]
            for row in ranked.to_dicts()  # runs of one sweep have equal scores
        ]
        chains = {
            names[pipeline] + f"/{place}": chain
            for pipeline in names
            for place, chain in enumerate(_chains(store, pipeline))
        }
        replayable = {key: chain for key, chain in chains.items() if _has_files(store, chain)}
    said[f"{kind}: chains"] = sorted(replayable)
    X = spectra()[0][TRAINED:]
    if kind in ("sources", "two"):  # a chain takes them side by side
        X = np.hstack([X, X[:, :20] ** 2])
    for key, chain in sorted(replayable.items())[:REPLAYED]:
        try:
            chosen = {"engine": engine} if engine else {}
            found = nirs4all.predict(chain_id=chain, data=X, workspace_path=workspace, verbose=0, **chosen).y_pred
            arrays[f"{kind}: replay of {key}"] = np.ravel(found)
        except Exception:
            said[f"{kind}: replay of {key}"] = "fails"
    if hasattr(Predictions, "from_workspace") and rows and kind != "failing":
        loaded = Predictions.from_workspace(workspace)
        if len(runs) == 1:
            best = loaded.top(3)
            # both averages have one score, that of all validated samples: first is which was saved in a later second
            folds = [row["fold_id"].removeprefix("w_") for row in best]
            said[f"{kind}: top"] = [
                [row["model_name"], fold, row.get("val_score")] for row, fold in zip(best, folds, strict=True)
            ]
        said[f"{kind}: in memory"] = sorted(map(_plain, getattr(loaded, "_buffer", [])), key=_place)
    return said, arrays


OWN = {"id", "pipeline_uid", "pipeline_id", "prediction_id", "chain_id", "created_at", "sample_indices"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row in memory without its ids and its time; of arrays, their kind and shape."""
    shapes = {name: f"{value.dtype.kind} {value.shape}" for name, value in row.items() if isinstance(value, np.ndarray)}
    shapes["metadata"] = sorted(row["metadata"])  # whose ids follow from the hashes that are installed
    return {name: _without_ids(value) for name, value in (row | shapes).items() if name not in OWN}


def _without_ids(value: Any) -> Any:
    """What is told of a result without the predictions that it names: nirs4all draws their ids."""
    if isinstance(value, dict):
        return {name: _without_ids(item) for name, item in value.items() if name != "source_prediction_id"}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


def _place(row: dict[str, Any]) -> str:
    names = ("config_name", "model_name", "branch_id", "fold_id", "partition", "refit_context")
    return str([row[name] for name in names])


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
    if kinds == ("killed itself",):
        run("killed", workspace, engine)
    said: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for kind in kinds:
        folder = f"{workspace}/{kind}"
        said[f"{kind}: ends with"] = run_all(kind, folder, engine)
        assert kind != kinds[0] or "sqlglot" not in sys.modules  # a sweep sends only what is translated beforehand
        more, found = told(kind, folder, engine)
        said.update(more)
        arrays.update(found)
    with contextlib.suppress(ImportError):
        from nirs4all.pipeline.storage.store_protocol import WorkspaceStoreProtocol

        with contextlib.closing(WorkspaceStore(Path(f"{workspace}/{kinds[0]}"))) as store:
            said["follows the protocol"] = isinstance(store, WorkspaceStoreProtocol)
    said["store"] = WorkspaceStore.__module__
    said["unites stores"] = hasattr(Predictions, "merge_stores")
    np.savez(target, told=json.dumps(said, default=str), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
