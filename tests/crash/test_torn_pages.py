"""Checkpoints of DuckDB: what they leave alone, and how a block that a crash cut is made whole.

A new version of DuckDB may be allowed, in `KNOWN_VERSIONS` and in pyproject.toml, once this passes with it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from helpers import child, finish, kill, read_line
from recording import Disk, Operation, tears, write_image
from scan import layout, recorded
from scan import wrong_blocks as wrong_blocks_of

from n4a_fast import WorkspaceStore
from n4a_fast.durable.duckdb_file import FIRST_BLOCK, PARTS, is_whole, unfinished_checkpoint
from n4a_fast.durable.torn_pages import KNOWN_VERSIONS, mend_before_attaching
from n4a_fast.errors import StoreError, StoreFormatError, StoreUnavailableError

Traced = tuple[Disk, list[Operation]]
STORE = "store.duckdb"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Traced]:
    """A sweep of small pipelines, recorded once; each call gives its files anew, as they were at its beginning."""
    folder = tmp_path_factory.mktemp("traced")
    program = recorded("drain", folder)
    return lambda: (program.disk.copy(), program.done)


def rewritten_in_place(disk: Disk, done: list[Operation]) -> Iterator[tuple[Operation, int | None]]:
    """Each write to a block that the durable header uses, before it is made, with the mask of the free parts of a
    metadata block.
    """
    for operation in done:
        if operation.kind == "W" and operation.name.endswith(STORE) and operation.offset >= FIRST_BLOCK:
            file = layout(disk.durable_content(operation.name))
            block, within = divmod(operation.offset - FIRST_BLOCK, file.active.block_size)
            assert within == 0
            assert len(operation.data) == file.active.block_size, "blocks are written whole"
            blocks = file.blocks()
            if block < file.active.blocks and block not in blocks.free:
                yield operation, blocks.metadata.get(block)
        disk.play(operation)


@pytest.fixture
def torn(trace: Callable[[], Traced], tmp_path: Path) -> Path:
    """A workspace killed within a checkpoint: half of a metadata block is new."""
    disk, done = trace()
    for operation, _free_parts in rewritten_in_place(disk, done):
        for kept in tears(operation, random.Random(1)):
            image = disk.after_kill(operation, kept)
            if wrong_blocks_of(image[f"workspace/{STORE}"]):
                return write_image(image, tmp_path / "torn") / "workspace"
    raise AssertionError("no block was rewritten in place")


def wrong_blocks(store: Path) -> list[int]:
    return wrong_blocks_of(store.read_bytes())


def rot(store: Path, place: int) -> None:
    with store.open("r+b") as file:
        file.seek(place)
        file.write(b"rotten")


def rotten_data_block(store: Path) -> int:
    file = layout(store.read_bytes())
    blocks = file.blocks()
    block = next(b for b in range(file.active.blocks) if b not in blocks.free and b not in blocks.metadata)
    rot(store, file.place_of(block) + 5000)
    return block


def test_a_checkpoint_rewrites_no_part_in_use(trace: Callable[[], Traced]) -> None:
    disk, done = trace()
    rewritten = 0
    for operation, free_parts in rewritten_in_place(disk, done):
        assert free_parts, "a block without free parts was rewritten"
        before = disk.content(operation.name)[operation.offset :][: len(operation.data)]
        size = (len(before) - 8) // PARTS // 8 * 8
        used = [part for part in range(PARTS) if not free_parts >> part & 1]
        assert used
        assert all(before[8 + part * size :][:size] == operation.data[8 + part * size :][:size] for part in used)
        assert is_whole(before)
        assert is_whole(operation.data)
        rewritten += 1
    assert rewritten, "no block was rewritten in place: the cure is not needed any more"


def test_the_mark_of_a_checkpoint_is_durable_before_a_block_in_use_is_written(trace: Callable[[], Traced]) -> None:
    disk, done = trace()
    for operation, _free_parts in rewritten_in_place(disk, done):
        root = unfinished_checkpoint(disk.durable_content(operation.name + ".wal"))
        assert root is not None
        assert root != layout(disk.durable_content(operation.name)).active.root


def test_the_installed_duckdb_is_known() -> None:
    assert duckdb.__version__.startswith(KNOWN_VERSIONS)


def test_a_torn_block_is_made_whole_by_opening(torn: Path) -> None:
    assert wrong_blocks(torn / STORE)
    with WorkspaceStore(torn) as store:
        assert store.sql("SELECT count(y_pred) FROM prediction_arrays").item() > 0
    assert not wrong_blocks(torn / STORE)


def test_looking_for_torn_blocks_costs_a_store_at_rest_no_process(tmp_path: Path, torn: Path) -> None:
    started = """import sys
from n4a_fast import WorkspaceStore
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event in ("subprocess.Popen", "os.fork") else None)
with WorkspaceStore(sys.argv[1]) as store:
    store.begin_run("one", {}, [])
    store.list_runs()
