"""Run by a release of nirs4all 1.x, with whatever store it uses: surface_of_nirs4all.py WORKSPACE TARGET.json

Asks everything that nirs4all, its studio and its users ask of a store: every public member of `WorkspaceStore` and
`ArrayStore`, and the private ones that are reached from elsewhere. The answers are written by names that do not depend
on ids and times, and which members were asked is told beside what the classes have.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nirs4all
import numpy as np
import polars as pl
from nirs4all.pipeline.storage import workspace_store as home
from nirs4all.pipeline.storage.array_store import ArrayStore

WorkspaceStore = home.WorkspaceStore
THEIRS = getattr(home, "_n4a_fast_replaced", WorkspaceStore)
TABLES = ("runs", "pipelines", "chains", "predictions", "artifacts", "logs")
MODEL = "sklearn.cross_decomposition.PLSRegression"
# rows that a call gives in an order that has a meaning; all others are compared as sets
ORDERED = ("top_predictions", "query_top_aggregated_predictions", "query_top_chains", "rowid")
# 1.4 keeps classes as texts, and deletes what an analysis is of: earlier releases refuse both on their own store
SINCE_1_4 = tuple(map(int, nirs4all.__version__.split(".")[:2])) >= (1, 4)
UNORDERED, OWN = ("prediction_ids", "fold_ids"), ("log_id",)
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\d]*([+-]\d\d:\d\d)?")
RELATION = {
    "prediction_scope": "sample",
    "evaluation_scope": "cv",
    "physical_sample_id": "leaf 1",
    "unit_level": "plant",
    "sample_influence_weight": 0.5,
}
# as a studio sends it
SQL = {
    "rowid": ("SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ? ORDER BY rowid ASC", ["first"]),
    "of a dataset": (
        "SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ? AND dataset_name = ? ORDER BY rowid ASC",
        ["first", "corn"],
    ),
    "numbered": ("SELECT name FROM pipelines WHERE run_id IN ($1, $2)", ["first", "second"]),
    "like": ("SELECT count(*) AS n FROM predictions WHERE model_name LIKE 'pls%'", []),
    "text": ('SELECT count(*) AS n FROM predictions WHERE partition = "val"', []),
    "whole": ("SELECT 7 / 2 AS v, count(*) / 3 AS w FROM predictions", []),
    "now": ("SELECT count(*) AS n FROM runs WHERE created_at >= datetime('now', '-1 day')", []),
    "truths": ("SELECT sum(status = 'completed') AS n, sum((error IS NULL) + 1) AS m FROM runs", []),
    "json": (
        "SELECT count(*) AS n FROM runs, json_each(runs.datasets) WHERE json_extract(value, '$.name') = 'corn'",
        [],
    ),
    "summary": ("SELECT model_name, cv_val_score, dataset_name FROM chains ORDER BY model_name, cv_val_score", []),
    "view": ("SELECT count(*) AS n FROM v_chain_summary WHERE cv_val_score IS NOT NULL", []),
    "tables": ("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name", []),
    "no arrays in it": ("SELECT count(*) AS n FROM sqlite_master WHERE name = 'prediction_arrays'", []),
    "none": ("SELECT run_id FROM runs WHERE 1 = 0", []),
}


class Surface:
    """A workspace, what was asked of it, and what it answered."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self.store = workspace, WorkspaceStore(workspace)
        self.asked: set[str] = set()
        self.told: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # by id, what the script calls it

    def make(self, name: str, member: str, *args: Any, **options: Any) -> str:
        """Call what gives a new id; the id, which answers call `name`."""
        self.asked.add(member)
        made = str(getattr(self.store, member)(*args, **options))
        self._names[made] = name
        return made

    def ask(self, member: str, *args: Any, of: Any = None, **options: Any) -> Any:
        """Call a member of the store, or of its arrays, and note the answer."""
        self.asked.add(member if of is None else f"array_store.{member}")
        name = f"{member}{len(self.told)}"
        try:
            found = getattr(self.store if of is None else of, member)(*args, **options)
        except Exception as error:  # what is refused is refused by both, in words of their own
            self.told[name] = ["refused", next(kind.__name__ for kind in type(error).__mro__ if _is_plain(kind))]
            return None
        self.told[name] = self.plain(found, ordered=member in ORDERED)
        return found

    def note(self, name: str, found: Any, ordered: bool = False) -> None:
        self.told[name] = self.plain(found, ordered)

    def plain(self, found: Any, ordered: bool = False) -> Any:
        """An answer as JSON without ids, times and folders."""
        if isinstance(found, pl.DataFrame):
            rows = [self.plain(row) for row in found.to_dicts()]
            return rows if ordered else sorted(rows, key=str)
        if isinstance(found, dict):
            rest = {str(name): self.plain(item) for name, item in found.items() if name not in OWN}
            return {self.plain(name): sorted(rest[name]) if name in UNORDERED else rest[name] for name in rest}
        if isinstance(found, list | tuple | set):
            items = [self.plain(item) for item in found]
            return sorted(items, key=str) if isinstance(found, set) else items
        if isinstance(found, np.ndarray):
            return [found.dtype.kind, self.plain(found.tolist())]
        if isinstance(found, str):
            return self._plain_text(found)
        if hasattr(found, "to_dict"):
            return self.plain(found.to_dict())
        return found if found is None or isinstance(found, int | float) else self._plain_text(str(found))

    def _plain_text(self, text: str) -> Any:
        if text[:1] in ("{", "["):
            try:
                return self.plain(json.loads(text))
            except ValueError:
                pass
        for identifier, name in self._names.items():
            text = text.replace(identifier, name)
        return TIME.sub("time", text).replace(str(self.workspace), "workspace")


