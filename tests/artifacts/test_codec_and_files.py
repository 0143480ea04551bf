"""Bytes of an artifact: formats, atomic files, verification, paths that stay inside."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Literal

import joblib
import numpy as np
import pytest
import xxhash

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.files import ArtifactFiles, relative_path, verified
from n4a_fast.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    InvalidInputError,
    StoreUnavailableError,
    UnsafePathError,
)


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    root = tmp_path / "artifacts"
    root.mkdir()
    return ArtifactFiles(root)


def test_joblib_files_open_without_this_package(tmp_path: Path) -> None:
    (tmp_path / "a.joblib").write_bytes(codec.dumps({"w": np.arange(5.0)}, "joblib"))
    found = joblib.load(tmp_path / "a.joblib")
    assert np.array_equal(found["w"], np.arange(5.0))


@pytest.mark.parametrize("format_name", ["joblib", "cloudpickle"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_written_read_and_found_again(
    files: ArtifactFiles, format_name: str, order: Literal["C", "F"]
) -> None:
    saved = np.random.default_rng(0).random((300, 100)).copy(order)
    artifact_id, path, is_new = files.add(codec.chunks(saved, format_name), "joblib")
    assert is_new
    assert files.add(codec.chunks(saved, format_name), "joblib") == (artifact_id, path, False)
    np.testing.assert_array_equal(codec.loads((files.root / path).read_bytes(), format_name), saved)


def test_cloudpickle_takes_lambdas_and_local_classes() -> None:
    class Local:
        factor = 3

    double = codec.loads(codec.dumps(lambda x: 2 * x, "cloudpickle"), "cloudpickle")
    local = codec.loads(codec.dumps(Local(), "cloudpickle"), "cloudpickle")
    assert double(21) == 42
    assert local.factor == 3


def test_joblib_refuses_a_lambda_and_names_the_cure() -> None:
    with pytest.raises(InvalidInputError, match="cloudpickle"):
        codec.dumps(lambda x: x, "joblib")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'xml'"):
        codec.dumps(1, "xml")


def test_the_bytes_do_not_depend_on_the_process_or_its_hash_seed() -> None:
    program = (
        "import hashlib, numpy as np\nfrom n4a_fast.artifacts import codec\n"
        "print(hashlib.sha256(codec.dumps({'b': {1, 2}, 'a': np.arange(9.)}, 'joblib')).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, **_environment()},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}


def test_equal_bytes_are_one_file(files: ArtifactFiles) -> None:
    first, second = files.add([b"mo", b"del"], "joblib"), files.add([b"model"], "pkl")
    name = xxhash.xxh3_128_hexdigest(b"model")
    assert first == (name, relative_path(name, "joblib"), True)
    assert second == (name, relative_path(name, "joblib"), False)
    assert list(files.listed()) == [relative_path(name, "joblib")]


def test_other_bytes_under_the_same_hash_get_another_name(files: ArtifactFiles) -> None:
    name, path, _ = files.add([b"model"], "joblib")
    files.path(path).write_bytes(b"other")  # as a collision would leave it
    assert files.add([b"model"], "joblib") == (f"{name}-1", relative_path(f"{name}-1", "joblib"), True)
    assert files.read("a", relative_path(f"{name}-1", "joblib"), f"{name}-1") == b"model"


@pytest.mark.parametrize("damage", [b"", b"mode", b"mOdel", b"model\0"])
def test_a_damaged_file_is_refused(files: ArtifactFiles, damage: bytes) -> None:
    name, relative, _ = files.add([b"model"], "joblib")
    path = files.path(relative)
    path.write_bytes(damage)
    with pytest.raises(ArtifactCorruptError) as caught:
        files.read("a", relative, name)
    assert caught.value.path == path
    assert caught.value.expected == name


def test_a_missing_file_is_named(files: ArtifactFiles) -> None:
    with pytest.raises(ArtifactMissingError, match="artifact file 'a'"):
        files.read("a", "ab/nothing.joblib", "0" * 32)


@pytest.mark.parametrize("hostile", ["../store.duckdb", "/etc/passwd", "ab/../../x", ".", ""])
def test_paths_that_leave_the_folder_are_refused(files: ArtifactFiles, hostile: str) -> None:
    with pytest.raises(UnsafePathError):
        files.path(hostile)


def test_a_link_out_of_the_folder_is_refused(files: ArtifactFiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (files.root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafePathError):
        files.path("link")


def test_nirs4all_hashes_are_verified_with_sha256() -> None:
    digest = hashlib.sha256(b"model").hexdigest()
    assert verified(b"model", "a", f"sha256:{digest}") == verified(b"model", "a", digest) == b"model"
    with pytest.raises(ArtifactCorruptError):
        verified(b"other", "a", f"sha256:{digest}")


def test_a_failed_write_leaves_nothing(files: ArtifactFiles) -> None:
    name = xxhash.xxh3_128_hexdigest(b"model")
    (files.root / name[:2]).write_bytes(b"a file where the folder should be")
    with pytest.raises(StoreUnavailableError):
        files.add([b"model"], "joblib")
    assert list(files.listed()) == []
    assert [entry.name for entry in files.root.iterdir() if not entry.name.startswith(".")] == [name[:2]]


def test_a_truncated_pickle_never_reaches_the_unpickler(files: ArtifactFiles, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data = pickle.dumps(_Touch(str(marker)))
    name, relative, _ = files.add([data], "pkl")
    path = files.path(relative)
    path.write_bytes(data + b"x")
    with pytest.raises(ArtifactCorruptError):
        codec.loads(files.read("a", relative, name), "cloudpickle")
    assert not marker.exists()


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


SAME_BYTES = """
import hashlib
from n4a_fast.artifacts import codec
class Local:
    names = {"a", "b", "c"}
    def words(self):
        return {"x", "y", "z"} | self.names
