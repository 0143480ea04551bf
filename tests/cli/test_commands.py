"""The commands as a user types them: output, JSON by its schema, exit codes, one-line errors."""

from __future__ import annotations

import ast
import csv as csv_module
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli_workspaces import WIDTH, X, as_json, invoke, make_workspace
from helpers import DEADLINE, begin_pipeline, child, command_line, finish, predict, read_line, save_chain
from typer.testing import CliRunner

from n4a_fast import WorkspaceStore, __version__
from n4a_fast.cli import app
from n4a_fast.cli.asking import ROWS_SHOWN, csv_text
from n4a_fast.cli.printing import size_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    place = tmp_path_factory.mktemp("cli") / "workspace"
    return place, make_workspace(place)


@pytest.fixture
def workspace(made: tuple[Path, dict[str, str]]) -> Path:
    return made[0]


@pytest.fixture
def ids(made: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return made[1]


@pytest.fixture
def copy(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """The workspace to change."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


# -- the program -------------------------------------------------------------------------------


def test_version_is_the_package_s() -> None:
    assert invoke("--version").output.strip() == f"n4a_fast {__version__}"


def test_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "n4a_fast", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout


# prints which packages beside Python's own a program has imported
IMPORTED = """
import atexit, sys
known = {*sys.modules}
def tell():
    print(sorted({name.partition(".")[0] for name in {*sys.modules} - known} - {*sys.stdlib_module_names}))
atexit.register(tell)
"""


HEAVY = {"cloudpickle", "duckdb", "joblib", "msgspec", "numpy", "orjson", "polars", "psutil", "pyarrow", "rich"}
HEAVY |= {"_duckdb", "pydantic", "sklearn", "sqlglot", "xxhash", "yaml"}


def imported(code: str, environment: dict[str, str] | None = None) -> set[str]:
    """Packages that `code` imports."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED + code],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["top", "--help"], ["completion"]])
def test_what_must_be_quick_imports_no_dependency_but_typer(arguments: list[str]) -> None:
    completion = {"_N4A_FAST_COMPLETE": "complete_bash", "COMP_WORDS": "n4a-fast ru", "COMP_CWORD": "1"}
    code = f"from n4a_fast.cli import app; app({arguments!r}, prog_name='n4a-fast')"
    found = imported(code, completion if arguments == ["completion"] else None)
    assert "n4a_fast" in found
    assert found & HEAVY == ({"pydantic"} if arguments[0] == "top" else set())  # with it Typer reads options


def test_completion_of_runs_imports_no_library_but_duckdb_s_extension(workspace: Path, ids: dict[str, str]) -> None:
    asked = {"_N4A_FAST_COMPLETE": "complete_bash", "COMP_WORDS": f"n4a-fast show {workspace} ", "COMP_CWORD": "3"}
    found = imported("from n4a_fast.cli import app; app(prog_name='n4a-fast')", asked)
    assert found & HEAVY == {"_duckdb"}


def test_a_package_that_nothing_is_used_of_imports_nothing() -> None:
    assert imported("import n4a_fast; n4a_fast.__version__; dir(n4a_fast)") == {"n4a_fast"}
    assert not {"pandas", "sklearn"} & imported("import n4a_fast; n4a_fast.WorkspaceStore")
    assert "duckdb" not in imported("from n4a_fast import errors")


@pytest.mark.parametrize("command", [("vacuum",), ("sql", "SELECT 1")])
def test_a_terminal_sees_that_a_command_works_and_a_pipe_does_not(copy: Path, command: tuple[str, ...]) -> None:
    ours, theirs = os.openpty()
    words = (command[0], copy, *command[1:])
    shows = f"import os\nos.dup2(os.open({os.ttyname(theirs)!r}, os.O_RDWR | os.O_NOCTTY), 2)\n"
    with os.fdopen(ours, "rb", 0) as terminal:
        told = finish(command_line(*words, begin=shows, NO_COLOR="1", TERM="xterm-256color"))
        os.close(theirs)
        shown = terminal.read(2**16).decode()
    assert {"vacuum": "writing the file anew", "sql": "asking"}[command[0]] in shown
    assert "\x1b[38;" not in shown  # a colour
    assert told.isascii()
    process = command_line(*words)
    assert process.communicate(timeout=DEADLINE)[1] == ""
    assert process.returncode == 0


def test_completion_offers_commands_values_and_the_newest_runs(
    workspace: Path, ids: dict[str, str], tmp_path: Path
) -> None:
    def offered(words: str, **environment: str) -> list[str]:
        asked = {"_N4A_FAST_COMPLETE": "complete_bash", "COMP_WORDS": f"n4a-fast {words}", **environment}
        asked["COMP_CWORD"] = str(len(words.split(" ")))
        return CliRunner().invoke(app, [], env=asked, prog_name="n4a-fast").stdout.split()

    assert offered("ru") == ["runs"]
    assert offered("top w --score f") == ["final"]
    for asked in (
        offered(f"show {workspace} "),
        offered(f"show -w {workspace} "),
        offered(f"plot {workspace} scores "),
    ):
        assert ids["failed run"][-8:] in asked
    assert offered(f"show {workspace} {ids['run'][-8:-4]}") == [ids["run"][-8:]]
    assert ids["run"][-8:] in offered("show ", N4A_FAST_WORKSPACE=str(workspace))
    assert offered(f"show {tmp_path} ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_completes_ids_and_commands(
    workspace: Path,
    ids: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shell: str,
) -> None:
    def offered(words: str) -> str:
        asked = {"_N4A_FAST_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        name = "COMP_WORDS" if shell == "bash" else "_TYPER_COMPLETE_ARGS"
        for key, value in (asked | {name: words, "COMP_CWORD": str(words.count(" "))}).items():
            monkeypatch.setenv(key, value)
        with pytest.raises(SystemExit):
            app(prog_name="n4a-fast")
        return capsys.readouterr().out

    assert ids["failed run"][-8:] in offered(f"n4a-fast show {workspace} ")
    for words in ("n4a-fast re", "n4a-fast report"):  # a command that is not typed to its end
        assert ("report" in offered(words), "restore" in offered(words)) == (True, words.endswith("re"))


def test_the_command_that_is_typed_is_the_only_one_that_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["top", "--help"], ["--help"], ["tops"], ["--version"]):
        with pytest.raises(SystemExit):
            app(words, prog_name="n4a-fast")
        told = capsys.readouterr()
        shown.append(told.out + told.err)
    assert shown[0].startswith("Usage: n4a-fast top")
    assert all(f"  {command.name} " in shown[1] for command in app.registered_commands)
    assert "top" in shown[2].partition("No such command")[2]
    assert __version__ in shown[3]


def test_an_unknown_command_is_a_usage_error_with_a_hint() -> None:
    result = invoke("tops")
    assert result.exit_code == 2
    assert "top" in result.stderr


@pytest.mark.parametrize("command", sorted(command.name or "" for command in app.registered_commands))
def test_help_ends_with_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: n4a-fast {command} [OPTIONS]")
    assert result.output.rstrip().splitlines()[-1].strip().startswith(f"Example: n4a-fast {command}")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("plot", "[WS] KIND [ID]"),
        ("predict", "[WS] [CHAIN]... FILE"),
        ("doctor", "[WS]"),
        ("watch", "[WS] [RUN]"),
        ("restore", "BACKUP TO"),
        ("show", "[WS] [ID]..."),
    ],
)
def test_the_usage_line_has_the_words_that_a_command_takes(command: str, words: str) -> None:
    assert invoke(command, "--help").output.splitlines()[0] == f"Usage: n4a-fast {command} [OPTIONS] {words}"