def _is_plain(kind: type) -> bool:
    return kind.__module__ == "builtins"


def fill(surface: Surface) -> dict[str, str]:
    """Two runs in a project: five folds, an average, a refit; classes as texts; places in relations."""
    store, made = surface.store, {}
    project = surface.make("project", "create_project", "grain", "of one year", "#112233")
    surface.ask("get_or_create_project", "grain")
    surface.make("other project", "get_or_create_project", "fruit")
    for run in ("first", "second"):
        _await_next_second()
        made[run] = surface.make(run, "begin_run", run, {"cv": 3, "weight": 1 + 2j}, [{"name": "corn", "hash": "h"}])
        pipeline = made[f"{run} pipeline"] = surface.make(
            f"{run} pipeline",
            "begin_pipeline",
            made[run],
            f"{run} steps",
            [{"model": MODEL}],
            [{"_or_": 1}],
            "corn",
            "h",
        )
        with store.transaction(), store.transaction():  # the inner one joins
            artifact = surface.make(f"{run} model", "save_artifact", {"of": run}, MODEL, "model", "joblib")
            steps = [{"step_idx": 0, "operator_class": MODEL, "params": {}, "artifact_id": None, "stateless": False}]
            manifest = {"version": 1, "fingerprint": "f", "sources": ["a", "b"]} if run == "first" else None
            chain = made[f"{run} chain"] = surface.make(
                *(f"{run} chain", "save_chain", pipeline, steps, 0, MODEL, "SNV", "per_fold"),
                *({"fold_0": artifact, "fold_final": artifact}, {}, [0], None, "corn", manifest),
            )
            _predict(surface, run, pipeline, chain)
            surface.ask("update_chain_summary", chain)
            surface.ask("bulk_update_chain_summaries", [chain])
        surface.ask("log_step", pipeline, 0, "SNV", "end", 3, "done", {"rows": 9}, "warning")
        surface.ask("complete_pipeline", pipeline, 0.1, 0.2, "rmse", 7)
        surface.ask("complete_run", made[run], {"best": 0.1})
        surface.ask("set_run_project", made[run], project)
    _await_next_second()
    failed = surface.make("failed", "begin_run", "failed", {}, [{"name": "rye"}])
    lost = surface.make("failed pipeline", "begin_pipeline", failed, "f", [], [], "rye", "h")
    surface.ask("fail_pipeline", lost, "no spectra")
    surface.ask("fail_run", failed, "no spectra")
    return {**made, "failed": failed, "project": project}


