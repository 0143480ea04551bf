"""What calls have done shows itself in a notebook: a sentence, a short table, and what is wrong in red."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import NEW, unpacked
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.integrations.workspaces import convert
from n4a_fast.report import cells
from n4a_fast.values import notebook

X = np.random.default_rng(0).normal(size=(12, 4))


def html(report: Any) -> str:
    """Its cell, which is short and has its text."""
    shown = report._repr_html_()
    assert notebook.html_text(str(report)) in shown
    assert len(shown) < 20_000
    return str(shown)


@pytest.mark.long
def test_each_report_tells_what_was_done(store: WorkspaceStore, tmp_path: Path) -> None:
    chain = store.save_cross_validation(Ridge(), X, X.sum(axis=1), cv=2, dataset="<b>corn</b>").chain_id
    with WorkspaceStore(tmp_path / "other") as other:
        merged = other.merge(store.workspace_path)
    assert f"1 workspace: {merged.added('predictions')} predictions, all of them new" in html(merged)
    assert "<td>predictions</td>" in html(merged)
    assert "verified in" in html(store.backup(tmp_path / "backup"))
    assert "MB before" in html(store.vacuum())
    bundle = store.export_chain(chain, tmp_path / "chain.n4a")
    assert "sklearn.linear_model._ridge.Ridge" in html(inspect_bundle(bundle))
    assert "<table>" in html(inspect_bundle(bundle))
    assert "0 damaged" in html(store.verify_artifacts())
    report = html(store.verify())
    assert "is sound; looked at" in report
    assert "<table>" not in report
    assert "arrays compared" in html(convert(unpacked(NEW, tmp_path), tmp_path / "converted"))


def test_what_is_wrong_is_red_and_at_most_twenty_rows_are_shown(store: WorkspaceStore) -> None:
    for number in range(25):
        store.save_artifact(np.full(4, number), "numpy.ndarray", "model", "joblib")
    files = sorted((store.workspace_path / "artifacts").glob("??/*"))
    assert len(files) == 25
    for file in files:
        file.unlink()
    for report in (store.verify(), store.verify_artifacts()):
        assert not report
        shown = html(report)
        assert shown.count("<tr>") == 1 + notebook.ROWS
        assert "and 5 more" in shown
        assert "color:" in shown


def test_texts_of_others_are_text_and_are_cut() -> None:
    shown = notebook.report_cell("done", [{"what": "<script>" + "x" * 10_000}])
    assert shown is not None
    assert "&lt;script&gt;" in shown
    assert len(shown) < 1_000


@pytest.mark.parametrize("filled", [False, True])
def test_no_cell_hides_a_fault(store: WorkspaceStore, filled: bool) -> None:
    """A cell shows the plain text instead of an error; without that there is none, whatever the workspace holds."""
    if filled:
        run = store.begin_run("<b>\x1b[31m", {}, [], expected=3)
        store.fail_pipeline(store.begin_pipeline(run, "p", {}, [], "corn", "h"), "SVD\ndid not converge")
        store.save_cross_validation(Ridge(), X, X.sum(axis=1), cv=2, run=run)
        arrays = store.load_arrays()
        assert "mean" in notebook.arrays_cell.__wrapped__(arrays)  # type: ignore[attr-defined]
        assert "3" in cells.run_cell.__wrapped__(store.progress())  # type: ignore[attr-defined]
    assert "<p>" in cells.leaderboard_cell.__wrapped__(store.leaderboard())  # type: ignore[attr-defined]
    shown = WorkspaceStore._repr_html_.__wrapped__(store)  # type: ignore[attr-defined]
    assert ("1 run," in shown, "empty" in shown) == (filled, not filled)
