"""Who lives: a held lock tells, whatever pids, host names and clocks say."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
from helpers import DEADLINE, begin_sweep, child, finish, kill, read_line, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.engine.session import Session
from n4a_fast.errors import DiskWithoutLocksError, StoreUnavailableError

OPENINGS = int(os.environ.get("N4A_OPENINGS", "60"))
LIVE = """
import sys
from pathlib import Path
from n4a_fast.engine.session import Session
session = Session(Path(sys.argv[1]))
print(session.id, flush=True)
sys.stdin.readline()
"""
SAVE = """
import sys
from helpers import begin_sweep
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
sweep = begin_sweep(store)
print(store.save_artifact({"n": 1}, "dict", "model", "joblib"), flush=True)
store.flush()
print("saved", flush=True)
sys.stdin.readline()
"""
COLLECT = """
import sys
from n4a_fast import WorkspaceStore
with WorkspaceStore(sys.argv[1]) as store:
    print(store.gc_artifacts())
"""


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def sessions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("store.duckdb.session-*"))


def test_a_session_lives_for_as_long_as_its_process_and_no_longer(store_file: Path) -> None:
    mine, other = Session(store_file), child(LIVE, store_file)
    theirs = read_line(other)
    assert mine.is_alive(mine.id)
    assert mine.is_alive(theirs)
    kill(other)
    assert not mine.is_alive(theirs)
    assert sessions(store_file.parent) == sorted(f"store.duckdb.session-{name}" for name in (mine.id, theirs))
    mine.remove_dead([theirs])
    assert len(sessions(store_file.parent)) == 2  # its log is still to be applied
    mine.remove_dead([])
    mine.end()
    assert sessions(store_file.parent) == []


def test_one_workspace_is_one_session_that_ends_with_it(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store, WorkspaceStore(tmp_path):
        assert len(sessions(tmp_path)) == 1
        store.save_artifact({"n": 1}, "dict", "model", "joblib")
        store.begin_run("run", {}, [])
    assert sessions(tmp_path) == []
    with WorkspaceStore.open_readonly(tmp_path) as reader:
        reader.list_runs()
        assert sessions(tmp_path) == []


def test_a_forked_child_has_a_session_of_its_own(store_file: Path) -> None:
    session = Session(store_file)
    mine = session.id
    reading, writing = os.pipe()
    if not (forked := os.fork()):
        session.forget_after_fork()
        is_other = session.id != mine and session.is_alive(mine)
        session.end()
        os.write(writing, b"well" if is_other and session.is_alive(mine) else b"bad")
        os._exit(0)
    os.waitpid(forked, 0)
    assert os.read(reading, 10) == b"well"
    assert Session(store_file).is_alive(mine)
    session.end()


def test_what_was_not_written_by_a_session_lives_never(store_file: Path) -> None:
    session = Session(store_file)
    for name in ("host/12/34.50", "", "notes", "../../etc/passwd", session.id.upper() + "x"):
        assert not session.is_alive(name)


def test_notes_are_those_of_the_living_and_can_be_taken_back(store_file: Path) -> None:
    one, other = Session(store_file), Session(store_file)
    one.note(b"a\nb\n")
    other.note(b"c\n")
    assert set(one.notes_of_the_living()) == {b"a", b"b", b"c"}
    one.take_back_notes()
    assert list(other.notes_of_the_living()) == [b"c"]
    other.end()
    assert list(one.notes_of_the_living()) == []


@pytest.mark.parametrize(
    "stray", ["store.duckdb.session-notes", "store.duckdb.session-{id}.bak", "._store.duckdb.session-{id}"]
)
def test_files_with_other_names_are_no_sessions(store_file: Path, stray: str) -> None:
    session = Session(store_file)
    path = store_file.with_name(stray.format(id=session.id))
    path.write_bytes(b"\0\5\x16\7")
    assert session.listed() == [session.id]
    session.remove_dead([])
    session.end()
    assert path.exists()


@pytest.mark.parametrize("clock", ["", "import time; time.time = lambda: 0.0"])
def test_the_artifacts_of_a_running_process_stay_and_those_of_a_killed_one_go(tmp_path: Path, clock: str) -> None:
    WorkspaceStore(tmp_path).close()
    writer = child(SAVE, tmp_path)
    artifact = read_line(writer)
    assert read_line(writer) == "saved"
    file = tmp_path / "artifacts" / artifact[:2] / f"{artifact}.joblib"
    assert finish(child(clock + COLLECT, tmp_path)).strip() == "0"
    assert file.exists()
    kill(writer)
    assert finish(child(clock + COLLECT, tmp_path)).strip() == "1"
    assert not file.exists()
    assert sessions(tmp_path) == []


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-up", "--fork", "true"], check=False).returncode != 0,
    reason="no name spaces can be made here",
)
def test_containers_that_share_a_folder_know_of_each_other(tmp_path: Path) -> None:
    """Another host name and another name space of processes: neither pid nor host means anything there."""
    WorkspaceStore(tmp_path).close()
    writer = child(SAVE, tmp_path)
    read_line(writer)
    read_line(writer)

    def elsewhere() -> str:
        return _in_container(COLLECT, tmp_path)

    assert elsewhere() == "0"
    kill(writer)
    assert elsewhere() == "1"


def _in_container(code: str, path: Path) -> str:
    inside = child(
        "import os, sys; os.execvp('unshare', ['unshare', '-up', '--fork', sys.executable, '-c', *sys.argv[1:]])",
        code,
        path,
    )
    return finish(inside).strip()


NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = ENOLCK; return -1; }
"""


