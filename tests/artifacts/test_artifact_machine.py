"""Saves, chains, deletions, collections and reopenings in any order, against a model of what must be there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import begin_pipeline, examples, save_chain
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule

from n4a_fast import WorkspaceStore

pytestmark = pytest.mark.long

CONTENTS = st.integers(0, 5)


class ArtifactMachine(RuleBasedStateMachine):
    """The model: contents by id, ids by chain of each run, and the ids that this session holds."""

    pipelines = Bundle("pipelines")  # run and pipeline, still open
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = WorkspaceStore(self.folder)
        self.contents: dict[str, int] = {}  # of every artifact ever saved
        self.chains: dict[str, list[set[str]]] = {}  # by run
        self.held: set[str] = set()
        self.open: set[str] = set()  # pipelines
        self.owner: dict[str, str] = {}  # pipeline -> run

    @initialize(target=runs)
    def first_run(self) -> str:
        return self.begin_run()

    @rule(target=runs)
    def begin_run(self) -> str:
        run = self.store.begin_run("r", {}, [])
        self.chains[run] = []
        return run

    @rule(target=pipelines, run=runs)
    def begin(self, run: str) -> Any:
        if run not in self.chains:
            return multiple()
        pipeline = begin_pipeline(self.store, run)
        self.open.add(pipeline)
        self.owner[pipeline] = run
        return pipeline

    @rule(content=CONTENTS)
    def save(self, content: int) -> None:
        artifact_id = self.store.save_artifact(["content", content], "list", "model", "joblib")
        assert self.contents.get(artifact_id, content) == content
        self.contents[artifact_id] = content
        self.held.add(artifact_id)

    @rule(pipeline=pipelines, data=st.data())
    def use(self, pipeline: str, data: st.DataObject) -> None:
        if pipeline not in self.open or not self.held:
            return
        ids = data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, max_size=3))
        save_chain(self.store, pipeline, fold_artifacts={f"fold_{fold}": name for fold, name in enumerate(ids)})
        self.chains[self.owner[pipeline]].append(set(ids))

    @rule(pipeline=consumes(pipelines))
    def complete(self, pipeline: str) -> None:
        if pipeline in self.open:
            self.store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
            self._end(pipeline)

    @rule(run=runs, collect=st.booleans())
    def delete(self, run: str, collect: bool) -> None:
        if run not in self.chains:
            return
        self.store.delete_run(run, delete_artifacts=collect)
        del self.chains[run]
        self.open -= {pipeline for pipeline, owner in self.owner.items() if owner == run}
        if not self.open:
            self.held.clear()  # they end with the pipelines, deleted ones at the latest with the next

    @rule()
    def collect(self) -> None:
        self.store.gc_artifacts()

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def reopen(self) -> None:
        for pipeline in sorted(self.open):
            self.store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)
        self.store.close()
        self.open, self.held = set(), set()
        self.store = WorkspaceStore(self.folder)

    @rule()
    def look(self) -> None:
        """Not after every step: a look writes what is in memory."""
        for name in self._used() | self.held:
            assert self.store.load_artifact(name) == ["content", self.contents[name]]
        counted = dict(self.store.sql("SELECT artifact_id, ref_count FROM artifacts").iter_rows())
        for name in self._used():
            users = sum(name in chain for chains in self.chains.values() for chain in chains)
            assert users <= counted[name] <= users + 1  # one more while the session holds it
        assert set(counted) <= set(self.contents)
        rows = set(self.store.sql("SELECT artifact_path FROM artifacts")["artifact_path"])
        assert {
            path.relative_to(self.folder / "artifacts").as_posix() for path in (self.folder / "artifacts").glob("??/*")
        } == rows

    def teardown(self) -> None:
        self.look()
        assert self.store.verify_artifacts()
        self.store.close()
        with WorkspaceStore(self.folder) as store:
            store.gc_artifacts()
            left = set(store.sql("SELECT artifact_id FROM artifacts")["artifact_id"])
        assert left == self._used()
        shutil.rmtree(self.folder)

    def _used(self) -> set[str]:
        return {name for chains in self.chains.values() for chain in chains for name in chain}

    def _end(self, pipeline: str) -> None:
        self.open.discard(pipeline)
        if not self.open:
            self.held.clear()


TestArtifactMachine = ArtifactMachine.TestCase
TestArtifactMachine.settings = settings(
    max_examples=examples(12), stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
