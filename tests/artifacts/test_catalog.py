"""Artifacts through the store: identity, references, cache keys, foreign files, collecting."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
import pytest

from n4a_fast import WorkspaceStore
from n4a_fast.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnsafePathError,
)


def pipeline(store: WorkspaceStore, run: str | None = None) -> str:
    run = run or store.begin_run("r", {}, [])
    return store.begin_pipeline(run, "p", {}, [], "corn", "h")


def chain(store: WorkspaceStore, pipeline_id: str, folds: dict[str, str], shared: dict[str, Any] | None = None) -> str:
    return store.save_chain(pipeline_id, [], 1, "m", "", "per_fold", folds, shared or {})


def finish(store: WorkspaceStore, pipeline_id: str) -> None:
    store.complete_pipeline(pipeline_id, 0.1, 0.1, "rmse", 1)


def references(store: WorkspaceStore) -> dict[str, int]:
    return dict(store.sql("SELECT artifact_id, ref_count FROM artifacts").iter_rows())


def test_equal_objects_have_one_id_and_load_again(store: WorkspaceStore) -> None:
    first = store.save_artifact({"w": np.arange(9.0)}, "m.M", "model", "joblib")
    assert store.save_artifact({"w": np.arange(9.0)}, "m.M", "model", "joblib") == first
    assert store.save_artifact({"w": np.arange(8.0)}, "m.M", "model", "joblib") != first
    assert np.array_equal(store.load_artifact(first)["w"], np.arange(9.0))
    assert joblib.load(store.get_artifact_path(first))["w"].shape == (9,)


def test_artifacts_survive_reopening(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        saved = store.save_artifact([1, 2], "m", "model", "cloudpickle")
    with WorkspaceStore.open_readonly(tmp_path) as store:
        assert store.load_artifact(saved) == [1, 2]


def test_unknown_artifacts_raise(store: WorkspaceStore) -> None:
    for call in (store.load_artifact, store.get_artifact_path):
        with pytest.raises(NotFoundError, match="nothing"):
            call("nothing")
    with pytest.raises(NotFoundError):
        store.update_artifact_cache_key("nothing", "a", "b", "c")


def test_a_deleted_file_is_named(store: WorkspaceStore) -> None:
    saved = store.save_artifact(1, "m", "model", "joblib")
    store.get_artifact_path(saved).unlink()
    with pytest.raises(ArtifactMissingError, match=saved):
        store.load_artifact(saved)


@pytest.mark.long
def test_an_artifact_shared_by_two_chains_survives_the_deletion_of_either(tmp_path: Path) -> None:
    for first_to_go in (0, 1):
        with WorkspaceStore(tmp_path / str(first_to_go)) as store:
            saved = store.save_artifact("shared", "m", "model", "joblib")
            runs = [store.begin_run(name, {}, []) for name in "ab"]
            for run in runs:
                owner = pipeline(store, run)
                chain(store, owner, {"fold_0": saved})
                finish(store, owner)
            assert references(store) == {saved: 2}
            store.delete_run(runs[first_to_go])
            assert references(store) == {saved: 1}
            assert store.load_artifact(saved) == "shared"
            store.delete_run(runs[1 - first_to_go])
            assert references(store) == {}
            assert not list((store.workspace_path / "artifacts").glob("??/*"))


def test_delete_run_keeps_artifacts_when_asked_to(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    owner = pipeline(store, run)
    saved = store.save_artifact("kept", "m", "model", "joblib")
    chain(store, owner, {"fold_0": saved})
    finish(store, owner)
    store.delete_run(run, delete_artifacts=False)
    assert store.load_artifact(saved) == "kept"
    assert store.gc_artifacts() == 1


def test_source_maps_and_lists_count_as_references(store: WorkspaceStore) -> None:
    owner = pipeline(store)
    ids = [store.save_artifact(name, "m", "transformer", "joblib") for name in "abc"]
    chain(
        store, owner, {"fold_0": ids[0]}, {"1": [ids[1]], "_source_map": {"1": {"0": [ids[2]]}}, "_note": "not an id"}
    )
    finish(store, owner)
    assert references(store) == dict.fromkeys(ids, 1)
    assert store.gc_artifacts() == 0


def test_an_open_pipeline_keeps_what_it_saved_until_it_ends(store: WorkspaceStore) -> None:
    owner = pipeline(store)
    saved = store.save_artifact("early", "m", "model", "joblib")
    assert store.gc_artifacts() == 0
    assert references(store) == {saved: 1}
    chain(store, owner, {"fold_0": saved})
    finish(store, owner)
    assert references(store) == {saved: 1}
    unused = pipeline(store)
    other = store.save_artifact("unused", "m", "model", "joblib")
    store.fail_pipeline(unused, "no convergence")
    assert references(store) == {saved: 1, other: 0}
    assert store.gc_artifacts() == 1
    assert references(store) == {saved: 1}


def test_content_of_a_transaction_that_failed_can_be_saved_again(store: WorkspaceStore) -> None:
    content_hash = foreign_file(store, [1.5])
    with pytest.raises(RuntimeError, match="on the way"), store.transaction():
        saved = store.save_artifact("again", "m", "model", "joblib")
        register(store, content_hash)
        raise RuntimeError("on the way")
    with pytest.raises(NotFoundError):
        store.load_artifact(saved)
    owner = pipeline(store)
    assert store.save_artifact("again", "m", "model", "joblib") == saved
    chain(store, owner, {"fold_0": saved}, {"1": [register(store, content_hash)]})
    finish(store, owner)
    assert references(store) == {saved: 1, "config$1:0": 1}
    assert store.load_artifact(saved) == "again"


def test_holds_of_a_killed_process_do_not_last(tmp_path: Path) -> None:
    program = f"""
        from n4a_fast import WorkspaceStore
        import os, signal
        store = WorkspaceStore({str(tmp_path)!r})
        store.begin_pipeline(store.begin_run("r", {{}}, []), "p", {{}}, [], "corn", "h")
        store.save_artifact("left behind", "m", "model", "joblib")
        store.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -signal.SIGKILL
    with WorkspaceStore(tmp_path) as store:
        assert list(references(store).values()) == [1]
        assert store.gc_artifacts() == 1
        assert references(store) == {}


