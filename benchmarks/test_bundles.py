"""Exports and imports beside the plainest way to write or read the same content."""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import subprocess
import sys
import zipfile
from itertools import count
from pathlib import Path

import duckdb
import joblib
import numpy as np
import pyarrow.parquet as pq
from chains import fill as fill_chains
from chains import spectra
from harness import Measure, gate, report
from sklearn.cross_decomposition import PLSRegression
from workloads import fill

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.engine.workspace import STORE_FILE


@gate(
    "export_bundle_vs_dumping",
    workload="export_chain of SNV > SG > MinMax > PLS in 5 folds, 700 wavelengths, durable",
    baseline="joblib.load of its 8 operators, joblib.dump into a ZIP: as nirs4all exports",
    size=1,
    seed=0,
    threads=1,
)
def test_exporting_a_bundle(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    made = fill_chains(store, 1)
    paths = [store.get_artifact_path(artifact_id) for artifact_id in made.objects]

    def dump() -> None:
        with zipfile.ZipFile(tmp_path / "plain.n4a", "w", zipfile.ZIP_DEFLATED) as bundle:
            for path in paths:
                buffer = io.BytesIO()
                joblib.dump(joblib.load(path), buffer)
                bundle.writestr(f"artifacts/{path.name}", buffer.getvalue())

    measure.ratio(dump, lambda: store.export_chain(made.ids[0], tmp_path / "model.n4a"), rounds=15)
    with zipfile.ZipFile(tmp_path / "model.n4a") as bundle:
        assert len([name for name in bundle.namelist() if name.startswith("artifacts/")]) == len(paths) == 8
    measure.note(bytes=(tmp_path / "model.n4a").stat().st_size)


@gate(
    "import_bundle_vs_reading",
    workload="import_chain of a new bundle (SNV > SG > MinMax > PLS in 5 folds), verified, durable",
    baseline="its members read from the ZIP, hashed with SHA-256 and loaded",
    size=1,
    seed=0,
    threads=1,
)
def test_importing_a_bundle(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    made, numbers = fill_chains(store, 1), count()
    bundle = store.export_chain(made.ids[0], tmp_path / "model.n4a")
    chain = store.get_chain(made.ids[0])
    assert chain is not None
    fields = {
        name: chain[name]
        for name in ("steps", "model_step_idx", "model_class", "fold_strategy", "fold_artifacts", "shared_artifacts")
    }
    bundles = [  # each another chain over the same operators, so that each is new to the other store
        store.export_chain(
            store.save_chain(chain["pipeline_id"], preprocessings=str(number), **fields), tmp_path / f"{number}.n4a"
        )
        for number in range(40)
    ]

    def read() -> None:
        with zipfile.ZipFile(bundle) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                hashlib.sha256(data)
                if name.endswith(".joblib"):
                    joblib.load(io.BytesIO(data))

    with WorkspaceStore(tmp_path / "other") as other:
        found: list[str] = []
        measure.ratio(read, lambda: found.append(other.import_chain(bundles[next(numbers)])), rounds=11)
        assert len(set(found)) == len(found) >= 11
        np.testing.assert_array_equal(
            other.replay_chain(found[-1], spectra(5)), store.replay_chain(made.ids[0], spectra(5))
        )


@gate(
    "script_bytes",
    workload="export_chain(format='n4a.py') of SNV > SG > MinMax > PLS in 5 folds, 700 wavelengths",
    baseline="none: counted",
    size=1,
    seed=0,
    threads=1,
)
def test_a_linear_script_is_small(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    made = fill_chains(store, 1)
    script = store.export_chain(made.ids[0], tmp_path / "model.n4a.py", format="n4a.py")
    X = spectra(20)
    expected = store.replay_chain(made.ids[0], X)
    np.testing.assert_allclose(
        runpy.run_path(str(script))["predict"](X), expected, rtol=0, atol=1e-12 * np.abs(expected).max()
    )
    assert "nothing is unpickled" in script.read_text(encoding="utf-8")
    measure.value(script.stat().st_size, "bytes")


@gate(
    "export_parquet_vs_copy",
    workload="export_predictions_parquet of 30,000 predictions with arrays, n=200, in slices",
    size=30_000,
    seed=0,
    threads=2,
    baseline="DuckDB's COPY of the same columns, in as much memory as it likes",
)
def test_exporting_predictions(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    fill(store, 30_000)
    target, plain = tmp_path / "ours.parquet", tmp_path / "plain.parquet"
    store.close()

    def copy() -> None:
        with duckdb.connect(str(tmp_path / "workspace" / STORE_FILE), read_only=True) as connection:
            columns = "SELECT * FROM predictions LEFT JOIN prediction_arrays USING (prediction_id)"
            connection.execute(f"COPY ({columns}) TO '{plain}' (FORMAT parquet, COMPRESSION zstd)")

    def export() -> None:
        with WorkspaceStore(tmp_path / "workspace") as opened:
            opened.export_predictions_parquet(target, arrays=True)

    measure.ratio(copy, export, rounds=5)
    assert pq.read_metadata(target).num_rows == pq.read_metadata(plain).num_rows == 30_000


@report(
    "export_million_memory",
    workload="export_predictions_parquet of a million predictions with arrays, n=200, in a process of its own",
    baseline="none: the growth of the process, limit 300 MB",
    size=1_000_000,
    seed=0,
    threads=2,
)
def test_exporting_a_million(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    for _ in range(20):
        fill(store, 50_000)
    folder = store.workspace_path
    store.close()
    grown = {}
    for arrays in (0, 1):
        command = [
            sys.executable,
            Path(__file__).with_name("export_rows.py"),
            folder,
            tmp_path / f"{arrays}.parquet",
            str(arrays),
        ]
        grown[arrays] = json.loads(
            subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=900).stdout
        )
        assert pq.read_metadata(tmp_path / f"{arrays}.parquet").num_rows == 1_000_000
    measure.value(grown[1]["megabytes"], "MB")
    measure.note(
        seconds=grown[1]["seconds"],
        megabytes_without_arrays=grown[0]["megabytes"],
        seconds_without_arrays=grown[0]["seconds"],
    )


@gate(
    "look_into_100_mb_vs_hashing",
    workload="inspect_bundle, import_chain into a new store, and describe_artifact of a model of 100 MB",
    baseline="reading the file and its sha256, three times",
    size=100,
    seed=0,
    threads=1,
)
def test_looking_into_a_large_bundle(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    model = PLSRegression(2).fit(random.random((9, 5)), np.arange(9.0))
    model.coef_ = random.random((1, 100 * 2**17))
    pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
    saved = store.save_artifact(model, "PLSRegression", "model", "joblib")
    steps = [{"step_idx": 1, "operator_class": "PLSRegression", "params": {}}]
    chain = store.save_chain(pipeline, steps, 1, "PLSRegression", "", "per_fold", {"fold_0": saved}, {})
    path = Path(store.export_chain(chain, tmp_path / "large.n4a"))
    turns = count()

    def look() -> int:
        with WorkspaceStore(tmp_path / f"taken {next(turns)}") as taken:
            taken.import_chain(path)
        return len(inspect_bundle(path).globals) + len(store.describe_artifact(saved).globals)

    measure.ratio(lambda: [hashlib.sha256(path.read_bytes()) for _ in range(3)], look, rounds=5)
    assert look() >= 4
    assert path.stat().st_size > 60 * 2**20
