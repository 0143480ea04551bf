"""Any order of calls by several handles, threads and processes leaves what a plain model says.

The model is a dict of what is saved, and a copy of it that is durable. A transaction keeps a copy to go back to; a
killed process leaves its durable copy, or that and more of what it saved, call by call in order.
`N4A_MACHINE_STEPS` gives the number of steps in all; the short form is for every run of the tests.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers import PREDICTION, begin_pipeline, child, read_line, save_chain
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from n4a_fast import WorkspaceStore
from n4a_fast.errors import NotFoundError
from n4a_fast.maintenance.verify_indexes import wrong_indexes

STEPS_OF_AN_EXAMPLE = 30
STEPS = int(os.environ.get("N4A_MACHINE_STEPS", "150"))
HANDLES = st.integers(0, 1)
PLACES = st.integers(0, 2)
FOLDS = st.sampled_from(["0", "1", "avg"])


@dataclass
class Pipeline:
    """What is stored of a pipeline: status, artifacts of its chain, predictions by fold, logs."""

    run: str
    chain: str = ""
    artifact: str = ""
    status: str = "running"
    predictions: dict[str, tuple[float, tuple[float, ...] | None]] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)


Model = dict[str, Pipeline]

# another process: each line is a command, answered once it is done
OTHER = """
import sys
import numpy as np
from helpers import PREDICTION, begin_pipeline, predict, save_chain
from n4a_fast import WorkspaceStore
store = WorkspaceStore(sys.argv[1])
run = store.begin_run("other", {}, [])
store.flush()
for line in sys.stdin:
    command, *words = line.split()
    if command == "pipeline":
        pipeline = begin_pipeline(store, run)
        chain = save_chain(store, pipeline)
        prediction = predict(store, pipeline, chain, fold_id="0", val_score=float(words[0]))
        store.save_prediction_arrays(prediction, None, np.full(3, float(words[0])))
        if words[1] == "complete":
            store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
        print(pipeline, chain, flush=True)
    elif command == "gc":
        print(store.gc_artifacts(), flush=True)
    elif command == "delete":
        print(store.delete_run(words[0]), flush=True)
    elif command == "delete_pipeline":
        print(store.delete_pipeline(words[0]), flush=True)
    elif command == "delete_chain":
        print(store.delete_chain(words[0]), flush=True)
    elif command == "fail":
        store.fail_pipeline(words[0], "boom")
        print("failed", flush=True)
