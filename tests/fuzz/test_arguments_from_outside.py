"""Arguments of other types than documented: told by name before anything is written, or taken as what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers import PREDICTION, Sweep, begin_pipeline, begin_sweep, predict_with_arrays, save_chain

from n4a_fast import PipelineLibrary, WorkspaceStore, inspect_bundle
from n4a_fast.errors import InvalidInputError, StoreError
from n4a_fast.integrations.workspaces import convert, migrate
from n4a_fast.replay.plain.inputs import real_numbers

NO_IDS = [[], ["a"], {}, {"a"}, np.array([1.0, 2.0]), pl.Series(["a"]), pa.array(["a"]), 5, b"a"]
CALLS = [
    name
    for name, method in inspect.getmembers(WorkspaceStore, inspect.isfunction)
    if not name.startswith("_") and any(each.endswith("_id") for each in inspect.signature(method).parameters)
]
TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_values", "logs", "stored_artifacts")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkspaceStore, Sweep, str]]:
    with WorkspaceStore(tmp_path_factory.mktemp("arguments") / "w") as store:
        sweep = begin_sweep(store)
        yield store, sweep, predict_with_arrays(store, sweep)


def content(store: WorkspaceStore) -> list[Any]:
    return [store._open().database.rows(f"SELECT count(*), sum(hash(t)) FROM {table} t") for table in TABLES]


def sound_arguments(call: Callable[..., Any], sweep: Sweep, prediction: str) -> dict[str, Any]:
    known = {"run_id": sweep.run, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain, "prediction_id": prediction}
    known |= {
        "steps": [],
        "model_step_idx": 1,
        "fold_artifacts": {},
        "shared_artifacts": {},
        "summary": {},
        "X": [[1.0]],
    }
    known |= {name: value for name, value in PREDICTION.items() if name not in ("branch_id", "branch_name")}
    known |= {"duration_ms": 1, "best_val": 0.1, "best_test": 0.1, "step_idx": 1, "generator_choices": []}
    needed = [each for each in inspect.signature(call).parameters.values() if each.default is each.empty]
    return {each.name: known.get(each.name, "text") for each in needed if each.kind not in (2, 4)}


@pytest.mark.parametrize("name", CALLS)
def test_an_id_that_is_no_text_is_told_and_nothing_is_written(
    stored: tuple[WorkspaceStore, Sweep, str], name: str
) -> None:
    store, sweep, prediction = stored
    call, before = getattr(store, name), content(store)
    for argument in inspect.signature(call).parameters:
        for value in NO_IDS if argument.endswith("_id") and argument != "branch_id" else ():
            with suppress(StoreError):
                call(**{**sound_arguments(call, sweep, prediction), argument: value})
            assert content(store) == before


@pytest.mark.parametrize("make", [list, tuple, np.array, pl.Series, pa.array])
def test_a_column_is_a_filter_as_a_list_is(
    stored: tuple[WorkspaceStore, Sweep, str], make: Callable[[Any], Any]
) -> None:
    store, sweep, prediction = stored
    for name, value in (("pipeline_id", sweep.pipeline), ("chain_id", sweep.chain), ("run_id", sweep.run)):
        found = store.query_predictions(**{name: make([value])}) if name != "chain_id" else None
        assert found is None or found["prediction_id"].to_list() == [prediction]
        assert len(store.load_arrays(**{name: make([value])})) == 1
        assert store.query_chain_summaries(**{name: make([value])}).height == 1


@pytest.mark.parametrize("given", [{}, {"a": 1}, object(), b"a", Path("a"), [object()], pl.DataFrame({"a": [1]})])
def test_what_is_no_filter_is_told(stored: tuple[WorkspaceStore, Sweep, str], given: Any) -> None:
    for call in (stored[0].query_predictions, stored[0].load_arrays, stored[0].query_chain_summaries):
        with pytest.raises(InvalidInputError, match="pipeline_id must be a text or a number, or a list of these"):
            call(pipeline_id=given)


def test_lists_that_are_none_are_told_by_name(stored: tuple[WorkspaceStore, Sweep, str], tmp_path: Path) -> None:
    store, sweep, prediction = stored
    with pytest.raises(InvalidInputError, match="prediction_ids"):
        store.load_arrays(5)  # type: ignore[arg-type]
    for columns in (None, 5, [5]):
        with pytest.raises(InvalidInputError, match="columns"):
            store.load_arrays([prediction], columns=columns)  # type: ignore[arg-type]
    for many in (None, 5, "text", [5], {"a": 1}):
        with pytest.raises(InvalidInputError, match="run_ids"):
            store.extract(many, tmp_path / "w")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="chain_ids"):
            store.replay_chains(many, np.zeros((2, 3)))  # type: ignore[arg-type]
    for number in (None, "2", 1.5, np.nan):
        with pytest.raises(InvalidInputError, match="threads"):
            store.replay_chains([sweep.chain], np.zeros((2, 3)), threads=number)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="max_bytes"):
            store.replay_chains([sweep.chain], np.zeros((2, 3)), max_bytes=number)  # type: ignore[arg-type]
    for wait in (-1, "2", np.nan, [1]):
        with pytest.raises(InvalidInputError, match="wait"):
            store.progress(wait=wait)  # type: ignore[arg-type]
    assert store.progress(wait=float("inf"))
    for metric in (5, b"rmse", ["rmse"]):
        with pytest.raises(InvalidInputError, match="metric"):
            store.query_top_chains(metric)  # type: ignore[arg-type]
    for kind in (np.array(["run"]), pl.Series(["run"]), ["run"]):
        with pytest.raises(InvalidInputError, match="kind"):
            store.find("text", kind)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="dataset"):
        store.leaderboard(dataset=["corn"])  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["text", None, 5, [5], {"a": 1}])
def test_who_has_won_is_a_list_of_ids_or_no_artifact_goes(tmp_path: Path, given: Any) -> None:
    """The characters of an id are no pipelines: all of them had lost, and the winner's models went."""
    with WorkspaceStore(tmp_path / "w") as store:
        run = store.begin_run("r", {}, [])
        pipeline = begin_pipeline(store, run)
        scaler = store.save_artifact({"a": [0.5] * 9}, "S", "transformer", "joblib")
        save_chain(store, pipeline, shared_artifacts={"1": scaler})
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        with pytest.raises(InvalidInputError, match="winning_pipeline_ids"):
            store.cleanup_transient_artifacts(run, "corn", pipeline if given == "text" else given)
        assert store.load_artifact(scaler) == {"a": [0.5] * 9}


