"""What a thread of a worker does with a store: each public writing call, in random order, with names of its own."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import PREDICTION, begin_pipeline, save_chain
from ledger import GaveUp, Ledger

from n4a_fast import WorkspaceStore

SAMPLES = 5
BULK_ROWS = 12


class Boom(Exception):
    """The user's own error."""


def values(name: str, version: int) -> np.ndarray[Any, Any]:
    """The predicted values of a prediction: they tell whose they are, and which."""
    return np.arange(SAMPLES) + zlib.crc32(name.encode()) % 10_000 + version / 8.0


class Hands:
    """One thread's work on one store."""

    def __init__(self, store: WorkspaceStore, ledger: Ledger, dice: random.Random) -> None:
        self.store, self.ledger, self.dice = store, ledger, dice
        self.runs: list[tuple[str, str]] = []  # name, id
        self.predictions: list[tuple[str, str]] = []  # of completed pipelines
        self.projects: list[tuple[str, str]] = []
        self.inside = False  # a transaction

    def work(self, steps: int) -> None:
        """So many actions; one that is refused is given up, and the next begins."""
        actions: dict[Callable[[], None], int] = {
            self.pipeline: 10,
            self.bulk: 4,
            self.failing: 4,
            self.transaction: 4,
            self.delete_run: 2,
            self.delete_prediction: 3,
            self.save_again: 4,
            self.project: 2,
            self.collect: 2,
            self.look: 3,
            self.shard: 1,
            self.flush: 2,
            self.end_run: 2,
            self.vacuum: 1,
        }
        for _ in range(steps):
            action = self.dice.choices(list(actions), list(actions.values()))[0]
            with contextlib.suppress(GaveUp):
                action()

    # -- pieces ------------------------------------------------------------------------------

    def run(self) -> tuple[str, str]:
        """A run of this thread, often one that is there."""
        if self.runs and self.dice.random() < 0.7:
            return self.dice.choice(self.runs)
        name = self.ledger.name()
        begun = name, self.ledger.call("run", lambda: self.store.begin_run(name, {}, [{"name": "corn"}]), name=name)
        if not self.inside:
            self.runs.append(begun)
        return begun

    def filled(self, predictions: int) -> tuple[str, str, list[tuple[str, str]]]:
        """Name and id of a new pipeline with a chain, artifacts, predictions and logs; names and ids of these."""
        run, run_id = self.run()
        name = self.ledger.name()
        pipeline = self.ledger.call("pipeline", lambda: begin_pipeline(self.store, run_id, name), name=name, run=run)
        artifacts = [self.artifact() for _ in range(self.dice.randint(0, 2))]
        chain_name = self.ledger.name()
        chain = self.ledger.call(
            "chain",
            lambda: save_chain(
                self.store,
                pipeline,
                preprocessings=chain_name,
                fold_artifacts={f"fold_{fold}": artifact for fold, (_, artifact) in enumerate(artifacts)},
            ),
            name=chain_name,
            pipeline=name,
            artifacts=[content for content, _ in artifacts],
        )
        saved = [self.prediction(name, pipeline, chain) for _ in range(predictions)]
        log = self.ledger.name()
        self.ledger.call(
            "log", lambda: self.store.log_step(pipeline, 1, "SNV", "end", message=log), name=log, pipeline=name
        )
        return name, pipeline, saved

    def artifact(self) -> tuple[str, str]:
        """Content and id; now and then a content that others save, too."""
        content = self.dice.choice(["shared", "common"]) if self.dice.random() < 0.3 else self.ledger.name()
        key = dict.fromkeys(("chain_path_hash", "input_data_hash", "dataset_hash"), content)
        described = ("dict", "model", self.dice.choice(["joblib", "cloudpickle"]))
        if self.dice.random() < 0.3:
            save = lambda: self.store.save_artifact_with_cache_key({"content": content}, *described, **key)  # noqa: E731
        else:
            save = lambda: self.store.save_artifact({"content": content}, *described)  # noqa: E731
        return content, self.ledger.call("artifact", save, name=content)

    def prediction(self, pipeline: str, pipeline_id: str, chain: str) -> tuple[str, str]:
        name = self.ledger.name()
        fields = {**PREDICTION, "model_name": name, "val_score": 0.0}
        saved = (
            name,
            self.ledger.call(
                "prediction",
                lambda: self.store.save_prediction(pipeline_id, chain, **fields),
                name=name,
                pipeline=pipeline,
                version=0,
            ),
        )
        self.arrays(*saved, pipeline, 0)
        return saved

    def arrays(self, name: str, prediction: str, pipeline: str, version: int) -> None:
        self.ledger.call(
            "arrays",
            lambda: self.store.save_prediction_arrays(prediction, np.arange(SAMPLES) * 1.0, values(name, version)),
            name=name,
            pipeline=pipeline,
            version=version,
        )

    def complete(self, name: str, pipeline: str) -> None:
        self.ledger.call(
            "complete",
            lambda: self.store.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5),
            durable=not self.inside,
            pipeline=name,
        )

    # -- actions -----------------------------------------------------------------------------

    def pipeline(self) -> None:
        name, pipeline, saved = self.filled(self.dice.choice([1, 3, 3, 8]))
        if self.dice.random() < 0.9:
            self.complete(name, pipeline)
            self.predictions += [] if self.inside else saved

    def bulk(self) -> None:
        name, pipeline, _ = self.filled(0)
        names = [self.ledger.name() for _ in range(BULK_ROWS)]
        columns = {**PREDICTION, "pipeline_id": pipeline, "model_name": names, "val_score": 0.0}
        matrix = np.stack([values(each, 0) for each in names])
        self.ledger.call(
            "bulk",
            lambda: self.store.save_predictions(columns, y_true=np.arange(SAMPLES) * 1.0, y_pred=matrix),
            durable=not self.inside,
            names=names,
            pipeline=name,
        )
        if self.dice.random() < 0.5:
            self.complete(name, pipeline)

    def failing(self) -> None:
        name, pipeline, _ = self.filled(2)
        if self.dice.random() < 0.5:
            self.flush()
        self.ledger.call(
            "fail", lambda: self.store.fail_pipeline(pipeline, "boom"), durable=not self.inside, pipeline=name
        )

    def transaction(self) -> None:
        """A block of pipelines, sometimes in a block, that ends well or is left by an exception."""
        if self.inside:
            return
        ends_well = self.dice.random() < 0.6
        nested = self.dice.random() < 0.3

        def block() -> None:
            with self.store.transaction():
                self.inside = True
                try:
                    name, pipeline, _ = self.filled(2)
                    if nested:
                        with self.store.transaction():
                            self.flush()
                    self.complete(name, pipeline)
                    if self.dice.random() < 0.2:
                        self.pipeline()
                    if not ends_well:
                        self.ledger.say("rolling back")
                        raise Boom
                finally:
                    self.inside = False

        with contextlib.suppress(Boom):
            self.ledger.call("transaction", lambda: _unless_boom(block), durable=ends_well, ends_well=ends_well)

    def delete_run(self) -> None:
        if len(self.runs) < 2 or self.inside:
            return
        name, run = self.runs.pop(self.dice.randrange(len(self.runs)))
        self.predictions = []
        self.ledger.call("delete run", lambda: self.store.delete_run(run), durable=True, name=name)

    def delete_prediction(self) -> None:
        if self.predictions:
            name, prediction = self.predictions.pop(self.dice.randrange(len(self.predictions)))
            self.ledger.call(
                "delete prediction",
                lambda: self.store.delete_prediction(prediction),
                durable=not self.inside,
                name=name,
            )

    def save_again(self) -> None:
        if not self.predictions:
            return
        name, prediction = self.dice.choice(self.predictions)
        self.arrays(name, prediction, "", self.dice.randint(1, 10_000))

    def project(self) -> None:
        name = self.ledger.name()
        project = self.ledger.call("project", lambda: self.store.create_project(name), name=name)
        if self.runs:
            run, run_id = self.dice.choice(self.runs)
            self.ledger.call("of project", lambda: self.store.set_run_project(run_id, project), run=run, project=name)

    def collect(self) -> None:
        self.ledger.call("collect", self.store.gc_artifacts)

    def vacuum(self) -> None:
        self.ledger.call("vacuum", self.store.vacuum)

    def flush(self) -> None:
        self.ledger.call("flush", self.store.flush, durable=not self.inside)

    def end_run(self) -> None:
        if self.runs:
            name, run = self.dice.choice(self.runs)
            if self.dice.random() < 0.5:
                self.ledger.call("end run", lambda: self.store.complete_run(run, {}), durable=True, name=name)
            else:
                self.ledger.call("end run", lambda: self.store.fail_run(run, "boom"), durable=True, name=name)

    def look(self) -> None:
        """What this thread has saved is seen by its reads."""
        if self.predictions:
            name, prediction = self.dice.choice(self.predictions)
            found = self.ledger.call("look", lambda: self.store.get_prediction(prediction, load_arrays=True))
            if found is None or found["model_name"] != name:
                self.ledger.say("wrong", what=f"prediction {name} reads as {found!r}")
        self.ledger.call("look", lambda: self.store.top_predictions(5))

    def shard(self) -> None:
        """A workspace beside this one, filled and merged."""
        if self.inside:
            return
        name, run_id = self.run()
        self.flush()
        shard = self.ledger.call("look", lambda: self.store.shard(run_id=run_id))
        names = [self.ledger.name() for _ in range(2)]

        def fill() -> None:
            with shard.open() as private:
                for each in names:
                    pipeline = begin_pipeline(private, run_id, each)
                    private.complete_pipeline(pipeline, 0.1, 0.2, "rmse", 5)

        self.ledger.call("look", fill)
        self.ledger.call("merge", lambda: self.store.merge(shard.path), durable=True, names=names, run=name)


def _unless_boom(block: Callable[[], None]) -> None:
    """A block that the user's own error left has done what it should."""
    with contextlib.suppress(Boom):
        block()
