"""Every command by every promise: at 80 columns, as JSON, and on each kind of workspace that there is.

A row of `COMMANDS` is a command as it is typed; each test goes through all of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pytest
from cli_workspaces import WIDTH, X, Y, as_json, invoke, make_workspace, validate
from foreign import NEW, OLD, unpacked
from helpers import DEADLINE, IS_ROOT, child, command_line, read_line
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore
from n4a_fast.cli import app


@dataclass(frozen=True, slots=True)
class Command:
    """How a command is typed: WS is the workspace, OUT a new path, FILE spectra, BUNDLE a bundle; and what it is like.

    `reads`: a workspace that cannot be written is enough. `bare`: it has something to say of an empty workspace.
    `long`: its lines hold paths, or texts in full. `helped`: by a process of its own.
    """

    typed: str
    reads: bool = True
    bare: bool = True
    long: bool = False
    helped: bool = False

    @property
    def name(self) -> str:
        return self.typed.split()[0]

    def on(self, workspace: Path, beside: Path) -> list[str]:
        """Its words on a workspace; new files go beside it."""
        places = {"WS": workspace, "OUT": beside / f"out-{self.name}", "FILE": beside / "new.npy"}
        places |= {"OTHER": beside / "other", "BUNDLE": beside / "chain.n4a"}
        words = self.typed.split()
        return [
            str(next((words.replace(name, str(place)) for name, place in places.items() if name in words), words))
            for words in words
        ]


COMMANDS = [
    Command("runs WS"),
    Command("top WS"),
    Command("show WS @last", bare=False, long=True),
    Command("compare WS @best @last", bare=False),
    Command("info WS"),
    Command("watch WS --once", bare=False),
    Command("tail WS", bare=False, long=True),
    Command("sql WS SELECT(1)"),
    Command("plot WS scores -o OUT.svg", bare=False, long=True),
    Command("report WS --no-charts -o OUT.html", long=True),
    Command("predict WS @best FILE", bare=False),
    Command("export WS @best -o OUT.n4a", bare=False, long=True),
    Command("import WS BUNDLE", reads=False, long=True),
    Command("extract WS @last OUT", bare=False),
    Command("verify WS", long=True, helped=True),
    Command("backup WS OUT", long=True, helped=True),
    Command("delete WS @last --yes", reads=False, bare=False),
    Command("gc WS", reads=False),
    Command("vacuum WS", reads=False),
    Command("merge WS OTHER", reads=False, long=True),
    Command("doctor WS"),
]
BY_NAME = {each.name: each for each in COMMANDS}
ELSEWHERE = {  # what has no workspace of ours as its first word, or does not end by itself
    "restore": "below, and test_keeping",
    "migrate": "test_workspaces",
    "convert": "test_workspaces",
    "demo": "test_demo, at 80 columns and as JSON",
    "ui": "below, and report/test_live",
}
every = pytest.mark.parametrize("command", COMMANDS, ids=list(BY_NAME))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `w` with two best chains that differ, and beside it what commands take."""
    place = tmp_path_factory.mktemp("every")
    make_workspace(place / "w")
    with WorkspaceStore(place / "w") as store:
        store.delete_run(store.find("@last", "run"))  # so that @last is the one with chains
        store.export_chain(store.find("@best"), place / "chain.n4a")
    WorkspaceStore(place / "other").close()
    np.save(place / "new.npy", X)
    return place


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(made, tmp_path / "copied"))


def typed(command: Command, place: Path) -> list[str]:
    """The command on the workspace `w` of a place; @last means a chain where chains are compared."""
    words = command.on(place / "w", place)
    if command.name != "compare":
        return words
    with WorkspaceStore.open_readonly(place / "w") as store:
        chains = [chain for board in store.leaderboard(n=2).boards for chain in board.frame["chain_id"]]
    return [*words[:2], *chains[:2]] if len(chains) > 1 else words


def refused(words: list[str], code: int) -> str:
    """The one line with which a command ends."""
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (code, ""), (words, result.output)
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_no_command_is_left_out() -> None:
    assert sorted([*BY_NAME, *ELSEWHERE]) == sorted(str(each.name) for each in app.registered_commands)


def test_the_help_has_each_command_in_one_whole_line() -> None:
    lines = invoke("--help").stdout.partition("Commands:")[2].splitlines()
    assert len([line for line in lines if line.split()[:1] and line.split()[0] in BY_NAME]) == len(BY_NAME)
    assert not [line for line in lines if line.endswith("...")]


@every
def test_at_80_columns(command: Command, copied: Path) -> None:
    result = invoke(*typed(command, copied))
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    assert command.long or max(map(len, result.stdout.splitlines())) <= 80


@every
def test_json_by_its_schema(command: Command, copied: Path) -> None:
    words = typed(command, copied)
    if command.name == "tail":  # a line an entry
        entries = [json.loads(line) for line in invoke(*words, "--json").stdout.splitlines()]
        assert [entry["level"] for entry in entries] == ["info", "info"]
        for entry in entries:
            validate("tail", entry)
    else:
        assert as_json(command.name, *words)["workspace"] == str((copied / "w").resolve())


