"""Predictions as Parquet files and folders, read by Polars, DuckDB and pyarrow, in little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from helpers import PREDICTION, Sweep, begin_pipeline, child, finish, predict, predict_with_arrays

from n4a_fast import WorkspaceStore
from n4a_fast.bundles import parquet
from n4a_fast.errors import InvalidInputError, StoreUnavailableError


def test_predictions_keep_their_types_and_match_the_filters(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path
) -> None:
    for fold in range(3):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), val_score=float("nan"))
    frame = pl.read_parquet(store.export_predictions_parquet(tmp_path / "all.parquet"))
    assert frame.height == 3
    assert frame.schema["val_score"] == pl.Float64
    assert frame.schema["scores"] == pl.String
    assert isinstance(frame.schema["created_at"], pl.Datetime)
    assert frame["val_score"].is_nan().all()
    assert pl.read_parquet(store.export_predictions_parquet(tmp_path / "one.parquet", fold_id="1"))[
        "fold_id"
    ].to_list() == ["1"]


def test_a_table_without_rows_has_its_columns(store: WorkspaceStore, tmp_path: Path) -> None:
    schemas = [
        pq.read_schema(store.export_predictions_parquet(tmp_path / "none.parquet", arrays=arrays))
        for arrays in (False, True)
    ]
    assert set(schemas[1].names) - set(schemas[0].names) == {"y_true", "y_pred", "y_proba", "sample_indices", "weights"}
    folder = store.export_predictions_parquet(tmp_path / "none", partition_by="dataset_name")
    assert pl.read_parquet(folder / "data.parquet").height == 0


def test_arrays_come_as_lists_across_slices(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_FIRST": 2, "_FEWEST": 2, "_MOST": 3}.items():
        monkeypatch.setattr(parquet, name, value)
    ids = [predict_with_arrays(store, sweep, float(fold), fold_id=str(fold)) for fold in range(9)]
    without = predict(store, sweep.pipeline, sweep.chain, fold_id="none")
    frame = pl.read_parquet(store.export_predictions_parquet(tmp_path / "arrays.parquet", arrays=True))
    assert sorted(frame["prediction_id"]) == sorted([*ids, without])
    rows = {row["fold_id"]: row for row in frame.iter_rows(named=True)}
    assert {fold: row["y_pred"][0] for fold, row in rows.items() if fold != "none"} == {
        str(fold): float(fold) for fold in range(9)
    }
    assert all(row["y_true"] == [0.0, 1.0, 2.0, 3.0, 4.0] for fold, row in rows.items() if fold != "none")
    assert rows["none"]["y_pred"] is None


def test_pipelines_follow_each_other_in_time(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    pipelines = [sweep.pipeline, *(begin_pipeline(store, sweep.run, str(number)) for number in range(3))]
    for fold in range(4):
        for pipeline in pipelines:
            predict(store, pipeline, sweep.chain, fold_id=str(fold))
    frame = pl.read_parquet(store.export_predictions_parquet(tmp_path / "all.parquet"))
    assert frame["pipeline_id"].unique(maintain_order=True).to_list() == pipelines
    assert all(part["created_at"].is_sorted() for part in frame.partition_by("pipeline_id"))


def values() -> list[tuple[str, int | None]]:
    """Dataset names that a path must escape, and branches."""
    return [("corn", 1), ("wheat 2", None), ("a/b=c%20d", 1), ("été", 2), ("corn", None)]


@pytest.fixture
def partitioned(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> Path:
    for number, (name, branch) in enumerate(values()):
        predict(
            store,
            sweep.pipeline,
            sweep.chain,
            dataset_name=name,
            branch_id=branch,
            model_name=str(number),
            val_score=number / 2,
        )
    return store.export_predictions_parquet(
        tmp_path / "new" / "dataset", partition_by=["dataset_name", "branch_id"], arrays=True
    )


def test_a_partitioned_dataset_reads_as_is(partitioned: Path) -> None:
    wanted = sorted((name, branch or -1, number / 2) for number, (name, branch) in enumerate(values()))

    def told(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return sorted((name, -1 if branch is None else int(branch), score) for name, branch, score in rows)

    assert not list(partitioned.rglob("*.tmp"))
    assert "dataset_name" not in pq.read_schema(next(partitioned.rglob("*.parquet"))).names
    columns = ["dataset_name", "branch_id", "val_score"]
    assert (
        told(pl.scan_parquet(partitioned / "**/*.parquet", hive_partitioning=True).select(columns).collect().rows())
        == wanted
    )
    with duckdb.connect() as connection:
        query = f"SELECT {', '.join(columns)} FROM read_parquet('{partitioned}/**/*.parquet', hive_partitioning = true)"
        assert told(connection.execute(query).fetchall()) == wanted
    table = ds.dataset(partitioned, partitioning="hive").to_table(columns=columns)
    assert told([tuple(row.values()) for row in table.to_pylist()]) == wanted


def test_partitions_hold_what_the_filters_leave(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    for fold in range(2):
        for name in ("corn", "rice"):
            predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold), dataset_name=name, model_name=name)
    folder = store.export_predictions_parquet(tmp_path / "dataset", partition_by="dataset_name", fold_id="1")
    assert sorted(path.parent.name for path in folder.rglob("*.parquet")) == ["dataset_name=corn", "dataset_name=rice"]
    assert pl.scan_parquet(folder / "**/*.parquet", hive_partitioning=True).select("fold_id").collect()[
        "fold_id"
    ].to_list() == ["1", "1"]


@pytest.mark.parametrize(
    ("partition_by", "reason"),
    [("colour", "colour"), (["partition", "partition"], "twice"), ([], "is empty"), ("val_score", "val_score")],
)
def test_columns_that_cannot_partition_are_refused(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path, partition_by: Any, reason: str
) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    with pytest.raises(InvalidInputError, match=reason):
        store.export_predictions_parquet(tmp_path / "dataset", partition_by=partition_by)
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_too_many_partitions_are_refused_before_any_is_kept(
    store: WorkspaceStore, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MOST_FILES", 2)
    for fold in range(3):
        predict(store, sweep.pipeline, sweep.chain, fold_id=str(fold))
    with pytest.raises(InvalidInputError, match="would give 3 files"):
        store.export_predictions_parquet(tmp_path / "dataset", partition_by="fold_id")
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_a_folder_is_never_written_into(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    predict(store, sweep.pipeline, sweep.chain)
    (tmp_path / "empty").mkdir()
    assert list(store.export_predictions_parquet(tmp_path / "empty", partition_by="fold_id").iterdir())
    with pytest.raises(InvalidInputError, match="no empty folder"):
        store.export_predictions_parquet(tmp_path / "empty", partition_by="fold_id")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match="no empty folder"):
        store.export_predictions_parquet(tmp_path / "file", partition_by="fold_id")
    with pytest.raises(StoreUnavailableError):
        store.export_predictions_parquet(tmp_path / "file" / "dataset", partition_by="fold_id")
    assert (tmp_path / "file").read_text() == "mine"


EXPORTS = """
import sys
from n4a_fast import WorkspaceStore

