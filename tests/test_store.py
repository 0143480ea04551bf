"""The facade keeps the documented signatures, and every call meets a closed, read-only or unknown thing with a typed
error.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import (
    DEADLINE,
    PREDICTION,
    Sweep,
    begin_pipeline,
    begin_sweep,
    count,
    counts,
    names_in,
    predict,
    predict_with_arrays,
    save_chain,
)
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ForeignStoreError, InvalidInputError, NotFoundError, ReadOnlyError, StoreClosedError

# name: parameters as the API reference documents them, in order, with their defaults
DOCUMENTED = {
    "__init__": "workspace_path",
    "begin_run": "name, config, datasets",
    "complete_run": "run_id, summary",
    "fail_run": "run_id, error",
    "begin_pipeline": "run_id, name, expanded_config, generator_choices, dataset_name, dataset_hash",
    "complete_pipeline": "pipeline_id, best_val, best_test, metric, duration_ms",
    "fail_pipeline": "pipeline_id, error",
    "save_chain": (
        "pipeline_id, steps, model_step_idx, model_class, preprocessings, fold_strategy, fold_artifacts,"
        " shared_artifacts, branch_path=None, source_index=None"
    ),
    "get_chain": "chain_id",
    "get_chains_for_pipeline": "pipeline_id",
    "save_prediction": (
        "pipeline_id, chain_id, dataset_name, model_name, model_class, fold_id, partition, val_score, test_score,"
        " train_score, metric, task_type, n_samples, n_features, scores, best_params, branch_id, branch_name,"
        " exclusion_count, exclusion_rate, preprocessings=''"
    ),
    "save_prediction_arrays": "prediction_id, y_true, y_pred, y_proba=None, sample_indices=None, weights=None",
    "save_artifact": "obj, operator_class, artifact_type, format",
    "load_artifact": "artifact_id",
    "get_artifact_path": "artifact_id",
    "log_step": (
        "pipeline_id, step_idx, operator_class, event, duration_ms=None, message=None, details=None, level='info'"
    ),
    "get_run": "run_id",
    "list_runs": "status=None, dataset=None, limit=100, offset=0",
    "get_pipeline": "pipeline_id",
    "list_pipelines": "run_id=None, dataset_name=None",
    "get_prediction": "prediction_id, load_arrays=False",
    "query_predictions": (
        "dataset_name=None, model_class=None, partition=None, fold_id=None, branch_id=None, pipeline_id=None,"
        " run_id=None, limit=None, offset=0"
    ),
    "top_predictions": "n, metric='val_score', ascending=True, partition='val', dataset_name=None, group_by=None",
    "get_pipeline_log": "pipeline_id",
    "get_run_log_summary": "run_id",
    "export_chain": "chain_id, output_path, format='n4a'",
    "export_pipeline_config": "pipeline_id, output_path",
    "export_run": "run_id, output_path",
    "export_predictions_parquet": "output_path",
    "replay_chain": "chain_id, X, wavelengths=None",
    "delete_run": "run_id, delete_artifacts=True",
    "delete_prediction": "prediction_id",
    "gc_artifacts": "",
    "vacuum": "",
    "close": "",
}
RETURNS = {
    "str": "begin_run begin_pipeline save_chain save_prediction save_artifact",
    # vacuum also tells what it freed
    "None": "complete_run fail_run complete_pipeline fail_pipeline save_prediction_arrays log_step close",
    "pl.DataFrame": (
        "get_chains_for_pipeline list_runs list_pipelines query_predictions top_predictions get_pipeline_log"
        " get_run_log_summary"
    ),
    "dict[str, Any] | None": "get_chain get_run get_pipeline get_prediction",
    "int": "delete_run gc_artifacts",
    "bool": "delete_prediction",
    "Path": "get_artifact_path export_chain export_pipeline_config export_run export_predictions_parquet",
}


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(getattr(WorkspaceStore, name)).parameters)
    found.pop("self")
    return found


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_method_has_the_documented_parameters(name: str) -> None:
    call = ast.parse(f"lambda {DOCUMENTED[name]}: None", mode="eval").body
    assert isinstance(call, ast.Lambda)
    wanted = [argument.arg for argument in call.args.args]
    defaults = [inspect.Parameter.empty] * (len(wanted) - len(call.args.defaults)) + [
        ast.literal_eval(value) for value in call.args.defaults
    ]
    found = parameters_of(name)
    assert list(found)[: len(wanted)] == wanted
    assert [found[parameter].default for parameter in wanted] == defaults
    assert all(found[parameter].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in wanted)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_whatever_a_method_takes_beyond_the_documentation_is_optional(name: str) -> None:
    documented = {part.split("=")[0].strip() for part in DOCUMENTED[name].split(",")}
    more = [parameter for key, parameter in parameters_of(name).items() if key not in documented]
    assert all(
        parameter.kind is inspect.Parameter.VAR_KEYWORD or parameter.default is not inspect.Parameter.empty
        for parameter in more
    )


@pytest.mark.parametrize(("returned", "names"), RETURNS.items())
def test_documented_return_types(returned: str, names: str) -> None:
    for name in names.split():
        assert inspect.signature(getattr(WorkspaceStore, name)).return_annotation == returned, name


def test_every_public_method_tells_the_user_what_it_gives() -> None:
    for name, value in vars(WorkspaceStore).items():
        if not name.startswith("_"):
            assert inspect.getdoc(value), name


# -- calls on every method -------------------------------------------------------------------

_SEARCH = GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2).fit(np.eye(6), np.arange(6.0))
CALLS: dict[str, Callable[[WorkspaceStore, str], Any]] = {
    "begin_pipeline": lambda store, unknown: begin_pipeline(store, unknown),
    "complete_run": lambda store, unknown: store.complete_run(unknown, {}),
    "fail_run": lambda store, unknown: store.fail_run(unknown, "boom"),
    "complete_pipeline": lambda store, unknown: store.complete_pipeline(unknown, 0.1, 0.2, "rmse", 5),
    "fail_pipeline": lambda store, unknown: store.fail_pipeline(unknown, "boom"),
    "save_chain": lambda store, unknown: save_chain(store, unknown),
    "save_prediction": lambda store, unknown: predict(store, unknown, None),
    "save_prediction_arrays": lambda store, unknown: store.save_prediction_arrays(unknown, np.zeros(1), None),
    "save_predictions": lambda store, unknown: store.save_predictions({**PREDICTION, "pipeline_id": unknown}),
    "log_step": lambda store, unknown: store.log_step(unknown, 1, "SNV", "start"),
    "delete_run": lambda store, unknown: store.delete_run(unknown),
    "delete_pipeline": lambda store, unknown: store.delete_pipeline(unknown),
    "delete_chain": lambda store, unknown: store.delete_chain(unknown),
    "update_project": lambda store, unknown: store.update_project(unknown, "p"),
    "delete_project": lambda store, unknown: store.delete_project(unknown),
    "set_run_project": lambda store, unknown: store.set_run_project(unknown, None),
    "update_artifact_cache_key": lambda store, unknown: store.update_artifact_cache_key(unknown, "a", "b", "c"),
}
READS: dict[str, Callable[[WorkspaceStore, str], Any]] = {
    "load_artifact": lambda store, unknown: store.load_artifact(unknown),
    "shared_artifact": lambda store, unknown: store.shared_artifact(unknown),
    "describe_artifact": lambda store, unknown: store.describe_artifact(unknown),
    "get_artifact_path": lambda store, unknown: store.get_artifact_path(unknown),
    "load_arrays": lambda store, unknown: store.load_arrays([unknown]),
    "replay_chain": lambda store, unknown: store.replay_chain(unknown, np.zeros((2, 3))),
    "replay_chains": lambda store, unknown: store.replay_chains([unknown], np.zeros((2, 3))),
    "replay_and_save": lambda store, unknown: store.replay_and_save([unknown], np.zeros((2, 3)), dataset="d"),
    "replay_plan": lambda store, unknown: store.replay_plan(unknown),
    "describe_chain": lambda store, unknown: store.describe_chain(unknown),
    "export_chain": lambda store, unknown: store.export_chain(unknown, store.workspace_path / "chain.n4a"),
    "export_pipeline_config": lambda store, unknown: store.export_pipeline_config(
        unknown, store.workspace_path / "config.json"
    ),
    "export_run": lambda store, unknown: store.export_run(unknown, store.workspace_path / "run.yaml"),
}
FINDS = (
    "get_project",
    "get_project_by_name",
    "get_run",
    "get_pipeline",
    "get_chain",
    "get_prediction",
    "get_prediction_arrays",
)
FRAMES = ("get_chains_for_pipeline", "get_pipeline_log", "get_run_log_summary", "get_chain_predictions")
MORE_WRITES: dict[str, Callable[[WorkspaceStore, str], Any]] = {
    "begin_run": lambda store, _: store.begin_run("r", {}, []),
    "save_artifact": lambda store, _: store.save_artifact({}, "dict", "model", "joblib"),
    "save_artifact_with_cache_key": lambda store, _: store.save_artifact_with_cache_key(
        {}, "dict", "model", "joblib", "a", "b", "c"
    ),
    "register_existing_artifact": lambda store, _: store.register_existing_artifact(
        "a", "ab/c.joblib", "0" * 32, "dict", "model", "joblib", 1
    ),
    "delete_prediction": lambda store, unknown: store.delete_prediction(unknown),
    "delete_dataset_predictions": lambda store, unknown: store.delete_dataset_predictions(unknown),
    "import_chain": lambda store, _: store.import_chain("nobody.n4a"),
    "create_project": lambda store, _: store.create_project("p"),
    "get_or_create_project": lambda store, _: store.get_or_create_project("p"),
    "gc_artifacts": lambda store, _: store.gc_artifacts(),
    "vacuum": lambda store, _: store.vacuum(),
    "invalidate_dataset_cache": lambda store, unknown: store.invalidate_dataset_cache(unknown),
    "cleanup_transient_artifacts": lambda store, unknown: store.cleanup_transient_artifacts(unknown, "corn", []),
    "transaction": lambda store, _: store.transaction().__enter__(),
    "merge": lambda store, _: store.merge(),
    "save_cross_validation": lambda store, _: store.save_cross_validation(Ridge(), np.eye(6), np.arange(6.0), cv=2),
    "save_search": lambda store, _: store.save_search(_SEARCH),
    "set_metric_direction": lambda store, _: store.set_metric_direction("crunch", True),
}
MORE_READS: dict[str, Callable[[WorkspaceStore, str], Any]] = {
    # type: ignore[misc]
    **{name: lambda store, unknown, name=name: getattr(store, name)(unknown) for name in (*FINDS, *FRAMES)},
    "flush": lambda store, _: store.flush(),
    "shard": lambda store, _: store.shard(),
    "stats": lambda store, _: store.stats(),
    "leaderboard": lambda store, _: store.leaderboard(),
    "metric_direction": lambda store, _: store.metric_direction("rmse"),
    "find": lambda store, _: store.find("@last"),
    "run": lambda store, _: store.run(),
    "runs": lambda store, _: store.runs(),
    "chain": lambda store, _: store.chain("@last"),
    "progress": lambda store, _: store.progress(),
    "verify": lambda store, _: store.verify(quick=True),
    "backup": lambda store, _: store.backup(store.workspace_path.with_name(f"{store.workspace_path.name} backup")),
    "extract": lambda store, _: store.extract(
        store.list_runs()["run_id"].to_list()[:1], store.workspace_path.with_name(f"part {uuid.uuid4()}")
    ),
    "estimator": lambda store, _: store.estimator(store.find("@last", "chain")),
    "plot": lambda store, _: store.plot("scatter", store.find("@last", "chain")),
    "report": lambda store, _: store.report(store.workspace_path / "report.html", charts=False),
    "sql": lambda store, _: store.sql("SELECT 1"),
    "list_runs": lambda store, _: store.list_runs(),
    "list_pipelines": lambda store, _: store.list_pipelines(),
    "query_predictions": lambda store, _: store.query_predictions(),
    "top_predictions": lambda store, _: store.top_predictions(3),
    "query_aggregated_predictions": lambda store, _: store.query_aggregated_predictions(),
    "query_top_aggregated_predictions": lambda store, _: store.query_top_aggregated_predictions("rmse"),
    "list_projects": lambda store, _: store.list_projects(),
    "query_chain_summaries": lambda store, _: store.query_chain_summaries(),
    "count_chain_summaries": lambda store, _: store.count_chain_summaries(),
    "query_top_chains": lambda store, _: store.query_top_chains(),
    "find_cached_artifact": lambda store, _: store.find_cached_artifact("a", "b"),
    "export_predictions_parquet": lambda store, _: store.export_predictions_parquet(
        store.workspace_path / "predictions.parquet"
    ),
    "export_predictions_csv": lambda store, _: store.export_predictions_csv(store.workspace_path / "predictions.csv"),
    "verify_artifacts": lambda store, _: store.verify_artifacts(),
    "iter_arrays": lambda store, _: list(store.iter_arrays()),
    "iter_aggregated_predictions": lambda store, _: list(store.iter_aggregated_predictions()),
    "undrained": lambda store, _: contextlib.ExitStack().enter_context(store.undrained()),
}
WRITES = {**CALLS, **MORE_WRITES}
ALL = {**WRITES, **READS, **MORE_READS}


def test_the_tables_above_name_every_method() -> None:
    public = {name for name, value in vars(WorkspaceStore).items() if callable(value) and not name.startswith("_")}
    assert public - {"close"} == set(ALL)


@pytest.mark.parametrize("unknown", ["unknown", "", "%", "0193a0c0-1234-7abc-8def-001122334455"])
def test_an_unknown_id_is_an_error_that_names_it(store: WorkspaceStore, sweep: Sweep, unknown: str) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    before = counts(store, "runs", "pipelines", "chains", "predictions", "logs", "artifacts")
    for name, call in {**CALLS, **READS}.items():
        with pytest.raises(NotFoundError) as caught:
            call(store, unknown)
        assert caught.value.identifier == unknown, name
    assert counts(store, *before) == before


@pytest.mark.parametrize("wrong", [None, 5])
def test_an_id_that_is_no_text_is_an_error(store: WorkspaceStore, sweep: Sweep, wrong: Any) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    for call in {**CALLS, **READS}.values():
        with pytest.raises((NotFoundError, InvalidInputError)):
            call(store, wrong)


def test_looking_for_an_unknown_id_finds_nothing(store: WorkspaceStore, sweep: Sweep) -> None:
    predict_with_arrays(store, sweep)
    for name in FINDS:
        assert getattr(store, name)("unknown") is None
    for name in FRAMES:
        assert getattr(store, name)("unknown").height == 0
    assert store.delete_prediction("unknown") is False
    assert store.find_cached_artifact("a", "b") is None


def test_every_call_on_a_closed_store_says_so(store: WorkspaceStore) -> None:
    store.close()
    for call in ALL.values():
        with pytest.raises(StoreClosedError, match="open it again"):
            call(store, "unknown")


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    store = WorkspaceStore(tmp_path)
    store.close()
    store.close()


@pytest.mark.long
def test_a_read_only_store_reads_and_refuses_to_write(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        predict_with_arrays(store, begin_sweep(store))
    file = tmp_path / "store.duckdb"
    before = file.read_bytes()
    with WorkspaceStore.open_readonly(tmp_path) as store:
        for call in WRITES.values():
            with pytest.raises(ReadOnlyError, match="read-only"):
                call(store, "unknown")
        for call in MORE_READS.values():
            call(store, "unknown")
        assert count(store, "prediction_arrays") == 1
    assert file.read_bytes() == before


# -- opening again ---------------------------------------------------------------------------


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with WorkspaceStore(str(tmp_path)) as store:
        sweep = begin_sweep(store)
        prediction = predict_with_arrays(store, sweep)
        store.log_step(sweep.pipeline, 1, "SNV", "start")
        frames = [
            store.list_runs(),
            store.list_pipelines(),
            store.query_predictions(),
            store.get_pipeline_log(sweep.pipeline),
        ]
        found = (store.get_run(sweep.run), store.get_pipeline(sweep.pipeline), store.get_chain(sweep.chain))
    with WorkspaceStore(tmp_path) as store:
        again = [
            store.list_runs(),
            store.list_pipelines(),
            store.query_predictions(),
            store.get_pipeline_log(sweep.pipeline),
        ]
        assert all(one.equals(other) for one, other in zip(frames, again, strict=True))
        assert (store.get_run(sweep.run), store.get_pipeline(sweep.pipeline), store.get_chain(sweep.chain)) == found
        assert store.get_prediction(prediction, load_arrays=True) is not None
        store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
        assert begin_pipeline(store, sweep.run)


@pytest.mark.parametrize("opened", [WorkspaceStore, WorkspaceStore.open_readonly])
def test_a_workspace_of_nirs4all_1_4_is_left_alone(tmp_path: Path, opened: Callable[[Path], WorkspaceStore]) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"")
    with pytest.raises(ForeignStoreError, match=re.escape(f"n4a-fast migrate {tmp_path}")):
        opened(tmp_path)
    assert not (tmp_path / "store.duckdb").exists()


@pytest.mark.parametrize("wrong", ["1", None, -1.0, float("nan"), True])
def test_a_lock_timeout_that_is_no_time_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="lock_timeout must be a number of seconds"):
        WorkspaceStore(tmp_path / "new", lock_timeout=wrong)
    assert not (tmp_path / "new").exists()


def test_a_path_that_no_folder_can_have_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be the path"):
        WorkspaceStore("a\0b")


@pytest.mark.not_on("windows", reason="names have none of these characters there")
@pytest.mark.parametrize("character", ["?", "\\"])
def test_a_path_that_duckdb_does_not_take_literally_is_refused(tmp_path: Path, character: str) -> None:
    with pytest.raises(InvalidInputError, match="rename the folder"):
        WorkspaceStore(tmp_path / f"a{character}b" / "workspace")
    assert not any(tmp_path.iterdir())


@pytest.mark.not_on("windows", reason="names have none of these characters there")
def test_a_path_of_all_other_characters_is_that_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "*[]{}#%&=+,;:@!$^`|<>()~'\" é"
    with WorkspaceStore(folder) as store:
        begin_sweep(store)
    assert {"store.duckdb", "artifacts"} == set(names_in(folder))
    with WorkspaceStore.open_readonly(folder) as store:
        assert store.list_runs().height == 1


def test_leaving_the_block_writes_and_closes_even_after_an_error(tmp_path: Path) -> None:
    store = WorkspaceStore(tmp_path)
    with pytest.raises(ZeroDivisionError), store:
        _ = begin_sweep(store), 1 / 0
    with pytest.raises(StoreClosedError):
        store.list_runs()
    with WorkspaceStore(tmp_path) as again:
        assert again.list_pipelines()["status"].to_list() == ["failed"]


def test_the_workspace_path_is_as_it_was_given(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "a" / ".." / "b") as store:
        assert store.workspace_path == tmp_path / "a" / ".." / "b"


# -- sql, transactions, threads ------------------------------------------------------------------


def test_sql_sees_what_was_just_saved(store: WorkspaceStore, sweep: Sweep) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    frame = store.sql("SELECT model_name, val_score FROM predictions WHERE val_score < ?", [0.5])
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == [("PLS", 0.1)]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM runs", "COPY runs TO '/tmp/never'", "SELECT 1; SELECT 2", "DROP TABLE runs", "nonsense"]
)
def test_sql_that_writes_is_refused(store: WorkspaceStore, sweep: Sweep, sql: str) -> None:
    with pytest.raises(InvalidInputError):
        store.sql(sql)
    assert count(store, "runs") == 1


def test_a_transaction_commits_at_its_end(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        with store.transaction() as inside:
            assert inside is store
            sweep = begin_sweep(store)
            prediction = predict_with_arrays(store, sweep)
            assert store.get_prediction(prediction) is not None
            assert count(store, "prediction_arrays") == 1
            store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
        assert counts(store, "runs", "predictions") == {"runs": 1, "predictions": 1}


def give_up(store: WorkspaceStore, work: Callable[[], object]) -> None:
    with store.transaction():
        work()
        raise ZeroDivisionError


def test_a_transaction_that_raises_leaves_nothing_of_itself(store: WorkspaceStore) -> None:
    kept = begin_sweep(store)
    made: list[Sweep] = []

    def work() -> None:
        made.append(begin_sweep(store))
        predict_with_arrays(store, made[0])
        predict_with_arrays(store, kept)
        store.complete_pipeline(made[0].pipeline, 0.1, 0.2, "rmse", 5)
        store.log_step(kept.pipeline, 1, "SNV", "start")
        store.delete_run(made[0].run)
        assert count(store, "runs") == 1

    with pytest.raises(ZeroDivisionError):
        give_up(store, work)
    assert counts(
        store, "runs", "pipelines", "chains", "predictions", "prediction_values", "shared_arrays", "logs"
    ) == {
        "runs": 1,
        "pipelines": 1,
        "chains": 1,
        "predictions": 0,
        "prediction_values": 0,
        "shared_arrays": 0,
        "logs": 0,
    }
    for call in (lambda: begin_pipeline(store, made[0].run), lambda: save_chain(store, made[0].pipeline)):
        with pytest.raises(NotFoundError):
            call()
    assert predict_with_arrays(store, kept)
    store.complete_pipeline(kept.pipeline, 0.1, 0.2, "rmse", 5)


def test_deleting_in_a_transaction_that_raises_deletes_nothing(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    predict_with_arrays(store, sweep)
    artifact = store.save_artifact({"a": 1}, "dict", "model", "joblib")
    with pytest.raises(ZeroDivisionError):
        give_up(store, lambda: store.delete_run(sweep.run))
    assert counts(store, "runs", "pipelines", "chains", "predictions", "prediction_arrays") == {
        "runs": 1,
        "pipelines": 1,
        "chains": 1,
        "predictions": 1,
        "prediction_arrays": 1,
    }
    assert store.load_artifact(artifact) == {"a": 1}


@pytest.mark.parametrize("reads", [False, True], ids=["saves only", "reads"])
def test_a_transaction_inside_another_joins_it(store: WorkspaceStore, reads: bool) -> None:
    with store.transaction():
        outer = store.begin_run("outer", {}, [])
        with store.transaction():
            inner = store.begin_run("inner", {}, [])
            if reads:
                assert count(store, "runs") == 2
        store.flush()
    assert {outer, inner} == set(store.list_runs()["run_id"])
    with pytest.raises(ZeroDivisionError), store.transaction():
        with store.transaction():
            store.begin_run("inner", {}, [])
            if reads:
                assert count(store, "runs") == 3
        raise ZeroDivisionError
    assert count(store, "runs") == 2


def test_an_inner_block_that_raises_leaves_nothing_and_the_outer_one_goes_on(store: WorkspaceStore) -> None:
    before = begin_sweep(store)
    with store.transaction():
        store.begin_run("outer", {}, [])
        predict_with_arrays(store, before, fold_id="outer")
        with pytest.raises(ZeroDivisionError), store.transaction():
            inner = begin_sweep(store)
            predict_with_arrays(store, inner)
            predict_with_arrays(store, before, fold_id="inner")
            store.complete_pipeline(before.pipeline, 0.1, 0.2, "rmse", 5)
            raise ZeroDivisionError
        with pytest.raises(NotFoundError):
            begin_pipeline(store, inner.run)
        predict_with_arrays(store, before, fold_id="outer 2")
    assert sorted(store.query_predictions()["fold_id"]) == ["outer", "outer 2"]
    assert counts(store, "runs", "pipelines", "chains") == {"runs": 2, "pipelines": 1, "chains": 1}
    assert store.list_pipelines()["status"].to_list() == ["running"]


def test_an_inner_block_that_raises_after_it_has_read_takes_the_outer_one_along(store: WorkspaceStore) -> None:
    with pytest.raises(InvalidInputError, match="nothing of this one can be committed"), store.transaction():
        store.begin_run("outer", {}, [])
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.begin_run("inner", {}, [])
            assert count(store, "runs") == 2
            raise ZeroDivisionError
    assert count(store, "runs") == 0


@pytest.mark.parametrize("call", ["close", "vacuum", "merge"])
def test_what_cannot_be_part_of_a_transaction_is_refused_and_leaves_it_as_it_is(
    store: WorkspaceStore, call: str
) -> None:
    with store.transaction():
        run = store.begin_run("kept", {}, [])
        with pytest.raises(InvalidInputError, match=rf"{call}\(\) cannot be called inside transaction\(\)"):
            getattr(store, call)()
    assert store.get_run(run) is not None


def test_threads_save_at_the_same_time(store: WorkspaceStore, sweep: Sweep) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            pipeline = begin_pipeline(store, sweep.run)
            place = Sweep(sweep.run, pipeline, save_chain(store, pipeline))
            for fold in range(25):
                predict_with_arrays(store, place, number, fold_id=str(fold))
                store.log_step(pipeline, fold, "SNV", "end", 1)
                if fold % 10 == 0:
                    assert store.query_predictions(pipeline_id=pipeline).height == fold + 1
            store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        except BaseException as error:  # a thread has nobody else to tell
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert failures == []
    assert counts(store, "predictions", "prediction_arrays", "logs") == {
        "predictions": 100,
        "prediction_arrays": 100,
        "logs": 100,
    }
    assert store.list_pipelines()["status"].to_list().count("completed") == 4