@every
def test_on_an_empty_workspace(command: Command, copied: Path) -> None:
    shutil.rmtree(copied / "w")
    WorkspaceStore(copied / "w").close()
    if command.bare:
        assert invoke(*typed(command, copied)).exit_code == 0
    else:
        refused(typed(command, copied), 1)


@every
def test_without_a_workspace(command: Command, copied: Path) -> None:
    shutil.rmtree(copied / "w")
    if command.name == "doctor":  # it tells what is wrong, among other things
        assert invoke(*command.on(copied / "w", copied)).exit_code in (3, 10)
    else:
        assert str(copied / "w") in refused(command.on(copied / "w", copied), 10)
    assert not (copied / "w").exists()


@every
def test_on_a_newer_format(command: Command, copied: Path) -> None:
    with duckdb.connect(str(copied / "w" / "store.duckdb")) as connection:
        connection.execute("UPDATE store_info SET format_version = 99")
    before = (copied / "w" / "store.duckdb").read_bytes()
    words = command.on(copied / "w", copied)
    if command.name == "doctor":
        result = invoke(*words)
        assert (result.exit_code, "format 99" in result.stderr) == (3, True)
    else:
        assert "format 99" in refused(words, 1)
    assert (copied / "w" / "store.duckdb").read_bytes() == before