def _await_next_second() -> None:
    """nirs4all orders runs by the second in which they began."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.05)


def _predict(surface: Surface, run: str, pipeline: str, chain: str) -> None:
    add = 0.0 if run == "first" else 0.25
    is_class = run == "second"
    records = []
    for fold, score in (("0", 0.5), ("1", 0.25), ("avg", 0.375), ("w_avg", 0.3), ("final", None)):
        for part in ("train", "val", "test"):
            given = None if score is None and part == "val" else (score or 0.2) + add
            refit = "standalone" if fold == "final" else None
            more = {"refit_context": refit, **(RELATION if (run, fold, part) == ("first", "0", "val") else {})}
            scores = (given, None if score is None else given * 2, float("nan") if part == "val" else 0.1)
            name = f"{run}-{fold}-{part}"
            surface.make(
                *(name, "save_prediction", pipeline, chain, "corn", "PLSRegression", MODEL, fold, part, *scores),
                *("rmse", "classification" if is_class else "regression", 4, 8, {part: {"rmse": given}}, {"n": 2}),
                *(None, None, 1, 0.25, "SNV"),
                prediction_id=name,
                **more,
            )
            classes = np.array(["oat", "rye", "oat", "rye"]) if SINCE_1_4 else np.array([0.0, 1.0, 0.0, 1.0])
            targets = classes if is_class else np.arange(4.0)
            records.append(
                {
                    "prediction_id": name,
                    "dataset_name": "corn",
                    "model_name": "PLSRegression",
                    "fold_id": fold,
                    "partition": part,
                    "metric": "rmse",
                    "val_score": given,
                    "task_type": "classification" if is_class else "regression",
                    "y_true": targets,
                    "y_pred": targets[::-1],
                    "y_proba": np.full((4, 2), 0.5) if is_class else None,
                    "sample_indices": np.arange(4),
                    "sample_metadata": {
                        "plant": ["a", "b", "c", "d"],
                        "age": [1, np.int64(2), 3, 4],
                        "site": "north",
                        "device": {"name": "x", "gain": np.arange(2)},
                    },
                    **({"X": np.ones((4, 3)), "result_metadata": {"kind": "test"}} if part == "test" else {}),
                }
            )
    surface.ask("save_batch", records, of=surface.store.array_store)


def read(surface: Surface, made: dict[str, str]) -> None:
    """Every call that reads, with and without what chooses among rows, by name and by place."""
    ask, run, pipeline, chain = surface.ask, made["first"], made["first pipeline"], made["first chain"]
    for member, identifier in (("get_run", run), ("get_pipeline", pipeline), ("get_chain", chain)):
        ask(member, identifier)
        ask(member, "nothing")
    ask("get_chains_for_pipeline", "nothing")
    found = surface.store.get_chains_for_pipeline(pipeline)
    surface.note("chains", found.select("chain_id", "model_class", "preprocessings", "branch_path"))
    for given in ((), ("completed",), (None, "rye"), (None, None, made["project"]), (None, None, None, 1, 1)):
        ask("list_runs", *given)
    for given in ((), (run,), (run, "rye"), (None, "corn")):
        ask("list_pipelines", *given)
    for given in (("first-0-val",), ("second-0-test", True), ("nothing",)):
        ask("get_prediction", *given)
    for given in (
        (),
        ("corn", MODEL, "val", "0", None, pipeline, run, "regression"),
        (None,) * 7 + ("classification", 3),
    ):
        ask("query_predictions", *given)
    for given in (
        (3,),
        (2, "test_score", False, "test"),
        (9, "val_score", True, "val", "corn", "regression", "chain_id"),
    ):
        ask("top_predictions", *given)
    for scope in ("cv", "final", "all"):
        ask("query_aggregated_predictions", score_scope=scope)
    for scope in ("cv", "all"):
        ask("query_top_aggregated_predictions", "rmse", 2, 0, "avg_val_score", None, scope)
    # no final prediction has a score here: nirs4all gives their chains in any order
    best = surface.store.query_top_aggregated_predictions("rmse", 2, 0, "avg_test_score", None, "final")
    surface.note("best final", best)
    ask("query_aggregated_predictions", [run], None, None, "corn", MODEL, "rmse")
    ask("query_aggregated_predictions", "nothing")
    for given in (
        (),
        (run, pipeline, chain, "corn", MODEL, "rmse", "regression"),
        ([run, made["second"]],),
        ("nothing",),
    ):
        ask("query_chain_summaries", *given)
        ask("count_chain_summaries", *given)
    for given in (("rmse",), ("rmse", 1, 1, "cv_test_score", False)):
        ask("query_top_chains", *given)
    ask("query_top_chains", "rmse", run_id=run)
    for given in ((chain,), (chain, "val"), (chain, None, "0"), ("nothing",)):
        ask("get_chain_predictions", *given)
    ask("get_pipeline_log", pipeline)
    ask("get_run_log_summary", run)
    for member, given in (
        ("list_projects", ()),
        ("get_project", (made["project"],)),
        ("get_project_by_name", ("grain",)),
    ):
        ask(member, *given)
    for detail in ("get_studio_run_detail_v1", "get_studio_run_detail_runtime_v1"):
        if hasattr(THEIRS, detail):
            for each in (run, "nothing"):
                ask(detail, surface.workspace, each)


def read_arrays(surface: Surface) -> None:
    ask, arrays = surface.ask, surface.store.array_store
    assert surface.store.array_store is arrays
    names = ["first-0-val", "second-1-test", "first-final-test", "nothing"]
    ask("load_batch", names, of=arrays)
    ask("load_batch", names, "corn", of=arrays)
    ask("load_single", "second-0-val", of=arrays)
    ask("load_single", "nothing", of=arrays)
    surface.note("loaded dataset", arrays.load_dataset("corn").select("prediction_id", "y_proba"))
    surface.asked |= {"array_store.load_dataset", "array_store.stats", "array_store.arrays_dir"}
    stats = arrays.stats()
    surface.note("stats", [stats["total_rows"], sorted(stats["datasets"]), stats["datasets"]["corn"]["rows"]])
    surface.note("folder", str(arrays.arrays_dir))
    surface.note("array file", arrays._parquet_path("corn").exists() and not arrays._parquet_path("rye").exists())
    ask("integrity_check", {"nothing"}, of=arrays)
    ask("integrity_check", of=arrays)
    for member in ("list_datasets", "pending_tombstone_count", "has_pending_tombstones", "_read_tombstones"):
        ask(member, of=arrays)
    ask("delete_batch", set(), of=arrays)
    ask("delete_dataset", "nothing", of=arrays)
    ask("compact", "nothing", of=arrays)
    ask("compact_arrays", "nothing")


def read_past(surface: Surface, made: dict[str, str]) -> None:
    """Members that are none of the documented ones, by those who use them."""
    store = surface.store
    surface.asked |= {"workspace_path", "array_store", "transaction", "open_readonly"}
    surface.note("folders", [str(store.workspace_path), str(store._workspace_path)])
    for table in TABLES:
        surface.note(f"rows of {table}", store._fetch_pl(f"SELECT COUNT(*) AS cnt FROM {table}"))
    for name, (query, given) in SQL.items():
        surface.note(f"sql: {name}", store._fetch_pl(query, [made.get(each, each) for each in given]), name in ORDERED)
    surface.note("one", store._fetch_one("SELECT name, status FROM runs WHERE run_id = ?", [made["first"]]))
    rows = store._ensure_open().execute("SELECT name, status FROM runs ORDER BY name").fetchall()
    surface.note("rows by name", [[row["name"], row[1]] for row in rows])
    described = store._ensure_open().execute('PRAGMA table_info("runs")').fetchall()
    surface.note("columns", sorted(row[1] for row in described))
    surface.note("settings", [tuple(store._conn.execute(f"PRAGMA {name}").fetchone()) for name in ("foreign_keys",)])
    changed = ["{}", '[{"name": "corn", "hash": "k"}]', made["second"]]
    store._execute_with_retry("UPDATE runs SET config = ?, datasets = ? WHERE run_id = ?", changed)
    surface.note("changed", store.get_run(made["second"]))
    open_readonly = WorkspaceStore.open_readonly if hasattr(THEIRS, "open_readonly") else WorkspaceStore
    with open_readonly(surface.workspace) as reader:
        surface.note("read-only", reader.list_runs())
        if hasattr(THEIRS, "open_readonly"):
            surface.note("read-only refuses", _refused(lambda: reader.begin_run("r", {}, [])))


def artifacts(surface: Surface, made: dict[str, str]) -> None:
    """Saved, registered ahead of their files, found by what made them, collected."""
    import hashlib

    store, ask = surface.store, surface.ask
    surface.asked |= {"register_existing_artifact", "get_artifact_path", "load_artifact"}
    saved = surface.make("one", "save_artifact", [1.5], "list", "transformer", "joblib")
    surface.note("loaded", store.load_artifact(saved))
    surface.note("has a file", store.get_artifact_path(saved).exists())
    for format in ("joblib", "pickle", "cloudpickle"):
        kept = store.save_artifact([2.5, format], "list", "transformer", format)
        surface.note(f"as {format}", store.load_artifact(kept))
    cached = surface.make(
        "cached", "save_artifact_with_cache_key", [3.5], "list", "t", "joblib", "steps", "data", "set"
    )
    ask("find_cached_artifact", "steps", "data")
    ask("update_artifact_cache_key", saved, "steps", "other data", "set")
    ask("find_cached_artifact", "steps", "other data")
    ask("invalidate_dataset_cache", "set")
    ask("find_cached_artifact", "steps", "data")
    content = store.get_artifact_path(cached).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    place = f"{digest[:2]}/promised_{digest[:12]}.joblib"
    given = ("promised$h:0", place, f"sha256:{digest}", "list", "model", "joblib", len(content))
    surface.note("promised", store.register_existing_artifact(*given))
    (surface.workspace / "artifacts" / place).parent.mkdir(parents=True, exist_ok=True)
    (surface.workspace / "artifacts" / place).write_bytes(content)
    surface.note("kept", store.load_artifact("promised$h:0"))
    for missing in ("load_artifact", "get_artifact_path"):
        ask(missing, "nothing")
    ask("cleanup_transient_artifacts", made["first"], "corn", [made["first pipeline"]])
    surface.asked.add("gc_artifacts")
    with store.transaction():
        surface.note("no collection inside", _refused(store.gc_artifacts))
    assert isinstance(store.gc_artifacts(), int)
    surface.note(
        "a chain's model stays", store.load_artifact(store.get_chain(made["first chain"])["fold_artifacts"]["fold_0"])
    )


def analyses(surface: Surface, made: dict[str, str]) -> None:
    """Calibrations, reports and searches, as their own classes."""
    from nirs4all.api.robustness import RobustnessReport
    from nirs4all.pipeline.dagml.conformal_contracts import (
        calibrate_replayed_predictions,
        parse_conformal_calibration_spec,
    )
    from nirs4all.pipeline.dagml.tuning_contracts import TrialResult, TuningResult, parse_tuning_spec

    calibrated = calibrate_replayed_predictions(
        y_true_calibration=[1.0, 2.0, 3.0],
        y_pred_calibration=[1.5, 2.0, 2.5],
        y_pred=[4.0, 5.0],
        spec=parse_conformal_calibration_spec({"coverage": [0.5]}),
        calibration_sample_ids=["a", "b", "c"],
        prediction_sample_ids=["d", "e"],
        target_name="protein",
        predictor_fingerprint="model",
    )
    sizes = {"engine": "optuna", "space": {"model.n": [1, 2]}, "metric": "rmse", "direction": "minimize"}
    tuning = parse_tuning_spec({**sizes, "n_trials": 1, "sampler": "grid", "seed": 3})
    trial = TrialResult(number=0, params={"model.n": 2}, value=0.5, state="COMPLETE", diagnostics={})
    tuned = TuningResult(tuning=tuning, best_params={"model.n": 2}, best_value=0.5, trials=(trial,), optimizer="optuna")
    names = ("run_id", "first"), ("pipeline_id", "first pipeline"), ("chain_id", "first chain")
    of = {name: made[row] for name, row in names if SINCE_1_4}
    reported = RobustnessReport(mode="clean_frozen", scenarios=(), slice_by=("plant",), metadata={"n": 1})
    for kind, result, more in (
        ("conformal", calibrated, {"prediction_id": "first-0-test" if SINCE_1_4 else None}),
        (
            "robustness",
            reported,
            {"conformal_id": "a conformal", "prediction_id": "first-0-test" if SINCE_1_4 else None},
        ),
        ("tuning", tuned, {}),
    ):
        name = {f"{kind}_id": f"a {kind}", "name": kind, "metadata": {"by": "me"}}
        surface.ask(f"save_{kind}_result", result, **of, **more, **name)
        surface.ask(f"load_{kind}_result", f"a {kind}")
        surface.ask(f"load_{kind}_result", result.fingerprint)
        surface.ask(f"load_{kind}_result", "nothing")
        surface.ask(f"list_{kind}_results", limit=5, offset=0)
        surface.ask(f"list_{kind}_results", limit=5, offset=1)
        surface.ask(f"save_{kind}_result", "no result")


def export(surface: Surface, made: dict[str, str]) -> None:
    folder = surface.workspace / "exports"
    folder.mkdir()
    surface.asked |= {"export_run", "export_pipeline_config", "export_predictions_parquet", "export_chain"}
    if hasattr(THEIRS, "_validate_chain_export"):
        surface.ask("_validate_chain_export", made["first chain"])
    for member, identifier in (("export_run", made["first"]), ("export_pipeline_config", made["first pipeline"])):
        path = getattr(surface.store, member)(identifier, folder / f"{member}.yaml")
        text = path.read_text()
        surface.note(
            member,
            dict.fromkeys(line.split(":")[0] for line in text.splitlines() if line[:1] not in (" ", "-", "{", "")),
        )
    frame = pl.read_parquet(surface.store.export_predictions_parquet(folder / "all.parquet", partition="val"))
    surface.note("exported", frame.select("prediction_id", "val_score", "metric"))
    with zipfile.ZipFile(surface.store.export_chain(made["second chain"], folder / "chain.n4a")) as bundle:
        surface.note("bundle", sorted(bundle.namelist()))


def delete(surface: Surface, made: dict[str, str]) -> None:
    """What goes with what, down to the empty workspace."""
    store, ask = surface.store, surface.ask

    def left() -> None:
        counts = [store._fetch_pl(f"SELECT COUNT(*) AS cnt FROM {table}")["cnt"][0] for table in TABLES[:4]]
        results = [len(getattr(store, f"list_{kind}_results")()) for kind in ("conformal", "robustness", "tuning")]
        surface.note(f"left {len(surface.told)}", [*counts, *results])

    ask("delete_prediction", "first-0-test")
    left()  # what was told of it goes, too
    ask("delete_prediction", "nothing")
    ask("_delete_prediction_group", made["first chain"], "1")
    ask("_delete_predictions_matching", prediction_ids=["first-avg-val"], chain_id=made["first chain"])
    ask("_delete_predictions_matching", chain_id=made["first chain"], fold_id="fold_w_avg", dataset_name="corn")
    ask("_delete_predictions_matching")
    left()
    ask("_delete_chain_predictions", made["first chain"])
    left()
    ask("delete_run", made["second"])
    left()
    ask("delete_dataset_predictions", "nothing")
    ask("delete_dataset_predictions", "corn")
    left()
    ask("delete_run", made["failed"], False)
    ask("delete_run", "nothing")
    left()
    ask("update_project", made["project"], "wheat", "all years", "#445566")
    ask("get_project", made["project"])
    ask("delete_project", made["project"])
    ask("list_projects")
    surface.asked |= {"vacuum", "close", "replay_chain"}
    store.vacuum()
    surface.note("replay", _refused(lambda: store.replay_chain("nothing", np.ones((1, 2)))))
    store.close()
    surface.note("closed", _refused(store.list_runs))
    store.close()


def _refused(call: Any) -> list[str]:
    """By which of Python's own exceptions."""
    try:
        call()
    except Exception as error:
        return [kind.__name__ for kind in type(error).__mro__ if _is_plain(kind)][:1]
    return []


