"""Run by nirs4all 1.4.10, with whatever store it uses: readers_of_nirs4all.py WORKSPACE TARGET.json ENGINE

What reads a workspace past the store's own calls: the catalogue of models, exports, the inspector's views, the
studio's lineage, the registry of artifacts, the command line; and predicting from a chain, explaining and retraining.
All of it is written to the target by names that do not depend on ids.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
import polars as pl
from nirs4all.api.inspector_views import read_inspector_view
from nirs4all.api.studio_lineage import record_studio_run_provenance, recover_studio_job_lineage
from nirs4all.cli.main import main as command_line
from nirs4all.pipeline.config.component_serialization import serialize_component
from nirs4all.pipeline.storage.artifacts.artifact_registry import ArtifactRegistry
from nirs4all.pipeline.storage.model_catalogue import read_model_catalogue
from nirs4all.pipeline.storage.prediction_export import export_prediction_arrays
from nirs4all.pipeline.storage.workspace_store import WorkspaceStore
from nirs4all.workspace.compat import inspect_workspace_format
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

SCORES = ("model_name", "metric", "dataset_name", "cv_val_score", "cv_test_score", "cv_fold_count", "final_test_score")
COMMANDS = (["list-runs"], ["stats"], ["query-best", "-n", "3"], ["filter", "--test-score", "0"])


def spectra() -> tuple[Any, Any]:
    made = np.random.default_rng(5).normal(size=(48, 12)).cumsum(axis=1)
    return made, made[:, 3] - 0.5 * made[:, 9]


def steps() -> list[Any]:
    sizes = [{"model": PLSRegression(size)} for size in (1, 2)]
    return [StandardScaler(), KFold(3, shuffle=True, random_state=0), {"_or_": sizes}]


def catalogue(workspace: str) -> Any:
    """Scores of each model, and which artifacts its chain has."""
    entries = read_model_catalogue(workspace)
    told = [[*(each["summary"][name] for name in SCORES), sorted(each["chain"]["fold_artifacts"])] for each in entries]
    return sorted(told, key=str)


def exported(workspace: str) -> Any:
    """What the file that is exported holds: rows and sums of their arrays."""
    found = export_prediction_arrays(workspace, {"format": "parquet", "partition": "val"})
    (data,) = (value for value in found.values() if len(value) > 1000)
    frame = pl.read_parquet(io.BytesIO(base64.b64decode(data)))
    shown = frame.select("model_name", "fold_id", pl.col("y_true").list.sum(), pl.col("y_pred").list.sum())
    return sorted(shown.rows(), key=str)


def views(workspace: str, chains: list[str]) -> Any:
    """Numbers of the inspector's views; chains by their place in the ranking."""
    asked: dict[str, Any] = {
        "data": {},
        "rankings": {},
        "histogram": {},
        "scatter": {"chain_ids": chains},
        "fold-stability": {"chain_ids": chains},
        "preprocessing-impact": {},
    }
    return {name: numbers(read_inspector_view(f"inspector.{name}", workspace, asked[name])) for name in asked}


def numbers(value: Any) -> Any:
    """All numbers in an answer but how long something took, sorted: its order and its texts may follow ids."""
    if isinstance(value, dict):
        lasting = (item for name, item in value.items() if "duration" not in name)
        return sorted(number for item in lasting for number in numbers(item))
    if isinstance(value, list):
        return sorted(number for item in value for number in numbers(item))
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def studio(workspace: str) -> Any:
    """What the studio is told of each run: which fields, and how many pipelines and predictions."""
    with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
        runs = store.list_runs()["run_id"].to_list()
    asked = (WorkspaceStore.get_studio_run_detail_v1, WorkspaceStore.get_studio_run_detail_runtime_v1)
    found = [ask(workspace, run) for run in runs for ask in asked]
    return [[sorted(detail), numbers(detail)] for detail in found]