@pytest.fixture(scope="module")
def kept_by_another(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A copy of `made` whose workspace another process has, and the number of that process."""
    place = Path(shutil.copytree(made, tmp_path_factory.mktemp("kept") / "place"))
    code = "import duckdb, sys; kept = duckdb.connect(sys.argv[1]); print('kept', flush=True); sys.stdin.readline()"
    with child(code, place / "w" / "store.duckdb") as holder:
        assert read_line(holder) == "kept"
        yield place, holder.pid
        holder.kill()


@every
def test_on_a_workspace_that_another_process_keeps(
    command: Command, made: Path, kept_by_another: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, holder = kept_by_another
    monkeypatch.setenv("N4A_FAST_LOCK_TIMEOUT", "0.05")
    words = [word.replace(str(made), str(place)) for word in typed(command, made)]
    if command.name == "doctor":  # it tells who has it, among other things
        result = invoke(*words)
        assert (result.exit_code, str(holder) in result.output) == (3, True), result.output
    else:
        assert str(holder) in refused(words, 11)


@every
def test_output_that_nobody_reads_is_code_141(command: Command, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, (end, begin) = typed(command, copied), os.pipe()
    os.close(end)
    with os.fdopen(begin, "w", encoding="utf-8") as nobody, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", nobody)
        with pytest.raises(SystemExit) as ended:
            app(words, prog_name="n4a-fast")
    assert ended.value.code == 141


@contextmanager
def for_reading(place: Path) -> Iterator[None]:
    """Inside, nobody but root may change anything in the place."""
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in [place, *place.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def somebody_else(place: Path) -> Iterator[None]:
    """Inside, this process may read the place and nothing more, also where root runs it."""
    with for_reading(place):
        if IS_ROOT:
            os.seteuid(65534)
        try:
            yield
        finally:
            if IS_ROOT:
                os.seteuid(0)


@every
def test_in_a_folder_that_cannot_be_written(command: Command, made: Path, tmp_path: Path) -> None:
    if command.helped and IS_ROOT:  # somebody else, as root can become one, may not start this Python
        looked_at_without_power(command, Path(shutil.copytree(made, tmp_path / "place")), tmp_path / "out")
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        place = Path(shutil.copytree(made, Path(folder) / "place"))
        out = Path(folder) / "out"
        out.mkdir()
        out.chmod(0o777)
        words = [word.replace(str(place / "out"), str(out / "out")) for word in typed(command, place)]
        warm = Path(shutil.copytree(made, tmp_path / "warm"))  # what it imports cannot be read by somebody else
        invoke(*typed(command, warm))
        with somebody_else(place):
            result = invoke(*words)
        assert (result.exit_code == 0) == command.reads, result.output
        if not command.reads:
            assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def looked_at_without_power(command: Command, place: Path, out: Path) -> None:
    """The command in a folder that is for reading, by a root whose power over permissions is taken away."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    words = [word.replace(str(place / f"out-{command.name}"), str(out)) for word in typed(command, place)]
    powerless = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    with for_reading(place):
        done = subprocess.run(
            [*powerless, sys.executable, "-m", "n4a_fast", *words], capture_output=True, text=True, check=False
        )
        assert subprocess.run([*powerless, "touch", str(place / "w" / "new")], stderr=subprocess.DEVNULL).returncode
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=[OLD, NEW])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that nirs4all has left, after its migration, and beside it what commands take."""
    place = tmp_path_factory.mktemp(request.param.split(".tar")[0])
    unpacked(request.param, place).rename(place / "w")
    assert invoke("migrate", place / "w").exit_code == 0
    with WorkspaceStore(tmp_path_factory.mktemp("bundled") / "w") as store:
        chain = store.save_cross_validation(Ridge(), X, Y, cv=2, refit=False).chain_id
        store.export_chain(chain, place / "chain.n4a")
    with WorkspaceStore.open_readonly(place / "w") as store:
        width = store.sql("SELECT max(n_features) FROM predictions").item()
    np.save(place / "new.npy", np.ones((2, width or WIDTH)))
    WorkspaceStore(place / "other").close()
    return place


@every
@pytest.mark.long
def test_on_what_nirs4all_has_left(command: Command, kept: Path, tmp_path: Path) -> None:
    place = kept if command.reads else Path(shutil.copytree(kept, tmp_path / "kept"))
    words = [word.replace(str(kept / "out"), str(tmp_path / "out")) for word in typed(command, place)]
    result = invoke(*words)
    if command.name in ("predict", "export"):  # operators of nirs4all, which is not here, or which it never wrote
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.search("nirs4all kept no model|No module named 'nirs4all'", result.stderr)
        return
    assert result.exit_code == 0, result.output
    # a deletion tells on stderr, and the newer release logs nothing
    assert result.stdout.strip() or command.name in ("delete", "tail")


def test_a_backup_is_restored_by_its_schema_and_not_without_one(copied: Path) -> None:
    assert invoke("backup", copied / "w", copied / "b").exit_code == 0
    assert as_json("restore", "restore", copied / "b", copied / "again")["to"] == str(copied / "again")
    assert "verified" in invoke("restore", copied / "b", copied / "told").stdout
    refused(["restore", str(copied / "nothing"), str(copied / "third")], 10)


def test_the_page_tells_its_address_by_its_schema(made: Path) -> None:
    pytest.importorskip("uvicorn")
    with command_line("ui", made / "w", "--json") as process:
        try:
            validate("ui", json.loads(read_line(process)))
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) in (0, 130)
        finally:
            process.kill()
    for place, code in ((made / "nothing", 10), (made / "w" / "artifacts", 10)):
        refused(["ui", str(place)], code)


def test_the_page_without_its_packages_names_the_cure(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'n4a_fast[ui]'" in refused(["ui", str(made / "w")], 2)


# -- predicting --------------------------------------------------------------------------------


@pytest.mark.long
def test_predictions_have_a_column_for_each_fold_and_each_class(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    labels = np.array(["oats", "rye"])[(X[:, 0] > 0).astype(int)]
    with WorkspaceStore(tmp_path / "w") as store:
        chain = store.save_cross_validation(LogisticRegression(), X, labels, cv=3, refit=False).chain_id
        proba = store.replay_chain(chain, X, return_proba=True)
        first = store.replay_chain(chain, X, folds=[0])
    np.save(tmp_path / "new.npy", X)
    told = invoke("predict", tmp_path / "w", "@best", tmp_path / "new.npy", "--folds").stdout.splitlines()
    assert told[0] == "id,prediction,prediction_fold_0,prediction_fold_1,prediction_fold_2"
    assert [line.split(",")[2] for line in told[1:]] == first.tolist()
    told = invoke("predict", tmp_path / "w", "@best", tmp_path / "new.npy", "--proba").stdout.splitlines()
    assert told[0] == "id,p_oats,p_rye"
    assert np.allclose([[float(each) for each in line.split(",")[1:]] for line in told[1:]], proba)
    assert X.shape[1] == WIDTH


# -- looking first -----------------------------------------------------------------------------


@pytest.mark.long
def test_a_merge_and_a_migration_are_told_before_they_are_done(copied: Path) -> None:
    merge = ("merge", copied / "other", copied / "w")
    told = {row["table"]: row["added"] for row in as_json("merge", *merge, "--dry-run")["rows"]}
    with WorkspaceStore.open_readonly(copied / "other") as store:
        assert (store.list_runs().height, list((copied / "other" / "artifacts").glob("??/*"))) == (0, [])
    assert told == {row["table"]: row["added"] for row in as_json("merge", *merge)["rows"]}
    assert told["predictions"] == 6
    for number, name in enumerate((OLD, NEW)):
        foreign = unpacked(name, copied)
        before = {path: path.stat().st_size for path in foreign.rglob("*") if path.is_file()}
        told = as_json("migrate", "migrate", foreign, "--dry-run")
        assert (told["dry_run"], told["backup"], told["arrays_compared"] > 0) == (True, None, True)
        there = copied / f"converted{number}"
        assert as_json("convert", "convert", foreign, there, "--dry-run")["dry_run"] is True
        assert "nothing was changed" in invoke("migrate", foreign, "--dry-run").stdout
        assert before == {path: path.stat().st_size for path in foreign.rglob("*") if path.is_file()}
        assert not there.exists()
