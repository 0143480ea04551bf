"""Chains keep their steps and references; logs keep their order."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from helpers import Sweep, begin_pipeline, begin_sweep, count, counts, predict_with_arrays, save_chain

from n4a_fast import WorkspaceStore
from n4a_fast.errors import InvalidInputError

STEPS = [
    {"step_idx": 1, "operator_class": "SNV", "params": {}, "artifact_id": "a1", "stateless": False},
    {
        "step_idx": 2,
        "operator_class": "PLSRegression",
        "params": {"n_components": np.int64(3)},
        "artifact_id": None,
        "stateless": False,
    },
]


def test_a_chain_comes_back_as_python_values(store: WorkspaceStore, sweep: Sweep) -> None:
    chain = store.save_chain(
        sweep.pipeline,
        STEPS,
        np.int64(2),
        "sk.PLS",
        "SNV>MinMax",
        "per_fold",
        {0: "m0", "fold_1": "m1"},
        {1: ["a1", "a2"], "_source_map": {"1": {"0": "a3"}}},
        [0, np.int64(2)],
        1,
    )
    found = store.get_chain(chain)
    assert found is not None
    assert isinstance(found.pop("created_at"), datetime)
    assert found == {
        "chain_id": chain,
        "pipeline_id": sweep.pipeline,
        "steps": [STEPS[0], {**STEPS[1], "params": {"n_components": 3}}],
        "model_step_idx": 2,
        "model_class": "sk.PLS",
        "preprocessings": "SNV>MinMax",
        "fold_strategy": "per_fold",
        "fold_artifacts": {"0": "m0", "fold_1": "m1"},
        "shared_artifacts": {"1": ["a1", "a2"], "_source_map": {"1": {"0": "a3"}}},
        "branch_path": [0, 2],
        "source_index": 1,
        "input": None,
    }


def test_every_artifact_that_a_chain_names_is_kept_by_it(store: WorkspaceStore, sweep: Sweep) -> None:
    save_chain(
        store,
        sweep.pipeline,
        steps=[{"artifact_id": "s1"}, {"artifact_ids": ["s2", "s3"]}, {"artifact_id": None}],
        fold_artifacts={"0": "f1", "avg": "f1"},
        shared_artifacts={"1": "h1", "2": ["h2", None], "_source_map": {"1": {"0": ["m1"]}}, "_note": "text"},
    )
    assert sorted(store.sql("SELECT artifact_id FROM chain_artifacts")["artifact_id"]) == [
        "f1",
        "h1",
        "h2",
        "m1",
        "s1",
        "s2",
        "s3",
    ]


def test_chains_of_a_pipeline_come_oldest_first(store: WorkspaceStore, sweep: Sweep) -> None:
    more = [save_chain(store, sweep.pipeline) for _ in range(3)]
    save_chain(store, begin_pipeline(store, sweep.run))
    frame = store.get_chains_for_pipeline(sweep.pipeline)
    assert frame["chain_id"].to_list() == [sweep.chain, *more]
    assert frame.schema == store.get_chains_for_pipeline("unknown").schema
    assert frame.schema["branch_path"] == pl.String


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": "SNV"}, "steps"),
        ({"steps": ["SNV"]}, "steps"),
        ({"steps": {"1": "SNV"}}, "steps"),
        ({"steps": [{"a": object()}]}, "steps"),
        ({"model_step_idx": None}, "model_step_idx"),
        ({"model_step_idx": 1.5}, "model_step_idx"),
        ({"model_class": None}, "model_class"),
        ({"preprocessings": None}, "preprocessings"),
        ({"fold_strategy": 5}, "fold_strategy"),
        ({"fold_artifacts": ["a"]}, "fold_artifacts"),
        ({"shared_artifacts": "a"}, "shared_artifacts"),
        ({"branch_path": object()}, "branch_path"),
        ({"source_index": "left"}, "source_index"),
    ],
)
def test_a_wrong_chain_is_refused_by_name(
    store: WorkspaceStore, sweep: Sweep, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        save_chain(store, sweep.pipeline, **changes)
    assert count(store, "chains") == 1


# -- logs ------------------------------------------------------------------------------------


def test_entries_come_by_step_and_then_in_the_order_they_were_written(store: WorkspaceStore, sweep: Sweep) -> None:
    for number in range(20):
        store.log_step(sweep.pipeline, 2 - number % 2, "SNV", f"event-{number}")
    found = store.get_pipeline_log(sweep.pipeline)["event"].to_list()
    assert found == [f"event-{number}" for number in (*range(1, 20, 2), *range(0, 20, 2))]


def test_an_entry_keeps_all_it_was_given(store: WorkspaceStore, sweep: Sweep) -> None:
    store.log_step(sweep.pipeline, 1, "SNV", "end", np.int64(12), "done", {"n": np.float64(0.5)}, "warning")
    store.log_step(sweep.pipeline, 2, "PLS", "start")
    frame = store.get_pipeline_log(sweep.pipeline)
    columns = ("step_idx", "operator_class", "event", "duration_ms", "message", "details", "level")
    assert frame.select(columns).rows() == [
        (1, "SNV", "end", 12, "done", '{"n":0.5}', "warning"),
        (2, "PLS", "start", None, None, None, "info"),
    ]
    assert store.get_pipeline_log("unknown").schema == frame.schema


def test_a_run_sums_up_its_pipelines(store: WorkspaceStore, sweep: Sweep) -> None:
    other = begin_pipeline(store, sweep.run, "0002_silent")
    for event, duration, level in (
        ("start", 99, "info"),
        ("end", 5, "warning"),
        ("end", 7, "error"),
        ("end", None, "error"),
    ):
        store.log_step(sweep.pipeline, 1, "SNV", event, duration, level=level)
    frame = store.get_run_log_summary(sweep.run)
    columns = ("pipeline_id", "pipeline_name", "log_count", "total_duration_ms", "warning_count", "error_count")
    assert frame.select(columns).rows() == [
        (sweep.pipeline, "0001_pls", 4, 12, 1, 2),
        (other, "0002_silent", 0, 0, 0, 0),
    ]
    assert store.get_run_log_summary("unknown").schema == frame.schema


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step_idx": "one"}, "step_idx"),
        ({"step_idx": 2**40}, "step_idx"),
        ({"event": None}, "event"),
        ({"operator_class": 5}, "operator_class"),
        ({"duration_ms": 0.5}, "duration_ms"),
        ({"message": 5}, "message"),
        ({"details": {"a": object()}}, "details"),
        ({"level": "loud"}, "level"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(
    store: WorkspaceStore, sweep: Sweep, changes: dict[str, Any], named: str
) -> None:
    given = {"step_idx": 1, "operator_class": "SNV", "event": "start", **changes}
    with pytest.raises(InvalidInputError, match=named):
        store.log_step(sweep.pipeline, **given)
    assert count(store, "logs") == 0


def test_folds_whose_keys_become_one_are_refused(store: WorkspaceStore, sweep: Sweep) -> None:
    with pytest.raises(InvalidInputError, match="fold_artifacts .*two of its keys are '0'"):
        save_chain(store, sweep.pipeline, fold_artifacts={0: "a", "0": "b"})


@pytest.mark.parametrize("made", ["now", "1980-01-01", "9000-01-01"])
def test_a_row_is_found_by_its_id_whenever_it_says_it_was_made(store: WorkspaceStore, sweep: Sweep, made: str) -> None:
    """Imports and conversions keep the times of their source."""
    given = ["a chain", "00000000-0000-7000-8000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"]
    store.flush()
    database = store._open().database
    assert database.rows("SELECT count(*) FROM chains") == [(1,)]
    with database.transaction():
        for chain in given:
            database.execute("INSERT INTO chains SELECT * REPLACE (? AS chain_id) FROM chains LIMIT 1", (chain,))
        for table in ("chains", "pipelines") if made != "now" else ():
            assert database.execute(f"UPDATE {table} SET created_at = CAST(? AS TIMESTAMP)", (made,)) > 0
    for chain in [sweep.chain, *given]:
        assert store.get_chain(chain)["chain_id"] == chain  # type: ignore[index]
    assert store.get_pipeline(sweep.pipeline)["pipeline_id"] == sweep.pipeline  # type: ignore[index]
    for unknown in ("another", given[1][:-1] + "1", given[2][:-1] + "e", "", "01890000-0000-7000-8000-000000000000"):
        assert store.get_chain(unknown) is None


def test_what_is_written_once_more_is_there_once(tmp_path: Path) -> None:
    """As after a commit that took, and whose end could not be told."""
    with WorkspaceStore(tmp_path) as store:
        sweep = begin_sweep(store)
        model = store.save_artifact({"n": 1}, "dict", "model", "joblib")
        chain = store.save_chain(sweep.pipeline, [], 0, "PLS", "", "per_fold", {"fold_0": model}, {})
        predict_with_arrays(store, sweep._replace(chain=chain))
        store.log_step(sweep.pipeline, 1, "SNV", "start")
        database = store._open().database
        record = database.tables.fresh()
        tables = ("chains", "chain_artifacts", "predictions", "prediction_values", "logs", "pipelines", "runs")
        before = counts(store, *tables)
        assert before["chain_artifacts"] == 1
        with database.lock:
            database.tables.replay([record])
            database.drain()
        assert counts(store, *tables) == before
        assert not store.verify().findings
