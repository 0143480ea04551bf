"""Gates on what can be counted exactly: statements, syncs, bytes, large allocations, instructions.

Counted in child processes (children.py), so their floors are tight: a few percent above what is counted.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chemotools.scatter import StandardNormalVariate
from children import count_calls, count_instructions, instructions_of
from harness import Measure, gate
from reference import append_plainly
from sklearn.cross_decomposition import PLSRegression
from sklearn.preprocessing import StandardScaler
from workloads import SAMPLES, SCORES

from n4a_fast import WorkspaceStore
from n4a_fast._native import kernels

CALLS = 200
VALGRIND = ("valgrind", "/usr/include/valgrind/callgrind.h")
SWEEP = "3,120 drop-in pipelines of 21 predictions, n=200"
dropin = partial(gate, size=65_520, seed=0, threads=1)
instructions = partial(
    gate, size=300, seed=0, threads=1, needs=VALGRIND, baseline="reference.append_plainly: id, fields, JSON and a list"
)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return count_calls(tmp_path_factory.mktemp("calls"))


@pytest.fixture(scope="module")
def instruction_counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return count_instructions(tmp_path_factory.mktemp("instructions"))


@dropin(
    "statements_per_pipeline",
    workload=SWEEP,
    baseline="none: SQL statements given to DuckDB per pipeline, draining counted in",
)
def test_statements_per_pipeline(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["sweep"]["statements"] > 0
    measure.value(counts["sweep"]["statements"] / counts["pipelines"], "statements")


@dropin("syncs_per_pipeline", workload=SWEEP, baseline="none: fsync and fdatasync per pipeline, draining counted in")
def test_syncs_per_pipeline(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["sweep"]["syncs"] >= counts["pipelines"], "a pipeline that is durable has waited for the disk"
    measure.value(counts["sweep"]["syncs"] / counts["pipelines"], "syncs")


@gate(
    "statements_per_new_workspace",
    workload="10 workspaces made, opened and closed by a process that has made one",
    size=10,
    seed=0,
    threads=1,
    baseline="none: SQL statements given to DuckDB per workspace",
)
def test_statements_per_new_workspace(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["new"]["syncs"] >= 3 * counts["workspaces"], "the draft, its header and the folder are synced"
    measure.value(counts["new"]["statements"] / counts["workspaces"], "statements")


DELETIONS = "100 delete_prediction, one after the other, and the read after them"
WITHOUT = "none: SQL statements given to DuckDB per deletion"


@gate("statements_per_deletion", workload=DELETIONS, size=100, seed=0, threads=1, baseline=WITHOUT)
def test_statements_per_deletion(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["deletions"]["statements"] > 0, "the read has removed them"
    measure.value(counts["deletions"]["statements"] / 100, "statements")


@gate(
    "statements_per_deletion_in_nirs4all",
    workload=f"{DELETIONS}, of a store of nirs4all 1.x: with chains and pipelines that they empty",
    size=100,
    seed=0,
    threads=1,
    baseline=WITHOUT,
)
def test_statements_per_deletion_in_nirs4all(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["deletions_in_1x"]["statements"] > 0, "chains and pipelines have gone"
    measure.value(counts["deletions_in_1x"]["statements"] / 100, "statements")


@dropin(
    "bytes_written_over_kept",
    workload=f"{SWEEP}, from the first call to the closed file",
    baseline="none: bytes written over bytes kept",
)
def test_bytes_written_over_kept(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["whole"]["kept"] > counts["predictions"] * SAMPLES * 8
    measure.note(bytes_written_per_prediction=counts["whole"]["bytes_written"] / counts["predictions"])
    measure.value(counts["whole"]["bytes_written"] / counts["whole"]["kept"], "written/kept")


@dropin(
    "bytes_written_per_prediction",
    workload=f"{SWEEP}, from the first call to the closed file",
    baseline="none: bytes given to write calls",
)
def test_bytes_written_per_prediction(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["whole"]["bytes_written"] > counts["predictions"] * SAMPLES * 8
    measure.value(counts["whole"]["bytes_written"] / counts["predictions"], "bytes")


@dropin(
    "dropin_bytes_kept",
    workload=f"{SWEEP}, y_true shared, 0.4 kB of scores, closed",
    baseline="none: bytes of the workspace",
)
def test_dropin_bytes_kept(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["whole"]["kept"] > 0
    measure.value(counts["whole"]["kept"] / counts["predictions"], "bytes")


@dropin(
    "allocations_per_pipeline",
    workload="one drop-in pipeline of 21 predictions",
    baseline="none: malloc, calloc and realloc calls",
)
def test_allocations_per_pipeline(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["one_pipeline"]["writes"] > 0
    measure.value(counts["one_pipeline"]["allocations"], "allocations")


@gate(
    "bulk_copies_float64",
    workload="save_predictions of 4,096, n=200, contiguous float64",
    size=4_096,
    seed=0,
    threads=1,
    baseline="none: bytes of blocks of 256 kB and more, over the bytes of y_pred",
)
def test_bulk_copies_float64(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["bulk"]["fortran"] > counts["bulk"]["float64"], (
        "an order that must be turned costs a copy, and the count sees it"
    )
    measure.value(counts["bulk"]["float64"], "copies")


@gate(
    "bulk_copies_float32",
    workload="save_predictions of 4,096, n=200, float32",
    size=4_096,
    seed=0,
    threads=1,
    baseline="none: bytes of blocks of 256 kB and more, over the bytes of y_pred as float64",
)
def test_bulk_copies_float32(measure: Measure, counts: dict[str, Any]) -> None:
    assert counts["bulk"]["float32"] >= 1, "the conversion has one target"
    measure.value(counts["bulk"]["float32"], "copies")


@instructions("save_prediction_instructions", workload="one save_prediction, into the buffer")
def test_save_prediction_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["save_prediction"] > 1_000
    measure.note(instructions=instruction_counts["save_prediction"])
    measure.value(instruction_counts["append_plainly"] / instruction_counts["save_prediction"], "x")


@instructions(
    "save_prediction_arrays_instructions",
    workload="one save_prediction_arrays with y_true, y_pred and sample_indices, n=200",
)
def test_save_prediction_arrays_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["save_prediction_arrays"] > 1_000
    measure.note(instructions=instruction_counts["save_prediction_arrays"])
    measure.value(instruction_counts["append_plainly"] / instruction_counts["save_prediction_arrays"], "x")


boosted_trees = partial(
    gate, size=100, seed=0, threads=1, needs=VALGRIND, baseline="a guard that asks for names alone: instructions"
)


@boosted_trees("load_boosted_trees_instructions", workload="a model of 100 small boosted trees; imported")
def test_load_boosted_trees_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["load_plain_guarded"] > 1_000_000
    measure.note(instructions=instruction_counts["load_plain_guarded"])
    measure.value(instruction_counts["load_plain_names"] / instruction_counts["load_plain_guarded"], "x")


@boosted_trees("load_joblib_boosted_trees_instructions", workload="the same in a file of joblib's")
def test_load_joblib_boosted_trees_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["load_joblib_guarded"] > 1_000_000
    measure.note(instructions=instruction_counts["load_joblib_guarded"])
    measure.value(instruction_counts["load_joblib_names"] / instruction_counts["load_joblib_guarded"], "x")


start = partial(gate, size=1, seed=0, threads=1, needs=VALGRIND)


@start(
    "completion_instructions",
    workload="the shell completes the id of a run: instructions of the process; aim 0.15 s",
    baseline="Python that imports Typer and DuckDB's extension",
)
def test_completion_instructions(measure: Measure, store: WorkspaceStore, tmp_path: Path) -> None:
    run = store.begin_run("sweep", {}, [])
    folder = store.workspace_path
    store.close()
    asked = {"_N4A_FAST_COMPLETE": "complete_bash", "COMP_WORDS": f"n4a-fast show {folder} {run[-8:-4]}"}
    least = instructions_of(tmp_path, "-c", "import typer, _duckdb")
    ours = instructions_of(tmp_path, "-m", "n4a_fast", **asked, COMP_CWORD="3")
    assert least > 50_000_000
    measure.note(instructions=ours)
    measure.value(ours / least, "times the baseline")


@start(
    "import_instructions",
    workload="import n4a_fast, of which nothing is used: instructions of the process; aim 0.05 s",
    baseline="Python that imports the modules of its own that the package needs",
)
def test_import_instructions(measure: Measure, tmp_path: Path) -> None:
    least = instructions_of(tmp_path, "-c", "import importlib, typing")
    ours = instructions_of(tmp_path, "-c", "import n4a_fast")
    assert least > 10_000_000
    measure.note(instructions=ours)
    measure.value(ours / least, "times the baseline")


@gate(
    "list_column_instructions",
    workload="ListColumn.append of 10,000 float32 values, converted to float64",
    size=10_000,
    seed=0,
    threads=1,
    baseline="none: instructions per value, growing of the buffer counted in",
    needs=VALGRIND,
)
def test_list_column_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["append_int32"] > 0
    measure.note(**{dtype: instruction_counts[f"append_{dtype}"] for dtype in ("float64", "int32")})
    measure.value(instruction_counts["append_float32"], "instructions")


@gate(
    "kernel_instructions",
    workload="SNV and an affine map to one column, 20 spectra of 700 wavelengths, by the AVX2 kernel",
    size=14_000,
    seed=0,
    threads=1,
    baseline="none: instructions per value of X",
    needs=VALGRIND,
)
def test_kernel_instructions(measure: Measure, instruction_counts: dict[str, float]) -> None:
    assert instruction_counts["snv_affine"] > instruction_counts["affine"] > 0
    measure.note(without_snv=instruction_counts["affine"])
    measure.value(instruction_counts["snv_affine"], "instructions")


@gate(
    "save_prediction_work",
    workload="200 save_prediction calls, into the buffer",
    size=CALLS,
    seed=0,
    threads=1,
    baseline="reference.append_plainly: id, fields, JSON and a list",
)
def test_save_prediction_work(measure: Measure, store: WorkspaceStore) -> None:
    run, y_pred, ids = store.begin_run("sweep", {}, []), np.random.default_rng(0).random(SAMPLES), set()
    pipeline = store.begin_pipeline(run, "p", {}, [], "corn", "h")

    def plain() -> None:
        rows: list[tuple[Any, ...]] = []
        for number in range(CALLS):
            append_plainly(rows, ["corn", "PLS", number, 0.1, 0.2, 0.05, "rmse"], SCORES, y_pred)

    def ours() -> None:
        for number in range(CALLS):
            ids.add(
                store.save_prediction(
                    pipeline,
                    None,
                    "corn",
                    "PLS",
                    "PLS",
                    str(number),
                    "val",
                    0.1,
                    0.2,
                    0.05,
                    "rmse",
                    "regression",
                    SAMPLES,
                    700,
                    SCORES,
                    {},
                    None,
                    None,
                    0,
                    0.0,
                )
            )

    measure.work(plain, ours)
    assert set(store.query_predictions(pipeline_id=pipeline)["prediction_id"]) == ids
    assert len(ids) == CALLS


@gate(
    "replay_work",
    workload="replay_chain of SNV, a scaler and 5 PLS folds on 2,000 spectra of 700 wavelengths",
    size=2_000,
    seed=0,
    threads=1,
    baseline="the kernel alone, kernels.snv_affine, whose instructions kernel_instructions counts",
)
def test_replay_work(measure: Measure, store: WorkspaceStore) -> None:
    numbers = np.random.default_rng(0)
    X, y, W, b = numbers.random((2_000, 700)), numbers.random(2_000), numbers.random((700, 1)), np.zeros(1)
    snv = StandardNormalVariate().fit(X)
    scaler = StandardScaler().fit(snv.transform(X))
    Z = scaler.transform(snv.transform(X))
    models = [PLSRegression(10).fit(Z[fold:], y[fold:]) for fold in range(5)]
    chain = _chain(store, [snv, scaler], models)
    measure.work(lambda: kernels.snv_affine(X, W, b, center=W[:, 0]), lambda: store.replay_chain(chain, X), rounds=60)
    expected = np.mean([model.predict(Z) for model in models], axis=0)
    assert np.allclose(store.replay_chain(chain, X), expected, rtol=0, atol=1e-12)


def _chain(store: WorkspaceStore, fitted: list[Any], models: list[PLSRegression]) -> str:
    pipeline = store.begin_pipeline(store.begin_run("r", {}, []), "p", {}, [], "corn", "h")
    folds = {
        str(fold): store.save_artifact(model, "PLSRegression", "model", "joblib") for fold, model in enumerate(models)
    }
    shared = {
        str(number): [store.save_artifact(one, type(one).__name__, "transformer", "joblib")]
        for number, one in enumerate(fitted, 1)
    }
    steps = [
        {"step_idx": int(number), "operator_class": "transformer", "params": {}, "artifact_id": ids[0]}
        for number, ids in shared.items()
    ]
    steps.append(
        {
            "step_idx": len(steps) + 1,
            "operator_class": "sklearn.cross_decomposition.PLSRegression",
            "params": {},
            "artifact_id": None,
        }
    )
    chain = store.save_chain(
        pipeline, steps, len(steps), "sklearn.cross_decomposition.PLSRegression", "", "per_fold", folds, shared
    )
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
    return chain
