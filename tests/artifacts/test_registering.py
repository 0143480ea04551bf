"""Files that someone else wrote: on the disk before their rows are, and never under an id that means other content."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import child, examples, finish, read_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore, platform
from n4a_fast.durable import sync
from n4a_fast.errors import ConflictError, StoreUnavailableError
from n4a_fast.tables import stored_ids

STORED = "SELECT artifact_id, artifact_path, content_hash, ref_count FROM artifacts ORDER BY ALL"


def register(store: WorkspaceStore, artifact_id: str, content: str) -> str:
    """Write a file and register it, as nirs4all does."""
    digest = hashlib.sha256(content.encode()).hexdigest()
    relative = f"{digest[:2]}/model_{digest[:12]}.joblib"
    path = store.workspace_path / "artifacts" / relative
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return store.register_existing_artifact(
        artifact_id, relative, f"sha256:{digest}", "m", "model", "joblib", len(content)
    )


def test_the_files_and_their_names_are_on_the_disk_before_the_rows_are(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.begin_run("r", {}, [])
    store.flush()
    synced: list[str] = []
    sync_all, fdatasync = sync.sync_all, platform.sync_data
    monkeypatch.setattr(
        sync, "sync_all", lambda paths, *how, **rest: synced.extend(paths) or sync_all(paths, *how, **rest)
    )
    monkeypatch.setattr(platform, "sync_data", lambda descriptor: synced.append("journal") or fdatasync(descriptor))
    for number in range(3):
        register(store, f"a{number}", f"content {number}")
    store.flush()
    artifacts = Path(store._open().artifacts.files.root)
    files = list(artifacts.rglob("model_*"))
    assert len(files) == 3
    assert {*map(Path, synced[: synced.index("journal")])} == {*files, *(file.parent for file in files), artifacts}
    assert synced.count("journal") == 1


def test_a_file_that_cannot_be_made_durable_keeps_its_row_out_until_it_can(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(sync, "sync_all", fail)
        register(store, "a", "content")
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match=r"[Ii]nput/output"):
                store.flush()
        assert store._open().buffer.unflushed
    store.flush()
    assert store.sql("SELECT artifact_id FROM artifacts").rows() == [("a",)]


def test_a_file_that_comes_back_under_its_name_is_made_durable_again(
    store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync_all = sync.sync_all
    monkeypatch.setattr(
        sync, "sync_all", lambda paths, *how, **rest: synced.extend(paths) or sync_all(paths, *how, **rest)
    )
    register(store, "a", "content")
    files = store._open().artifacts.files
    (path,) = files.root.rglob("model_*")
    files.unlink([path.relative_to(files.root).as_posix()])
    synced.clear()
    register(store, "b", "content")
    store.flush()
    assert path in map(Path, synced)


OTHER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_registering import register
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
register(store, "theirs", "one")
store.flush()
print("journaled")
sys.stdin.readline()
store.close()
"""


def test_an_id_that_another_process_has_journaled_is_known(store: WorkspaceStore) -> None:
    register(store, "ours", "one")
    store.sql("SELECT 1")
    register(store, "also ours", "two")  # the ids in the tables are known from here on
    other = child(OTHER, store.workspace_path, Path(__file__).parent)
    assert read_line(other) == "journaled"
    with pytest.raises(ConflictError, match="theirs"):
        register(store, "theirs", "two")
    assert register(store, "theirs", "one") == "theirs"
    finish(other)


def test_an_id_flushed_inside_a_transaction_is_known_there(store: WorkspaceStore) -> None:
    with store.transaction():
        register(store, "a", "one")
        store.flush()
        with pytest.raises(ConflictError):
            register(store, "a", "two")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from("abcd"), st.sampled_from(["one", "two"])),
        st.tuples(st.sampled_from(["flush", "read", "detach", "collect"]), st.none(), st.none()),
    ),
    max_size=14,
)


def outcome(folder: Path, steps: list[tuple[str, Any, Any]]) -> list[Any]:
    """What each registration came to, and the rows at the end."""
    told: list[Any] = []
    with WorkspaceStore(folder) as store:
        actions = {
            "flush": store.flush,
            "read": lambda: store.sql("SELECT 1"),
            "detach": store._open().database.detach,
            "collect": store.gc_artifacts,
        }
        for action, artifact_id, content in steps:
            if action != "register":
                actions[action]()
                continue
            try:
                told.append(register(store, artifact_id, content))
            except ConflictError as error:
                told.append((error.identifier, error.stored, error.given))
        return [told, store.sql(STORED).rows()]


@pytest.mark.long
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_ids_in_memory_tell_what_a_look_up_in_the_tables_tells(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any, Any]]
) -> None:
    by_memory = outcome(tmp_path_factory.mktemp("memory"), steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_ids, "_READ_AT_MOST", 0)  # never all of them in memory
        assert outcome(tmp_path_factory.mktemp("tables"), steps) == by_memory
