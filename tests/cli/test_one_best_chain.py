"""Whoever is asked for the best chain names the same one, by the rule of the leaderboard."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path

import numpy as np
import pytest
from cli_workspaces import as_json, invoke
from helpers import begin_pipeline, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore

SCORES = {  # accuracy by fold; each of the others is the best one in the eyes of some other rule
    "steady": [0.90, 0.91, 0.92],
    "lucky fold": [0.99, 0.6, 0.6],
    "one NaN fold": [0.99, math.nan, 0.99],
    "one fold gone": [0.98, 0.98],
    "diverged": [0.3, 0.3, 0.33],
    "half done": [0.999],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A workspace, and its chains by name."""
    place, chains = tmp_path_factory.mktemp("best") / "w", {}
    with WorkspaceStore(place) as store:
        run = store.begin_run("nightly", {}, [{"name": "corn"}])
        for name, scores in SCORES.items():
            pipeline = begin_pipeline(store, run, name)
            artifacts = {f"fold_{fold}": f"{name}{fold}" for fold in range(3)}
            chains[name] = save_chain(store, pipeline, fold_artifacts=artifacts, preprocessings=name)
            known = {"metric": "accuracy", "task_type": "classification", "model_name": name}
            for fold, score in enumerate(scores):
                saved = predict(store, pipeline, chains[name], fold_id=str(fold), val_score=score, **known)
                store.save_prediction_arrays(saved, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
            predict(store, pipeline, chains[name], fold_id="avg", val_score=1 - scores[0], **known)
            if name != "half done":
                store.complete_pipeline(pipeline, scores[0], scores[0], "accuracy", 1)
    return place, chains


def test_every_call_names_it(made: tuple[Path, dict[str, str]]) -> None:
    place, chains = made
    best = chains["steady"]
    with WorkspaceStore.open_readonly(place) as store, Nirs4allStore(place) as hosted:
        for each in (store, hosted):
            assert each.leaderboard().best.chain_id == best
            assert each.leaderboard(by="model")[0].chain_id == best
            assert each.find("@best") == each.chain().chain_id == each.run().best.chain_id == best
            assert [found.chain_id for found in each.progress().best] == [best]
        ranked = store.leaderboard()
        for shown in (repr(ranked).splitlines()[2], str(ranked._repr_html_()).partition("<tbody>")[2][:200]):
            assert best[-8:] in shown
        assert best[-8:] in str(store.run()._repr_html_())
        assert repr(store.plot("folds").rows[0]["chain"]).startswith("'1. steady")


@pytest.mark.long
def test_every_command_names_it(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    place, chains = made
    best = chains["steady"]
    assert as_json("top", "top", place)["rows"][0]["chain_id"] == best
    assert invoke("top", place).stdout.splitlines()[2].split()[:2] == ["1", best[-8:]]
    assert as_json("runs", "runs", place)["rows"][0]["best"][0]["chain_id"] == best
    assert as_json("show", "show", place, "@best")["id"] == best
    assert as_json("show", "show", place, "@last")["leaderboard"][0]["chain_id"] == best
    assert as_json("watch", "watch", place)["best"][0]["chain_id"] == best
    assert "steady" in invoke("watch", place, "--once").stdout
    assert invoke("report", place, "--no-charts", "-o", tmp_path / "r.html").exit_code == 0
    of_report((tmp_path / "r.html").read_text(), best)


def of_report(page: str, best: str) -> None:
    assert re.findall(r'<code title="([^"]+)"', page)[0] == best
    assert f"<dt>chain</dt><dd>{best}</dd>" in page
    assert re.search(r"Best: 0\.91 ± 0\.01 by steady &gt; steady", page)


def test_the_live_page_names_it(made: tuple[Path, dict[str, str]]) -> None:
    pytest.importorskip("starlette")
    from n4a_fast.report.live import Look

    with WorkspaceStore.open_readonly(made[0]) as store:
        seen = asyncio.run(Look(store, charts=False).seen())
    of_report(seen.content, made[1]["steady"])
    assert made[1]["steady"][-8:] in seen.now


def test_documented_questions_keep_their_meaning_and_point_to_the_ranking(made: tuple[Path, dict[str, str]]) -> None:
    place, chains = made
    with WorkspaceStore.open_readonly(place) as store:
        # single predictions, in the direction that is asked for
        assert store.top_predictions(1, ascending=False)["val_score"][0] == 0.999
        # the mean of the scores that there are, of running pipelines as well
        assert store.query_top_chains("accuracy", 1)["chain_id"].to_list() == [chains["half done"]]
        assert store.query_top_aggregated_predictions("accuracy", 1).height == 1
    for method in ("top_predictions", "query_top_chains", "query_top_aggregated_predictions"):
        assert "leaderboard" in str(getattr(WorkspaceStore, method).__doc__), method