"""


class Machine(RuleBasedStateMachine):
    """Two handles on one workspace, threads that use them, another process, and the model."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="n4a_fast-"))
        self.handles = [WorkspaceStore(self.folder), WorkspaceStore(self.folder)]
        self.model: Model = {}
        self.runs: list[str] = []
        self.other: Any = None
        self.uncertain: Model = {}  # saved by the other process, and not acknowledged
        self.score = 0.0
        self.merged = 0

    def teardown(self) -> None:
        if not hasattr(self, "handles"):
            return
        if self.other is not None:
            self.end_other(kill=False)
        self.agree(0)
        for handle in self.handles:
            handle.close()
        with WorkspaceStore(self.folder) as last:
            self.handles = [last, last]
            self.agree(0)
            assert last.verify_artifacts()
        shutil.rmtree(self.folder)

    # -- pieces ------------------------------------------------------------------------------

    def new_pipeline(self, store: WorkspaceStore, model: Model, run: str, artifact: bool) -> str:
        pipeline = begin_pipeline(store, run)
        given = store.save_artifact({"of": pipeline}, "dict", "model", "joblib") if artifact else ""
        chain = save_chain(store, pipeline, fold_artifacts={"fold_0": given} if artifact else {})
        model[pipeline] = Pipeline(run, chain, given)
        return pipeline

    def save_one(self, store: WorkspaceStore, model: Model, pipeline: str, fold: str, arrays: bool) -> None:
        self.score += 1.0
        of = model[pipeline]
        fields = {**PREDICTION, "fold_id": fold, "val_score": self.score}
        prediction = store.save_prediction(pipeline, of.chain, **fields)  # type: ignore[arg-type]
        earlier = of.predictions.get(fold, (0.0, None))[1]
        given = (self.score,) * 3 if arrays else earlier
        if arrays:
            store.save_prediction_arrays(prediction, None, np.full(3, self.score))
        of.predictions[fold] = (self.score, given)

    def living(self, run: str | None = None) -> list[str]:
        """Pipelines in which something can be saved."""
        return [name for name, of in self.model.items() if of.status != "failed" and run in (None, of.run)]

    # -- rules -------------------------------------------------------------------------------

    @rule(handle=HANDLES)
    def begin_run(self, handle: int) -> None:
        self.runs.append(self.handles[handle].begin_run("r", {}, []))

    @precondition(lambda self: self.runs)
    @rule(handle=HANDLES, place=PLACES, artifact=st.booleans())
    def pipeline(self, handle: int, place: int, artifact: bool) -> None:
        run = self.runs[place % len(self.runs)]
        self.new_pipeline(self.handles[handle], self.model, run, artifact)

    @precondition(lambda self: self.living())
    @rule(handle=HANDLES, place=PLACES, fold=FOLDS, arrays=st.booleans())
    def save(self, handle: int, place: int, fold: str, arrays: bool) -> None:
        there = self.living()
        self.save_one(self.handles[handle], self.model, there[place % len(there)], fold, arrays)

    @precondition(lambda self: self.living())
    @rule(handle=HANDLES, place=PLACES, folds=st.lists(FOLDS, min_size=1, max_size=3, unique=True))
    def save_in_bulk(self, handle: int, place: int, folds: list[str]) -> None:
        there = self.living()
        pipeline = there[place % len(there)]
        self.score += 1.0
        columns = {**PREDICTION, "pipeline_id": pipeline, "chain_id": self.model[pipeline].chain}
        columns |= {"fold_id": folds, "val_score": self.score}
        self.handles[handle].save_predictions(columns, y_pred=np.full((len(folds), 3), self.score))
        for fold in folds:
            self.model[pipeline].predictions[fold] = (self.score, (self.score,) * 3)

    @precondition(lambda self: self.living())
    @rule(handle=HANDLES, place=PLACES)
    def log(self, handle: int, place: int) -> None:
        there = self.living()
        self.score += 1.0
        self.handles[handle].log_step(there[place % len(there)], 1, "SNV", "end", message=str(self.score))
        self.model[there[place % len(there)]].logs.append(str(self.score))

    @precondition(lambda self: self.living())
    @rule(handle=HANDLES, place=PLACES)
    def complete(self, handle: int, place: int) -> None:
        there = self.living()
        self.handles[handle].complete_pipeline(there[place % len(there)], 0.1, 0.2, "rmse", 5)
        self.model[there[place % len(there)]].status = "completed"

    @precondition(lambda self: self.living())
    @rule(handle=HANDLES, place=PLACES)
    def fail(self, handle: int, place: int) -> None:
        there = self.living()
        self.handles[handle].fail_pipeline(there[place % len(there)], "boom")
        self.model[there[place % len(there)]] = Pipeline(self.model[there[place % len(there)]].run, status="failed")

    @precondition(lambda self: any(of.predictions for of in self.model.values()))
    @rule(handle=HANDLES, data=st.data())
    def delete_prediction(self, handle: int, data: st.DataObject) -> None:
        where = data.draw(st.sampled_from([(name, fold) for name, of in self.model.items() for fold in of.predictions]))
        found = self.handles[handle].query_predictions(pipeline_id=where[0], fold_id=where[1])
        assert self.handles[handle].delete_prediction(found["prediction_id"][0])
        del self.model[where[0]].predictions[where[1]]

    @precondition(lambda self: self.runs)
    @rule(handle=HANDLES, place=PLACES, artifacts=st.booleans(), elsewhere=st.booleans())
    def delete_run(self, handle: int, place: int, artifacts: bool, elsewhere: bool) -> None:
        run = self.runs.pop(place % len(self.runs))
        if elsewhere and self.other is not None:
            self.handles[handle].flush()
            self.ask(f"delete {run}")
        else:
            self.handles[handle].delete_run(run, artifacts)
        for name in [name for name, of in self.model.items() if of.run == run]:
            del self.model[name]

    @precondition(lambda self: self.runs)
    @rule(
        handle=HANDLES,
        place=PLACES,
        ends_well=st.booleans(),
        inner=st.sampled_from(["", "flush", "read", "nested", "given up"]),
    )
    def transaction(self, handle: int, place: int, ends_well: bool, inner: str) -> None:
        store, run = self.handles[handle], self.runs[place % len(self.runs)]
        before, there = copy.deepcopy(self.model), self.living()
        try:
            with store.transaction():
                pipeline = self.new_pipeline(store, self.model, run, True)
                self.save_one(store, self.model, pipeline, "0", True)
                if there:
                    self.save_one(store, self.model, there[place % len(there)], "avg", False)
                if inner == "flush":
                    store.flush()
                elif inner == "read":
                    assert store.query_predictions(pipeline_id=pipeline).height == 1
                elif inner == "nested":
                    with store.transaction():
                        self.save_one(store, self.model, pipeline, "1", True)
                elif inner == "given up":
                    outer = copy.deepcopy(self.model)
                    with contextlib.suppress(LookupError), store.transaction():
                        self.save_one(store, self.model, pipeline, "0", True)
                        self.save_one(store, self.model, pipeline, "1", True)
                        raise LookupError
                    self.model = outer
                if not ends_well:
                    raise KeyError
        except KeyError:
            self.model = before

    @rule(handle=HANDLES)
    def flush(self, handle: int) -> None:
        self.handles[handle].flush()

    @rule(handle=HANDLES)
    def collect(self, handle: int) -> None:
        self.handles[handle].gc_artifacts()

    @rule(handle=HANDLES, both=st.booleans())
    def reopen(self, handle: int, both: bool) -> None:
        for number in {handle, 1 - handle} if both else {handle}:
            self.handles[number].close()
        for number in {handle, 1 - handle} if both else {handle}:
            self.handles[number] = WorkspaceStore(self.folder)

    @precondition(lambda self: self.runs)
    @rule(place=PLACES)
    def merge(self, place: int) -> None:
        store, run = self.handles[0], self.runs[place % len(self.runs)]
        store.flush()
        shard = store.shard(run_id=run)
        with shard.open() as private:
            pipeline = self.new_pipeline(private, self.model, run, True)
            self.save_one(private, self.model, pipeline, "0", True)
            private.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
            self.model[pipeline].status = "completed"
        store.merge(shard)
        self.merged += 1
        assert sum(table.added for table in store.merge(shard).tables) == 0

    @precondition(lambda self: self.runs)
    @rule(place=PLACES)
    def threads(self, place: int) -> None:
        """Both handles at the same time, each in a thread of its own."""
        run, models, errors = self.runs[place % len(self.runs)], ({}, {}), []

        def work(store: WorkspaceStore, model: Model, score: float) -> None:
            try:
                pipeline = begin_pipeline(store, run)
                model[pipeline] = Pipeline(run, save_chain(store, pipeline), status="completed")
                prediction = store.save_prediction(
                    pipeline, model[pipeline].chain, **{**PREDICTION, "fold_id": "0", "val_score": score}
                )  # type: ignore[arg-type]
                store.save_prediction_arrays(prediction, None, np.full(3, score))
                model[pipeline].predictions["0"] = (score, (score,) * 3)
                assert store.get_prediction(prediction) is not None
                store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)
            except BaseException as error:
                errors.append(error)

        together = [
            threading.Thread(target=work, args=(store, model, -1.0 - number))
            for number, (store, model) in enumerate(zip(self.handles, models, strict=True))
        ]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        assert errors == []
        self.model |= models[0] | models[1]

    # -- another process ---------------------------------------------------------------------

    @precondition(lambda self: self.other is None)
    @rule()
    def start_other(self) -> None:
        self.other = child(OTHER, self.folder)

    def ask(self, command: str) -> list[str]:
        self.other.stdin.write(command + "\n")
        self.other.stdin.flush()
        return read_line(self.other).split()

    @precondition(lambda self: self.other is not None)
    @rule(complete=st.booleans())
    def other_saves(self, complete: bool) -> None:
        self.score += 1.0
        pipeline, chain = self.ask(f"pipeline {self.score} {'complete' if complete else 'leave'}")
        saved = Pipeline("other", chain, predictions={"0": (self.score, (self.score,) * 3)})
        if complete:  # and what it saved before
            saved.status = "completed"
            self.model |= self.uncertain
            self.uncertain = {}
            self.model[pipeline] = saved
        else:
            self.uncertain[pipeline] = saved

    @precondition(lambda self: self.other is not None)
    @rule()
    def other_collects(self) -> None:
        self.ask("gc")
        self.model |= self.uncertain
        self.uncertain = {}

    @precondition(lambda self: self.other is not None and self.living())
    @rule(handle=HANDLES, place=PLACES, chain=st.booleans(), late=st.booleans())
    def other_deletes(self, handle: int, place: int, chain: bool, late: bool) -> None:
        """What is saved later in the deleted pipeline, or of the deleted chain, goes with it, or is refused."""
        store, there = self.handles[handle], self.living()
        name = there[place % len(there)]
        of = self.model.pop(name)
        store.flush()
        self.ask(f"delete_chain {of.chain}" if chain else f"delete_pipeline {name}")
        if late:
            with contextlib.suppress(NotFoundError):
                self.save_one(store, {name: copy.deepcopy(of)}, name, "late", True)
        if chain:
            self.model[name] = Pipeline(of.run, save_chain(store, name), status=of.status, logs=of.logs)

    @precondition(lambda self: self.other is not None)
    @rule(kill=st.booleans())
    def end_other(self, kill: bool) -> None:
        if kill:
            self.other.kill()
        _, errors = self.other.communicate()
        assert kill or self.other.returncode == 0, errors
        self.other = None
        stored = set(self.handles[0].list_pipelines()["pipeline_id"])
        there = [name in stored for name in self.uncertain]
        assert there == sorted(there, reverse=True), "a later pipeline was kept, an earlier one was not"
        assert kill or all(there)
        self.model |= {name: of for name, of in self.uncertain.items() if name in stored}
        self.uncertain = {}

    # -- what must be there ------------------------------------------------------------------

    @rule(handle=HANDLES)
    def agree(self, handle: int) -> None:
        store = self.handles[handle]
        known = self.model.keys()
        rows = store.list_pipelines()
        assert rows["pipeline_id"].n_unique() == rows.height
        status = dict(rows.select("pipeline_id", "status").rows())
        assert known <= status.keys() <= known | self.uncertain.keys()
        assert {name: status[name] for name in known} == {name: of.status for name, of in self.model.items()}
        found = store.query_predictions().select("pipeline_id", "fold_id", "val_score", "prediction_id").rows()
        assert {pipeline for pipeline, *_ in found} <= known | self.uncertain.keys()
        arrays = dict(store.sql("SELECT prediction_id, y_pred FROM prediction_arrays").rows())
        assert {
            (pipeline, fold): (score, tuple(arrays.pop(prediction)) if prediction in arrays else None)
            for pipeline, fold, score, prediction in found
            if pipeline in known
        } == {(name, fold): kept for name, of in self.model.items() for fold, kept in of.predictions.items()}
        assert len(arrays) <= len(self.uncertain)
        chains = store.sql("SELECT pipeline_id, chain_id FROM chains").rows()
        assert {(name, of.chain) for name, of in self.model.items() if of.chain} == {
            row for row in chains if row[0] in known
        }
        assert sorted((name, message) for name, of in self.model.items() for message in of.logs) == sorted(
            store.sql("SELECT pipeline_id, message FROM logs").rows()
        )
        assert wrong_indexes(store._open().database) == []
        for name, of in self.model.items():
            if of.artifact:
                assert store.load_artifact(of.artifact) == {"of": name}


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    # no shrinking: each step is work on disk, and a failing example can be read as it is
    max_examples=max(STEPS // STEPS_OF_AN_EXAMPLE, 1),
    stateful_step_count=STEPS_OF_AN_EXAMPLE,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
