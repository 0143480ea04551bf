"""Every argument of every public call, with values of every other kind: taken, or refused by an error of this package
before anything is written.

Arguments that scikit-learn looks at are told by its own errors.
"""

from __future__ import annotations

import datetime
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import _GeneratorContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import PREDICTION, SHARE, begin_pipeline, begin_sweep, predict_with_arrays
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from n4a_fast import PipelineLibrary, WorkspaceStore
from n4a_fast.errors import StoreError

WRONG: list[Any] = [
    None, 5, -1, 2.5, float("nan"), True, "text", "", b"bytes", [], ["a"], [None], [[1]], {}, {"a": 1}, {1, 2},
    np.zeros(3), np.zeros((2, 2)), np.array(["a", "b"]), np.float64(3), object(), 2**70, "\ud800", "a\0b",
    datetime.datetime(2026, 1, 1), iter("ab"), pl.Series([1]), pl.DataFrame({"a": [1]}), Path("rel"), 1j, range(3),
]  # fmt: skip
STRIDE = max(1, round(3 / SHARE))  # each argument is given every so many of these values; `make thorough` gives all
OF_SKLEARN = ("estimator", "X", "y", "cv", "scoring", "groups", "X_test", "y_test", "n_jobs")
X = np.random.default_rng(0).normal(size=(12, 4))
Y = X @ [1.0, 2.0, 3.0, 4.0] + 1
SEARCH = GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2).fit(X, Y)
P = {**PREDICTION, "preprocessings": "", "prediction_id": None, "refit_context": None}
F = dict.fromkeys(("run_id", "pipeline_id", "chain_id", "dataset_name", "model_class", "metric"))
STEP = {"step_idx": 1, "operator_class": "SNV", "params": {}, "artifact_id": None, "stateless": True}
TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "logs", "artifacts", "projects")


class Place:
    """A store with something of each kind."""

    def __init__(self, root: Path) -> None:
        self.root, self._names = root, itertools.count()
        self.store = store = WorkspaceStore(root / "w", flush_interval=None)
        self.sweep = begin_sweep(store)
        self.chain = store.save_cross_validation(Ridge(), X, Y, cv=2, name="cv").chain_id
        self.prediction = predict_with_arrays(store, self.sweep)
        self.artifact = store.save_artifact({"a": 1}, "dict", "model", "joblib")
        self.project = store.create_project("proj")
        self.bundle = store.export_chain(self.chain, root / "c.n4a")
        store.backup(root / "bk")
        with WorkspaceStore(root / "other") as other:
            begin_sweep(other)
        self.library = PipelineLibrary(root / "w", store)
        self.library.save_template({"a": 1}, "tpl")
        self.library.export_template("tpl", root / "tplx")
        (root / "w/artifacts/ab").mkdir(exist_ok=True)
        (root / "w/artifacts/ab/c.joblib").write_bytes(b"x")

    def name(self) -> str:
        return f"n{next(self._names)}"

    def fresh(self, suffix: str = "") -> Path:
        return self.root / (self.name() + suffix)