def test_a_file_without_a_row_goes_once_it_is_old(store: WorkspaceStore) -> None:
    folder = store.workspace_path / "artifacts" / "ab"
    folder.mkdir()
    for name, age in ((f"ab{'0' * 30}.joblib", 7200), (f"ab{'1' * 30}.joblib", 0)):
        (folder / name).write_bytes(b"x")
        stamp = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (stamp, stamp))
    assert store.gc_artifacts() == 1
    assert [path.name for path in folder.iterdir()] == [f"ab{'1' * 30}.joblib"]


def test_cache_keys_find_the_newest_artifact_until_the_dataset_changes(store: WorkspaceStore) -> None:
    first = store.save_artifact_with_cache_key(1, "m", "model", "joblib", "path", "input", "dataset")
    assert store.find_cached_artifact("path", "input") == first
    assert store.find_cached_artifact("path", "other") is None
    second = store.save_artifact(2, "m", "model", "joblib")
    store.update_artifact_cache_key(second, "path2", "input", "dataset")
    assert store.find_cached_artifact("path2", "input") == second
    assert store.invalidate_dataset_cache("dataset") == 2
    assert store.invalidate_dataset_cache("dataset") == 0
    assert store.find_cached_artifact("path", "input") is None
    assert store.load_artifact(first) == 1


