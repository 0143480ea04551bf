"""Files that a thread verifies while nirs4all saves its predictions: nothing wrong becomes a row, nothing right is
lost.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import begin_pipeline, examples, plain_rows, predict, save_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore
from n4a_fast.artifacts import files, verifying
from n4a_fast.durable import sync
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, StoreError, StoreUnavailableError
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore

NAMES = ("a", "b", "c")


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Nirs4allStore]:
    with Nirs4allStore(tmp_path / "w") as store:
        yield store


def register(store: Nirs4allStore, name: str, content: bytes | None = None) -> Path:
    """A file written and registered as nirs4all does; where it is."""
    content = name.encode() * 50_000 if content is None else content
    digest = hashlib.sha256(content).hexdigest()
    path = store.workspace_path / "artifacts" / digest[:2] / f"model_{digest[:12]}.joblib"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    relative = path.relative_to(store.workspace_path / "artifacts").as_posix()
    store.register_existing_artifact(name, relative, f"sha256:{digest}", "m", "model", "joblib", len(content))
    return path


def begin(store: Nirs4allStore) -> tuple[str, str]:
    """A pipeline with a chain that refers to all three artifacts."""
    pipeline = begin_pipeline(store, store.begin_run("sweep", {}, [{"name": "corn"}]))
    return pipeline, save_chain(store, pipeline, fold_artifacts=dict(zip("012", NAMES, strict=True)))


def finish(store: Nirs4allStore, pipeline: str, chain: str, change: Callable[[], object] = lambda: None) -> None:
    """The rest of a pipeline in nirs4all's order; `change` happens while the thread may be at work."""
    store.get_chains_for_pipeline(pipeline)
    predict(store, pipeline, chain)
    change()
    store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)


def stored(store: WorkspaceStore) -> list[str]:
    """What a power loss would leave."""
    folder = store.workspace_path
    store.close()
    return [
        name for (name,) in plain_rows(folder / "store.duckdb", "SELECT artifact_id FROM stored_artifacts ORDER BY ALL")
    ]


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def wait_for_the_thread(store: Nirs4allStore) -> None:
    syncing = store._opened().artifacts.files._syncing
    assert isinstance(syncing, verifying.Verifying)
    syncing.wait()


def replace_when_read(store: Nirs4allStore, path: Path) -> None:
    """The thread has found the right content; then another comes under the name."""
    wait_for_the_thread(store)
    (path.parent / "other").write_bytes(b"x" * path.stat().st_size)
    os.replace(path.parent / "other", path)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (overwrite, None, ArtifactCorruptError),
        (Path.unlink, None, ArtifactMissingError),
        (lambda path: path.write_bytes(b""), None, ArtifactCorruptError),
        (None, overwrite, ArtifactCorruptError),
        (None, Path.unlink, ArtifactMissingError),
        (None, "replaced", ArtifactCorruptError),
    ],
    ids=["wrong", "missing", "empty", "changed meanwhile", "gone meanwhile", "replaced after it was read"],
)
def test_a_wrong_file_is_told_and_never_a_row_and_the_others_are_kept(
    embedded: Nirs4allStore, before: object, after: object, told: type[StoreError]
) -> None:
    pipeline, chain = begin(embedded)
    paths = {name: register(embedded, name) for name in NAMES}
    if callable(before):
        before(paths["b"])
    change = (
        (lambda: replace_when_read(embedded, paths["b"]))
        if after == "replaced"
        else (lambda: after(paths["b"]))
        if callable(after)
        else (lambda: None)
    )
    with pytest.raises(told, match="b" if told is ArtifactMissingError else f"{paths['b'].name}.*restore the file"):
        finish(embedded, pipeline, chain, change)
    embedded.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
    assert len(embedded.query_predictions()) == 1
    assert stored(embedded) == ["a", "c"]


def test_a_pipeline_that_failed_for_it_can_be_failed(embedded: Nirs4allStore) -> None:
    pipeline, chain = begin(embedded)
    for name in NAMES:
        overwrite(register(embedded, name))
    with pytest.raises(ArtifactCorruptError):
        finish(embedded, pipeline, chain)
    embedded.fail_pipeline(pipeline, "a wrong file")
    assert embedded.list_pipelines()["status"].to_list() == ["failed"]
    assert stored(embedded) == []


