"""Whatever is saved, in whatever order and with flushes anywhere, the tables are those of plain dicts.

The model below knows nothing of buffers, journals or shared content. A random workload runs
against both; after each reading step, and after reopening, the two must agree.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PREDICTION, begin_pipeline, examples, save_chain
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from n4a_fast import WorkspaceStore

PIPELINES = st.integers(0, 2)
FOLDS = st.sampled_from(["0", "avg"])
BRANCHES = st.sampled_from([None, 0])
GIVEN = st.sampled_from([None, None, "x", "y"])  # a caller's id, or None for the one that follows from the key
LENGTHS = st.sampled_from([None, 0, 2])


@dataclass
class Model:
    """Predictions by natural key, arrays by id."""

    rows: dict[tuple[int, bool, str, int | None], tuple[str, float]] = field(default_factory=dict)
    arrays: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    logs: int = 0

    def save(self, key: tuple[int, bool, str, int | None], identifier: str, score: float) -> None:
        earlier = self.rows.get(key)
        assert earlier is None or identifier == earlier[0]
        self.rows[key] = (identifier, score)

    def drop(self, keys: list[tuple[int, bool, str, int | None]]) -> None:
        for key in keys:
            self.arrays.pop(self.rows.pop(key)[0], None)


class Workload(RuleBasedStateMachine):
    """One store and its model."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="n4a_fast-"))
        self.store, self.model, self.score = WorkspaceStore(self.folder), Model(), 0.0
        self.run = self.store.begin_run("r", {}, [])
        self.pipelines = [begin_pipeline(self.store, self.run) for _ in range(3)]
        self.chains = [save_chain(self.store, pipeline) for pipeline in self.pipelines]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.agree()
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(pipeline=PIPELINES, with_chain=st.booleans(), fold=FOLDS, branch=BRANCHES, given=GIVEN)
    def save(self, pipeline: int, with_chain: bool, fold: str, branch: int | None, given: str | None) -> None:
        self.score += 1
        key = (pipeline, with_chain, fold, branch)
        wanted = None if given is None else f"{given}-{key}"
        chain = self.chains[pipeline] if with_chain else None
        identifier = self.store.save_prediction(
            self.pipelines[pipeline],
            chain,
            **{**PREDICTION, "fold_id": fold, "branch_id": branch, "val_score": self.score},
            prediction_id=wanted,
        )  # type: ignore[arg-type]
        self.model.save(key, identifier, self.score)

    @rule(pipeline=PIPELINES, fold=FOLDS, scores=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def save_in_bulk(self, pipeline: int, fold: str, scores: list[int]) -> None:
        branches = [None if value else 0 for value in scores]
        columns = {
            **PREDICTION,
            "pipeline_id": self.pipelines[pipeline],
            "fold_id": fold,
            "branch_id": branches,
            "val_score": [float(v) for v in scores],
        }
        ids = self.store.save_predictions(columns, y_pred=np.tile(np.array(scores, float)[:, None], 2))
        for identifier, branch, score in zip(ids, branches, scores, strict=True):
            self.model.save((pipeline, False, fold, branch), identifier, float(score))
            self.model.arrays[identifier] = (None, (float(score),) * 2, None, None)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data(), y_true=LENGTHS, shift=st.integers(0, 1), proba=st.booleans())
    def save_arrays(self, data: st.DataObject, y_true: int | None, shift: int, proba: bool) -> None:
        identifier = data.draw(st.sampled_from(sorted(identifier for identifier, _ in self.model.rows.values())))
        length = 2 if y_true is None else y_true
        given = (
            None if y_true is None else np.arange(float(y_true)),
            np.arange(float(length)) + shift,
            np.full((length, 2), 0.5) if proba else None,
            np.arange(length),
        )
        self.store.save_prediction_arrays(identifier, *given)
        self.model.arrays[identifier] = tuple(
            None if value is None else tuple(value.ravel().tolist()) for value in given
        )

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.rows, key=repr)))
        assert self.store.delete_prediction(self.model.rows[key][0])
        self.model.drop([key])

    @rule(pipeline=PIPELINES)
    def fail(self, pipeline: int) -> None:
        self.store.fail_pipeline(self.pipelines[pipeline], "boom")
        self.model.drop([key for key in self.model.rows if key[0] == pipeline])
        self.pipelines[pipeline] = begin_pipeline(self.store, self.run)
        self.chains[pipeline] = save_chain(self.store, self.pipelines[pipeline])

    @rule(pipeline=PIPELINES)
    def complete(self, pipeline: int) -> None:
        self.store.complete_pipeline(self.pipelines[pipeline], 0.1, 0.2, "rmse", 5)

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = WorkspaceStore(self.folder)

    @rule()
    def agree(self) -> None:
        stored = {
            (self.pipelines.index(pipeline), chain is not None, fold, branch): (identifier, score)
            for pipeline, chain, fold, branch, identifier, score in self.store.query_predictions()
            .select("pipeline_id", "chain_id", "fold_id", "branch_id", "prediction_id", "val_score")
            .rows()
        }
        assert stored == self.model.rows
        rows = self.store.sql(
            "SELECT prediction_id, y_true, y_pred, y_proba, sample_indices FROM prediction_arrays"
        ).rows()
        assert {
            identifier: tuple(None if value is None else tuple(value) for value in values)
            for identifier, *values in rows
        } == self.model.arrays
        tables = ("predictions", "prediction_values", "prediction_arrays")
        assert [self.store.sql(f"SELECT count(*) AS n FROM {table}")["n"][0] for table in tables] == [
            len(self.model.rows),
            len(self.model.arrays),
            len(self.model.arrays),
        ]
        used = {values[0] for values in self.model.arrays.values()} - {None}
        assert self.store.sql("SELECT count(*) AS n FROM shared_arrays")["n"][0] == len(used)


TestWorkload = pytest.mark.long(Workload.TestCase)
TestWorkload.settings = settings(
    # no shrinking: each step is real work on disk, and a failing workload of 25 steps can be read as it is
    max_examples=examples(8),
    stateful_step_count=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
