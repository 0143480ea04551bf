"""What a workspace goes through on every system: saved, read, replayed, bundled, copied, emptied; killed writers, and
several processes. `make test-windows` runs it with the Python of Windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, child, count, finish, kill, names_in, predict, read_line, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreLockedError

X = np.random.default_rng(0).normal(size=(40, 30))
WRITER = """
import sys
from helpers import begin_pipeline, predict, save_chain
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1], lock_timeout=200.0) as store:  # a slow machine imports Polars with the file in hand
    for number in range(int(sys.argv[2])):
        pipeline = begin_pipeline(store, sys.argv[3], f"{number:04d}")
        artifact = store.save_artifact({"number": number, "of": sys.argv[4]}, "dict", "model", "joblib")
        predict(store, pipeline, save_chain(store, pipeline, fold_artifacts={"0": artifact}))
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        print(number, flush=True)
        store.top_predictions(3)
"""


def saved(store: WorkspaceStore) -> tuple[str, str, Any]:
    """A run and a chain of a fitted model, with a prediction and arrays, and the model."""
    from sklearn.linear_model import Ridge

    model = Ridge().fit(X, X[:, 0])
    run = store.begin_run("life", {}, [{"name": "corn"}])
    pipeline = begin_pipeline(store, run)
    artifact = store.save_artifact(model, "sklearn.linear_model.Ridge", "model", "joblib")
    step = {"step_idx": 1, "operator_class": "sklearn.linear_model.Ridge", "params": {}, "artifact_id": artifact}
    chain = save_chain(
        store, pipeline, steps=[{**step, "stateless": False}], fold_strategy="shared", fold_artifacts={"0": artifact}
    )
    prediction = predict(store, pipeline, chain)
    store.save_prediction_arrays(prediction, X[:5, 0], X[:5, 0] + 0.5)
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    store.complete_run(run, {})
    return run, chain, model


def test_a_workspace_from_its_making_to_its_emptying(tmp_path: Path) -> None:
    folder, bundle = tmp_path / "workspace", tmp_path / "model.n4a"
    with WorkspaceStore(folder) as store:
        run, chain, model = saved(store)
    with WorkspaceStore(folder) as store:
        assert store.top_predictions(5).height == 1
        np.testing.assert_allclose(np.ravel(store.replay_chain(chain, X)), model.predict(X), atol=1e-9)
        store.export_chain(chain, bundle)
        store.vacuum()
        assert store.verify().is_sound
        store.backup(tmp_path / "backup")
        store.backup(tmp_path / "backup")  # in place of the first
        store.delete_run(run)
        store.gc_artifacts()
        assert count(store, "predictions") == 0
        assert list((folder / "artifacts").rglob("*.joblib")) == []
    assert names_in(folder) == ["artifacts", "store.duckdb"]
    WorkspaceStore.restore(tmp_path / "backup", folder, replace=True)
    with WorkspaceStore(folder) as store, WorkspaceStore.open_readonly(tmp_path / "backup") as copy:
        assert count(store, "predictions") == count(copy, "predictions") == 1
    with WorkspaceStore(tmp_path / "other") as store:
        imported = store.import_chain(bundle)
        np.testing.assert_allclose(np.ravel(store.replay_chain(imported, X)), model.predict(X), atol=1e-9)


def test_what_is_exported_takes_its_name(tmp_path: Path) -> None:
    """Whatever wrote a file has let go of it by then; an older one of the name is replaced."""
    with WorkspaceStore(tmp_path / "workspace") as store:
        run, chain, _ = saved(store)
        for folder in ("first", "second"):
            store.export_predictions_csv(tmp_path / "predictions.csv")
            store.export_predictions_parquet(tmp_path / "predictions.parquet")
            store.export_predictions_parquet(tmp_path / folder, partition_by="model_name")
            store.export_run(run, tmp_path / "run.yaml")
            store.export_chain(chain, tmp_path / "chain.n4a")
            store.export_chain(chain, tmp_path / "chain.n4a.py", format="n4a.py")
            store.replay_chains([chain], X, out=tmp_path / "replayed.parquet")
    written = ["chain.n4a", "chain.n4a.py", "predictions.csv", "predictions.parquet", "replayed.parquet", "run.yaml"]
    assert names_in(tmp_path) == sorted(["first", "second", "workspace", *written])
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8").count("\n") == 2  # the head and a prediction


def test_a_killed_writer_has_saved_what_it_said(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        run = store.begin_run("killed", {}, [])
    writer = child(WRITER, tmp_path, 500, run, "killed")
    said = [read_line(writer) for _ in range(5)]
    rest = kill(writer).split()
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "pipelines") >= len(said) + len(rest)
        assert store.verify().is_sound
    assert names_in(tmp_path) == ["artifacts", "store.duckdb"]


def test_two_processes_write_and_read_one_workspace(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        run = store.begin_run("two", {}, [])
    writers = [child(WRITER, tmp_path, 8, run, name) for name in ("one", "other")]
    assert [len(finish(writer).split()) for writer in writers] == [8, 8]
    with WorkspaceStore(tmp_path) as store:
        assert count(store, "pipelines") == count(store, "predictions") == 16


def test_a_mapped_artifact_can_be_deleted_and_is_read_on(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=200_000)
    with WorkspaceStore(tmp_path) as store:
        artifact = store.save_artifact(values, "numpy.ndarray", "model", "joblib")
        files = store._open().artifacts.files
        (relative,) = [path for path in files.listed() if path.endswith(".joblib")]
        content = memoryview(files.read(artifact, relative, relative.partition("/")[2].partition(".")[0]))
        before = bytes(content[-8:])
        assert files.unlink([relative]) == 1
        assert not (tmp_path / "artifacts" / relative).exists()
        assert bytes(content[-8:]) == before
        content.release()


def test_who_has_the_file_in_another_program_is_told_as_a_lock(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    code = "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); print('has it', flush=True); input()"
    other = child(code, tmp_path / "store.duckdb")
    read_line(other)
    try:
        with pytest.raises(StoreLockedError):
            WorkspaceStore(tmp_path, lock_timeout=0.3)
    finally:
        other.communicate("\n")