@pytest.mark.long
def test_an_example_of_the_help_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.parent)
    for arguments in (["top", "-n", "5", "--by", "model"], ["show", "@best"], ["runs", "--since", "7d"], ["info"]):
        assert invoke(arguments[0], workspace.name, *arguments[1:]).exit_code == 0


def test_a_pipe_that_nobody_reads_ends_the_program_quietly(workspace: Path) -> None:
    with command_line("sql", workspace, "SELECT * FROM range(200000)", "--csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(DEADLINE), errors) == (141, "")


def test_output_is_ascii_where_the_stream_is(workspace: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    done = subprocess.run(
        [sys.executable, "-m", "n4a_fast", "top", str(workspace)], env=environment, capture_output=True, check=True
    )
    assert b"+/-" in done.stdout
    assert done.stdout.isascii()


# -- tables ------------------------------------------------------------------------------------


def masked(text: str) -> list[str]:
    """Lines without what changes from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "<time>", text)
    return [re.sub(r"\b[0-9a-f]{8}\b", "<id>", line).rstrip() for line in text.splitlines()]


@pytest.mark.long
def test_runs_at_80_columns(workspace: Path) -> None:
    result = invoke("runs", workspace)
    head, first, second = masked(result.stdout)
    assert head.split() == ["run", "name", "status", "done", "failed", "running", "best"]
    assert first.split()[0] == second.split()[0] == "<id>"
    assert second.split()[-6:] == ["running", "2", "1", "1", second.split()[-2], "rmse"]
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "+2 columns (started, error): --wide" in result.stderr
    wide = invoke("runs", workspace, columns=120).stdout
    assert "KeyError:" in wide
    assert max(len(line) for line in wide.splitlines()) <= 120


def test_top_at_80_and_at_120_columns(workspace: Path, ids: dict[str, str]) -> None:
    lines = masked(invoke("top", workspace).stdout)
    assert lines[0] == "corn · rmse, lower is better · 2 finished, 1 running, 1 failed"
    assert lines[1].split()[:8] == ["#", "chain", "preprocessing", "model", "val", "±", "sd", "test"]
    assert [line.split()[:4] for line in lines[2:]] == [["1", "<id>", "SNV", "good"], ["2", "<id>", "SNV", "poor"]]
    assert "nightly 1:100:1" in invoke("top", workspace, columns=120).stdout
    assert ids["good"] in invoke("top", workspace, columns=None).stdout


def test_text_is_printed_as_it_is(workspace: Path) -> None:
    for command in (("runs",), ("info",), ("sql", "SELECT name, error FROM runs"), ("show", "@last")):
        told = invoke(command[0], workspace, *command[1:], columns=None).stdout
        assert "KeyError: step:x:1 [red]gone[/red]" in told
        assert command == ("show", "@last") or "nightly 1:100:1 [bold]x[/bold]" in told


@pytest.mark.long
def test_ids_are_whole_in_a_pipe_and_different_on_a_terminal(workspace: Path, ids: dict[str, str]) -> None:
    assert ids["run"] in invoke("runs", workspace, columns=None).stdout
    shown = [line.split()[0] for line in invoke("runs", workspace).stdout.splitlines()[1:]]
    assert shown == [ids["failed run"][-8:], ids["run"][-8:]]
    for short in shown:
        assert invoke("show", workspace, short).exit_code == 0


@pytest.mark.long
def test_what_would_move_the_cursor_is_taken_out(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path) as store:
        store.begin_run("a\x1b[31mred\nname", {}, [])
    told = invoke("runs", tmp_path, columns=None).stdout
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2


def test_markdown_and_csv(workspace: Path, ids: dict[str, str]) -> None:
    lines = invoke("top", workspace, "-f", "md", columns=None).stdout.splitlines()
    assert lines[0].startswith("| # | chain |")
    rows = list(csv_module.DictReader(io.StringIO(invoke("top", workspace, "-f", "csv").stdout)))
    assert [row["chain_id"] for row in rows] == [ids["good"], ids["poor"]]
    lines = invoke("runs", workspace, "-f", "jsonl").stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [ids["failed run"], ids["run"]]


@pytest.mark.parametrize("kind", ["run", "good pipeline", "good", "good prediction"])
def test_show_tells_of_every_kind(workspace: Path, ids: dict[str, str], kind: str) -> None:
    found = as_json("show", "show", workspace, ids[kind])
    assert found["id"] == ids[kind]
    assert found["kind"] == {"good": "chain", "run": "run"}.get(kind, kind.partition(" ")[2])
    assert ids[kind] in invoke("show", workspace, ids[kind][-8:]).stdout


def test_compare_shows_what_differs(workspace: Path, ids: dict[str, str]) -> None:
    found = as_json("compare", "compare", workspace, ids["good"], ids["poor"])
    what = [row["what"] for row in found["rows"]]
    assert "step 1" in what
    assert "mean val" in what
    assert "preprocessing" not in what
    assert invoke("compare", workspace, ids["good"]).exit_code == 2
    assert invoke("compare", workspace, ids["good"], ids["run"]).exit_code == 1


@pytest.mark.parametrize("place", ["", "store.duckdb"])
def test_info_shows_tables_sizes_and_runs(workspace: Path, place: str) -> None:
    told = invoke("info", workspace / place, columns=100).output
    for expected in ("predictions", "prediction_arrays", "store.duckdb", "artifacts/", "nightly", "running"):
        assert expected in told


def test_watch_looks_once_and_until_done(workspace: Path, ids: dict[str, str]) -> None:
    lines = invoke("watch", workspace, ids["run"], "--once").stdout.splitlines()
    assert "30% of 10  2 done, 1 failed" in lines[1]
    assert any("last error: broken: SVD did not converge" in line for line in lines)
    assert max(map(len, lines)) <= 80
    found = as_json("watch", "watch", workspace, ids["run"])
    assert (found["done"], found["failed"], found["running"], found["expected"]) == (2, 1, 1, 10)
    assert invoke("watch", workspace, ids["failed run"], "--until-done").exit_code == 0


def test_the_best_of_several_data_sets_is_asked_for_by_its_id(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "two sets ü") as store:
        run = store.begin_run("r", {}, [])
        for dataset in ("corn", "wheat"):
            pipeline = begin_pipeline(store, run, dataset=dataset)
            predict(store, pipeline, save_chain(store, pipeline), dataset_name=dataset)
            store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        best = [board.frame["chain_id"][0] for board in store.leaderboard().boards]
    refused = invoke("show", tmp_path / "two sets ü", "@best")
    assert refused.exit_code == 1
    assert all(chain in refused.stderr for chain in best)
    assert "name one of these" in refused.stderr
    assert invoke("show", tmp_path / "two sets ü", best[0]).exit_code == 0


def test_tail_shows_the_newest_log_entries(workspace: Path, ids: dict[str, str]) -> None:
    lines = invoke("tail", workspace, ids["run"]).stdout.splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["info", name, "1", "Ridge", "end", "3", "ms", "fitted", "well"] for name in ("good", "poor")
    ]
    entries = [json.loads(line) for line in invoke("tail", workspace, ids["run"], "--json").stdout.splitlines()]
    assert [entry["pipeline"] for entry in entries] == ["good", "poor"]
    nothing = invoke("tail", workspace, ids["run"], "--level", "error")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no log entries of level error" in nothing.stderr
    assert invoke("tail", workspace, "--level", "loud").exit_code == 2


# -- JSON --------------------------------------------------------------------------------------


def test_json_of_top_is_the_whole_ranking(workspace: Path, ids: dict[str, str]) -> None:
    found = as_json("top", "top", workspace, "-n", 1)
    assert found["truncated"] is True
    assert found["boards"][0]["higher_is_better"] is False
    assert [row["chain_id"] for row in found["rows"]] == [ids["good"]]
    assert found["rows"][0]["created_at"].endswith("Z")


@pytest.mark.long
def test_json_of_the_other_looks(workspace: Path, ids: dict[str, str]) -> None:
    assert [row["run_id"] for row in as_json("runs", "runs", workspace)["rows"]] == [ids["failed run"], ids["run"]]
    assert as_json("info", "info", workspace)["rows"]["predictions"] == 6
    rows = as_json("sql", "sql", workspace, "SELECT [1.5, 2.0] AS xs, 'nan'::DOUBLE AS y, NULL AS z")["rows"]
    assert rows == [{"xs": [1.5, 2.0], "y": None, "z": None, "nan": ["y"]}]
    assert {row["what"] for row in as_json("doctor", "doctor", workspace)["rows"]} > {"n4a_fast", "duckdb", "disk"}


def test_every_schema_is_a_schema() -> None:
    import jsonschema

    folder = Path(app.registered_commands[0].callback.__globals__["__file__"]).parent / "schemas"  # type: ignore[union-attr]
    names = {path.stem for path in folder.glob("*.json")}
    assert {
        "runs",
        "top",
        "show",
        "compare",
        "info",
        "watch",
        "sql",
        "doctor",
        "delete",
        "gc",
        "vacuum",
        "merge",
    } <= names
    for path in folder.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


# -- sql ---------------------------------------------------------------------------------------


def test_sql_prints_a_table_of_the_answer(workspace: Path) -> None:
    cells = invoke("sql", workspace, "SELECT model_name, branch_id FROM predictions LIMIT 1").stdout.split()
    assert cells == ["model_name", "branch_id", "good", "NULL"]


def test_sql_says_how_many_rows_it_did_not_show(workspace: Path) -> None:
    result = invoke("sql", workspace, "SELECT * FROM range(5000) AS numbers(n)")
    assert f"{ROWS_SHOWN} of 5,000 rows" in result.stderr
    assert len(result.stdout.splitlines()) == ROWS_SHOWN + 1


def test_sql_leaves_out_what_a_terminal_has_no_room_for_and_says_so(workspace: Path) -> None:
    query = "SELECT *, repeat('x', 500) AS long FROM predictions"
    assert re.search(r"^\+\d+ columns .*: --wide$", invoke("sql", workspace, query).stderr, re.MULTILINE)
    piped = invoke("sql", workspace, query, columns=None)
    assert "columns" not in piped.stderr
    assert "x" * 500 in piped.stdout


def test_sql_takes_parameters_files_and_stdin(workspace: Path, tmp_path: Path) -> None:
    query = "SELECT count(*) AS n FROM predictions WHERE model_name = $name AND fold_id = $fold"
    (tmp_path / "q.sql").write_text(query)
    bound = ("--param", "name=good", "--param", "fold=1")
    for text, stdin in ((query, None), (f"@{tmp_path / 'q.sql'}", None), ("-", query)):
        assert invoke("sql", workspace, text, *bound, "--csv", stdin=stdin).stdout.split() == ["n", "1"]
    assert invoke("sql", workspace, query, "--param", "name").exit_code == 2


def test_a_query_in_a_file_is_text_in_utf_8_on_every_system(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("SELECT 'Öl' AS name", encoding="utf-8-sig")  # as editors of Windows write it
    assert invoke("sql", workspace, f"@{tmp_path / 'q.sql'}", "--csv").stdout.split() == ["name", "Öl"]
    (tmp_path / "q.sql").write_text("SELECT 'Öl'", encoding="latin-1")
    refused = invoke("sql", workspace, f"@{tmp_path / 'q.sql'}")
    assert (refused.exit_code, "q.sql is no text in UTF-8" in refused.stderr) == (1, True)


def test_sql_csv_keeps_every_row_and_writes_lists_as_json(workspace: Path) -> None:
    frame = pl.read_csv(io.StringIO(invoke("sql", workspace, "SELECT y_pred FROM prediction_arrays", "--csv").output))
    assert len(json.loads(frame["y_pred"][0])) == 13
    numbers = invoke("sql", workspace, "SELECT * FROM range(5000) AS numbers(n)", "--csv").output
    assert len(pl.read_csv(io.StringIO(numbers))) == 5000
    read = pl.read_csv(io.StringIO(csv_text(pl.DataFrame({"s": [{"a": 1}, {"a": 2}], "l": [[1.0], None]}))))
    assert (json.loads(read["s"][1]), read["l"][1]) == ({"a": 2}, None)


@pytest.mark.parametrize(
    "query", ["DELETE FROM predictions", "SELECT * FROM nowhere", "SELECT 1; SELECT 2", "SELEC", ""]
)
def test_query_that_cannot_run_is_one_line_on_stderr(workspace: Path, query: str) -> None:
    result = invoke("sql", workspace, query)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert invoke("sql", workspace, "SELECT count(*) AS n FROM predictions", "--csv").output.split() == ["n", "6"]


# -- which workspace, and exit codes -----------------------------------------------------------


def test_the_workspace_may_be_an_option_or_in_the_environment(workspace: Path, ids: dict[str, str]) -> None:
    assert ids["run"][-8:] in invoke("runs", "--workspace", workspace).stdout
    for name in ("N4A_FAST_WORKSPACE", "NIRS4ALL_WORKSPACE"):
        result = CliRunner().invoke(app, ["show", ids["good"][-8:]], env={name: str(workspace), "COLUMNS": "80"})
        assert ids["good"] in result.stdout
    assert invoke("runs").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [("info",), ("sql", "SELECT 1"), ("runs",), ("top",), ("show", "@best"), ("gc",), ("migrate",), ("tail",)],
)
def test_a_missing_workspace_is_code_10_and_is_not_created(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = invoke(command[0], tmp_path / "absent", *command[1:])
    assert result.exit_code == 10, result.output
    assert "absent" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "absent").exists()


def test_a_locked_workspace_is_code_11_and_names_the_process(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""
    holder = child(code, copy / "store.duckdb")
    assert read_line(holder) == "held"
    process = command_line("runs", copy, N4A_FAST_LOCK_TIMEOUT="0.2")
    errors = process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 11
    assert str(holder.pid) in errors
    assert holder.stdin is not None
    holder.stdin.write("\n")
    finish(holder)


def test_an_interrupt_ends_a_long_query_with_code_130(workspace: Path) -> None:
    code = """
import os, signal, sys, threading, time
from n4a_fast.cli import app
query = "SELECT count(*) FROM range(100000000000) a, range(100000) b"

def interrupt():
    while all(thread.name != "n4a_fast sql" for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(0.1)  # before it begins, an interrupt ends the program, too, and tells less
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
app(["sql", sys.argv[1], query])
"""
    process = child(code, workspace)
    _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert "interrupted" in errors


def test_file_that_is_no_store_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "store.duckdb").write_text("not a database, but long enough to look at\n" * 400)
    result = invoke("info", tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert invoke("doctor", tmp_path).exit_code == 3


def test_a_workspace_of_nirs4all_1_4_is_told_how_to_come_in(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"")
    for command in (("info",), ("sql", "SELECT 1"), ("gc",)):
        result = invoke(command[0], tmp_path, *command[1:])
        assert result.exit_code == 1
        assert f"n4a-fast migrate {tmp_path}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]


def test_an_empty_workspace_has_nothing_to_show_and_says_why(empty_workspace: Path) -> None:
    for command in ("runs", "top", "info", "doctor"):
        assert invoke(command, empty_workspace).exit_code == 0, command
    assert "nothing is ranked yet" in invoke("top", empty_workspace).stderr
    assert as_json("top", "top", empty_workspace)["rows"] == []
    assert invoke("show", empty_workspace).exit_code == 1


def test_info_tells_the_database_from_the_original_kept_beside_it(copy: Path) -> None:
    (copy / "store.duckdb.nirs4all").write_bytes(bytes(5_000_000))
    lines = [line.split() for line in invoke("info", copy).output.splitlines() if line.startswith("  store.duckdb")]
    assert ["store.duckdb.nirs4all", "1", "5.0", "MB"] in lines
    assert lines[0][:2] == ["store.duckdb", "1"]


@pytest.mark.long
def test_looking_leaves_the_files_as_they_are(workspace: Path) -> None:
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in workspace.rglob("*") if file.is_file()}
    for command in (("info",), ("sql", "SELECT 1"), ("top",), ("runs",), ("show", "@last"), ("watch", "--once")):
        assert invoke(command[0], workspace, *command[1:]).exit_code == 0
    after = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in workspace.rglob("*") if file.is_file()}
    assert after == before


def test_commands_look_beside_a_process_that_writes(tmp_path: Path) -> None:
    code = """
import sys
from helpers import *
with WorkspaceStore(sys.argv[1]) as store:
    run = store.begin_run("nightly", {}, [{"name": "corn"}])
    for number in range(10_000):
        pipeline = begin_pipeline(store, run, f"p{number}")
        predict(store, pipeline, save_chain(store, pipeline), val_score=1 / (number + 1))
        store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        if number == 5:
            print("going", flush=True)
        if number % 5 == 0 and number > 5:
            import select
            if select.select([sys.stdin], [], [], 0)[0]:
                break
"""
    writer = child(code, tmp_path / "w")
    assert read_line(writer) == "going"
    report = ("report", "--no-charts", "-o", str(tmp_path / "r.html"))
    for command in (("top",), ("info",), ("watch", "--once"), ("runs",), ("verify", "--quick"), report):
        result = invoke(command[0], tmp_path / "w", *command[1:])
        assert result.exit_code == 0, result.output
        assert "rmse" in result.stdout or command[0] in ("info", "runs", "verify", "report")
    assert writer.stdin is not None
    writer.stdin.write("\n")
    finish(writer)


# -- predicting, exporting ---------------------------------------------------------------------


def write_csv(path: Path, head: list[str] | None, names: list[str] | None = None, separator: str = ",") -> Path:
    lines = [separator.join(head)] if head else []
    for place, row in enumerate(X):
        cells = [repr(float(value)) for value in row]
        lines.append(separator.join([names[place], *cells] if names else cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def predicted(result_csv: str) -> np.ndarray:
    return np.array([float(row["prediction"]) for row in csv_module.DictReader(io.StringIO(result_csv))])


def test_predict_writes_a_row_for_each_spectrum(workspace: Path, ids: dict[str, str], tmp_path: Path) -> None:
    names = [f"s{place}" for place in range(len(X))]
    head = ["sample", *(f"{1100 + 2 * place}" for place in range(WIDTH))]
    file = write_csv(tmp_path / "new.csv", head, names)
    result = invoke("predict", workspace, ids["good"][-8:], file, "-o", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert "read 20 spectra of 5 values, 1100-1108, ids from column 'sample'" in result.stderr
    text = (tmp_path / "out.csv").read_text()
    assert [row["id"] for row in csv_module.DictReader(io.StringIO(text))] == names
    with WorkspaceStore.open_readonly(workspace) as store:
        expected = store.replay_chain(ids["good"], X)
    assert np.allclose(predicted(text), expected, rtol=0, atol=1e-9)
    np.save(tmp_path / "new.npy", X)
    assert np.allclose(predicted(invoke("predict", workspace, "@best", tmp_path / "new.npy").stdout), expected)
    both = invoke("predict", workspace, ids["good"], ids["poor"], tmp_path / "new.npy").stdout.splitlines()
    assert both[0] == f"id,{ids['good'][-8:]},{ids['poor'][-8:]}"


def test_predict_keeps_its_predictions_where_that_is_asked_for(
    workspace: Path, ids: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(workspace, tmp_path / "ws")
    np.save(tmp_path / "new.npy", X)
    result = invoke("predict", tmp_path / "ws", ids["good"], tmp_path / "new.npy", "--save", "autumn")
    assert result.exit_code == 0, result.output
    assert "kept 1 prediction of autumn" in result.stderr
    with WorkspaceStore.open_readonly(tmp_path / "ws") as store:
        (kept,) = store.query_predictions(dataset_name="autumn")["prediction_id"]
        found = store.get_prediction(kept, load_arrays=True)
        assert found is not None
        np.testing.assert_allclose(found["y_pred"], store.replay_chain(ids["good"], X), rtol=1e-9)
        assert found["chain_id"] == ids["good"]


@pytest.mark.long
def test_predict_never_loses_or_makes_up_a_spectrum(workspace: Path, tmp_path: Path) -> None:
    bare = write_csv(tmp_path / "bare.csv", None)
    assert len(invoke("predict", workspace, "@best", bare).stdout.splitlines()) == 1 + len(X)
    semicolons = write_csv(tmp_path / "semi.csv", [f"{n}" for n in range(WIDTH)], separator=";")
    assert len(invoke("predict", workspace, "@best", semicolons).stdout.splitlines()) == 1 + len(X)
    steady = tmp_path / "steady.csv"
    steady.write_text("1,2,3,4,5\n2,3,4,5,6\n3,4,5,6,7\n")
    refused = invoke("predict", workspace, "@best", steady)
    assert (refused.exit_code, "--header or --no-header" in refused.stderr) == (1, True)
    assert len(invoke("predict", workspace, "@best", steady, "--no-header").stdout.splitlines()) == 4
    assert len(invoke("predict", workspace, "@best", steady, "--header").stdout.splitlines()) == 3
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("1,2,3,4,5\n2,3,4\n")
    assert invoke("predict", workspace, "@best", ragged).exit_code == 1


def test_predictions_are_rows_of_json_or_a_file_that_it_names(workspace: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", X)
    predict = ("predict", workspace, "@best", tmp_path / "new.npy")
    told = as_json("predict", *predict)
    expected = predicted(invoke(*predict).stdout).tolist()
    assert [row["prediction"] for row in told["rows"]] == expected
    assert (told["columns"], told["spectra"], told["path"]) == (["id", "prediction"], len(X), None)
    told = as_json("predict", *predict, "-o", tmp_path / "out.csv")
    assert (told["rows"], told["path"]) == ([], str(tmp_path / "out.csv"))
    assert predicted((tmp_path / "out.csv").read_text()).tolist() == expected


def test_predict_refuses_spectra_of_another_width(workspace: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, WIDTH + 2)))
    result = invoke("predict", workspace, "@best", tmp_path / "wide.npy")
    assert result.exit_code == 1
    assert f"takes {WIDTH} values a spectrum" in result.stderr
    assert "nothing is interpolated" in result.stderr


@pytest.mark.long
def test_export_and_import(workspace: Path, ids: dict[str, str], tmp_path: Path) -> None:
    for name, what in (("best.n4a", "@best"), ("run.yaml", ids["run"]), ("all.parquet", ids["run"])):
        assert as_json("export", "export", workspace, what, "-o", tmp_path / name)["bytes"] > 0
    assert as_json("export", "export", workspace, ids["run"], "-o", tmp_path / "all.csv")["bytes"] > 0
    rows, parquet = pl.read_csv(tmp_path / "all.csv"), pl.read_parquet(tmp_path / "all.parquet")
    for name in ("prediction_id", "chain_id", "fold_id", "val_score", "scores"):
        assert rows[name].cast(parquet[name].dtype).to_list() == parquet[name].to_list(), name
    assert invoke("export", workspace, "--arrays", "-o", tmp_path / "all.csv").exit_code == 2
    assert invoke("export", workspace, "@best", "-o", tmp_path / "best.docx").exit_code == 2
    WorkspaceStore(tmp_path / "other").close()
    rows = as_json("import", "import", tmp_path / "other", tmp_path / "best.n4a")["rows"]
    np.save(tmp_path / "new.npy", X)
    mine, theirs = (
        predicted(invoke("predict", place, chain, tmp_path / "new.npy").stdout)
        for place, chain in ((workspace, ids["good"]), (tmp_path / "other", rows[0]["chain_id"]))
    )
    assert np.allclose(mine, theirs)


@pytest.mark.long
def test_plot_and_report_write_files(workspace: Path, ids: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    found = as_json(
        "plot", "plot", workspace, "scatter", ids["good"], "-o", tmp_path / "a.png", "--data", tmp_path / "a.csv"
    )
    assert (found["kind"], found["points"]) == ("scatter", 40)
    assert pl.read_csv(tmp_path / "a.csv").height == 40
    assert as_json("report", "report", workspace, "-o", tmp_path / "r.html")["bytes"] > 10_000
    assert invoke("plot", workspace, "pie").exit_code == 1
    assert invoke("plot", workspace, "scatter", "-o", tmp_path / "a.doc").exit_code == 1


# -- changing ----------------------------------------------------------------------------------


def test_delete_asks_tells_and_deletes(copy: Path, ids: dict[str, str]) -> None:
    told = as_json("delete", "delete", copy, ids["good"], "--dry-run")
    assert told["rows"] == [{"kind": "chain", "id": ids["good"], "rows": 1 + 3 + 3}]
    asked = invoke("delete", copy, ids["good"])
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert ids["good"] in invoke("top", copy, columns=None).stdout
    done = invoke("delete", copy, ids["good"], "-y")
    assert "deleted 7 rows" in done.stderr
    assert ids["good"] not in invoke("top", copy, columns=None).stdout


def test_delete_by_age_and_state_spares_the_best(copy: Path, ids: dict[str, str]) -> None:
    rows = as_json("delete", "delete", copy, "--status", "failed", "--dry-run")["rows"]
    assert [row["id"] for row in rows] == [ids["failed run"]]
    rows = as_json("delete", "delete", copy, "--older-than", "0s", "--keep-best", "1", "--dry-run")["rows"]
    assert [row["id"] for row in rows] == [ids["failed run"]]
    assert invoke("delete", copy).exit_code == 2


@pytest.mark.long
def test_gc_vacuum_and_merge(copy: Path, workspace: Path, ids: dict[str, str]) -> None:
    assert as_json("gc", "gc", copy, "--dry-run")["files"] == 0
    invoke("delete", copy, ids["good"], "-y")
    assert as_json("gc", "gc", copy)["files"] == 0  # they went with the chain
    assert as_json("vacuum", "vacuum", copy, "--dry-run")["after"] is None
    assert as_json("vacuum", "vacuum", copy)["after"] > 0
    merged = {row["table"]: row["added"] for row in as_json("merge", "merge", copy, workspace)["rows"]}
    assert (merged["chains"], merged["predictions"]) == (1, 3)
    with WorkspaceStore(copy) as store:
        store.set_metric_direction("crunch", True)
    other = copy.parent / "other"
    with WorkspaceStore(other) as store:
        store.set_metric_direction("crunch", False)
    assert invoke("merge", copy, other).exit_code == 3


# -- the demo ----------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["chemotools", "matplotlib"])
def test_demo_without_its_packages_names_the_cure(tmp_path: Path, package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from n4a_fast.cli import app; app(['demo', '--workspace',"
        f" {str(tmp_path / 'w')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 2
    assert "pip install chemotools matplotlib scikit-learn threadpoolctl" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (3e9, "3.0 GB"), (5e12, "5000.0 GB")],
)
def test_sizes_are_in_powers_of_a_thousand(size: float, text: str) -> None:
    assert size_text(size) == text