def lineage(workspace: str) -> Any:
    """How many runs a job of the studio is found to have made, and what is attached to them."""
    X, y = spectra()
    data = {"dataset_id": "corn", "config": {"train_x": X[:36], "train_y": y[:36], "test_x": X[36:], "test_y": y[36:]}}
    begun, ended = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    dated = {"started_at": begun.isoformat(), "completed_at": ended.isoformat()}
    given = {"pipeline": serialize_component(steps()), "datasets": [data], "run_name": "sweep", **dated}
    recovered = recover_studio_job_lineage(workspace, **given)
    with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
        (made,) = (store.get_run(run) or {} for run in recovered["run_ids"])
    hashes = {each["hash"]: "corn" for each in made["datasets"]}  # which hash it is follows from what is installed
    resolved = record_studio_run_provenance(
        workspace, recovered["run_ids"], {"job_id": "job", "dataset_ids_by_hash": hashes}
    )
    with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
        runs = [store.get_run(run) or {} for run in store.list_runs()["run_id"]]
    attached = [
        [run["config"]["studio_provenance"]["job_id"], [each["linked_dataset_id"] for each in run["datasets"]]]
        for run in runs
    ]
    return [sorted(recovered["dataset_run_ids"].values()), sorted(resolved.values()), attached]


def registered(workspace: str) -> Any:
    """How many files the registry protects, and which it would delete."""
    registry = ArtifactRegistry(Path(workspace), "dataset")
    return [len(registry._scan_all_manifest_references()), *registry.delete_orphaned_artifacts(dry_run=True)]


def commands(workspace: str) -> Any:
    """Which of nirs4all's commands end well."""
    ended = []
    for command in COMMANDS:
        sys.argv = ["nirs4all", "workspace", command[0], "--workspace", workspace, *command[1:]]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                ended.append([command[0], command_line() or 0])
        except SystemExit as error:
            ended.append([command[0], error.code or 0])
    return ended


def models(workspace: str, result: Any, engine: dict[str, Any]) -> Any:
    """What the best model predicts, what is told of all chains once that is kept, how it is explained, and its score
    after a training on other spectra.
    """
    X, y = spectra()
    kept = {"workspace_path": workspace, "save_to_workspace": True, "verbose": 0, **engine}
    predicted = nirs4all.predict(chain_id=result.best["chain_id"], data=X[:6], **kept).y_pred
    with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
        summaries = sorted(store.query_chain_summaries().select(SCORES).rows(), key=str)
    again = nirs4all.retrain(result.best, (X[::-1], y[::-1], {"train": 36}), verbose=0, **engine)
    told = {
        "predicted": np.ravel(predicted).tolist(),
        "summaries": summaries,
        "retrained": float(again.best["val_score"]),
    }
    if find_spec("shap") is not None:
        np.random.seed(0)
        found = nirs4all.explain(result.best, X[:12], verbose=0, plots_visible=False, n_samples=12, **engine)
        told["explained"] = np.abs(np.asarray(found.values)).mean(axis=0).ravel().tolist()
    return told


def main(workspace: str, target: str, name: str = "") -> None:
    X, y = spectra()
    engine = {"engine": name} if name else {}
    options: dict[str, Any] = {"verbose": 0, "save_charts": False, "random_state": 3, **engine}
    with contextlib.redirect_stdout(io.StringIO()):
        result = nirs4all.run(steps(), (X, y, {"train": 36}), name="sweep", workspace_path=workspace, **options)
        with contextlib.closing(WorkspaceStore(Path(workspace))) as store:
            chains = store.query_top_chains(metric="rmse", n=5)["chain_id"].to_list()
        told = {
            "store": f"{WorkspaceStore.__module__}",
            "format": inspect_workspace_format(workspace).format,
            "catalogue": catalogue(workspace),
            "exported": exported(workspace),
            "views": views(workspace, chains),
            "studio": studio(workspace),
            "lineage": lineage(workspace),
            "registered": registered(workspace),
            "commands": commands(workspace),
            "models": models(workspace, result, engine),
        }
    Path(target).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
