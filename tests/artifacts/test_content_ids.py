"""An id that is the hash of a content means that content: xxh3 is fast and no seal, so files with one hash can be made.

What the hash cannot tell apart, the bytes do; what others store under such an id is refused.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import duckdb
import pytest
import xxhash
from helpers import begin_sweep, count, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ArtifactCorruptError, ConflictError

_SECRET = bytes.fromhex("b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db")  # as xxHash publishes it


def with_one_hash() -> tuple[bytes, bytes]:
    """Two objects whose pickles have one xxh3-128.

    A stripe's word adds itself, and the product of its halves once they are masked with the secret. Where one half is
    the secret's own, the product is nothing, and the other half may be moved to the same word of the next stripe.
    """
    plain = pickle.dumps(bytes(600), 5)
    start = plain.rindex(bytes(600))

    def made(*halves: int) -> bytes:
        found = bytearray(plain)
        for stripe, half in enumerate(halves, start=1):
            found[64 * stripe : 64 * stripe + 8] = _SECRET[8 * stripe : 8 * stripe + 4] + struct.pack("<I", half)
        return bytes(found[start : start + 600])

    return made(5, 7), made(6, 6)


FIRST, SECOND = with_one_hash()
HASH = xxhash.xxh3_128_hexdigest(pickle.dumps(FIRST, 5))
assert FIRST != SECOND
assert xxhash.xxh3_128_hexdigest(pickle.dumps(SECOND, 5)) == HASH


def save(store: WorkspaceStore, content: bytes) -> str:
    return store.save_artifact(content, "bytes", "model", "joblib")


def test_two_contents_of_one_hash_keep_apart(tmp_path: Path) -> None:
    for _ in range(2):
        with WorkspaceStore(tmp_path) as store:
            assert [save(store, FIRST), save(store, SECOND)] == [HASH, f"{HASH}-1"]
            assert [store.load_artifact(HASH), store.load_artifact(f"{HASH}-1")] == [FIRST, SECOND]
    with WorkspaceStore(tmp_path) as store:
        assert store.verify_artifacts()


@pytest.mark.parametrize("content_hash", ["sha256", "xxh3"])
def test_nobody_registers_other_content_under_the_hash_of_one(tmp_path: Path, content_hash: str) -> None:
    data = pickle.dumps(SECOND, 5)
    digest = HASH if content_hash == "xxh3" else f"sha256:{hashlib.sha256(data).hexdigest()}"
    with WorkspaceStore(tmp_path) as store:
        (folder := tmp_path / "artifacts" / "cd").mkdir(parents=True)
        (folder / "theirs.joblib").write_bytes(data)
        registered = ("cd/theirs.joblib", digest, "bytes", "model", "joblib", len(data))
        with pytest.raises(ConflictError, match="use another id"):
            store.register_existing_artifact(HASH, *registered)
        assert store.register_existing_artifact("theirs", *registered) == "theirs"
        assert save(store, FIRST) == HASH
        assert [store.load_artifact(HASH), store.load_artifact("theirs")] == [FIRST, SECOND]


def test_what_this_workspace_has_saved_can_be_registered_again(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        save(store, FIRST)
        path = store.get_artifact_path(HASH).relative_to(tmp_path / "artifacts").as_posix()
        assert store.register_existing_artifact(HASH, path, HASH, "bytes", "model", "joblib", 600) == HASH


def test_a_row_of_somebody_else_with_the_hash_of_mine_is_never_loaded_for_it(tmp_path: Path) -> None:
    data = pickle.dumps("theirs", 5)
    digest = hashlib.sha256(data).hexdigest()
    with WorkspaceStore(tmp_path) as store:
        save(store, b"a row to copy")
    (tmp_path / "artifacts" / "theirs.joblib").write_bytes(data)
    with duckdb.connect(str(tmp_path / "store.duckdb")) as made:
        row = f"'{HASH}' AS artifact_id, 'theirs.joblib' AS artifact_path, 'sha256:{digest}' AS content_hash"
        made.execute(f"INSERT INTO stored_artifacts SELECT * REPLACE ({row}) FROM stored_artifacts")
    with WorkspaceStore(tmp_path) as store:
        with pytest.raises(ArtifactCorruptError):
            store.load_artifact(HASH)
        assert list(store.verify_artifacts().damaged) == [HASH]
        assert save(store, FIRST) == HASH
        assert store.load_artifact(HASH) == FIRST


def with_content(root: Path, content: bytes) -> Path:
    """A workspace with a chain of one artifact."""
    with WorkspaceStore(root) as store:
        sweep = begin_sweep(store)
        save_chain(store, sweep.pipeline, fold_artifacts={"fold_0": save(store, content)})
    return root


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_merge_takes_no_other_content_for_the_one_of_its_hash(tmp_path: Path, dry_run: bool) -> None:
    ours, theirs = with_content(tmp_path / "ours", FIRST), with_content(tmp_path / "theirs", SECOND)
    with WorkspaceStore(ours) as store:
        with pytest.raises(ConflictError, match=HASH):
            store.merge(theirs, dry_run=dry_run)
        assert count(store, "chains") == 2
        assert store.load_artifact(HASH) == FIRST
    with WorkspaceStore(theirs) as store, pytest.raises(ConflictError, match=HASH):
        store.merge(ours, dry_run=dry_run)


@pytest.mark.parametrize("take", ["merge", "extract"])
@pytest.mark.long
def test_a_file_that_is_not_what_its_row_says_is_not_taken(tmp_path: Path, take: str) -> None:
    theirs = with_content(tmp_path / "theirs", FIRST)
    file = next((theirs / "artifacts").rglob("*.joblib"))
    file.write_bytes(pickle.dumps(b"another", 5))
    place = theirs if take == "extract" else tmp_path / "ours"
    with WorkspaceStore(place) as store, pytest.raises(ArtifactCorruptError, match=HASH):
        if take == "merge":
            store.merge(theirs)
        else:
            store.extract(store.list_runs()["run_id"].to_list(), tmp_path / "ours")
    if take == "extract":
        assert not (tmp_path / "ours").exists()
        return
    assert not [path for path in (tmp_path / "ours" / "artifacts").rglob("*") if path.suffix in (".joblib", ".draft")]
    with WorkspaceStore(tmp_path / "ours") as store:
        assert count(store, "chains") == count(store, "artifacts") == 0
        assert save(store, FIRST) == HASH
        store.flush()
        assert store.merge(theirs).added("chains") == 2  # where ours is sound, theirs is not needed
        assert store.load_artifact(HASH) == FIRST