for obj, name in [({"a", "b", "c"}, "joblib"), ({"k": frozenset("qrs")}, "pickle"),
                  ({frozenset("ab"), frozenset("cd")}, "joblib"),
                  (Local, "cloudpickle"), (Local(), "cloudpickle"),
                  (lambda x: x in {"u", "v"} | Local.names, "cloudpickle")]:
    print(hashlib.sha256(codec.dumps(obj, name)).hexdigest())
found = codec.loads(codec.dumps(Local(), "cloudpickle"), "cloudpickle")
assert found.words() == set("abcxyz"), found.words()
assert codec.loads(codec.dumps({frozenset("ab")}, "pickle"), "pickle") == {frozenset("ab")}
"""


def test_sets_and_local_classes_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "same.py"  # a function by value carries the name of its file
    script.write_text(SAME_BYTES)
    outputs = {
        subprocess.run(
            [sys.executable, script], env={"PYTHONHASHSEED": seed, **_environment()}, check=True, capture_output=True
        ).stdout
        for seed in "123"
    }
    assert len(outputs) == 1


def test_a_large_array_is_copied_once_on_a_save() -> None:
    array = np.arange(1e6)
    pieces = codec.chunks({"w": array}, "joblib")
    assert [len(piece) for piece in pieces if len(piece) > 10_000] == [array.nbytes]


def test_large_content_is_mapped_and_loads(files: ArtifactFiles) -> None:
    pieces = codec.chunks({"w": np.arange(1e6)}, "joblib")
    name, relative, _ = files.add(pieces, "joblib")
    found = files.read("a", relative, name)
    assert isinstance(found, memoryview)
    assert np.array_equal(codec.loads(found, "joblib")["w"], np.arange(1e6))
    assert files.add([b"".join(pieces)], "joblib") == (name, relative, False)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 70_000])
def test_any_bytes_are_found_again_compressed_or_not(files: ArtifactFiles, content: bytes) -> None:
    name, relative, is_new = files.add([content], "pkl", compress=True)
    assert is_new
    assert files.add([content], "joblib") == (name, relative, False)
    assert bytes(files.read("a", relative, name)) == content


@pytest.mark.parametrize(
    "odd",
    [
        "ab/./x.joblib",
        "ab//x.joblib",
        "ab/c/../x.joblib",
        "./ab/x.joblib",
        "ab/x.joblib/",
        ".saving/lock",
        "ab/x\0.joblib",
    ],
)
def test_a_path_that_is_not_plain_is_refused(files: ArtifactFiles, odd: str) -> None:
    (files.root / "ab").mkdir()
    (files.root / "ab" / "x.joblib").write_bytes(b"x")
    with pytest.raises(UnsafePathError):
        files.path(odd)


def test_links_inside_the_folder_are_refused_too(files: ArtifactFiles) -> None:
    name, relative, _ = files.add([b"model"], "joblib")
    (files.root / "ab").mkdir(exist_ok=True)
    (files.root / "ab" / "link.joblib").symlink_to(files.root / relative)
    (files.root / "folder").symlink_to(files.root / name[:2])
    for link in ("ab/link.joblib", f"folder/{name}.joblib"):
        with pytest.raises(UnsafePathError):
            files.read("a", link, name)
    assert "ab/link.joblib" not in set(files.listed())


def test_a_link_in_the_place_of_content_is_not_followed(files: ArtifactFiles, tmp_path: Path) -> None:
    name = xxhash.xxh3_128_hexdigest(b"model")
    (tmp_path / "elsewhere").write_bytes(b"model")
    (files.root / name[:2]).mkdir()
    (files.root / name[:2] / f"{name}.joblib").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError):
        files.add([b"model"], "joblib")


@pytest.mark.parametrize(
    "make",
    [
        "mkdir",
        pytest.param("mkfifo", marks=pytest.mark.not_on("windows", reason="there are no named pipes in folders")),
    ],
)
def test_a_folder_or_pipe_in_the_place_of_a_file_is_refused(files: ArtifactFiles, make: str) -> None:
    (files.root / "ab").mkdir()
    getattr(os, make)(files.root / "ab" / "x.joblib")
    with pytest.raises(ArtifactCorruptError):
        files.read("a", "ab/x.joblib", "0" * 32)