STORE: dict[str, Callable[[Place], dict[str, Any]]] = {
    "__init__": lambda p: {
        "workspace_path": p.root / "other",
        "lock_timeout": 3.0,
        "flush_rows": 10,
        "flush_bytes": 10**6,
        "flush_interval": None,
        "trusted": "workspace",
        "compression": None,
        "object_cache_bytes": 10**6,
        "memory_limit": None,
    },
    "open_readonly": lambda p: {
        "workspace_path": p.root / "other",
        "lock_timeout": 3.0,
        "trusted": "workspace",
        "object_cache_bytes": 10**6,
        "memory_limit": None,
    },
    "restore": lambda p: {"backup": p.root / "bk", "to": p.fresh(), "replace": False, "progress": None},
    "sql": lambda p: {"query": "SELECT 1", "params": ()},
    "leaderboard": lambda p: {
        "metric": None,
        "dataset": None,
        "run": None,
        "by": None,
        "n": 20,
        "score": "val",
        "where": None,
        "include_running": False,
        "higher_is_better": None,
        "all_scores": False,
    },
    "set_metric_direction": lambda p: {"metric": "crunch", "higher_is_better": True},
    "metric_direction": lambda p: {"metric": "rmse"},
    "find": lambda p: {"text": "@last", "kind": "run"},
    "run": lambda p: {"text": "@last"},
    "runs": lambda p: {"status": None, "dataset": None, "limit": 10},
    "chain": lambda p: {"text": "@last"},
    "progress": lambda p: {"run_id": None, "wait": None},
    "undrained": lambda p: {"wait": None},
    "save_cross_validation": lambda p: {
        "estimator": Ridge(),
        "X": X,
        "y": Y,
        "cv": 2,
        "scoring": None,
        "groups": None,
        "X_test": None,
        "y_test": None,
        "refit": True,
        "run": None,
        "name": None,
        "dataset": "data",
        "wavelengths": None,
        "target": None,
        "unit": None,
        "n_jobs": None,
    },
    "save_search": lambda p: {"search": SEARCH, "dataset": "data", "run": None, "name": None},
    "estimator": lambda p: {"chain": p.chain},
    "plot": lambda p: {"kind": "scatter", "identifier": p.chain, "dataset": None, "metric": None, "run": None},
    "report": lambda p: {
        "path": p.fresh(".html"),
        "run": None,
        "dataset": None,
        "metric": None,
        "charts": False,
        "title": None,
        "progress": None,
    },
    "begin_run": lambda p: {"name": "r", "config": {}, "datasets": [], "expected": None},
    "complete_run": lambda p: {"run_id": p.store.begin_run("c", {}, []), "summary": {}},
    "fail_run": lambda p: {"run_id": p.store.begin_run("c", {}, []), "error": "e"},
    "get_run": lambda p: {"run_id": p.sweep.run},
    "list_runs": lambda p: {"status": None, "dataset": None, "limit": 10, "offset": 0},
    "begin_pipeline": lambda p: {
        "run_id": p.sweep.run,
        "name": "p",
        "expanded_config": {},
        "generator_choices": [],
        "dataset_name": "corn",
        "dataset_hash": "h",
        "original_template": None,
    },
    "complete_pipeline": lambda p: {
        "pipeline_id": begin_pipeline(p.store, p.sweep.run),
        "best_val": 0.1,
        "best_test": 0.2,
        "metric": "rmse",
        "duration_ms": 3,
    },
    "fail_pipeline": lambda p: {"pipeline_id": begin_pipeline(p.store, p.sweep.run), "error": "e"},
    "get_pipeline": lambda p: {"pipeline_id": p.sweep.pipeline},
    "list_pipelines": lambda p: {"run_id": None, "dataset_name": None},
    "save_chain": lambda p: {
        "pipeline_id": p.sweep.pipeline,
        "steps": [STEP],
        "model_step_idx": 1,
        "model_class": "M",
        "preprocessings": "",
        "fold_strategy": "per_fold",
        "fold_artifacts": {},
        "shared_artifacts": {},
        "branch_path": None,
        "source_index": None,
        "input": None,
    },
    "get_chain": lambda p: {"chain_id": p.sweep.chain},
    "describe_chain": lambda p: {"chain_id": p.chain},
    "get_chains_for_pipeline": lambda p: {"pipeline_id": p.sweep.pipeline},
    "save_prediction": lambda p: {**P, "pipeline_id": p.sweep.pipeline, "chain_id": p.sweep.chain, "fold_id": p.name()},
    "save_prediction_arrays": lambda p: {
        "prediction_id": p.prediction,
        "y_true": np.zeros(3),
        "y_pred": np.zeros(3),
        "y_proba": None,
        "sample_indices": None,
        "weights": None,
        "sample_metadata": None,
        "classes": None,
    },
    "save_predictions": lambda p: {
        "columns": {**P, "pipeline_id": p.sweep.pipeline, "chain_id": p.sweep.chain, "fold_id": [p.name()]},
        "y_true": np.zeros((1, 3)),
        "y_pred": np.zeros((1, 3)),
        "y_proba": None,
        "sample_indices": None,
        "weights": None,
        "classes": None,
    },
    "load_arrays": lambda p: {"prediction_ids": [p.prediction], "columns": ("y_true",), "labels": False},
    "iter_arrays": lambda p: {
        "prediction_ids": [p.prediction],
        "batch_size": 10,
        "columns": ("y_true",),
        "labels": False,
    },
    "get_prediction": lambda p: {"prediction_id": p.prediction, "load_arrays": False, "labels": False},
    "get_prediction_arrays": lambda p: {"prediction_id": p.prediction, "labels": False},
    "query_predictions": lambda p: {
        "dataset_name": None,
        "model_class": None,
        "partition": None,
        "fold_id": None,
        "branch_id": None,
        "pipeline_id": None,
        "run_id": None,
        "limit": None,
        "offset": 0,
    },
    "top_predictions": lambda p: {
        "n": 3,
        "metric": "val_score",
        "ascending": True,
        "partition": "val",
        "dataset_name": None,
        "group_by": None,
    },
    "query_aggregated_predictions": lambda _: dict(F),
    "iter_aggregated_predictions": lambda p: dict(batch_size=10, **F),
    "query_top_aggregated_predictions": lambda p: {
        **F,
        "metric": "rmse",
        "n": 3,
        "score_column": "avg_val_score",
        "ascending": None,
    },
    "get_chain_predictions": lambda p: {"chain_id": p.sweep.chain, "partition": None, "fold_id": None},
    "delete_prediction": lambda p: {"prediction_id": "x", "dry_run": False},
    "delete_dataset_predictions": lambda p: {"dataset_name": "nothing", "dry_run": False},
    "query_chain_summaries": lambda p: dict(F, task_type=None),
    "count_chain_summaries": lambda p: dict(F, task_type=None),
    "query_top_chains": lambda p: {
        **F,
        "task_type": None,
        "metric": None,
        "n": 3,
        "offset": 0,
        "score_column": "cv_val_score",
        "ascending": None,
    },
    "create_project": lambda p: {"name": "p", "description": "", "color": "#fff"},
    "get_project": lambda p: {"project_id": p.project},
    "get_project_by_name": lambda p: {"name": "proj"},
    "update_project": lambda p: {"project_id": p.project, "name": "proj", "description": "", "color": "#fff"},
    "delete_project": lambda p: {"project_id": p.store.create_project("doomed"), "dry_run": False},
    "set_run_project": lambda p: {"run_id": p.sweep.run, "project_id": p.project},
    "get_or_create_project": lambda p: {"name": "proj"},
    "save_artifact": lambda p: {"obj": {}, "operator_class": "dict", "artifact_type": "model", "format": "joblib"},
    "save_artifact_with_cache_key": lambda p: {
        "obj": {},
        "operator_class": "dict",
        "artifact_type": "model",
        "format": "joblib",
        "chain_path_hash": "a",
        "input_data_hash": "b",
        "dataset_hash": "c",
    },
    "register_existing_artifact": lambda p: {
        "artifact_id": "a",
        "path": "ab/c.joblib",
        "content_hash": "5c7401c0ec22eeeeeaf06c6480b2cd11",
        "operator_class": "dict",
        "artifact_type": "model",
        "format": "joblib",
        "size_bytes": 1,
    },
    "update_artifact_cache_key": lambda p: {
        "artifact_id": p.artifact,
        "chain_path_hash": "a",
        "input_data_hash": "b",
        "dataset_hash": "c",
    },
    "find_cached_artifact": lambda p: {"chain_path_hash": "a", "input_data_hash": "b"},
    "invalidate_dataset_cache": lambda p: {"dataset_hash": "zz"},
    "load_artifact": lambda p: {"artifact_id": p.artifact},
    "shared_artifact": lambda p: {"artifact_id": p.artifact},
    "describe_artifact": lambda p: {"artifact_id": p.artifact},
    "get_artifact_path": lambda p: {"artifact_id": p.artifact},
    "verify": lambda p: {"quick": True, "sample": None, "repair": False, "progress": None},
    "verify_artifacts": lambda p: {"progress": None},
    "gc_artifacts": lambda p: {"progress": None, "dry_run": True},
    "cleanup_transient_artifacts": lambda p: {
        "run_id": p.sweep.run,
        "dataset_name": "corn",
        "winning_pipeline_ids": [],
        "dry_run": True,
    },
    "log_step": lambda p: {
        "pipeline_id": p.sweep.pipeline,
        "step_idx": 1,
        "operator_class": "S",
        "event": "end",
        "duration_ms": None,
        "message": None,
        "details": None,
        "level": "info",
    },
    "get_pipeline_log": lambda p: {"pipeline_id": p.sweep.pipeline},
    "get_run_log_summary": lambda p: {"run_id": p.sweep.run},
    "replay_chain": lambda p: {
        "chain_id": p.chain,
        "X": X,
        "wavelengths": None,
        "folds": "auto",
        "fold_weights": None,
        "return_proba": False,
    },
    "replay_chains": lambda p: {
        "chain_ids": [p.chain],
        "X": X,
        "wavelengths": None,
        "folds": "auto",
        "fold_weights": None,
        "return_proba": False,
        "n_jobs": 1,
        "threads": 1,
        "progress": None,
        "max_bytes": 2**28,
        "out": None,
    },
    "replay_and_save": lambda p: {
        "chain_ids": [p.chain],
        "X": X,
        "y": None,
        "dataset": "new",
        "wavelengths": None,
        "sample_indices": None,
        "partition": "test",
        "run": None,
        "folds": "auto",
        "n_jobs": 1,
        "threads": 1,
    },
    "replay_plan": lambda p: {"chain_id": p.chain, "X": None, "wavelengths": None},
    "export_pipeline_config": lambda p: {"pipeline_id": p.sweep.pipeline, "output_path": p.fresh(".json")},
    "export_run": lambda p: {"run_id": p.sweep.run, "output_path": p.fresh(".yaml")},
    "export_predictions_parquet": lambda p: {
        "output_path": p.fresh(".parquet"),
        "arrays": False,
        "labels": False,
        "partition_by": None,
        "dataset_name": None,
    },
    "export_predictions_csv": lambda p: {"output_path": p.fresh(".csv"), "dataset_name": None},
    "export_chain": lambda p: {"chain_id": p.chain, "output_path": p.fresh(".n4a"), "format": "n4a"},
    "import_chain": lambda p: {"path": p.bundle, "max_bytes": None},
    "delete_run": lambda p: {"run_id": p.sweep.run, "delete_artifacts": True, "dry_run": True},
    "delete_pipeline": lambda p: {"pipeline_id": p.sweep.pipeline, "delete_artifacts": True, "dry_run": True},
    "delete_chain": lambda p: {"chain_id": p.sweep.chain, "delete_artifacts": True, "dry_run": True},
    "shard": lambda p: {"path": None, "run_id": None},
    "merge": lambda p: {"progress": lambda *_: None, "dry_run": True, "sources": p.root / "other"},
    "extract": lambda p: {"run_ids": [p.sweep.run], "to": p.fresh()},
    "backup": lambda p: {"to": p.root / "bk", "incremental": True, "progress": None},
}

