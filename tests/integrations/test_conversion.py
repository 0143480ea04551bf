"""Workspaces are written anew in another folder: nirs4all's as ours, ours as nirs4all's, and there and back
unchanged.
"""

from __future__ import annotations

import json
import math
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest
from foreign import NEW, NUMBERS_OF_OLD, OLD, unpacked
from helpers import DEADLINE, begin_sweep, child, counts, finish, predict, predict_with_arrays, read_line, save_chain

from n4a_fast import PipelineLibrary, WorkspaceStore
from n4a_fast.errors import (
    ArtifactCorruptError,
    CopyDiffersError,
    InvalidInputError,
    NotAStoreError,
    NotFoundError,
    StoreUnavailableError,
)
from n4a_fast.integrations.workspaces import convert

SUMMARY = (
    "model_name",
    "metric",
    "task_type",
    "best_params",
    "dataset_name",
    "cv_val_score",
    "cv_test_score",
    "cv_train_score",
    "cv_fold_count",
    "final_test_score",
    "final_train_score",
    "final_scores",
    "final_agg_test_score",
    "final_agg_train_score",
    "final_agg_scores",
)
LABELS = {
    "schema_version": 1,
    "label_type": "str",
    "vocabulary": ["barley", "wheat"],
    "indices": [1, 0, 1],
    "shape": [3],
}
OTHER_LABELS = {**LABELS, "vocabulary": ["oats", "wheat"], "indices": [1, 1, 0]}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return unpacked(NEW, tmp_path)


