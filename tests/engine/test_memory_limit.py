"""What DuckDB may take: the limit of a store, what does not fit into it, and the memory of the whole process."""

from __future__ import annotations

import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import begin_pipeline, child, finish, names_in, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, MemoryLimitError
from n4a_fast.values.ids import uuid7

LIMIT = "SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'"
SORTED = "SELECT count(*) FROM (SELECT range FROM range(6000000) ORDER BY hash(range), range LIMIT 5999999)"
# lists of DuckDB's aggregates stay in memory whole
IN_LISTS = "SELECT len(list(range || 'a long text that is not stored in the row itself')) FROM range(3000000)"

# the peak of the process after each of these calls, in MB beyond what it had before the first one
HEAVY = """
import re, sys
from pathlib import Path
from n4a_fast import WorkspaceStore

def megabytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

def log():
    for number in range(3000):
        store.log_step(pipeline, number, "PLS", "warning", message="w" * 20_000)
    store.list_runs()

CALLS = {
    "log_step": log,
    "leaderboard": lambda: store.leaderboard(n=10),
    "query_chain_summaries": lambda: store.query_chain_summaries(),
    "query_aggregated_predictions": lambda: store.query_aggregated_predictions(),
    "iter_aggregated_predictions": lambda: [None for _ in store.iter_aggregated_predictions()],
    "query_top_aggregated_predictions": lambda: store.query_top_aggregated_predictions("rmse"),
    "query_predictions": lambda: store.query_predictions(limit=100, offset=20_000),
    "top_predictions": lambda: store.top_predictions(5, group_by="chain_id"),
    "load_arrays": lambda: store.load_arrays(ids[::20]),
    "iter_arrays": lambda: [None for _ in store.iter_arrays(run_id=run, batch_size=2000)],
    "delete_prediction": lambda: store.delete_prediction(ids[-1]),
    "verify": lambda: store.verify(),
    "vacuum": lambda: store.vacuum(),
    "delete_run": lambda: store.delete_run(run),
}
with WorkspaceStore(sys.argv[1], memory_limit=sys.argv[2]) as store:
    run = store.list_runs()["run_id"][0]
    pipeline = store.list_pipelines()["pipeline_id"][0]
    ids = store.query_predictions(run_id=run)["prediction_id"].to_list()
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    for name, call in CALLS.items():
        call()
        print(name, megabytes("VmHWM") - before, flush=True)
"""
CHAINS, OF_CHAIN = 2_000, 20