LIBRARY: dict[str, Callable[[Place], dict[str, Any]]] = {
    "__init__": lambda p: {"workspace_path": p.root / "w", "store": p.store},
    "save_template": lambda p: {
        "pipeline_config": {"a": 1},
        "name": f"t{p.name()}",
        "category": "general",
        "description": "",
        "tags": None,
        "metrics": None,
        "notes": "",
        "overwrite": False,
    },
    "load_template": lambda p: {"name": "tpl", "category": None},
    "get_template_metadata": lambda p: {"name": "tpl", "category": None},
    "list_templates": lambda p: {"category": None, "tags": None, "search": None},
    "delete_template": lambda p: {"name": "tpl", "category": None, "dry_run": True},
    "copy_from_pipeline": lambda p: {
        "pipeline_id": p.sweep.pipeline,
        "name": f"t{p.name()}",
        "category": "general",
        "description": "",
        "tags": None,
        "extract_metrics": True,
    },
    "export_template": lambda p: {"name": "tpl", "export_path": p.fresh(), "category": None},
    "import_template": lambda p: {"import_path": p.root / "tplx", "category": "general", "overwrite": True},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("arguments"))
    yield place
    place.store.close()


def rows_of(store: WorkspaceStore) -> list[tuple[Any, ...]]:
    """How many rows each table has, what waits included."""
    return store._open().database.rows(" UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in TABLES))


def called(place: Place, kind: type, name: str, given: Mapping[str, Any]) -> None:
    """Call it, and take all that it gives."""
    if name == "__init__":
        made = kind(**given)
        if isinstance(made, WorkspaceStore):
            made.close()
        return
    method = getattr(place.store if kind is WorkspaceStore else place.library, name)
    by_name, by_place = dict(given), []
    for each in inspect.signature(method).parameters.values():
        if each.kind in (each.POSITIONAL_ONLY, each.VAR_POSITIONAL) and each.name in by_name:
            by_place.append(by_name.pop(each.name))
    result = method(*by_place, **by_name)
    if isinstance(result, WorkspaceStore):
        result.close()
    elif isinstance(result, Iterator):
        list(result)
    else:
        with result if isinstance(result, _GeneratorContextManager) else nullcontext():
            pass


def test_the_tables_above_have_every_argument_of_every_call(place: Place) -> None:
    for kind, table in ((WorkspaceStore, STORE), (PipelineLibrary, LIBRARY)):
        public = [name for name, value in vars(kind).items() if callable(value) or isinstance(value, classmethod)]
        for name in public:
            if name != "__init__" and name.startswith("_"):
                continue
            found = inspect.signature(getattr(kind, name)).parameters.values()
            wanted = {each.name for each in found if each.kind is not each.VAR_KEYWORD} - {"self"}
            assert wanted <= set(table[name](place) if wanted else ()), name


CASES = [(kind, name) for kind, table in ((WorkspaceStore, STORE), (PipelineLibrary, LIBRARY)) for name in table]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_value_of_another_kind_is_taken_or_refused_and_nothing_is_written(
    place: Place, kind: type, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # some are paths
    make = (STORE if kind is WorkspaceStore else LIBRARY)[name]
    called(place, kind, name, make(place))
    wrong = []
    for number, argument in enumerate(make(place)):
        for value in WRONG[(len(name) + number) % STRIDE :: STRIDE]:
            given = {**make(place), argument: iter("ab") if isinstance(value, Iterator) else value}
            before = rows_of(place.store)
            try:
                called(place, kind, name, given)
            except StoreError:
                assert rows_of(place.store) == before, (argument, value)
            except Exception as error:
                assert rows_of(place.store) == before, (argument, value)
                if name != "save_cross_validation" or argument not in OF_SKLEARN:
                    wrong.append(f"{argument}={value!r}: {type(error).__name__}: {error}"[:200])
    assert not wrong, "\n".join(wrong)
    place.store._open().database.drain()  # what was taken can be stored
