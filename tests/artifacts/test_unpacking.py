"""What is compressed unpacks to a bounded size, whoever asks: a small file could fill the memory."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import child, finish

from n4a_fast import WorkspaceStore
from n4a_fast.artifacts import pickles
from n4a_fast.artifacts.pickles import unpacked

ZEROS = bytes(2**20)
BEGUN = b"\x80\x04B\0\0\0\x7f"  # a pickle of one value of 2 GB

# reads a workspace's only artifact with little memory
READ = """
import resource, sys
from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError, StoreError
with WorkspaceStore.open_readonly(sys.argv[1], trusted=["mypackage.*"]) as store:
    (name,) = store.sql("SELECT artifact_id FROM artifacts")["artifact_id"]
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
    for read in (store.describe_artifact, store.load_artifact):
        try:
            print("read", read(name))
        except (InvalidInputError, StoreError) as error:
            print(type(error).__name__)
    print(*store.verify_artifacts().damaged)
"""


def deflated() -> bytes:
    """A stream that unpacks to 4 GB."""
    packer = zlib.compressobj(9, wbits=-15)
    head = b"\x78\x9c" + packer.compress(BEGUN) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + (packer.compress(ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)) * 4096


BOMBS: dict[str, Callable[[], bytes]] = {
    "zlib": deflated,
    "zstd": lambda: bytes(pa.compress(ZEROS, codec="zstd", asbytes=True)) * 100_000,  # 100 GB
}


@pytest.mark.not_on("windows", "macos", reason="memory is limited, and told, as Linux does")
@pytest.mark.parametrize("form", BOMBS)
def test_a_file_that_unpacks_without_end_is_told_in_little_memory(tmp_path: Path, form: str) -> None:
    data = BOMBS[form]()
    assert len(data) < 6 * 2**20
    with WorkspaceStore(tmp_path) as store:
        path = store.get_artifact_path(store.save_artifact(1, "int", "model", "joblib"))
    theirs = path.with_name("theirs.joblib.zst" if form == "zstd" else "theirs.joblib")
    theirs.write_bytes(data)
    with duckdb.connect(str(tmp_path / "store.duckdb")) as made:
        made.execute(
            "UPDATE stored_artifacts SET artifact_id = 'theirs', artifact_path = ?, content_hash = ?",
            [f"{path.parent.name}/{theirs.name}", f"sha256:{hashlib.sha256(data).hexdigest()}"],
        )
    told = finish(child(READ, tmp_path)).split()
    if form == "zstd":  # what does not unpack has no hash
        assert told == ["ArtifactCorruptError", "ArtifactCorruptError", "theirs"]
    else:
        assert told == ["InvalidInputError", "ArtifactUnreadableError"]


@pytest.mark.parametrize(
    "packed",
    [
        zlib.compress,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ],
)
def test_each_form_that_joblib_writes_unpacks_to_what_is_allowed(packed: Callable[[bytes], bytes]) -> None:
    data = packed(bytes(100_000))
    assert len(unpacked(data, 100_000)) == 100_000
    with pytest.raises(ValueError, match="more than 99999 bytes"):
        unpacked(data, 99_999)


def test_what_would_be_packed_too_tightly_is_stored_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_ALWAYS_ALLOWED", 10_000)
    zeros, noise = np.zeros(10_000), np.random.default_rng(0).integers(0, 8, 10_000)
    with WorkspaceStore(tmp_path, compression="zstd") as store:
        for content, ending in ((zeros, ".joblib"), (noise, ".zst")):
            saved = store.save_artifact(content, "ndarray", "model", "joblib")
            assert store.get_artifact_path(saved).suffix == ending
            assert np.array_equal(store.load_artifact(saved), content)
            assert store.save_artifact(content, "ndarray", "model", "joblib") == saved
        assert store.verify_artifacts()