def largest():  # getrusage would begin with the memory of the parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

with WorkspaceStore.open_readonly(sys.argv[1]) as store:
    store.export_predictions_parquet(sys.argv[2] + "/warm.parquet", arrays=True, fold_id="few")
    before = largest()
    store.export_predictions_parquet(sys.argv[2] + "/all.parquet", arrays=True)
    print((largest() - before) // 1024)
"""


@pytest.mark.not_on("macos", reason="the peak of a process is told by /proc")
@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_rows(store: WorkspaceStore, sweep: Sweep, tmp_path: Path) -> None:
    columns, row = {**PREDICTION, "pipeline_id": sweep.pipeline, "chain_id": sweep.chain}, np.arange(1000.0)
    for fold, count in (("few", 2_000), ("many", 24_000)):
        names = [f"{fold}{number}" for number in range(count)]
        store.save_predictions(
            {**columns, "fold_id": fold, "model_name": names}, y_pred=np.tile(row, (count, 1))
        )  # 8 kB a row
    store.close()
    grown = int(finish(child(EXPORTS, tmp_path / "workspace", tmp_path)))
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 26_000
    assert grown < 144  # MB, of 192 more; 40 to 105 by what else allocates meanwhile
    frame = (
        pl.scan_parquet(tmp_path / "all.parquet").filter(pl.col("model_name") == "many7999").select("y_pred").collect()
    )
    assert frame["y_pred"].to_list() == [row.tolist()]
