"""The whole demo on real spectra, in a folder of its own, run twice."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from cli_workspaces import invoke, validate
from rich.console import Console

from n4a_fast import WorkspaceStore
from n4a_fast.cli import demo
from n4a_fast.cli.demo import LIMIT, Outcome, run_demo
from n4a_fast.cli.sweep import variants_for

pytestmark = pytest.mark.long

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Demo:
    workspace: Path
    outcome: Outcome
    text: str


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    workspace, stream = tmp_path_factory.mktemp("demo") / "workspace", io.StringIO()
    outcome = run_demo(workspace, Console(file=stream, width=80))
    return Demo(workspace, outcome, stream.getvalue())


def test_demo_sweeps_both_data_sets(full: Demo) -> None:
    assert {name: len(frame) >= 10 for name, frame in full.outcome.leaderboards.items()} == {
        "fermentation": True,
        "coffee": True,
    }
    with WorkspaceStore.open_readonly(full.workspace) as store:
        run = store.get_run(full.outcome.run_id)
        statuses = store.list_pipelines(run_id=full.outcome.run_id)["status"].unique().to_list()
        folds = (
            store.sql("SELECT count(DISTINCT fold_id) AS n FROM predictions GROUP BY chain_id")["n"].unique().to_list()
        )
    assert run is not None
    assert run["status"] == "completed"
    assert set(run["summary"]) == {"fermentation", "coffee"}
    assert statuses == ["completed"]
    assert folds == [6]  # five folds and their average


def test_leaderboard_is_ranked_and_has_each_variant_once(full: Demo) -> None:
    for frame in full.outcome.leaderboards.values():
        assert frame["val_score"].is_sorted()
        assert frame["chain_id"].is_unique().all()
        assert frame["folds"].unique().to_list() == [5]
        assert frame["missing_folds"].sum() == 0


def test_replay_of_all_chains_reproduces_what_was_stored(full: Demo) -> None:
    assert len(full.outcome.replays) == 2
    assert full.outcome.complaint is None
    assert max(replay.difference for replay in full.outcome.replays) <= LIMIT
    assert [replay.chains for replay in full.outcome.replays] == [
        len(frame) for frame in full.outcome.leaderboards.values()
    ]


def test_best_models_predict_held_out_spectra_well(full: Demo) -> None:
    best = {name: frame.row(0, named=True) for name, frame in full.outcome.leaderboards.items()}
    with WorkspaceStore.open_readonly(full.workspace) as store:
        arrays = {name: store.get_prediction_arrays(row["prediction_id"]) for name, row in best.items()}
    assert arrays["fermentation"] is not None
    assert arrays["coffee"] is not None
    glucose, coffee = arrays["fermentation"], arrays["coffee"]
    assert np.corrcoef(glucose["y_true"], glucose["y_pred"])[0, 1] > 0.95
    assert (coffee["y_true"] == coffee["y_pred"]).mean() > 0.9


def test_plots_are_pictures_in_the_workspace(full: Demo) -> None:
    for replay in full.outcome.replays:
        assert replay.plot.parent == full.workspace
        assert replay.plot.read_bytes().startswith(PNG_SIGNATURE)
        assert str(replay.plot) in full.text


def test_the_demo_ends_with_its_report_and_how_to_look_at_it(full: Demo) -> None:
    page = (full.workspace / "report.html").read_text()
    assert "coffee by log_loss" in page
    assert "<svg" in page
    assert (full.workspace / "report.html").resolve().as_uri() in full.text


def test_tables_fit_80_columns_and_the_printed_sql_runs(full: Demo) -> None:
    lines = full.text.splitlines()
    commands = [line for line in lines if " sql " in line]
    assert max(len(line) for line in lines[: lines.index("Where everything lies")]) <= 80
    (command,) = commands
    query = command.partition('"')[2].rpartition('"')[0]
    result = invoke("sql", full.workspace, query, "--csv")
    assert result.exit_code == 0, result.output
    assert len(pl.read_csv(io.StringIO(result.output))) == 5


def test_workspace_opens_with_plain_duckdb(full: Demo) -> None:
    with duckdb.connect(str(full.workspace / "store.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchall()[0][0] >= 1


def test_command_run_again_adds_a_run_and_keeps_the_first(full: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time with few variants: all of them are in the first."""
    monkeypatch.setattr(demo, "variants_for", lambda dataset: variants_for(dataset)[:2])
    result = invoke("demo", "--workspace", full.workspace, "--json")
    assert result.exit_code == 0, result.output
    assert "adding a run" in result.stderr
    told = json.loads(result.stdout)
    validate("demo", told)
    assert (told["report"], len(told["plots"])) == (str(full.workspace / "report.html"), 2)
    with WorkspaceStore.open_readonly(full.workspace) as store:
        runs = store.list_runs(status="completed")["run_id"].to_list()
        pipelines = [len(store.list_pipelines(run_id=run_id)) for run_id in runs]
    assert runs == [told["run_id"], full.outcome.run_id]
    assert told["chains"] == dict.fromkeys(full.outcome.leaderboards, 2)
    assert pipelines == [4, sum(len(frame) for frame in full.outcome.leaderboards.values())]


@pytest.mark.parametrize("difference", [2 * LIMIT, float("inf"), float("nan")])
def test_replay_beyond_the_limit_is_complained_about_by_its_chain(full: Demo, difference: float) -> None:
    good, bad = full.outcome.replays
    broken = replace(full.outcome, replays=[good, replace(bad, difference=difference)])
    assert broken.complaint is not None
    assert bad.worst in broken.complaint