@contextmanager
def _places_of_parameters(surface: Surface) -> Iterator[None]:
    """Which parameters of nirs4all's calls have another place in those of the class in use."""
    yield
    moved = []
    for name, method in vars(THEIRS).items():
        if not inspect.isfunction(method) or (name.startswith("_") and f"{name}" not in surface.asked):
            continue
        wanted, given = (
            [
                each.name
                for each in inspect.signature(found).parameters.values()
                if each.kind <= each.POSITIONAL_OR_KEYWORD
            ]
            for found in (method, getattr(WorkspaceStore, name))
        )
        if name != "__init__" and given[: len(wanted)] != wanted and not _takes_any(getattr(WorkspaceStore, name)):
            moved.append([name, wanted, given])
    surface.told["parameters in other places"] = moved


def _takes_any(method: Any) -> bool:
    """Whether a method hands on what it is given."""
    return any(each.kind is each.VAR_POSITIONAL for each in inspect.signature(method).parameters.values())


def main(workspace: str, target: str) -> None:
    surface = Surface(Path(workspace))
    with _places_of_parameters(surface):
        made = fill(surface)
        read(surface, made)
        read_arrays(surface)
        read_past(surface, made)
        artifacts(surface, made)
        analyses(surface, made)
        export(surface, made)
        delete(surface, made)
    public = {name for name in dir(THEIRS) if not name.startswith("_") and name != "AUTO_COMPACT_TOMBSTONE_THRESHOLD"}
    public |= {f"array_store.{name}" for name in dir(ArrayStore) if not name.startswith("_")}
    surface.told["never asked"] = sorted(public - surface.asked)
    surface.told["store"] = WorkspaceStore.__module__
    Path(target).write_text(json.dumps(surface.told))


if __name__ == "__main__":
    main(*sys.argv[1:])
