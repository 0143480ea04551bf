"""Compressed files, shared objects, descriptions and verification."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pytest
import sklearn
from helpers import begin_sweep, save_chain
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import StandardScaler

from n4a_fast import WorkspaceStore
from n4a_fast.artifacts.objects import ObjectCache
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, InvalidInputError, NotFoundError

FOREST = RandomForestRegressor(10, random_state=0).fit(np.arange(40.0).reshape(20, 2), np.arange(20.0))


def test_compressed_artifacts_load_and_keep_their_identity(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, compression="zstd") as store:
        saved = store.save_artifact(FOREST, "RandomForestRegressor", "model", "joblib")
        path = store.get_artifact_path(saved)
        assert path.name == f"{saved}.joblib.zst"
        assert np.array_equal(store.load_artifact(saved).predict([[1, 2]]), FOREST.predict([[1, 2]]))
        described = store.describe_artifact(saved)
        assert described.file_bytes == path.stat().st_size < described.size_bytes / 2
        assert store.verify_artifacts()
    with WorkspaceStore(tmp_path) as store:
        assert store.save_artifact(FOREST, "RandomForestRegressor", "model", "joblib") == saved
        assert [path.name for path in (tmp_path / "artifacts").glob("??/*")] == [f"{saved}.joblib.zst"]
        assert store.save_artifact(StandardScaler(), "StandardScaler", "transformer", "joblib") != saved
        assert len(list((tmp_path / "artifacts").glob("??/*.joblib"))) == 1


def test_compressed_files_are_plain_zstd_around_what_joblib_reads(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path, compression="zstd") as store:
        path = store.get_artifact_path(store.save_artifact(FOREST, "RandomForestRegressor", "model", "joblib"))
    with pa.input_stream(str(path), compression="zstd") as stream:
        assert joblib.load(io.BytesIO(stream.read())).n_estimators == 10


@pytest.mark.parametrize("damage", [b"", b"no zstd", None])
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    with WorkspaceStore(tmp_path, compression="zstd") as store:
        saved = store.save_artifact(FOREST, "RandomForestRegressor", "model", "joblib")
        path = store.get_artifact_path(saved)
        path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
        with pytest.raises(ArtifactCorruptError):
            store.load_artifact(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [("compression", "zlib"), ("compression", 3), ("object_cache_bytes", -1), ("object_cache_bytes", "big")],
)
def test_wrong_settings_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        WorkspaceStore(tmp_path, **{name: value})
    assert not list(tmp_path.iterdir())


def test_a_loaded_object_is_the_callers_own_and_a_shared_one_is_not(store: WorkspaceStore) -> None:
    saved = store.save_artifact({"w": np.arange(3.0)}, "dict", "model", "joblib")
    shared = store.shared_artifact(saved)
    mine = store.load_artifact(saved)
    mine["w"][0] = 99
    assert store.shared_artifact(saved) is shared
    assert shared["w"].tolist() == store.load_artifact(saved)["w"].tolist() == [0, 1, 2]


def test_a_shared_object_of_a_deleted_artifact_is_gone(store: WorkspaceStore) -> None:
    saved = store.save_artifact("old", "str", "model", "joblib")
    store.flush()
    assert store.shared_artifact(saved) == "old"
    path = store.get_artifact_path(saved)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(ArtifactMissingError):
        store.shared_artifact(saved)
    path.write_bytes(content)
    store._open().artifacts.release()
    assert store.gc_artifacts() == 1
    with pytest.raises(NotFoundError):
        store.shared_artifact(saved)


def test_the_cache_gives_up_what_was_used_least_recently() -> None:
    cache = ObjectCache()
    cache.limit = 100
    for name in "abc":
        cache.put(name, name.upper(), 40)
    assert cache.get("a") is None
    assert cache.get("b") == ("B",)
    cache.put("d", None, 40)
    assert (cache.get("c"), cache.get("b"), cache.get("d")) == (None, ("B",), (None,))
    cache.put("huge", "x", 101)
    assert cache.get("huge") is None
    assert cache.nbytes == 80


def test_replays_share_loaded_objects(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    saved = store.save_artifact(FOREST, "RandomForestRegressor", "model", "joblib")
    steps = [
        {
            "step_idx": 1,
            "operator_class": "RandomForestRegressor",
            "params": {},
            "artifact_id": None,
            "stateless": False,
        }
    ]
    chain = save_chain(store, sweep.pipeline, steps=steps, fold_artifacts={"fold_0": saved})
    first = store.replay_chain(chain, np.ones((2, 2)))
    assert store._open().artifacts.objects.nbytes > 0
    assert np.array_equal(store.replay_chain(chain, np.ones((2, 2))), first)


def test_a_description_tells_class_versions_size_references_and_globals(store: WorkspaceStore) -> None:
    sweep = begin_sweep(store)
    saved = store.save_artifact(FOREST, "ensemble.RF", "model", "joblib")
    save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": saved})
    store.complete_pipeline(sweep.pipeline, 0.1, 0.1, "rmse", 1)
    found = store.describe_artifact(saved)
    assert found.class_name == "sklearn.ensemble._forest.RandomForestRegressor"
    assert (found.operator_class, found.artifact_type, found.format, found.origin) == (
        "ensemble.RF",
        "model",
        "joblib",
        "saved",
    )
    assert found.libraries == {"numpy": np.__version__, "sklearn": sklearn.__version__}
    assert found.ref_count == 1
    assert found.size_bytes == found.file_bytes == (store.workspace_path / "artifacts" / found.path).stat().st_size
    assert "sklearn.tree._tree.Tree" in found.globals
    assert store.describe_artifact(store.save_artifact([1], "list", "note", "pickle")).class_name == ""


def test_verification_names_what_is_damaged_and_tells_how_far_it_is(store: WorkspaceStore) -> None:
    ids = [store.save_artifact(f"content {number}", "str", "model", "joblib") for number in range(600)]
    flipped, emptied, gone, swapped, other = ids[:5]
    path = store.get_artifact_path(flipped)
    path.write_bytes(path.read_bytes().replace(b"content", b"contenT"))
    store.get_artifact_path(emptied).write_bytes(b"")
    store.get_artifact_path(gone).unlink()
    store.get_artifact_path(swapped).write_bytes(store.get_artifact_path(other).read_bytes())
    told: list[tuple[int, int]] = []
    report = store.verify_artifacts(progress=lambda done, total: told.append((done, total)))
    assert not report
    assert {key: type(error) for key, error in report.damaged.items()} == {
        flipped: ArtifactCorruptError,
        emptied: ArtifactCorruptError,
        swapped: ArtifactCorruptError,
        gone: ArtifactMissingError,
    }
    assert report.checked == 600
    assert report.nbytes > 596 * 20
    assert told == [(0, 600), (256, 600), (512, 600), (600, 600)]
    for damaged in (flipped, emptied, swapped):
        with pytest.raises(ArtifactCorruptError, match="restore the file"):
            store.load_artifact(damaged)


def test_a_collection_tells_how_far_it_is(store: WorkspaceStore) -> None:
    for number in range(300):
        store.save_artifact(number, "int", "model", "joblib")
    store.flush()
    store._open().artifacts.release()
    told: list[tuple[int, int]] = []
    assert store.gc_artifacts(progress=lambda done, total: told.append((done, total))) == 300
    assert told == [(0, 300), (256, 300), (300, 300)]


FULL = """
import resource, sys
import numpy as np
from n4a_fast import WorkspaceStore
from n4a_fast.errors import StoreUnavailableError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = WorkspaceStore(sys.argv[1])
kept = store.save_artifact("small", "str", "model", "joblib")
store.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    store.save_artifact(np.arange(100_000.0), "array", "model", "joblib")
except StoreUnavailableError as error:
    assert "limit of file sizes" in str(error), error