@pytest.fixture(scope="module")
def without_locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes every disk one without locks, once it is preloaded."""
    folder, compiler = tmp_path_factory.mktemp("shim"), shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "no_locks.c").write_text(NO_LOCKS)
    library = folder / "no_locks.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "no_locks.c"], check=True)
    return library


@pytest.mark.not_on("windows", reason="a library that is loaded before all others takes the locks away")
def test_a_disk_without_locks_is_refused_by_name_and_can_be_read(tmp_path: Path, without_locks: Path) -> None:
    with WorkspaceStore(tmp_path / "known") as store:
        save_chain(store, begin_sweep(store).pipeline)
    code = """
import os, sys
from n4a_fast import WorkspaceStore
from n4a_fast.errors import DiskWithoutLocksError
for name in ("known", "new"):
    try:
        WorkspaceStore(os.path.join(sys.argv[1], name))
    except DiskWithoutLocksError as error:
        print(error.disk)
with WorkspaceStore.open_readonly(os.path.join(sys.argv[1], "known")) as store:
    print(store.list_runs().height)
print(sorted(os.listdir(os.path.join(sys.argv[1], "known"))))
"""
    os.environ["LD_PRELOAD"] = str(without_locks)
    try:
        process = child(code, tmp_path)
    finally:
        del os.environ["LD_PRELOAD"]
    disk, again, runs, files = finish(process).splitlines()
    assert os.path.ismount(disk)
    assert (again, runs, files) == (disk, "1", "['artifacts', 'store.duckdb']")
    assert issubclass(DiskWithoutLocksError, StoreUnavailableError)


@pytest.mark.long
def test_many_openings_leave_no_descriptor_no_thread_and_no_memory_behind(tmp_path: Path) -> None:
    def open_and_close(number: int) -> None:
        with WorkspaceStore(tmp_path / str(number % 3)) as store:
            store.save_artifact({"n": number}, "dict", "model", "joblib")
            store.begin_run("run", {}, [])

    others = set(threading.enumerate())  # what tests before this one have left may end meanwhile

    def held() -> tuple[int, int]:
        deadline = time.monotonic() + DEADLINE
        while any(each.name == "n4a_fast-background" for each in set(threading.enumerate()) - others):
            assert time.monotonic() < deadline  # they end by themselves
            time.sleep(0.01)
        return len(os.listdir("/dev/fd")), threading.active_count()

    for number in range(30):
        open_and_close(number)
    (files, threads), memory = held(), psutil.Process().memory_info().rss
    for number in range(OPENINGS):
        open_and_close(number)
    more_files, more_threads = held()
    assert more_files <= files
    assert more_threads <= threads
    assert psutil.Process().memory_info().rss - memory < 100 * 2**20


def test_a_note_that_the_disk_took_in_part_is_none_and_hides_no_other(
    store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, reader = Session(store_file), Session(store_file)
    session.note(b"first\n")
    write, calls = os.pwrite, iter([True, False])

    def tear(descriptor: int, data: bytes, offset: int) -> int:
        if next(calls):
            return write(descriptor, data[:17], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", tear)
        with pytest.raises(OSError, match="No space left"):
            session.note(b"a second note\nand a third one\n")
    assert list(reader.notes_of_the_living()) == [b"first", b"a second note"]
    session.note(b"fourth\n")
    assert list(reader.notes_of_the_living()) == [b"first", b"fourth"]
    session.end()


def test_sessions_begin_beside_one_that_takes_files_of_dead_ones_away(tmp_path: Path) -> None:
    """A file that nobody has locked yet is taken for a dead one's."""
    sweeper, has_ended = Session(tmp_path / "store.duckdb"), threading.Event()

    def sweep() -> None:
        while not has_ended.is_set():
            sweeper.remove_dead(())

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        for _ in range(100):
            session = Session(tmp_path / "store.duckdb")
            assert session.id in session.listed()
            session.end()
    finally:
        has_ended.set()
        thread.join()
