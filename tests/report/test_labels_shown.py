"""Targets that are labels are labels wherever they are shown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import begin_pipeline, predict, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError
from n4a_fast.report import figures
from n4a_fast.report.held_out import held_out

TRUE = [["Perú", "Congo", "Perú"], ["Java", "Congo", "Java"]]  # by fold; each fold's classes are its own
PRED = [["Perú", "Perú", "Perú"], ["Java", "Congo", "Congo"]]
SHARES = {("Congo", "Congo"): 0.5, ("Congo", "Perú"): 0.5, ("Perú", "Perú"): 1.0, ("Java", "Congo"): 0.5}


@pytest.fixture
def labelled(store: WorkspaceStore) -> tuple[WorkspaceStore, str]:
    """A store with a chain whose folds have labels of their own; its task is called as users forget to change it."""
    pipeline = begin_pipeline(store, store.begin_run("r", {}, [{"name": "corn"}]))
    chain = save_chain(store, pipeline)
    for fold in range(2):
        saved = predict(store, pipeline, chain, fold_id=str(fold), metric="accuracy")
        store.save_prediction_arrays(saved, np.array(TRUE[fold]), np.array(PRED[fold]))
    store.complete_pipeline(pipeline, 0.5, 0.5, "accuracy", 2)
    return store, chain


def of_classes(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(row["actual"], row["called"]): row["share"] for row in rows if row["n"]}


def test_folds_with_other_classes_are_counted_by_name(labelled: tuple[WorkspaceStore, str]) -> None:
    store, chain = labelled
    rows = store.plot("confusion", chain).rows
    assert of_classes(rows) == {**SHARES, ("Java", "Java"): 0.5}
    assert [row["actual"] for row in rows[::3]] == ["Congo", "Perú", "Java"]  # as the folds name them, one by one
    assert sum(row["n"] for row in rows) == 6
    for kind in ("scatter", "residuals"):
        with pytest.raises(NotFoundError, match="draw their confusion"):
            store.plot(kind, chain)


@pytest.mark.long
def test_reports_pages_and_cells_show_them(labelled: tuple[WorkspaceStore, str], tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from n4a_fast.report.live import Look
    from n4a_fast.report.sections import chain_sections

    store, chain = labelled
    shown = [
        store.report(tmp_path / "r.html").path.read_text(encoding="utf-8"),
        asyncio.run(Look(store).seen()).content,
        chain_sections(store, chain, True),
    ]
    for page in shown:
        assert "Confusion matrix" in page
        assert "<td>Perú</td>" in page
        assert "Predicted against measured" not in page
    cell = store.load_arrays(chain_id=chain, labels=True)._repr_html_()
    assert cell is not None
    assert "Perú 2, Congo 1" in cell


def test_of_more_classes_than_there_is_room_for_the_frequent_ones_stay_and_shares_are_of_all() -> None:
    names = [f"class {number:02}" for number in range(30)]
    measured = np.array([*names, names[3], names[3], *names[10:]], dtype=object)
    rows = figures.confusion_rows(measured, np.full(len(measured), names[3], dtype=object), names)
    assert len(rows) == figures.CLASSES**2
    assert list(dict.fromkeys(row["actual"] for row in rows)) == sorted([names[3], *names[10:29]])
    assert all(row["share"] == (row["called"] == names[3]) for row in rows)


def test_numbers_are_named_by_their_data_set_only_if_all_are_places_of_its_classes(store: WorkspaceStore) -> None:
    run = store.begin_run("r", {}, [{"name": "corn", "classes": ["low", "high"]}])
    for values, names in (([0.0, 1.0, 1.0], ["low", "high"]), ([1.0, 2.0, 2.0], ["1", "2"])):
        chain = save_chain(store, pipeline := begin_pipeline(store, run))
        saved = predict(store, pipeline, chain, task_type="classification")
        store.save_prediction_arrays(saved, np.array(values), np.array(values))
        assert of_classes(store.plot("confusion", chain).rows) == {(name, name): 1.0 for name in names}


def test_missing_labels_are_left_out_and_numbers_beside_labels_are_their_text(
    labelled: tuple[WorkspaceStore, str],
) -> None:
    store, chain = labelled
    found = held_out(store, chain)
    assert (found.are_labels, found.classes) == (True, ("Congo", "Perú", "Java"))
    ids = store.query_predictions(fold_id="0")["prediction_id"].to_list()
    store.save_prediction_arrays(ids[0], ["Perú", None], ["Perú", "Perú"])
    assert held_out(store, chain).measured.tolist() == ["Perú", *TRUE[1]]
    store.save_prediction_arrays(ids[0], [2.0, np.nan], [2.0, 2.0])
    assert held_out(store, chain).predicted.tolist() == ["2", *PRED[1]]