def test_a_file_rewritten_after_the_thread_synced_it_is_synced_again(
    embedded: Nirs4allStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, chain = begin(embedded)
    paths = [register(embedded, name) for name in NAMES]
    synced: list[str] = []
    sync_all = sync.sync_all
    monkeypatch.setattr(
        sync, "sync_all", lambda paths, *how, **rest: synced.extend(paths) or sync_all(paths, *how, **rest)
    )

    def rewrite() -> None:
        wait_for_the_thread(embedded)
        synced.clear()
        content = paths[1].read_bytes()
        paths[1].unlink()
        paths[1].write_bytes(content)

    finish(embedded, pipeline, chain, rewrite)
    assert str(paths[1]) in synced
    assert str(paths[0]) not in synced, "the thread has done it"
    assert stored(embedded) == list(NAMES)


def test_a_disk_that_refuses_the_thread_s_sync_keeps_the_rows_out_until_it_does_not(
    embedded: Nirs4allStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, chain = begin(embedded)
    for name in NAMES:
        register(embedded, name)
    real = verifying.sha256_then_sync
    monkeypatch.setattr(verifying, "sha256_then_sync", lambda *given: (real(*given)[0], 5))
    with pytest.raises(StoreUnavailableError, match=r"[Ii]nput/output"):
        finish(embedded, pipeline, chain)
    assert embedded._open().buffer.unflushed
    embedded.flush()
    assert stored(embedded) == list(NAMES)


def test_without_its_thread_s_hashes_each_file_is_read(
    embedded: Nirs4allStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "sha256_then_sync", lambda given, *_: ([None] * len(given), 0))
    pipeline, chain = begin(embedded)
    for name in NAMES:
        register(embedded, name)
    finish(embedded, pipeline, chain)
    assert stored(embedded) == list(NAMES)


def test_the_thread_leaves_no_file_open(embedded: Nirs4allStore) -> None:
    def open_files() -> int:
        return sum(
            "artifacts/" in os.path.realpath(f"/dev/fd/{name}")
            and "/.saving" not in os.path.realpath(f"/dev/fd/{name}")
            for name in os.listdir("/dev/fd")
        )

    for turn in range(3):
        pipeline, chain = begin(embedded)
        for name in NAMES:
            register(embedded, name, (name * 10 + str(turn)).encode())
        finish(embedded, pipeline, chain)
    assert open_files() == 0


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(NAMES), st.sampled_from(["one", "two"]), st.sampled_from(["right", "overwritten", "gone"])
    ),
    min_size=1,
    max_size=5,
)


def outcome(folder: Path, rounds: list[tuple[list[tuple[str, str, str]], bool]]) -> list[object]:
    told: list[object] = []
    with Nirs4allStore(folder) as store:
        for changes, is_read in rounds:
            pipeline, chain = begin(store)
            for name, content, fate in changes:
                path = register(store, name, content.encode() * 1000)
                if fate != "right":
                    (overwrite if fate == "overwritten" else Path.unlink)(path)
            try:
                finish(store, pipeline, chain, (lambda: store.list_runs()) if is_read else (lambda: None))
                told.append("completed")
            except StoreError as error:
                told.append(type(error).__name__)
        rows = store.sql("SELECT artifact_id, content_hash, ref_count FROM artifacts ORDER BY ALL").rows()
        return [
            told,
            rows,
            sorted(chain["fold_artifacts"] for chain in store.sql("SELECT fold_artifacts FROM chains").to_dicts()),
        ]


@pytest.mark.long
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.tuples(CHANGES, st.booleans()), max_size=3))
def test_what_a_thread_has_verified_is_what_is_verified_without(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[list[tuple[str, str, str]], bool]]
) -> None:
    by_thread = outcome(tmp_path_factory.mktemp("thread"), rounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "opened", lambda _paths: {})  # nothing is begun
        assert outcome(tmp_path_factory.mktemp("plain"), rounds) == by_thread