print(len(seen))"""
    with WorkspaceStore(tmp_path / "w") as store:
        store.begin_run("before", {}, [])
    assert finish(child(started, tmp_path / "w")) == "0\n"
    killed = child(
        f"{started}\nstore = WorkspaceStore(sys.argv[1]); store.delete_run(store.begin_run('r', {{}}, []))\n"
        "print('deleted'); sys.stdin.readline()",
        tmp_path / "w",
    )
    assert read_line(killed) == "0"
    assert read_line(killed) == "deleted"
    kill(killed)
    assert (tmp_path / "w" / f"{STORE}.wal").stat().st_size
    assert finish(child(started, tmp_path / "w")) == "1\n"  # it is attached twice, and looked at once
    assert 0 < int(finish(child(started, torn))) <= 2  # what was mended is looked at again


def test_a_reader_that_may_write_makes_it_whole_too(torn: Path) -> None:
    with WorkspaceStore.open_readonly(torn) as store:
        assert store.sql("SELECT count(y_pred) FROM prediction_arrays").item() > 0


@pytest.mark.parametrize("version", ["1.4.4", "2.1.0", "3.0.0"])
def test_an_unknown_duckdb_mends_nothing(torn: Path, version: str) -> None:
    before = (torn / STORE).read_bytes()
    mend_before_attaching(torn / STORE, version)
    assert (torn / STORE).read_bytes() == before


def test_an_encrypted_file_is_left_alone(torn: Path) -> None:
    rot(torn / STORE, 20)  # the flags of the main header
    before, log = (torn / STORE).read_bytes(), (torn / f"{STORE}.wal").read_bytes()
    mend_before_attaching(torn / STORE, duckdb.__version__)
    assert ((torn / STORE).read_bytes(), (torn / f"{STORE}.wal").read_bytes()) == (before, log)


def test_without_the_mark_a_wrong_checksum_is_damage(torn: Path) -> None:
    log = (torn / f"{STORE}.wal").read_bytes()
    end = log.rindex(log[-21:], 0, len(log) - 21) + 21  # behind the transaction before the mark
    (torn / f"{STORE}.wal").write_bytes(log[:end])
    wrong = wrong_blocks(torn / STORE)
    with pytest.raises(StoreError, match=STORE):
        WorkspaceStore(torn)
    assert wrong_blocks(torn / STORE) == wrong


def test_a_damaged_data_block_is_left_as_it_is(torn: Path) -> None:
    block = rotten_data_block(torn / STORE)
    mend_before_attaching(torn / STORE, duckdb.__version__)
    assert wrong_blocks(torn / STORE) == [block]


def test_a_damaged_metadata_block_at_rest_is_told_as_damage(torn: Path) -> None:
    with WorkspaceStore(torn) as store:
        store.begin_run("the log goes with its checkpoint", {}, [])
    file = layout((torn / STORE).read_bytes())
    rot(torn / STORE, file.place_of(file.active.root & 2**56 - 1) + 64)
    before = (torn / STORE).read_bytes()
    with pytest.raises(StoreFormatError, match=r"damaged.*restore"):
        WorkspaceStore(torn)
    assert (torn / STORE).read_bytes() == before


def test_a_file_that_another_client_has_is_left_alone(torn: Path) -> None:
    before = (torn / STORE).read_bytes()
    holder = child(
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(1); input()",
        torn / STORE,
    )
    read_line(holder)
    mend_before_attaching(torn / STORE, duckdb.__version__)
    kill(holder)
    assert (torn / STORE).read_bytes() == before


def test_who_may_not_write_changes_nothing(torn: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        shutil.copytree(torn, folder / "torn")
        subprocess.run(["chmod", "-R", "a=rX", str(folder / "torn")], check=True)
        before = (folder / "torn" / STORE).read_bytes()
        helper = child(
            "import os, sys\nfrom n4a_fast.durable.torn_pages import main\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "main(sys.argv[1])",
            folder / "torn" / STORE,
        )
        assert finish(helper) == "forbidden\n"
        assert (folder / "torn" / STORE).read_bytes() == before
        if os.geteuid():
            with pytest.raises(StoreUnavailableError, match="open it once with permission to write"):
                WorkspaceStore.open_readonly(folder / "torn")
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        shutil.rmtree(folder)


@pytest.fixture
def log_torn(trace: Callable[[], Traced], tmp_path: Path) -> tuple[Path, int]:
    """A workspace whose power failed within a transaction: of its last write to the log, the first sector is missing;
    where that write begins.
    """
    disk, done = trace()
    writes = [place for place, op in enumerate(done) if op.kind == "W" and op.name.endswith(".wal") and op.offset]
    last = next(place for place in writes if len(done[place].data) > 1024)
    for operation in done[:last]:
        disk.play(operation)
    _, without_first = tears(done[last], random.Random(1))[:2]
    image = disk.after_kill(done[last], without_first)
    return write_image(image, tmp_path / "torn") / "workspace", done[last].offset


def test_the_torn_end_of_a_log_is_cut(log_torn: tuple[Path, int]) -> None:
    folder, begin = log_torn
    size = os.path.getsize(folder / f"{STORE}.wal")
    mend_before_attaching(folder / STORE, duckdb.__version__)
    assert os.path.getsize(folder / f"{STORE}.wal") <= begin < size
    with WorkspaceStore(folder) as store:
        assert store.sql("SELECT count(y_pred) FROM prediction_arrays").item() > 0


def test_damage_of_a_log_before_its_last_transaction_is_told(torn: Path) -> None:
    log = (torn / f"{STORE}.wal").read_bytes()
    rot(torn / f"{STORE}.wal", log.index(log[-5:]) - 40)  # shortly before the end of its first transaction
    log = (torn / f"{STORE}.wal").read_bytes()
    with pytest.raises(StoreFormatError, match=r"damaged.*restore"):
        WorkspaceStore(torn)
    assert (torn / f"{STORE}.wal").read_bytes() == log