else:
    raise AssertionError("it was saved")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = store.save_artifact(np.arange(100_000.0), "array", "model", "joblib") if len(sys.argv) > 2 else kept
assert store.load_artifact(kept) == "small"
print(kept, again)
store.close()
"""


@pytest.mark.parametrize("more", [(), ("save it again",)])
def test_a_full_disk_leaves_nothing_behind_and_the_save_can_be_repeated(tmp_path: Path, more: tuple[str, ...]) -> None:
    from helpers import child, finish

    names = finish(child(FULL, tmp_path, *more)).split()
    assert sorted(path.stem for path in (tmp_path / "artifacts").glob("??/*")) == sorted(set(names))
    assert not list((tmp_path / "artifacts").rglob("*.draft"))
    with WorkspaceStore(tmp_path) as store:
        assert store.verify_artifacts().checked == len(set(names))
        assert store.verify_artifacts()


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.not_on("windows", reason="a small disk is mounted")
def test_a_really_full_disk_is_told_and_leaves_what_was_stored(small_disk: Path) -> None:
    from n4a_fast.errors import StoreUnavailableError

    with WorkspaceStore(small_disk / "w") as store:
        kept = store.save_artifact(np.arange(1000.0), "array", "model", "joblib")
        store.flush()
        with pytest.raises(StoreUnavailableError, match="No space left"):
            store.save_artifact(np.arange(1_000_000.0), "array", "model", "joblib")
        assert store.load_artifact(kept).shape == (1000,)
        assert [path.stem for path in (small_disk / "w" / "artifacts").glob("??/*")] == [kept]