def fill(folder: Path) -> None:
    """A run of 40,000 predictions, 64 MB of arrays."""
    with WorkspaceStore(folder) as store:
        run = store.begin_run("sweep", {}, [])
        pipeline = begin_pipeline(store, run)
        rows, chains = np.arange(CHAINS * OF_CHAIN), [save_chain(store, pipeline) for _ in range(CHAINS)]
        columns = {
            "pipeline_id": pipeline,
            "chain_id": [chains[row // OF_CHAIN] for row in rows],
            "dataset_name": "corn",
            "model_name": "PLS",
            "model_class": "PLS",
            "partition": "val",
            "fold_id": [str(row % OF_CHAIN) for row in rows],
            "val_score": rows / 7.0,
            "metric": "rmse",
        }
        store.save_predictions(columns, y_pred=np.random.default_rng(0).random((len(rows), 200)))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)


def limit_of(store: WorkspaceStore) -> str:
    return str(store.sql(LIMIT)["value"][0])


def test_a_store_takes_512_mb_unless_told_otherwise(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        assert limit_of(store) == "512.0 MiB"
        with WorkspaceStore(tmp_path, memory_limit="1.5 GiB"):
            assert limit_of(store) == "1.5 GiB"
        with WorkspaceStore.open_readonly(tmp_path, memory_limit=2**27), WorkspaceStore(tmp_path):
            assert limit_of(store) == "128.0 MiB"  # the newest that was given
    with pickle.loads(pickle.dumps(WorkspaceStore(tmp_path, memory_limit="256MiB"))) as again:
        assert limit_of(again) == "256.0 MiB"


@pytest.mark.parametrize("given", ["much", "", "10MB", "1..5GB", 1000, True, 2.0**30, [2**30]])
def test_a_limit_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, given: object) -> None:
    with pytest.raises(InvalidInputError, match=r"memory_limit must be bytes, or a text like .512MB., from 64MB on"):
        WorkspaceStore(tmp_path / "new", memory_limit=given)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


@pytest.mark.long
def test_what_does_not_fit_is_told_with_the_cure_and_the_store_goes_on(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, memory_limit="64MB") as store:
        run = store.begin_run("kept", {}, [])
        with pytest.raises(MemoryLimitError, match=r'higher limit, such as memory_limit="2GB"'):
            store.sql(IN_LISTS)
        assert store.list_runs()["run_id"].to_list() == [run]
    with WorkspaceStore(tmp_path, memory_limit="1GB") as store:
        assert store.sql(IN_LISTS).row(0) == (3_000_000,)


@pytest.mark.long
def test_what_can_be_put_aside_lies_beside_the_file_until_the_store_closes(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, memory_limit="64MB") as store:
        store.begin_run("kept", {}, [])
        assert store.sql(SORTED).row(0) == (5_999_999,)
        (spilled,) = tmp_path.glob("store.duckdb.spill-*")
        with WorkspaceStore(tmp_path / "other", memory_limit="64MB") as other:
            assert other.sql(SORTED).row(0) == (5_999_999,)
    assert not spilled.exists()
    assert names_in(tmp_path) == ["artifacts", "other", "store.duckdb"]


def test_what_a_killed_process_put_aside_goes_with_the_next_opening(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        names = [
            f"store.duckdb.spill-{uuid7()}",
            f"store.duckdb.spill-{store._open().session.id}",
            "store.duckdb.spill-x",
        ]
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "duckdb_temp_storage.tmp").write_bytes(b"rows")
        store._open().session.remove_dead([])
        assert [(tmp_path / name).exists() for name in names] == [False, True, True]
        shutil.rmtree(tmp_path / names[1])
    WorkspaceStore(tmp_path).close()
    assert (tmp_path / names[2]).exists()


@pytest.mark.long
def test_a_store_that_only_reads_leaves_nothing_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WorkspaceStore(tmp_path / "workspace").close()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with WorkspaceStore.open_readonly(tmp_path / "workspace", memory_limit="64MB") as reader:
        assert reader.sql(SORTED).row(0) == (5_999_999,)
        (private,) = (tmp_path / "temporary").iterdir()
        assert list(private.iterdir())
        assert names_in(tmp_path / "workspace") == ["artifacts", "store.duckdb"]
        if sys.platform != "win32":
            assert private.stat().st_mode & 0o777 == 0o700
    assert not list(private.glob("*"))


@pytest.mark.not_on("macos", "windows", reason="the peak of a process is reset by /proc")
def test_heavy_calls_stay_within_the_limit_and_what_they_give(tmp_path: Path) -> None:
    """80 MB with this limit, 200 without; 400 when long texts were drained as late as arrays."""
    fill(tmp_path)
    grown = dict(line.split() for line in finish(child(HEAVY, tmp_path, "64MB")).splitlines())
    assert len(grown) == 14
    assert {name: int(peak) for name, peak in grown.items() if int(peak) > 130} == {}


def test_there_are_no_more_threads_than_the_limit_has_room_for(tmp_path: Path) -> None:
    threads = "SELECT CAST(value AS INTEGER) FROM duckdb_settings() WHERE name = 'threads'"
    with WorkspaceStore(tmp_path, memory_limit="64GB") as store:
        ((cores,),) = store.sql(threads).rows()
        for limit, room in (("64MB", 1), ("130MiB", 2), ("64GB", cores)):
            with WorkspaceStore(tmp_path, memory_limit=limit):
                assert store.sql(threads).rows() == [(min(cores, room),)]
