"""Artifacts and several processes: saves of one content, collections meanwhile, and processes that are killed in
between.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from helpers import DEADLINE, begin_pipeline, child, finish, kill, read_line, save_chain

from n4a_fast import WorkspaceStore

OPEN = """
import sys
from helpers import begin_pipeline, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
"""
PAUSED_COLLECTION = (
    OPEN
    + """
def pause(done, total):
    if done == 0 and total:
        print("committed", total)
        sys.stdin.readline()
print("removed", store.gc_artifacts(progress=pause))
store.close()
"""
)
SAVE_ALL = (
    OPEN
    + """
run = store.begin_run("r", {}, [])
sys.stdin.readline()
for number in range(20):
    pipeline = begin_pipeline(store, run)
    ids = {
        f"fold_{fold}": store.save_artifact(["content", number, fold], "list", "model", "joblib") for fold in range(3)}
    save_chain(store, pipeline, fold_artifacts=ids)
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
store.close()
"""
)
NAME_AND_WAIT = (
    OPEN.replace("argv[1]", "argv[1], flush_interval=None")
    + """
save_chain(store, begin_pipeline(store, store.begin_run("r", {}, [])), fold_artifacts={"fold_0": sys.argv[2]})
print("named")
sys.stdin.readline()
"""
)
COLLECT_MANY = (
    OPEN + "print('ready')\nremoved = sum(store.gc_artifacts() for _ in range(30))\nprint(removed)\nstore.close()\n"
)


def unused(folder: Path, content: Any) -> str:
    """A stored artifact that nothing refers to."""
    with WorkspaceStore(folder) as store:
        return store.save_artifact(content, "list", "model", "joblib")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "artifacts").glob("??/*"))


def use(store: WorkspaceStore, artifact_id: str) -> None:
    pipeline = begin_pipeline(store, store.begin_run("r", {}, []))
    save_chain(store, pipeline, fold_artifacts={"fold_0": artifact_id})
    store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)


def test_processes_that_save_the_same_content_share_its_file(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    processes = [child(SAVE_ALL, tmp_path) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in processes:
        finish(process)
    with WorkspaceStore(tmp_path) as store:
        stored = dict(store.sql("SELECT artifact_id, ref_count FROM artifacts").iter_rows())
        assert len(stored) == 60
        assert set(stored.values()) == {2}
        assert files(tmp_path) == sorted(f"{name}.joblib" for name in stored)
        assert store.verify_artifacts().checked == 60
        assert store.verify_artifacts()
        assert store.gc_artifacts() == 0


def test_a_collection_elsewhere_spares_what_a_save_has_found_and_not_yet_flushed(tmp_path: Path) -> None:
    known = unused(tmp_path, "known")
    with WorkspaceStore(tmp_path) as store:
        assert store.save_artifact("known", "list", "model", "joblib") == known
        new = store.save_artifact("new", "list", "model", "joblib")
        assert finish(child(PAUSED_COLLECTION, tmp_path)).split() == ["removed", "0"]
        use(store, known)
        use(store, new)
        assert store.gc_artifacts() == 0
        assert (store.load_artifact(known), store.load_artifact(new)) == ("known", "new")


def test_a_save_during_a_collection_elsewhere_waits_for_its_end_and_writes_the_file_again(tmp_path: Path) -> None:
    known = unused(tmp_path, "known")
    with WorkspaceStore(tmp_path) as store, ThreadPoolExecutor(1) as pool:
        collection = child(PAUSED_COLLECTION, tmp_path)
        assert read_line(collection) == "committed 1"
        saving = pool.submit(store.save_artifact, "known", "list", "model", "joblib")
        assert not wait([saving], timeout=0.2).done  # a save that did not wait would be done, and lose its file
        assert finish(collection).split() == ["removed", "1"]  # ends its pause
        assert saving.result(DEADLINE) == known
        use(store, known)
        assert store.load_artifact(known) == "known"
        assert files(tmp_path) == [f"{known}.joblib"]


def test_registering_a_known_file_protects_it_like_a_save(tmp_path: Path) -> None:
    known = unused(tmp_path, "known")
    with WorkspaceStore(tmp_path) as store:
        store.register_existing_artifact(known, f"{known[:2]}/{known}.joblib", known, "list", "model", "joblib", 10)
        finish(child(PAUSED_COLLECTION, tmp_path))
        use(store, known)
        assert store.load_artifact(known) == "known"


def test_a_chain_keeps_what_it_names_from_its_save_on_though_nobody_saved_that_again(tmp_path: Path) -> None:
    names = [unused(tmp_path, content) for content in ("fold", "shared", "step")]
    with WorkspaceStore(tmp_path, flush_interval=None) as store:
        pipeline = begin_pipeline(store, store.begin_run("r", {}, []))
        step = {"step_idx": 1, "operator_class": "x", "params": {}, "artifact_id": names[2], "stateless": False}
        save_chain(
            store,
            pipeline,
            steps=[step],
            fold_artifacts={"fold_0": names[0]},
            shared_artifacts={"_source_map": {"1": {"0": [names[1]]}}},
        )
        assert finish(child(PAUSED_COLLECTION, tmp_path)).split() == ["removed", "0"]
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        assert finish(child(PAUSED_COLLECTION, tmp_path)).split() == ["removed", "0"]
        assert [store.load_artifact(name) for name in names] == ["fold", "shared", "step"]


def test_a_chain_that_its_process_never_flushed_keeps_nothing(tmp_path: Path) -> None:
    name = unused(tmp_path, "known")
    naming = child(NAME_AND_WAIT, tmp_path, name)
    assert read_line(naming) == "named"
    assert finish(child(PAUSED_COLLECTION, tmp_path)).split() == ["removed", "0"]
    kill(naming)
    with WorkspaceStore(tmp_path) as store:
        assert store.gc_artifacts() == 1
    assert files(tmp_path) == []


def test_collections_that_run_all_the_time_take_nothing_that_is_in_use(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    collector = child(COLLECT_MANY, tmp_path)
    read_line(collector)
    with WorkspaceStore(tmp_path) as store:
        for turn in range(16):
            run = store.begin_run("r", {}, [])
            pipeline = begin_pipeline(store, run)
            ids = {
                f"fold_{fold}": store.save_artifact(["content", fold], "list", "model", "joblib") for fold in range(3)
            }
            save_chain(store, pipeline, fold_artifacts=ids)
            store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
            assert [store.load_artifact(name) for name in ids.values()] == [["content", fold] for fold in range(3)]
            if turn % 2:
                store.delete_run(run, delete_artifacts=turn % 4 == 1)
    finish(collector)
    with WorkspaceStore(tmp_path) as store:
        assert store.verify_artifacts().checked == 3
        assert store.verify_artifacts()


def test_a_process_killed_between_file_and_row_leaves_an_orphan_that_goes(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    saver = child(OPEN + "print(store.save_artifact('lost', 'str', 'model', 'joblib'))\nsys.stdin.readline()", tmp_path)
    lost = read_line(saver)
    with WorkspaceStore(tmp_path) as store:
        age(tmp_path, lost)
        assert store.gc_artifacts() == 0  # its process lives
        kill(saver)
        assert store.gc_artifacts() == 1
        assert files(tmp_path) == []
        assert store.save_artifact("lost", "str", "model", "joblib") == lost
        assert store.load_artifact(lost) == "lost"


def test_an_orphan_that_is_saved_again_is_whole(tmp_path: Path) -> None:
    WorkspaceStore(tmp_path).close()
    saver = child(OPEN + "print(store.save_artifact('lost', 'str', 'model', 'joblib'))\nsys.stdin.readline()", tmp_path)
    lost = read_line(saver)
    kill(saver)
    with WorkspaceStore(tmp_path) as store:
        assert store.save_artifact("lost", "str", "model", "joblib") == lost
        use(store, lost)
        age(tmp_path, lost)
        assert store.gc_artifacts() == 0
        assert store.load_artifact(lost) == "lost"


def test_a_collection_killed_between_row_and_unlink_leaves_orphans_and_no_lock(tmp_path: Path) -> None:
    gone = unused(tmp_path, "unused")
    collection = child(PAUSED_COLLECTION, tmp_path)
    assert read_line(collection) == "committed 1"
    kill(collection)
    assert files(tmp_path) == [f"{gone}.joblib"]
    with WorkspaceStore(tmp_path) as store:
        assert store.sql("SELECT * FROM artifacts").is_empty()
        assert store.verify_artifacts().checked == 0
        assert store.gc_artifacts() == 0  # it is young: nirs4all may be about to register it
        age(tmp_path, gone)
        assert store.gc_artifacts() == 1
        assert files(tmp_path) == []


def test_drafts_of_killed_processes_go_once_they_are_old(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        store.save_artifact("any", "str", "model", "joblib")
        draft = tmp_path / "artifacts" / ".saving" / "0123.joblib.99.draft"
        draft.write_bytes(b"half")
        store.flush()
        assert store.gc_artifacts() == 0
        os.utime(draft, (0, 0))
        assert store.gc_artifacts() == 1
        assert not draft.exists()


def test_a_closed_store_leaves_no_claims(tmp_path: Path) -> None:
    unused(tmp_path, "known")
    assert [path.name for path in (tmp_path / "artifacts" / ".saving").iterdir()] == ["lock"]


def age(folder: Path, artifact_id: str) -> None:
    os.utime(folder / "artifacts" / artifact_id[:2] / f"{artifact_id}.joblib", (0, 0))