TEXTS = ["x" * 100_000, np.str_("xy"), b"x" * 100, bytearray(b"xy")]


@pytest.mark.parametrize("given", TEXTS, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("name", ["y_true", "y_pred", "y_proba", "sample_indices", "weights"])
def test_text_is_no_array(stored: tuple[WorkspaceStore, Sweep, str], name: str, given: Any) -> None:
    """Its characters were taken for as many predictions, one after the other."""
    store, sweep, prediction = stored
    columns = {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain}
    before = content(store)
    for arrays in ({name: given}, {name: [given]}):
        with pytest.raises(InvalidInputError, match=f"{name} must be an array, got"):
            store.save_predictions(columns, **arrays)
    with pytest.raises(InvalidInputError, match=f"{name} must be an array, got"):
        store.save_prediction_arrays(prediction, **{"y_true": None, "y_pred": None, name: given})
    with pytest.raises(InvalidInputError, match="classes must be a sequence of texts"):
        store.save_prediction_arrays(prediction, [0.0], [0.0], classes=given)
    assert content(store) == before


@pytest.mark.parametrize("given", TEXTS, ids=lambda given: type(given).__name__)
def test_text_is_no_spectra(stored: tuple[WorkspaceStore, Sweep, str], given: Any) -> None:
    store, spectra = stored[0], np.ones((4, 3))
    for name in ("X", "y", "groups", "X_test", "y_test"):
        with pytest.raises(InvalidInputError, match=f"{name} must be an array, got"):
            store.save_cross_validation(None, **{"X": spectra, "y": spectra[:, 0], name: given})
    with pytest.raises(InvalidInputError, match="X must be an array, got"):
        real_numbers(given, "X")


PATHS = [
    (name, argument)
    for name, method in inspect.getmembers(
        WorkspaceStore, lambda each: inspect.isfunction(each) or inspect.ismethod(each)
    )
    for argument, stated in inspect.signature(method).parameters.items()
    if stated.annotation in ("str | Path", "str | Path | None") and stated.kind != 2
]


@pytest.mark.parametrize(("name", "argument"), PATHS)
@pytest.mark.parametrize("given", [5, b"a", ["a"], {}, np.array(["a"])], ids=lambda given: type(given).__name__)
def test_what_is_no_path_is_told_by_name(
    stored: tuple[WorkspaceStore, Sweep, str], name: str, argument: str, given: Any
) -> None:
    store, sweep, prediction = stored
    call = WorkspaceStore if name == "__init__" else getattr(store, name)
    with pytest.raises(InvalidInputError, match=f"{argument} must be a path"):
        call(**{**sound_arguments(call, sweep, prediction), argument: given})


def test_paths_of_other_calls_are_told_as_well(stored: tuple[WorkspaceStore, Sweep, str], tmp_path: Path) -> None:
    calls: list[Callable[[Any], Any]] = [
        inspect_bundle,
        PipelineLibrary,
        migrate,
        stored[0].merge,
        lambda given: convert(given, tmp_path / "w"),
        lambda given: convert(tmp_path, given),
        PipelineLibrary(tmp_path).import_template,
    ]
    for call in calls:
        for given in (5, "a\0b"):
            with pytest.raises(InvalidInputError, match=r"must be a path|cannot be the path"):
                call(given)


@pytest.mark.parametrize("given", [np.array([1, 2]), pl.Series([1]), None, [], "no", 2])
def test_what_is_no_truth_value_deletes_nothing(
    stored: tuple[WorkspaceStore, Sweep, str], tmp_path: Path, given: Any
) -> None:
    """None and an empty list were taken for False, and "no" for True."""
    store, sweep, prediction = stored
    before = content(store)
    for _, method in inspect.getmembers(WorkspaceStore, inspect.isfunction):
        arguments = {**sound_arguments(method, sweep, prediction), "dry_run": given}
        arguments.pop("self", None)
        if "winning_pipeline_ids" in arguments:
            arguments["winning_pipeline_ids"] = []
        if "dry_run" in inspect.signature(method).parameters:
            with pytest.raises(InvalidInputError, match="dry_run must be True or False"):
                method(store, **arguments)
    with pytest.raises(InvalidInputError, match="dry_run"):
        migrate(tmp_path, dry_run=given)
    assert content(store) == before


@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(WorkspaceStore, inspect.isfunction)])
def test_an_array_is_no_truth_value(stored: tuple[WorkspaceStore, Sweep, str], name: str, tmp_path: Path) -> None:
    store, sweep, prediction = stored
    call = getattr(store, name)
    for argument, stated in inspect.signature(call).parameters.items():
        if not name.startswith("_") and stated.annotation == "bool":
            given = sound_arguments(call, sweep, prediction)
            given |= {each: tmp_path / each for each in ("path", "output_path", "to") if each in given}
            with suppress(StoreError):
                call(**{**given, argument: np.array([1, 2])})
