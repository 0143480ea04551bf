"""Every column of a workspace with values that no store writes: each reading call answers, or raises a typed error.

`N4A_BAD_VALUES=all` takes all columns and values; a run takes those that once raised something else, and some more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from helpers import Sweep, begin_sweep, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreError
from n4a_fast.schema.columns import ALL

ONCE_RAW = [
    ("chains", "chain_id", "NULL"),
    ("predictions", "id_key", "NULL"),
    ("prediction_values", "y_pred_width", "-1"),
    ("runs", "run_id", "NULL"),
    ("runs", "created_at", "NULL"),
    ("prediction_values", "classes", "'3'"),
    ("shared_arrays", "content_hash", "'other'"),
]
OTHERS = 6
TABLES = (
    "runs",
    "pipelines",
    "chains",
    "predictions",
    "logs",
    "stored_artifacts",
    "prediction_values",
    "shared_arrays",
    "metrics",
)
BAD = {"string": ("''", "'[}'", "'[1]'", "'3'"), "double": ("'nan'",), "int": ("-1",)}


class Sound(NamedTuple):
    """A workspace, and what is in it."""

    root: Path
    sweep: Sweep
    predictions: list[str]
    model: str


READS: list[Callable[[WorkspaceStore, Sound], Any]] = [
    lambda store, _: store.list_runs(),
    lambda store, sound: store.get_run(sound.sweep.run),
    lambda store, _: store.list_pipelines(),
    lambda store, sound: store.get_pipeline(sound.sweep.pipeline),
    lambda store, sound: store.get_chain(sound.sweep.chain),
    lambda store, sound: store.describe_chain(sound.sweep.chain),
    lambda store, sound: store.get_chains_for_pipeline(sound.sweep.pipeline),
    lambda store, _: store.query_predictions(),
    lambda store, _: store.top_predictions(5),
    lambda store, _: repr(store.leaderboard()),
    lambda store, _: store.query_chain_summaries(),
    lambda store, _: store.query_top_chains(),
    lambda store, _: store.query_aggregated_predictions(),
    lambda store, sound: [store.get_prediction(each, load_arrays=True) for each in sound.predictions],
    lambda store, sound: list(store.load_arrays(sound.predictions).y_pred),
    lambda store, sound: store.get_pipeline_log(sound.sweep.pipeline),
    lambda store, sound: store.get_run_log_summary(sound.sweep.run),
    lambda store, _: store.progress(),
    lambda store, _: store._repr_html_(),
    lambda store, _: store.stats(),
    lambda store, _: store.verify(),
    lambda store, sound: store.report(sound.root.with_name("report.html")),
    lambda store, _: store.find("a"),
    lambda store, sound: store.export_predictions_parquet(sound.root.with_name("predictions.parquet")),
    lambda store, sound: store.export_run(sound.sweep.run, sound.root.with_name("run.yaml")),
    lambda store, sound: store.load_artifact(sound.model),
    lambda store, _: store.gc_artifacts(),
    lambda store, sound: store.delete_run(sound.sweep.run),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    root = tmp_path_factory.mktemp("sound") / "workspace"
    with WorkspaceStore(root) as store:
        run, pipeline, _ = begin_sweep(store)
        model = store.save_artifact({"is": [0.5] * 30}, "dict", "model", "joblib")
        sweep = Sweep(run, pipeline, save_chain(store, pipeline, fold_artifacts={"0": model}))
        predictions = [predict_with_arrays(store, sweep, fold_id=str(fold)) for fold in range(3)]
        store.log_step(pipeline, 1, "SNV", "end")
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        store.complete_run(run, {})
        store.leaderboard()
        store.query_chain_summaries()
    return Sound(root, sweep, predictions, model)


def every_change() -> Iterator[tuple[str, str, str]]:
    for table in TABLES:
        for column in ALL[table]:
            kind = str(column.type)
            for value in ("NULL", *next((BAD[name] for name in BAD if kind.startswith(name)), ())):
                yield table, column.name, value


def some_changes() -> list[tuple[str, str, str]]:
    every = list(every_change())
    if os.environ.get("N4A_BAD_VALUES") == "all":
        return every
    return ONCE_RAW + every[:: len(every) // OTHERS]


@pytest.mark.parametrize(("table", "column", "value"), some_changes())
def test_a_value_that_no_store_writes_is_read_or_told(
    sound: Sound, tmp_path: Path, table: str, column: str, value: str
) -> None:
    here = sound._replace(root=Path(shutil.copytree(sound.root, tmp_path / "workspace")))
    with duckdb.connect(str(here.root / "store.duckdb")) as connection:
        try:
            connection.execute(f"UPDATE {table} SET {column} = {value}")
        except duckdb.Error:
            return  # the table does not take it
    answered, told = 0, list[str]()
    try:
        store = WorkspaceStore(here.root)
    except StoreError:
        return
    with store:
        for read in READS:
            try:
                read(store, here)
                answered += 1
            except StoreError as error:
                told.append(str(error))
    assert answered
    assert all(told)