def foreign_file(store: WorkspaceStore, content: object, name: str = "ab/model_x.joblib") -> str:
    path = store.workspace_path / "artifacts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(content, path)
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def register(store: WorkspaceStore, content_hash: str, **changes: Any) -> str:
    arguments = {
        "artifact_id": "config$1:0",
        "path": "ab/model_x.joblib",
        "content_hash": content_hash,
        "operator_class": "m",
        "artifact_type": "model",
        "format": "joblib",
        "size_bytes": 10,
    }
    return store.register_existing_artifact(**{**arguments, **changes})


def test_files_of_nirs4all_are_registered_verified_and_loaded(store: WorkspaceStore) -> None:
    content_hash = foreign_file(store, [1.5])
    assert register(store, content_hash) == "config$1:0"
    assert register(store, content_hash) == "config$1:0"
    assert store.load_artifact("config$1:0") == [1.5]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_files_of_nirs4all_are_verified_by_each_load(store: WorkspaceStore, damage: Any) -> None:
    register(store, foreign_file(store, [1.5]))
    path = store.get_artifact_path("config$1:0")
    path.write_bytes(damage(path.read_bytes()))
    for call in (store.load_artifact, store.shared_artifact, store.describe_artifact):
        with pytest.raises(ArtifactCorruptError, match=r"model_x\.joblib"):
            call("config$1:0")
    assert set(store.verify_artifacts().damaged) == {"config$1:0"}


def test_a_known_id_with_other_content_is_refused(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        content_hash = foreign_file(store, [1.5])
        register(store, content_hash)
    with WorkspaceStore(tmp_path) as store, pytest.raises(ConflictError, match=r"config\$1:0"):
        register(store, "sha256:" + "0" * 64)


@pytest.mark.parametrize("format_name", ["joblib", "pickle"])
def test_a_registered_file_that_is_no_pickle_is_named_when_it_is_loaded(
    store: WorkspaceStore, format_name: str
) -> None:
    path = store.workspace_path / "artifacts" / "ab" / "model_x.joblib"
    path.parent.mkdir()
    path.write_bytes(b"not a pickle at all")
    register(store, "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(), format=format_name)
    for call in (store.load_artifact, store.shared_artifact):
        with pytest.raises(ArtifactCorruptError, match=r"model_x\.joblib"):
            call("config$1:0")
    assert store.verify_artifacts()  # the file is what was registered
    with pytest.raises(InvalidInputError, match="no pickle"):
        store.describe_artifact("config$1:0")


@pytest.mark.parametrize("damage", [b"", b"other content"])
def test_a_file_that_does_not_match_its_hash_is_not_registered(store: WorkspaceStore, damage: bytes) -> None:
    content_hash = foreign_file(store, [1.5])
    (store.workspace_path / "artifacts" / "ab" / "model_x.joblib").write_bytes(damage)
    with pytest.raises(ArtifactCorruptError):
        register(store, content_hash)
    assert references(store) == {}


def test_a_known_id_with_other_content_is_refused_wherever_it_is_kept(store: WorkspaceStore) -> None:
    content_hash = foreign_file(store, [1.5])
    register(store, content_hash)
    database = store._open().database
    for step in (lambda: None, store.flush, database.detach, lambda: store.sql("SELECT 1"), database.detach):
        step()
        with pytest.raises(ConflictError):
            register(store, "sha256:" + "0" * 64)
        assert register(store, content_hash) == "config$1:0"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"path": "../store.duckdb"}, UnsafePathError),
        ({"path": "ab/nothing.joblib"}, ArtifactMissingError),
        ({"content_hash": "md5:abc"}, InvalidInputError),
        ({"format": "xml"}, InvalidInputError),
        ({"size_bytes": "many"}, InvalidInputError),
    ],
)
def test_a_wrong_registration_is_refused_and_stores_nothing(
    store: WorkspaceStore, changes: dict[str, Any], error: type[Exception]
) -> None:
    content_hash = foreign_file(store, [1.5])
    with pytest.raises(error):
        register(store, **{"content_hash": content_hash, **changes})
    assert references(store) == {}


