"""Inside nirs4all 1.x, what is asked before a refit is answered from memory as the tables would answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import begin_pipeline, child, examples, finish, predict, save_chain
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

OF_RUN = "SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ? ORDER BY rowid ASC"
OF_DATASET = "SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ? AND dataset_name = ? ORDER BY rowid ASC"
PREDICTIONS = "SELECT * FROM predictions WHERE {} ORDER BY created_at DESC"
FILTERS = {"partition": ("train", "val", "test"), "fold_id": ("0", "avg"), "model_name": ("PLS", "other")}
ADDS = """
import sys
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
with Store1x(sys.argv[1]) as store:
    store.begin_pipeline(sys.argv[2], "added elsewhere", {}, [], "corn", "")
"""


def questions(run: str, pipelines: list[str], filters: dict[str, str]) -> list[tuple[str, list[str]]]:
    found = [(OF_RUN, [run]), (OF_DATASET, [run, "corn"]), (OF_DATASET, [run, "none"])]
    for pipeline in pipelines:
        asked = {"pipeline_id": pipeline, **filters}
        found.append((PREDICTIONS.format(" AND ".join(f"{name} = ?" for name in asked)), [*asked.values()]))
    return found


def swept(store: Store1x, seed: int) -> tuple[str, list[str]]:
    """A run with pipelines in any state, and predictions with any values, some of which replace others."""
    random = np.random.default_rng(seed)
    run = store.begin_run("sweep", {}, [{"name": "corn"}])
    pipelines = []
    for number in range(int(random.integers(1, 5))):
        dataset = str(random.choice(["corn", "wheat"]))
        pipelines.append(pipeline := begin_pipeline(store, run, f"pipeline {number}", dataset))
        chain = save_chain(store, pipeline)
        for _ in range(int(random.integers(0, 9))):
            chosen = {name: str(random.choice(values)) for name, values in FILTERS.items()}
            scores: dict[str, Any] = {
                "val_score": random.choice([0.5, np.nan, np.inf]),
                "scores": {},
                "best_params": None,
            }
            more = {"branch_id": int(random.integers(3)), "branch_name": None, "refit_context": "standalone"}
            given = chosen | {name: value for name, value in (scores | more).items() if random.random() < 0.5}
            predict(store, pipeline, chain, **given)
        if (end := random.random()) < 0.7:
            store.complete_pipeline(pipeline, 0.1, np.nan, "rmse", 1)
        elif end < 0.8:
            store.fail_pipeline(pipeline, "it failed")
    return run, pipelines


@pytest.mark.parametrize("flushed", [False, True])
@given(
    seed=st.integers(0, 2**20),
    filters=st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in FILTERS.items()}),
)
@settings(max_examples=examples(60), deadline=None)
def test_memory_answers_as_the_tables_do(
    tmp_path_factory: pytest.TempPathFactory, flushed: bool, seed: int, filters: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("w")
    with Store1x(folder) as store:
        run, pipelines = swept(store, seed)
        if flushed:
            store.flush()
        asked, workspace = questions(run, pipelines, filters), store._open()
        with workspace.lock:  # the background drains nothing meanwhile
            assume(workspace.runs.get(run) is not None)  # nor has it before, on a slow machine
            from_memory = [store._fetch_pl(*question) for question in asked]
            assert workspace.database.has_own
        store.query_predictions()
        assert not store._open().database.has_own
        for found, question in zip(from_memory, asked, strict=True):
            assert_frame_equal(found, store._fetch_pl(*question))
    shutil.rmtree(folder)


def test_a_run_that_is_partly_in_the_tables_is_asked_there(tmp_path: Path) -> None:
    with Store1x(tmp_path) as store:
        run, pipelines = swept(store, 3)
        store.query_predictions()
        pipelines.append(begin_pipeline(store, run, "another"))
        predict(store, pipelines[-1], save_chain(store, pipelines[-1]))
        assert store._fetch_pl(OF_RUN, [run])["pipeline_id"].to_list() == pipelines
        (query, given) = questions(run, pipelines[-1:], {})[-1]
        assert store._fetch_pl(query, given).height == 1


def test_what_a_block_has_saved_is_in_the_answer_inside_it_and_not_after_it_raised(tmp_path: Path) -> None:
    with Store1x(tmp_path) as store:
        run, pipelines = swept(store, 3)
        with pytest.raises(ValueError, match="stop"), store.transaction():
            added = begin_pipeline(store, run, "another")
            assert store._fetch_pl(OF_RUN, [run])["pipeline_id"].to_list() == [*pipelines, added]
            raise ValueError("stop")
        assert store._fetch_pl(OF_RUN, [run])["pipeline_id"].to_list() == pipelines


def test_what_another_process_adds_to_the_run_is_in_the_answer(tmp_path: Path) -> None:
    with Store1x(tmp_path) as store:
        run, pipelines = swept(store, 3)
        store.flush()
        finish(child(ADDS, tmp_path, run))
        assert store._fetch_pl(OF_RUN, [run])["name"].to_list()[-1] == "added elsewhere"
        assert store._fetch_pl(OF_RUN, [run]).height == len(pipelines) + 1


def test_places_in_relations_are_told_from_memory_too(tmp_path: Path) -> None:
    with Store1x(tmp_path) as store:
        run = store.begin_run("sweep", {}, [])
        pipeline = begin_pipeline(store, run)
        predict(store, pipeline, save_chain(store, pipeline), prediction_level="sample")
        found = store._fetch_pl(PREDICTIONS.format("pipeline_id = ?"), [pipeline])
        assert found["prediction_level"].to_list() == ["sample"]
        assert isinstance(found, pl.DataFrame)
