"""Backups made beside writers, restores, and runs as workspaces of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, child, kill, predict_with_arrays, read_line, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.durable.duckdb_file import DuckDBFile
from n4a_fast.errors import (
    DamagedStoreError,
    InvalidInputError,
    NotFoundError,
    StoreLockedError,
    StoreUnavailableError,
)
from n4a_fast.library import PipelineLibrary

TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")


def fill(store: WorkspaceStore, number: int = 0) -> Sweep:
    """A run with a model and some predictions."""
    sweep = begin_sweep(store)
    model = store.save_artifact({"of": number, "is": [0.5] * 300}, "dict", "model", "joblib")
    sweep = Sweep(sweep.run, sweep.pipeline, save_chain(store, sweep.pipeline, fold_artifacts={"0": model}))
    for fold in range(10):
        predict_with_arrays(store, sweep, fold + number, fold_id=str(fold))
    store.log_step(sweep.pipeline, 1, "SNV", "end")
    store.complete_pipeline(sweep.pipeline, 0.1, 0.2, "rmse", 5)
    store.complete_run(sweep.run, {})
    return sweep


def content(store: WorkspaceStore, run: str | None = None) -> dict[str, Any]:
    """All rows of the documented tables, and what the artifacts hold."""
    rows = {table: sorted(map(str, store.sql(f"FROM {table}").rows())) for table in TABLES}
    models = {name: store.load_artifact(name) for (name,) in store.sql("SELECT artifact_id FROM artifacts").rows()}
    return {**rows, "models": models}


def test_a_backup_is_a_workspace_with_all_that_was_saved(store: WorkspaceStore, tmp_path: Path) -> None:
    sweep = fill(store)
    PipelineLibrary(store.workspace_path).save_template([{"model": "PLS"}], "a template")
    predict_with_arrays(store, sweep, fold_id="unflushed")
    report = store.backup(tmp_path / "backup")
    assert (report.artifacts, report.unchanged) == (1, 0)
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == content(store)
        assert copy.verify().findings == []
    assert [t["name"] for t in PipelineLibrary(tmp_path / "backup").list_templates()] == ["a template"]


def test_the_next_backup_takes_unchanged_artifacts_over(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    fill(store, 1)
    report = store.backup(tmp_path / "backup")
    assert (report.artifacts, report.unchanged) == (2, 1)
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == content(store)


def test_an_artifact_that_the_disk_of_a_backup_has_damaged_is_copied_again(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    (copied,) = (tmp_path / "backup" / "artifacts").glob("??/*.joblib")
    damaged = bytearray(copied.read_bytes())
    damaged[100] ^= 1
    copied.unlink()  # it is linked to the original
    copied.write_bytes(damaged)
    assert store.backup(tmp_path / "backup").unchanged == 0
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == content(store)


def test_what_is_saved_or_deleted_later_is_not_in_the_backup(store: WorkspaceStore, tmp_path: Path) -> None:
    sweep = fill(store)
    before = content(store)
    store.backup(tmp_path / "backup")
    store.delete_run(sweep.run)
    store.gc_artifacts()
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == before


def test_shards_that_were_not_merged_are_backed_up_and_restored(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    shard = store.shard(run_id=store.begin_run("sharded", {}, []))
    with shard.open() as inner:
        fill(inner, 1)
    assert store.backup(tmp_path / "backup").artifacts == 2
    assert store.backup(tmp_path / "backup").unchanged == 2
    WorkspaceStore.restore(tmp_path / "backup", tmp_path / "restored")
    store.merge()
    with WorkspaceStore(tmp_path / "restored") as restored:
        assert restored.verify().checked["shards"] == 1
        restored.merge()
        assert content(restored) == content(store)


def test_a_folder_that_is_no_backup_is_refused(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for place in (tmp_path / "other", store.workspace_path, store.workspace_path / "inside", tmp_path):
        with pytest.raises(InvalidInputError):
            store.backup(place)
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_the_backup_of_another_workspace_is_not_replaced(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    with WorkspaceStore(tmp_path / "other") as other, pytest.raises(InvalidInputError, match="another workspace"):
        other.backup(tmp_path / "backup")
    WorkspaceStore.restore(tmp_path / "backup", tmp_path / "moved")
    with WorkspaceStore(tmp_path / "moved") as moved:
        assert moved.backup(tmp_path / "backup").unchanged == 1


def test_links_are_followed_before_a_place_is_judged(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "to the workspace").symlink_to(store.workspace_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "to another disk").symlink_to(tmp_path / "disk")
    with pytest.raises(InvalidInputError, match="lies in"):
        store.backup(tmp_path / "to the workspace" / "inside")
    assert store.backup(tmp_path / "to another disk").path == tmp_path / "disk"
    for place in ("disk", "to another disk/inside"):
        with pytest.raises(InvalidInputError, match="the backup"):
            WorkspaceStore.restore(tmp_path / "disk", tmp_path / place, replace=True)


def test_a_disk_that_refuses_a_copy_is_named(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    path = store.workspace_path
    store.close()
    with WorkspaceStore.open_readonly(path) as reader:
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
        try:
            with pytest.raises(StoreUnavailableError, match=re.escape(f"{tmp_path / 'backup'} cannot be used")):
                reader.backup(tmp_path / "backup")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.name for each in tmp_path.iterdir()] == ["workspace"]


def test_a_workspace_copied_without_its_artifacts_is_told_by_its_own_path(
    store: WorkspaceStore, tmp_path: Path
) -> None:
    fill(store)
    store.close()
    shutil.copytree(store.workspace_path, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "artifacts")
    with WorkspaceStore.open_readonly(tmp_path / "half") as half:
        assert [finding.kind for finding in half.verify().findings] == ["missing file"]
        with pytest.raises(DamagedStoreError, match=re.escape(str(tmp_path / "half" / "artifacts"))):
            half.backup(tmp_path / "backup")


def test_a_damaged_store_leaves_the_former_backup_as_it_is(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    before = (tmp_path / "backup" / "store.duckdb").read_bytes()
    path = store.workspace_path
    store.close()
    data = (path / "store.duckdb").read_bytes()
    file = DuckDBFile(lambda offset, length: data[offset : offset + length])
    blocks = file.blocks()
    block = max(b for b in range(file.active.blocks) if b not in blocks.free and b not in blocks.metadata)
    with (path / "store.duckdb").open("r+b") as opened:
        opened.seek(file.place_of(block) + 1000)
        opened.write(b"rotten")
    with WorkspaceStore(path) as damaged, pytest.raises(DamagedStoreError):
        damaged.backup(tmp_path / "backup")
    assert (tmp_path / "backup" / "store.duckdb").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup", "workspace"]


WRITER = """import sys
from helpers import *
store = WorkspaceStore(sys.argv[1])
run = store.begin_run('r', {}, [])
while True:
    pipeline = begin_pipeline(store, run)
    model = store.save_artifact({'of': pipeline}, 'dict', 'model', 'joblib')
    chain = save_chain(store, pipeline, fold_artifacts={'0': model})
    predict_with_arrays(store, Sweep(run, pipeline, chain))
    store.complete_pipeline(pipeline, 0.1, 0.2, 'rmse', 5); print(pipeline)"""


def test_a_backup_beside_a_writer_is_sound_and_has_what_was_acknowledged(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    writer = child(WRITER, store.workspace_path)
    acknowledged = [read_line(writer) for _ in range(5)]
    store.backup(tmp_path / "backup")
    read_line(writer)
    kill(writer)
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert set(acknowledged) <= set(copy.list_pipelines()["pipeline_id"])
        assert copy.verify().findings == []


def test_a_vacuum_and_a_delete_between_two_slices_are_in_the_backup(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    doomed = fill(store, 1)

    def meanwhile(part: str, _done: int, _total: int) -> None:
        if part == "blocks" and store.list_runs().height == 2:
            store.delete_run(doomed.run)
            store.vacuum()
            for number in (2, 3):
                fill(store, number)

    store.backup(tmp_path / "backup", progress=meanwhile)
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == content(store)
        assert copy.verify().findings == []


def test_a_reader_backs_up_what_a_killed_writer_left_in_its_logs(tmp_path: Path) -> None:
    writer = child(
        "import sys\nfrom helpers import *\nstore = WorkspaceStore(sys.argv[1])\nsweep = begin_sweep(store)\n"
        "columns = {**PREDICTION, 'pipeline_id': sweep.pipeline, 'fold_id': [str(n) for n in range(5000)]}\n"
        "store.save_predictions(columns, y_pred=np.ones((5000, 20)), y_true=np.arange(20.0))\n"
        "predict_with_arrays(store, sweep); store.flush(); print('flushed'); input()",
        tmp_path / "workspace",
    )
    read_line(writer)
    kill(writer)
    with WorkspaceStore.open_readonly(tmp_path / "workspace") as left:
        left.backup(tmp_path / "backup")
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert copy.sql("SELECT count(y_pred) FROM prediction_arrays").item() == 5001


def test_a_restored_workspace_is_what_was_backed_up(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    before = content(store)
    store.backup(tmp_path / "backup")
    WorkspaceStore.restore(tmp_path / "backup", tmp_path / "restored")
    with WorkspaceStore(tmp_path / "restored") as restored:
        assert content(restored) == before
        fill(restored, 1)
    with WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert content(copy) == before


def test_a_workspace_is_replaced_only_on_demand_and_kept_beside(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    before = content(store)
    fill(store, 1)
    path = store.workspace_path
    with pytest.raises(InvalidInputError, match="open in this process"):
        WorkspaceStore.restore(tmp_path / "backup", path, replace=True)
    store.close()
    with pytest.raises(InvalidInputError, match="exists already"):
        WorkspaceStore.restore(tmp_path / "backup", path)
    report = WorkspaceStore.restore(tmp_path / "backup", path, replace=True)
    with WorkspaceStore(path) as restored:
        assert content(restored) == before
    assert report.replaced is not None
    with WorkspaceStore.open_readonly(report.replaced) as kept:
        assert kept.list_runs().height == 2


def test_each_restore_keeps_what_it_replaces_whatever_the_clock_says(store: WorkspaceStore, tmp_path: Path) -> None:
    store.backup(tmp_path / "backup")
    to = tmp_path / "restored"
    WorkspaceStore.restore(tmp_path / "backup", to)
    kept = {WorkspaceStore.restore(tmp_path / "backup", to, replace=True).replaced for _ in range(4)}
    assert len(kept) == 4
    assert all((path / "store.duckdb").is_file() for path in kept if path is not None)


def test_a_store_that_another_process_has_open_is_not_replaced(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    store.close()
    holder = child(
        "import sys\nfrom n4a_fast import WorkspaceStore\nstore = WorkspaceStore(sys.argv[1])\nprint('now'); input()",
        store.workspace_path,
    )
    read_line(holder)
    with pytest.raises(StoreLockedError, match=f"process {holder.pid}"):
        WorkspaceStore.restore(tmp_path / "backup", store.workspace_path, replace=True)
    kill(holder)
    assert WorkspaceStore.restore(tmp_path / "backup", store.workspace_path, replace=True).replaced


def test_a_damaged_workspace_can_be_replaced(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    before = content(store)
    store.backup(tmp_path / "backup")
    path = store.workspace_path
    store.close()
    (path / "store.duckdb").write_bytes((path / "store.duckdb").read_bytes()[:9000])
    WorkspaceStore.restore(tmp_path / "backup", path, replace=True)
    with WorkspaceStore(path) as restored:
        assert content(restored) == before


def test_a_damaged_backup_is_not_restored(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    store.backup(tmp_path / "backup")
    shutil.rmtree(next((tmp_path / "backup" / "artifacts").glob("??")))
    with pytest.raises(DamagedStoreError):
        WorkspaceStore.restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    with pytest.raises(NotFoundError):
        WorkspaceStore.restore(tmp_path / "nothing", tmp_path / "restored")


def test_extracted_runs_are_whole_and_merge_back(store: WorkspaceStore, tmp_path: Path) -> None:
    wanted, other = fill(store), fill(store, 1)
    before = content(store)
    store.extract([wanted.run], tmp_path / "extracted")
    with WorkspaceStore(tmp_path / "extracted") as extracted:
        assert extracted.list_runs()["run_id"].to_list() == [wanted.run]
        assert extracted.verify().findings == []
        assert extracted.sql("SELECT count(y_pred) FROM prediction_arrays").item() == 10
        assert len(content(extracted)["models"]) == 1
    store.delete_run(wanted.run)
    assert store.list_runs()["run_id"].to_list() == [other.run]
    store.merge(tmp_path / "extracted")
    assert content(store) == before


def test_a_run_is_extracted_with_what_lies_in_shards(store: WorkspaceStore, tmp_path: Path) -> None:
    run = store.begin_run("sharded", {}, [])
    with store.shard(run_id=run).open() as inner:
        pipeline = begin_pipeline(inner, run)
        predict_with_arrays(inner, Sweep(run, pipeline, save_chain(inner, pipeline)))
        inner.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    with store.shard(run_id=store.begin_run("other", {}, [])).open() as inner:
        fill(inner)
    store.extract([run], tmp_path / "extracted")
    with WorkspaceStore(tmp_path / "extracted") as extracted:
        assert extracted.list_runs()["run_id"].to_list() == [run]
        assert extracted.list_pipelines()["pipeline_id"].to_list() == [pipeline]
        assert extracted.verify().findings == []


def test_an_unknown_run_is_not_extracted(store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store)
    with pytest.raises(NotFoundError, match="run"):
        store.extract(["unknown"], tmp_path / "extracted")
    with pytest.raises(InvalidInputError, match="list"):
        store.extract("a text", tmp_path / "extracted")
    assert not (tmp_path / "extracted").exists()


@pytest.mark.not_on("windows", reason="links need a privilege")
def test_a_store_file_that_is_a_link_is_told_with_the_cure(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "w") as store:
        run = begin_sweep(store).run
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "w" / "store.duckdb"
    file.rename(tmp_path / "elsewhere" / "store.duckdb")
    file.symlink_to(tmp_path / "elsewhere" / "store.duckdb")
    with WorkspaceStore(tmp_path / "w") as store:
        for call in (lambda: store.backup(tmp_path / "b"), store.vacuum, store.verify):
            with pytest.raises(StoreUnavailableError, match="is a link to .*; put the file itself in its place"):
                call()
        assert store.verify(quick=True)
        assert store.extract([run], tmp_path / "x").tables
    assert file.is_symlink()
    assert not (tmp_path / "b").exists()