def tables(root: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of a SQLite workspace by table, in the order of their ids."""
    with closing(sqlite3.connect(root / "store.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1")] for name in names}
    for chain in found["chains"]:
        chain["cv_scores"] = chain["cv_scores"] and json.loads(chain["cv_scores"])  # spaces may differ
    return found


def change(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / "store.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def parquet(root: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in sorted((root / "arrays").glob("*.parquet"))]).sort(
        "prediction_id"
    )


@pytest.mark.long
def test_a_newer_workspace_becomes_ours(new: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    report = convert(new, tmp_path / "ours", progress=lambda *told: said.append(told))
    assert {table.table: (table.found, table.written) for table in report.tables if table.found} == {
        "runs": (1, 1),
        "pipelines": (3, 3),
        "chains": (3, 3),
        "artifacts": (1, 1),
        "predictions": (47, 47),
        "prediction_arrays": (47, 47),
        "artifact files": (1, 1),
    }
    assert ("copying arrays", 47, 47) in said
    assert (report.arrays_compared, report.destination) == (141, tmp_path / "ours")
    original = tables(new)
    with WorkspaceStore(tmp_path / "ours") as store:
        for row in parquet(new).head(5).to_dicts():
            found = store.get_prediction(row["prediction_id"], load_arrays=True)
            assert found is not None
            assert found["sample_metadata"] == json.loads(row["sample_metadata"])
            for name in ("y_true", "y_pred", "sample_indices"):
                assert np.array_equal(found[name], row[name])
        summaries = store.query_chain_summaries().to_dicts()
        assert [{name: row[name] for name in SUMMARY} for row in summaries] == [
            {name: row[name] for name in SUMMARY} for row in nearly(original["chains"])
        ]
        assert [json.loads(row["cv_scores"]) for row in summaries] == [row["cv_scores"] for row in original["chains"]]
        (artifact,) = original["artifacts"]
        assert (
            store.get_artifact_path(artifact["artifact_id"]).read_bytes()
            == (new / "artifacts" / artifact["artifact_path"]).read_bytes()
        )
        pipeline = store.get_pipeline(original["pipelines"][0]["pipeline_id"])
        assert pipeline is not None
        assert pipeline["original_template"] == json.loads(original["pipelines"][0]["original_template"])
        assert store.gc_artifacts() == 0


def nearly(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows to the last digit of means: nirs4all adds in another order."""
    return [
        {name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


@pytest.mark.long
def test_there_and_back_changes_nothing(new: Path, tmp_path: Path) -> None:
    PipelineLibrary(new).save_template({"pipeline": ["SNV"]}, "snv")
    before = {path: path.stat().st_mtime_ns for path in new.rglob("*")}
    convert(new, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back")
    assert {path: path.stat().st_mtime_ns for path in new.rglob("*")} == before
    assert not list(tmp_path.rglob("store.sqlite-*"))
    assert tables(tmp_path / "back") == {name: nearly(rows) for name, rows in tables(new).items()}
    assert parquet(tmp_path / "back").equals(parquet(new))
    assert pq.read_schema(tmp_path / "back" / "arrays" / "array_dataset.parquet").equals(
        pq.read_schema(new / "arrays" / "array_dataset.parquet")
    )
    files = [
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*/*/*.*")}
        for root in (new, tmp_path / "back")
    ]
    assert files[0] == files[1]
    assert {"library", "artifacts"} == {name.partition("/")[0] for name in files[0]}


@pytest.mark.long
def test_what_this_store_has_no_column_for_comes_back(new: Path, tmp_path: Path) -> None:
    change(
        new,
        "INSERT INTO projects (project_id, name) VALUES ('p1', 'grain')",
        "UPDATE runs SET project_id = 'p1'",
        "UPDATE predictions SET unit_id = 'plot 7', sample_influence_weight = 0.25 WHERE partition = 'val'",
        "UPDATE chains SET relation_replay_manifest = '{}', relation_replay_version = 2",
        """INSERT INTO conformal_results (conformal_id, artifact_fingerprint, result_fingerprint, coverages,
        artifact_json, result_json)
        VALUES ('c1', 'a', 'r', '[0.9]', '{}', '{}')""",
    )
    arrays = parquet(new)
    spectra = pl.Series([[0.5, math.inf, 1.5, 2.5]] + [None] * 46, dtype=pl.List(pl.Float64))
    shapes = pl.Series([[2, 2]] + [None] * 46, dtype=pl.List(pl.Int32))
    arrays = arrays.with_columns(spectra.alias("X"), shapes.alias("X_shape"), pl.col("X").alias("spectra"))
    arrays.write_parquet(new / "arrays" / "array_dataset.parquet")
    convert(new, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back")
    assert tables(tmp_path / "back") == {name: nearly(rows) for name, rows in tables(new).items()}
    assert parquet(tmp_path / "back").equals(arrays)


@pytest.mark.long
def test_what_was_deleted_here_does_not_come_back(new: Path, tmp_path: Path) -> None:
    change(
        new,
        "CREATE TABLE novelties (novelty_id TEXT PRIMARY KEY)",
        "INSERT INTO novelties VALUES ('n1')",
        """INSERT INTO tuning_results (tuning_id, pipeline_id, tuning_fingerprint, result_fingerprint, engine, metric,
        direction, best_value, n_trials,
        tuning_json, result_json) SELECT 't' || rowid, pipeline_id, '', '', '', '', '', 1.5, 1, '', '' FROM
        pipelines""",
    )
    report = convert(new, tmp_path / "ours")
    assert [(table.written, table.note) for table in report.tables if table.table == "novelties"] == [
        (0, "no place for it here")
    ]
    with WorkspaceStore(tmp_path / "ours") as store:
        first, *rest = store.sql("SELECT prediction_id FROM predictions")["prediction_id"]
        store.delete_prediction(first)
        assert set(
            store.sql("SELECT DISTINCT row_id FROM carried WHERE table_name = 'prediction_arrays'")["row_id"]
        ) == set(rest)
        (run,) = store.list_runs()["run_id"]
        store.delete_run(run)
    convert(tmp_path / "ours", tmp_path / "back")
    assert not any(tables(tmp_path / "back").values())
    assert not list((tmp_path / "back" / "arrays").iterdir())


def test_a_column_that_mixes_kinds_is_named(new: Path, tmp_path: Path) -> None:
    change(new, "UPDATE predictions SET n_samples = 'many' WHERE partition = 'val'")
    with pytest.raises(InvalidInputError, match="n_samples"):
        convert(new, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.long
def test_class_labels_become_numbers_and_come_back_as_labels(new: Path, tmp_path: Path) -> None:
    arrays = parquet(new)
    texts, integers = (arrays["prediction_id"][place] for place in (0, 1))
    numbers = {**LABELS, "label_type": "int64", "vocabulary": [7, 9]}
    given = {texts: (json.dumps(LABELS), json.dumps(OTHER_LABELS)), integers: (json.dumps(numbers), None)}
    labelled = pl.col("prediction_id").is_in([texts, integers])
    nothing = pl.lit(None, dtype=pl.List(pl.Float64))
    arrays = arrays.with_columns(
        pl.when(labelled).then(nothing).otherwise("y_true").alias("y_true"),
        pl.when(labelled).then(nothing).otherwise("y_pred").alias("y_pred"),
        pl.when(labelled).then(None).otherwise("sample_indices").alias("sample_indices"),
        *(
            pl.Series(f"{name}_labels", [given.get(i, (None, None))[place] for i in arrays["prediction_id"]])
            for place, name in enumerate(("y_true", "y_pred"))
        ),
    )
    arrays.write_parquet(new / "arrays" / "array_dataset.parquet")
    convert(new, tmp_path / "ours")
    with WorkspaceStore(tmp_path / "ours") as store:
        found = store.get_prediction_arrays(texts)
        assert found is not None
        assert (found["y_true"].tolist(), found["y_pred"].tolist()) == ([2, 0, 2], [2, 2, 1])  # of barley, oats, wheat
        assert (store.get_prediction_arrays(integers) or {})["y_true"].tolist() == [9, 7, 9]
    convert(tmp_path / "ours", tmp_path / "back")
    assert parquet(tmp_path / "back").equals(arrays)


@pytest.mark.long
def test_a_workspace_of_ours_goes_out_and_comes_in_again(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ours") as store:
        first, second = begin_sweep(store, "corn"), begin_sweep(store, "so/il")
        store.set_run_project(first.run, store.create_project("grain"))
        artifact = store.save_artifact({"weights": np.arange(1000.0)}, "dict", "model", "joblib")
        chain = save_chain(store, first.pipeline, fold_artifacts={"fold_0": artifact})
        wide = predict(store, first.pipeline, chain, val_score=math.nan, test_score=math.inf, metric=None, branch_id=3)
        metadata = {"site": ["a", "b"]}
        store.save_prediction_arrays(
            wide, np.ones((2, 3)), np.zeros((2, 3)), np.full((2, 2), 0.5), None, np.ones(5), metadata
        )
        predict(store, second.pipeline, None, dataset_name="so/il", scores={"val": {"rmse": math.nan}})
        for fold in range(3):
            predict_with_arrays(store, second, fold, fold_id=str(fold), dataset_name="so/il")
        store.log_step(first.pipeline, 1, "SNV", "end", 3, "done", {"rows": 2})
        store.fail_run(second.run, "boom")
        wanted = answers(store)
    report = convert(tmp_path / "ours", tmp_path / "theirs")
    assert report.written("predictions") == 5
    assert {file.name for file in (tmp_path / "theirs" / "arrays").iterdir()} == {"corn.parquet", "so_il.parquet"}
    assert [row["ref_count"] for row in tables(tmp_path / "theirs")["artifacts"]] == [1]
    convert(tmp_path / "theirs", tmp_path / "again")
    with WorkspaceStore(tmp_path / "again") as store:
        assert answers(store) == wanted
        assert (store.get_prediction(wide) or {})["val_score"] is None  # nirs4all's SQLite knows no NaN
        found = store.get_prediction(wide, load_arrays=True)
        assert found is not None
        assert (found["y_true"].shape, found["y_proba"].shape, found["weights"].shape, found["sample_metadata"]) == (
            (2, 3),
            (2, 2),
            (5,),
            metadata,
        )
        assert np.array_equal(store.load_artifact(artifact)["weights"], np.arange(1000.0))


def test_shards_that_wait_are_told_and_files_beside_the_store_come_along(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "ours") as store:
        predict_with_arrays(store, begin_sweep(store))
        with store.shard().open() as shard:
            predict_with_arrays(shard, begin_sweep(shard))
    (tmp_path / "ours" / "exports").mkdir()
    (tmp_path / "ours" / "exports" / "best.txt").write_text("PLS")
    report = convert(tmp_path / "ours", tmp_path / "theirs")
    assert {
        table.table: (table.found, table.written) for table in report.tables if table.table in ("shards", "other files")
    } == {"shards": (1, 0), "other files": (1, 1)}
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {"store.sqlite", "arrays", "exports"}
    assert (tmp_path / "theirs" / "exports" / "best.txt").read_text() == "PLS"


def answers(store: WorkspaceStore) -> list[Any]:
    """What a store says, without the score that SQLite cannot hold."""
    predictions = store.query_predictions().drop("val_score").sort("prediction_id")
    arrays = store.sql("SELECT * FROM prediction_arrays ORDER BY prediction_id").to_dicts()
    rows = [
        store.sql(f"SELECT * FROM {name} ORDER BY ALL").to_dicts()
        for name in ("runs", "pipelines", "chains", "logs", "projects")
    ]
    return [predictions.to_dicts(), arrays, rows, store.query_chain_summaries().to_dicts()]


@pytest.mark.long
def test_an_old_workspace_can_be_converted_without_being_touched(tmp_path: Path) -> None:
    old = unpacked(OLD, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    report = convert(old, tmp_path / "deep" / "ours")
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before
    (files,) = [table for table in report.tables if table.table == "artifact files"]
    assert (files.found, files.written, files.note) == (13, 1, "12 are missing in the source")
    with WorkspaceStore(tmp_path / "deep" / "ours") as store:
        assert counts(store, *NUMBERS_OF_OLD) == NUMBERS_OF_OLD


def test_rows_in_the_write_ahead_log_of_a_writer_at_work_come_along(new: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(new / "store.sqlite")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        with writer:
            writer.execute("INSERT INTO runs (run_id, name) VALUES ('late', 'just now')")
        assert convert(new, tmp_path / "ours").written("runs") == 2


def test_a_workspace_that_changes_while_it_is_read_is_refused(new: Path, tmp_path: Path) -> None:
    def write_too(what: str, _done: int, _total: int) -> None:
        if what == "comparing predictions":
            change(new, "UPDATE runs SET name = 'another'")

    with pytest.raises(CopyDiffersError, match="the files differ"):
        convert(new, tmp_path / "ours", progress=write_too)
    assert not (tmp_path / "ours").exists()


def test_nothing_is_overwritten_and_nothing_half_made_appears(new: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not overwritten"):
        convert(new, ours)
    with pytest.raises(InvalidInputError, match="lies inside"):
        convert(new, new / "ours")
    (ours / "notes.txt").unlink()
    (artifact,) = new.rglob("*.joblib")
    content = artifact.read_bytes()
    artifact.write_bytes(content[:-1] + b"?")
    with pytest.raises(ArtifactCorruptError):
        convert(new, ours)
    artifact.write_bytes(content)
    (new / "arrays" / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreUnavailableError, match="Parquet") as caught:
        convert(new, ours)
    assert str(new / "store.sqlite") not in {file.path for file in psutil.Process().open_files()}
    del caught  # whose traceback keeps what was not closed
    (new / "arrays" / "broken.parquet").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [NEW, "ours"]
    assert convert(new, ours).written("predictions") == 47  # an empty folder is as good as none


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_full_disk_leaves_nothing_behind(new: Path, tmp_path: Path, way: str) -> None:
    source = new
    if way == "out":
        convert(new, tmp_path / "ours")
        source = tmp_path / "ours"
    before = sorted(path.name for path in tmp_path.iterdir())
    assert finish(child(CONVERT_WITH_LITTLE_SPACE, source, tmp_path / "there")) == "StoreUnavailableError\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# no file may grow beyond 100 kB, which the system refuses like a full disk does
CONVERT_WITH_LITTLE_SPACE = """
import resource, signal, sys
from n4a_fast.errors import StoreError
from n4a_fast.integrations.workspaces import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    convert(*sys.argv[1:])
except StoreError as error:
    print(type(error).__name__)
"""


def test_what_is_no_workspace_is_refused(new: Path, tmp_path: Path, empty_workspace: Path) -> None:
    with pytest.raises(NotFoundError, match="check the path"):
        convert(tmp_path / "nothing", tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAStoreError, match=r"no store.duckdb and no store.sqlite"):
        convert(tmp_path / "empty", tmp_path / "ours")
    (new / "store.duckdb").write_bytes((empty_workspace / "store.duckdb").read_bytes())
    with pytest.raises(NotAStoreError, match="store.duckdb and store.sqlite"):
        convert(new, tmp_path / "ours")
    (new / "store.duckdb").unlink()
    (new / "store.sqlite").write_bytes(b"not SQLite" * 100)
    with pytest.raises(NotAStoreError):
        convert(new, tmp_path / "ours")
    (new / "store.sqlite").unlink()
    with closing(sqlite3.connect(new / "store.sqlite")) as connection:
        connection.execute("CREATE TABLE runs (run_id TEXT)")
    with pytest.raises(NotAStoreError, match="not a nirs4all workspace"):
        convert(new, tmp_path / "ours")


@pytest.mark.parametrize(("lines", "there"), [(8, "ours"), (9, "back")])
def test_a_killed_conversion_leaves_nothing_and_is_repeated(new: Path, tmp_path: Path, lines: int, there: str) -> None:
    source = new
    if there == "back":
        convert(new, tmp_path / "ours")
        source = tmp_path / "ours"
    process = child(TELL_PROGRESS, source, tmp_path / there)
    for _ in range(lines):
        read_line(process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    if (tmp_path / there).exists():  # it was done before the signal came
        return
    assert convert(source, tmp_path / there).written("predictions") == 47
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({NEW, "ours", there})


TELL_PROGRESS = """
import sys
from n4a_fast.integrations.workspaces import convert
convert(*sys.argv[1:], progress=lambda *told: print(*told, flush=True))
"""
