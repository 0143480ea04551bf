"""Opening, deleting, vacuuming and a whole workspace from nothing: gates at a hundred thousand predictions, reports at
a million.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from harness import Measure, gate, report
from limits import BareFile, BareTable, prediction_batch, write_and_sync
from workloads import SAMPLES, fill

from n4a_fast import WorkspaceStore

HUNDRED_THOUSAND, MILLION = 100_000, 1_000_000
RUN = 10_000
Large = Callable[[int], Any]


@gate(
    "open",
    workload="open a store, list its runs, close it",
    baseline="plain DuckDB on a copy: connect, the same query, close",
    size=HUNDRED_THOUSAND,
    seed=0,
    threads=1,
)
def test_open(measure: Measure, large: Large, tmp_path: Path) -> None:
    assert _open(measure, large(HUNDRED_THOUSAND).copy(tmp_path / "w"), tmp_path) == 10


@report(
    "open_a_million",
    workload="open a store, list its runs, close it",
    baseline="plain DuckDB on a copy: connect, the same query, close",
    size=MILLION,
    seed=0,
    threads=1,
)
def test_open_a_million(measure: Measure, large: Large, tmp_path: Path) -> None:
    measure.note(promise="40 ms")
    assert _open(measure, large(MILLION).copy(tmp_path / "w"), tmp_path) == 100


def _open(measure: Measure, folder: Path, tmp_path: Path) -> int:
    shutil.copyfile(folder / "store.duckdb", tmp_path / "bare.duckdb")

    def bare() -> None:
        with duckdb.connect(str(tmp_path / "bare.duckdb")) as connection:
            connection.sql("SELECT * FROM runs ORDER BY created_at DESC").to_arrow_table()

    def ours() -> int:
        with WorkspaceStore(folder) as store:
            return len(store.list_runs())

    measure.ratio(bare, ours, rounds=9)
    return ours()


@gate(
    "verify_quick",
    workload="verify(quick=True)",
    baseline="plain DuckDB on a copy: connect, one anti-join of predictions and arrays in each direction, close",
    size=HUNDRED_THOUSAND,
    seed=0,
    threads=1,
)
def test_verify_quick(measure: Measure, large: Large, tmp_path: Path) -> None:
    folder = large(HUNDRED_THOUSAND).copy(tmp_path / "w")
    shutil.copyfile(folder / "store.duckdb", tmp_path / "bare.duckdb")
    left = "SELECT count(*) FROM {} WHERE prediction_id NOT IN (SELECT prediction_id FROM {})"

    def bare() -> None:
        with duckdb.connect(str(tmp_path / "bare.duckdb")) as connection:
            for one, other in (("predictions", "prediction_values"), ("prediction_values", "predictions")):
                assert connection.execute(left.format(one, other)).fetchall() == [(0,)]

    with WorkspaceStore(folder) as store:
        measure.ratio(bare, lambda: store.verify(quick=True), rounds=5)
        report = store.verify(quick=True)
        assert report.findings == []
        assert report.checked["checks"] > 10


@gate(
    "verify_quick_of_chains",
    workload="verify(quick=True) of 20,000 chains, each with five artifacts",
    baseline="plain DuckDB on a copy: connect, references of each chain read by json, artifacts in a set, close",
    size=20_000,
    seed=None,
    threads=1,
)
def test_verify_quick_of_chains(measure: Measure, tmp_path: Path) -> None:
    step = {"step_idx": 1, "operator_class": "tuple", "params": {}, "artifact_id": None, "stateless": True}
    with WorkspaceStore(tmp_path / "w") as store:
        pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
        ids = [store.save_artifact(("used", number), "tuple", "model", "joblib") for number in range(100)]
        for number in range(20_000):
            folds = {str(fold): ids[(number + fold) % 100] for fold in range(5)}
            store.save_chain(pipeline, [step], 1, "M", "", "per_fold", folds, {})
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    shutil.copyfile(tmp_path / "w" / "store.duckdb", tmp_path / "bare.duckdb")

    def bare() -> None:
        with duckdb.connect(str(tmp_path / "bare.duckdb")) as connection:
            rows = connection.execute("SELECT chain_id, steps, fold_artifacts, shared_artifacts FROM chains").fetchall()
            named = {chain: {*json.loads(folds).values()} for chain, _, folds, _ in rows}
            links = "SELECT chain_id, list(artifact_id) FROM chain_artifacts GROUP BY chain_id"
            assert {chain: {*used} for chain, used in connection.execute(links).fetchall()} == named

    with WorkspaceStore(tmp_path / "w") as store:
        measure.ratio(bare, lambda: store.verify(quick=True), rounds=7)
        report = store.verify(quick=True)
        assert report.findings == []
        assert report.checked["links of chains"] == 20_000


@gate(
    "verify",
    workload="verify(), which reads every block, row and array",
    baseline="plain DuckDB on a copy: connect, a hash of each row of predictions and of arrays, close",
    size=HUNDRED_THOUSAND,
    seed=0,
    threads=1,
)
def test_verify(measure: Measure, large: Large, tmp_path: Path) -> None:
    folder = large(HUNDRED_THOUSAND).copy(tmp_path / "w")
    shutil.copyfile(folder / "store.duckdb", tmp_path / "bare.duckdb")

    def bare() -> None:
        with duckdb.connect(str(tmp_path / "bare.duckdb")) as connection:
            for table in ("predictions", "prediction_values"):
                assert connection.execute(f"SELECT bit_xor(hash(t)) FROM {table} t").fetchall()

    with WorkspaceStore(folder) as store:
        measure.ratio(bare, store.verify, rounds=3)
        report = store.verify()
        assert report.findings == []
        assert report.checked["predictions"] > 1
        assert report.checked["arrays"] > 1


@gate(
    "delete_run",
    workload="delete_run of 10,000 predictions with arrays",
    size=HUNDRED_THOUSAND,
    seed=0,
    threads=1,
    baseline="plain DuckDB on a copy: DELETE of the same rows from three tables by id, one transaction",
)
def test_delete_run(measure: Measure, large: Large, tmp_path: Path) -> None:
    assert (
        _delete(measure, large(HUNDRED_THOUSAND).copy(tmp_path / "w"), tmp_path, rounds=4) == HUNDRED_THOUSAND - 5 * RUN
    )


@report(
    "delete_run_of_a_million",
    workload="delete_run of 10,000 predictions with arrays",
    size=MILLION,
    seed=0,
    threads=1,
    baseline="plain DuckDB on a copy: DELETE of the same rows from three tables by id, one transaction",
)
def test_delete_run_of_a_million(measure: Measure, large: Large, tmp_path: Path) -> None:
    measure.note(promise="200 ms, one transaction")
    assert _delete(measure, large(MILLION).copy(tmp_path / "w"), tmp_path, rounds=9) == MILLION - 10 * RUN


def _delete(measure: Measure, folder: Path, tmp_path: Path, rounds: int) -> int:
    with BareFile(folder, tmp_path / "bare.duckdb") as bare, WorkspaceStore(folder) as store:
        runs = store.list_runs()["run_id"].to_list()
        twins = list(runs)

        def plain() -> None:
            run = twins.pop()
            pipelines = f"(SELECT pipeline_id FROM pipelines WHERE run_id = '{run}')"
            predictions = f"(SELECT prediction_id FROM predictions WHERE pipeline_id IN {pipelines})"
            bare.execute(
                f"DELETE FROM prediction_values WHERE prediction_id IN {predictions}",
                f"DELETE FROM predictions WHERE pipeline_id IN {pipelines}",
                f"DELETE FROM pipelines WHERE run_id = '{run}'",
            )

        measure.ratio(plain, lambda: store.delete_run(runs.pop()), rounds=rounds)
        left = int(bare.sql("SELECT count(*) AS n FROM predictions")["n"][0].as_py())
        assert int(store.sql("SELECT count(*) AS n FROM prediction_arrays")["n"][0]) == left
        return left


@gate(
    "vacuum",
    workload="vacuum after deleting half",
    baseline="plain DuckDB: COPY FROM DATABASE into a new file",
    size=HUNDRED_THOUSAND,
    seed=0,
    threads=1,
)
def test_vacuum(measure: Measure, large: Large, tmp_path: Path) -> None:
    shrunk = _vacuum(measure, large(HUNDRED_THOUSAND).copy(tmp_path / "w"), tmp_path, rounds=3)
    assert 0.4 < shrunk < 0.6


@report(
    "vacuum_a_million",
    workload="vacuum after deleting half",
    baseline="plain DuckDB: COPY FROM DATABASE into a new file",
    size=MILLION,
    seed=0,
    threads=1,
)
def test_vacuum_a_million(measure: Measure, large: Large, tmp_path: Path) -> None:
    measure.note(promise="half the bytes, 15 s")
    shrunk = _vacuum(measure, large(MILLION).copy(tmp_path / "w"), tmp_path, rounds=1)
    assert 0.4 < shrunk < 0.6


def _vacuum(measure: Measure, folder: Path, tmp_path: Path, rounds: int) -> float:
    """Bytes after over bytes before; each round vacuums a workspace of its own, which shares nothing with the last."""
    before = (folder / "store.duckdb").stat().st_size
    with WorkspaceStore(folder) as store:
        runs = store.list_runs()["run_id"].to_list()
        for run in runs[::2]:
            store.delete_run(run)
    originals = [shutil.copytree(folder, tmp_path / f"w{turn}") for turn in range(rounds)]
    waiting, reports = list(originals), []
    with BareFile(folder, tmp_path / "bare.duckdb") as bare:

        def ours() -> None:
            with WorkspaceStore(waiting.pop()) as store:
                reports.append(store.vacuum())

        measure.ratio(lambda: bare.rewrite(tmp_path / f"fresh{len(waiting)}.duckdb"), ours, rounds=rounds, warmup=0)
    with WorkspaceStore.open_readonly(originals[0]) as store:
        assert len(store.sql("SELECT prediction_id FROM predictions")) == len(runs) // 2 * RUN
    after = (originals[0] / "store.duckdb").stat().st_size
    measure.note(before_mb=before / 2**20, after_mb=after / 2**20)
    return after / before


@report(
    "bulk_vs_disk",
    workload="save_predictions of 16,384, n=200, durable",
    baseline="the bytes of y_pred written to a new file and synced",
    size=16_384,
    seed=0,
    threads="1, and DuckDB's",
)
def test_bulk_vs_disk(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).random((16_384, SAMPLES))
    content = memoryview(matrix).cast("B")
    measure.ratio(
        lambda: write_and_sync(tmp_path / "bytes", content), lambda: fill(store, len(matrix), matrix), rounds=5
    )
    assert (tmp_path / "bytes").stat().st_size == matrix.nbytes
    assert int(store.sql("SELECT count(*) AS n FROM prediction_arrays")["n"][0]) == 6 * len(matrix)


@report(
    "a_million_end_to_end",
    workload="a million predictions by 100 bulk calls in a new process, until closed",
    size=MILLION,
    seed=0,
    threads="1, and DuckDB's",
    baseline="plain DuckDB inserting the same number of ids and y_pred into a bare table, by 100 statements",
)
def test_a_million_end_to_end(measure: Measure, large: Large, tmp_path: Path) -> None:
    built = large(MILLION)
    measure.note(promise="15 s, peak memory under 1.5 GB", peak_mb=built.built["peak_mb"])
    measure.curve("bulk insert of 10,000", built.built["curve"])
    with BareTable(tmp_path / "bare.duckdb", prediction_batch(np.random.default_rng(0).random((RUN, SAMPLES)))) as bare:
        start = time.perf_counter()
        for _ in range(MILLION // RUN):
            bare.insert()
        assert bare.rows() == len(built.ids) == MILLION
        bare_seconds = time.perf_counter() - start
        measure.value(bare_seconds / built.built["seconds"], "x", ours=built.built["seconds"], theirs=bare_seconds)
