"""The commands as a user types them: output, exit codes, one-line errors."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from n4a_fast import WorkspaceStore, __version__
from n4a_fast.cli import ROWS_SHOWN, app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    with WorkspaceStore(tmp_path / "w") as store:
        run = store.begin_run("a [bold]run", {}, [{"name": "corn"}])
        pipeline = store.begin_pipeline(run, "0001_pls", {}, [], "corn", "")
        scaler = store.save_artifact({"mean": 1.0}, "dict", "transformer", "joblib")
        chain = store.save_chain(pipeline, [], 1, "PLSRegression", "SNV", "per_fold", {"0": scaler}, {})
        prediction = store.save_prediction(
            pipeline,
            chain,
            "corn",
            "PLS",
            "PLSRegression",
            "0",
            "val",
            0.1,
            0.2,
            0.3,
            "rmse",
            "regression",
            2,
            7,
            {},
            {},
            None,
            None,
            0,
            0.0,
        )
        store.save_prediction_arrays(prediction, np.array([1.0, 2.0]), np.array([1.5, 2.5]))
        store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        store.complete_run(run, {})
    return tmp_path / "w"


def test_version_is_the_package_s() -> None:
    assert invoke("--version").output.strip() == f"n4a_fast {__version__}"


def test_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "n4a_fast", "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout


@pytest.mark.parametrize("place", ["", "store.duckdb"])
def test_info_shows_tables_sizes_and_runs(workspace: Path, place: str) -> None:
    result = invoke("info", workspace / place)
    assert result.exit_code == 0, result.output
    for expected in ("predictions", "prediction_arrays", "store.duckdb", "artifacts/", "a [bold]run", "completed"):
        assert expected in result.output
    assert max(len(line) for line in result.output.splitlines() if str(workspace) not in line) <= 100


def test_sql_prints_a_table_of_the_answer(workspace: Path) -> None:
    result = invoke("sql", workspace, "SELECT model_name, val_score, branch_id FROM predictions")
    assert result.exit_code == 0, result.output
    assert [cell for cell in result.output.split() if cell in {"model_name", "PLS", "0.1", "NULL"}] == [
        "model_name",
        "PLS",
        "0.1",
        "NULL",
    ]


def test_sql_says_how_many_rows_it_did_not_show(workspace: Path) -> None:
    result = invoke("sql", workspace, "SELECT * FROM range(5000) AS numbers(n)")
    assert f"{ROWS_SHOWN} of 5,000 rows" in result.output


def test_sql_leaves_out_what_a_terminal_has_no_room_for_and_says_so(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT * FROM predictions"
    total = invoke("sql", workspace, query, "--csv").output.splitlines()[0].count(",") + 1
    assert re.search(
        rf"^\d+ of {total} columns; --csv shows all$", invoke("sql", workspace, query).output, re.MULTILINE
    )
    monkeypatch.delenv("COLUMNS", raising=False)
    command = [
        sys.executable,
        "-m",
        "n4a_fast",
        "sql",
        str(workspace),
        f"SELECT *, repeat('x', 500) AS long FROM ({query})",
    ]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "columns;" not in piped
    assert "x" * 500 in piped
    assert len(piped.splitlines()[1].split()) == total + 1


def test_sql_csv_keeps_every_row_and_writes_lists_as_json(workspace: Path) -> None:
    result = invoke("sql", workspace, "SELECT prediction_id, y_pred FROM prediction_arrays", "--csv")
    frame = pl.read_csv(io.StringIO(result.output))
    assert json.loads(frame["y_pred"][0]) == [1.5, 2.5]
    assert (
        len(
            pl.read_csv(
                io.StringIO(invoke("sql", workspace, "SELECT * FROM range(5000) AS numbers(n)", "--csv").output)
            )
        )
        == 5000
    )


@pytest.mark.parametrize(
    "query", ["DELETE FROM predictions", "SELECT * FROM nowhere", "SELECT 1; SELECT 2", "SELEC", ""]
)
def test_query_that_cannot_run_is_one_line_on_stderr(workspace: Path, query: str) -> None:
    result = invoke("sql", workspace, query)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert invoke("sql", workspace, "SELECT count(*) AS n FROM predictions", "--csv").output.split() == ["n", "1"]


@pytest.mark.parametrize("command", [("info",), ("sql",)])
def test_missing_workspace_is_one_line_on_stderr_and_is_not_created(tmp_path: Path, command: tuple[str]) -> None:
    query = ["SELECT 1"] if command == ("sql",) else []
    result = invoke(*command, tmp_path / "absent", *query)
    assert result.exit_code == 1
    assert "absent" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "absent").exists()


def test_file_that_is_no_store_is_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "store.duckdb").write_text("not a database, but long enough to look at\n" * 400)
    result = invoke("info", tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_a_workspace_of_nirs4all_1_4_is_told_how_to_come_in(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"")
    for command in (("info",), ("sql", "SELECT 1"), ("migrate",)):
        result = invoke(command[0], tmp_path, *command[1:])
        assert result.exit_code == 1
        assert f"n4a-fast convert {tmp_path} NEW_FOLDER" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]


@pytest.mark.parametrize("command", [("migrate",), ("convert", "new")])
def test_a_path_that_is_not_there_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = invoke(command[0], tmp_path / "absent", *(tmp_path / name for name in command[1:]))
    assert result.exit_code == 1
    assert f"no workspace '{tmp_path / 'absent'}'; check the path" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_info_tells_the_database_from_the_original_kept_beside_it(workspace: Path) -> None:
    (workspace / "store.duckdb.nirs4all").write_bytes(bytes(5_000_000))
    sizes = {
        line.split()[0]: line.split()[1:]
        for line in invoke("info", workspace).output.splitlines()
        if line.startswith("  store.duckdb")
    }
    assert sizes["store.duckdb.nirs4all"] == ["1", "5.0", "MB"]
    assert sizes["store.duckdb"][0] == "1"


def test_info_and_sql_leave_the_files_as_they_are(workspace: Path) -> None:
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in workspace.rglob("*") if file.is_file()}
    invoke("info", workspace)
    invoke("sql", workspace, "SELECT 1")
    assert {
        file: (file.stat().st_mtime_ns, file.stat().st_size) for file in workspace.rglob("*") if file.is_file()
    } == before


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
