"""`n4a-fast migrate` and `n4a-fast convert` as a user types them."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import pytest
from cli_workspaces import invoke
from foreign import NEW, OLD, unpacked
from rich.console import Console

from n4a_fast import WorkspaceStore
from n4a_fast.cli.workspaces import bars


@pytest.mark.long
def test_migrate_tells_each_table_and_where_the_original_is(tmp_path: Path) -> None:
    old = unpacked(OLD, tmp_path)
    done = invoke("migrate", old)
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.output.splitlines() if str(tmp_path) not in line) <= 80
    rows = [line.split() for line in done.output.splitlines()]
    assert ["predictions", "47", "47"] in rows
    assert ["artifacts", "22", "22"] in rows
    assert "188 arrays compared" in done.output
    assert f"the original is kept as {old / 'store.duckdb.nirs4all'}" in done.output
    again = invoke("migrate", old / "store.duckdb")
    assert (again.exit_code, "nothing to do" in again.output) == (0, True)


@pytest.mark.long
def test_convert_writes_a_folder_and_refuses_to_write_it_twice(tmp_path: Path) -> None:
    new = unpacked(NEW, tmp_path)
    done = invoke("convert", new, tmp_path / "ours")
    assert done.exit_code == 0, done.output
    assert "nirs4all SQLite workspace, schema 5" in done.output
    assert max(len(line) for line in done.output.splitlines() if str(tmp_path) not in line) <= 80
    assert invoke("info", tmp_path / "ours").exit_code == 0
    refused = invoke("convert", new, tmp_path / "ours")
    assert refused.exit_code == 1
    assert "not overwritten" in refused.output


def test_what_cannot_be_migrated_is_one_line(tmp_path: Path) -> None:
    refused = invoke("migrate", tmp_path)
    assert refused.exit_code == 1
    assert refused.output.startswith("n4a-fast: ")
    assert refused.output.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize(("archive", "way"), [(OLD, "migrate"), (NEW, "convert")])
def test_every_look_works_on_what_nirs4all_has_kept(tmp_path: Path, archive: Path, way: str) -> None:
    place = unpacked(archive, tmp_path)
    if way == "convert":
        assert invoke("convert", place, tmp_path / "ours").exit_code == 0
        place = tmp_path / "ours"
    else:
        assert invoke("migrate", place).exit_code == 0
    for command in (("runs",), ("top",), ("info",), ("show", "@last"), ("watch", "--once"), ("doctor",)):
        result = invoke(command[0], place, *command[1:])
        assert result.exit_code == 0, (command, result.output)
    assert "lower is better" in invoke("top", place).stdout
    assert invoke("report", place, "-o", tmp_path / "r.html", "--no-charts").exit_code == 0


@pytest.mark.long
def test_a_newer_format_is_told_and_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    with WorkspaceStore(tmp_path / "w") as store:
        store.begin_run("r", {}, [])
    for path in (tmp_path / "w" / "artifacts", tmp_path / "w"):
        path.chmod(0o555)
    for command in ("runs", "top", "info"):
        assert invoke(command, tmp_path / "w").exit_code == 0
    for path in (tmp_path / "w", tmp_path / "w" / "artifacts"):
        path.chmod(0o755)
    with duckdb.connect(str(tmp_path / "w" / "store.duckdb")) as connection:
        connection.execute("UPDATE store_info SET format_version = 99")
    for command in ("runs", "top", "info", "report"):
        result = invoke(command, tmp_path / "w")
        assert result.exit_code == 1
        assert "format 99" in result.stderr


def test_a_terminal_sees_a_bar_for_each_step() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bars(console) as progress:
        for done in (1, 2):
            progress("copying runs", done, 2)
        progress("copying arrays", 5, 7)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "copying runs" in drawn
    assert "2/2" in drawn
    assert "5/7" in drawn