def test_a_refit_lets_go_of_what_no_prediction_needs(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    loser, winner = pipeline(store, run), pipeline(store, run)
    ids = {name: store.save_artifact(name, "m", "model", "joblib") for name in ("l0", "l1", "ls", "w0", "wfinal", "ws")}
    losing = chain(store, loser, {"fold_0": ids["l0"], "fold_1": ids["l1"]}, {"1": [ids["ls"]]})
    chain(store, winner, {"fold_0": ids["w0"], "fold_final": ids["wfinal"]}, {"1": [ids["ws"]]})
    store.save_prediction(
        loser,
        losing,
        "corn",
        "m",
        "m",
        "0",
        "val",
        0.1,
        0.1,
        0.1,
        "rmse",
        "regression",
        1,
        1,
        {},
        {},
        None,
        None,
        0,
        0.0,
    )
    finish(store, loser)
    finish(store, winner)
    files = sorted((store.workspace_path / "artifacts").glob("??/*"))
    assert store.cleanup_transient_artifacts(run, "corn", [winner], dry_run=True) == 2
    assert sorted((store.workspace_path / "artifacts").glob("??/*")) == files
    assert store.cleanup_transient_artifacts(run, "corn", [winner]) == 2
    assert set(references(store)) == {ids["l0"], ids["ls"], ids["wfinal"], ids["ws"]}
    assert store.get_chain(losing) is not None
    assert store.verify(), "what was let go is no damage"
    store.close()
    with duckdb.connect(str(store.workspace_path / "store.duckdb")) as bare:
        bare.execute("DELETE FROM chain_artifacts WHERE artifact_id = ?", (ids["ws"],))
    with WorkspaceStore(store.workspace_path) as again:
        assert [finding.kind for finding in again.verify(repair=True).findings] == ["wrong link"]
        assert again.verify()
        assert again.gc_artifacts() == 0
        assert set(references(again)) == {ids["l0"], ids["ls"], ids["wfinal"], ids["ws"]}


def test_a_sweep_that_saves_artifacts_leaves_its_rows_in_the_journal(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [])
    for number in range(5):
        owner = pipeline(store, run)
        saved = [
            store.save_artifact({"w": number}, "m", "model", "joblib"),
            store.save_artifact("known", "m", "scaler", "joblib"),
        ]
        register(
            store,
            foreign_file(store, number, f"ab/{number}.joblib"),
            artifact_id=f"id{number}",
            path=f"ab/{number}.joblib",
        )
        chain(store, owner, {"fold_0": saved[0]}, {"1": [saved[1]]})
        finish(store, owner)
    assert store._open().database.rows_undrained("SELECT count(*) FROM stored_artifacts") == [(0,)]
    assert not store._open().database.log.is_empty
    assert store.sql("SELECT count(*) AS n FROM artifacts")["n"][0] == 11
    assert store._open().database.log.is_empty


def test_a_unit_removes_each_file_that_is_named_and_what_nothing_uses(store: WorkspaceStore) -> None:
    """Neither request takes the place of another one; what a row names stays."""
    chains, paths, root = [], [], store._open().artifacts.files.root
    for content in ("kept", "left"):
        saved, owner = store.save_artifact(content, "m", "model", "joblib"), pipeline(store)
        chains.append(chain(store, owner, {"0": saved}))
        paths.append(store.get_artifact_path(saved))
        finish(store, owner)
    strays = [paths[0].with_name(f"stray{number}") for number in range(2)]
    for stray in strays:
        stray.write_bytes(b"young")
    with store.transaction():
        for path in (strays[0], paths[0]):
            store._open().deletions.delete_file(path.relative_to(root).as_posix())
        store.delete_chain(chains[1])
        store._open().deletions.delete_file(strays[1].relative_to(root).as_posix())
    assert [path.exists() for path in (*paths, *strays)] == [True, False, False, False]
