"""`verify`, `backup`, `restore` and `extract` as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_workspaces import as_json, invoke, make_workspace

from n4a_fast import WorkspaceStore
from n4a_fast.cli.application import FOUND, REFUSED, USAGE


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    make_workspace(tmp_path / "ws")
    return tmp_path / "ws"


def run_ids(workspace: Path) -> list[str]:
    with WorkspaceStore.open_readonly(workspace) as store:
        return sorted(store.list_runs()["run_id"])


def test_a_sound_workspace_is_told_so(workspace: Path) -> None:
    result = invoke("verify", workspace)
    assert (result.exit_code, "is sound" in result.stdout) == (0, True)
    assert as_json("verify", "verify", workspace, "--quick", "--sample", "5%")["findings"] == []


def test_findings_give_exit_code_3(workspace: Path) -> None:
    next((workspace / "artifacts").glob("??/*.joblib")).unlink()
    result = invoke("verify", workspace)
    assert (result.exit_code, "missing file" in result.stdout) == (FOUND, True)
    assert as_json("verify", "verify", workspace, code=FOUND)["findings"][0]["kind"] == "missing file"


def test_a_store_that_cannot_be_opened_is_verified_all_the_same(workspace: Path) -> None:
    with (workspace / "store.duckdb").open("r+b") as file:
        file.seek(5000)
        file.write(b"rotten")
    found = as_json("verify", "verify", workspace, code=FOUND)["findings"]
    assert {each["kind"] for each in found} == {"damaged store", "damaged block"}


def test_a_sample_that_is_no_share_is_wrong_usage(workspace: Path) -> None:
    assert invoke("verify", workspace, "--sample", "some").exit_code == USAGE


def test_a_backup_is_restored_and_replaces_only_on_demand(workspace: Path, tmp_path: Path) -> None:
    before = run_ids(workspace)
    assert as_json("backup", "backup", workspace, tmp_path / "backup")["artifacts"] > 0
    with WorkspaceStore(workspace) as store:
        store.delete_run(before[0])
    refused = invoke("restore", tmp_path / "backup", workspace)
    assert (refused.exit_code, len(run_ids(workspace))) == (REFUSED, len(before) - 1)
    done = as_json("restore", "restore", tmp_path / "backup", workspace, "--replace")
    assert run_ids(workspace) == before
    assert len(run_ids(Path(done["replaced"]))) == len(before) - 1


def test_runs_are_extracted(workspace: Path, tmp_path: Path) -> None:
    run = run_ids(workspace)[0]
    rows = as_json("extract", "extract", workspace, run, tmp_path / "one")["rows"]
    assert {row["table"]: row["rows"] for row in rows}["runs"] == 1
    assert run_ids(tmp_path / "one") == [run]
