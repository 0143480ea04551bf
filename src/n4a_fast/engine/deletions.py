"""Deletes and collections: what goes with a run, a pipeline, a chain or predictions, in one unit of work each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from n4a_fast.artifacts.checkup import Progress
from n4a_fast.artifacts.gc import Collector
from n4a_fast.engine.unit import Collection, Units
from n4a_fast.errors import InvalidInputError
from n4a_fast.memtable.buffer import Buffer
from n4a_fast.memtable.drain import DrainedDatabase
from n4a_fast.platform.interrupts import Uninterrupted
from n4a_fast.predictions.queries import PredictionQueries
from n4a_fast.values import checks

T = TypeVar("T")


class _Rehearsed(Exception):
    """Ends a transaction that was only for looking."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


class Deleted(NamedTuple):
    """What went with predictions that were deleted, and how many of their chains have others left."""

    predictions: int = 0
    chains: int = 0
    pipelines: int = 0
    files: int = 0
    chains_left: int = 0


class Deletions:
    """What is removed from one workspace; artifacts that nothing uses any more go at the commit."""

    def __init__(
        self,
        database: DrainedDatabase,
        buffer: Buffer,
        units: Units,
        collector: Collector,
        queries: PredictionQueries,
    ) -> None:
        self._database, self._tables = database, database.tables
        self._buffer, self._units, self._collector, self._queries = buffer, units, collector, queries

    def rehearsed(self, work: Callable[[], T], dry_run: bool) -> T:
        """What `work` gives; with `dry_run` it is rolled back, so that the answer is what it would have been."""
        if not checks.flag(dry_run, "dry_run"):
            return work()
        if self._units.is_open:
            raise InvalidInputError("dry_run=True cannot be asked for inside transaction(); ask before it")
        try:
            with self._units.change():
                raise _Rehearsed(work())
        except _Rehearsed as rehearsed:
            return cast(T, rehearsed.result)

    def delete_pipeline(self, pipeline_id: str, delete_artifacts: bool) -> int:
        """Delete a pipeline and all below it in one commit; the number of rows in the documented tables."""
        with self._units.change():
            self._tables.pipelines.require_known(pipeline_id)
            deleted = self._tables.delete_contents_in_transaction([pipeline_id])
            deleted += self._tables.pipelines.delete_in_transaction(pipeline_id)
            if delete_artifacts:
                self._units.collect()
        return deleted

    def delete_chain(self, chain_id: str, delete_artifacts: bool) -> int:
        """Delete a chain and its predictions in one commit; the number of rows in the documented tables."""
        with self._units.change():
            self._tables.chains.require(chain_id)
            self._tables.forget_known()
            deleted = self._tables.predictions.delete_of_chain_in_transaction(chain_id)
            deleted += self._tables.chains.delete_these_in_transaction([chain_id])
            self._tables.sweep_in_transaction()
            if delete_artifacts:
                self._units.collect()
        return deleted

    def delete_run(self, run_id: str, delete_artifacts: bool) -> int:
        """Delete a run and all below it in one commit; the number of rows in the documented tables."""
        with self._units.change():
            self._tables.runs.require(run_id)
            deleted = self._tables.delete_run_in_transaction(run_id)
            if delete_artifacts:
                self._units.collect()
        return deleted

    def delete_prediction(self, prediction_id: str, *, emptied: bool = False) -> bool:
        """Delete a prediction, and the chain and the pipeline that this leaves `emptied`, if asked for; whether there
        was one. Where it has no more to take along than its arrays, a record of the log is enough: the next read
        removes many at once.
        """
        if not self._units.is_open:
            with self._database.reading_but_deletions():
                left = self._tables.deleted.left_with(prediction_id)
                if not left:
                    return False
                if len(left) > 1 or not emptied:
                    self._delete_later(prediction_id)
                    return True
        if emptied:
            return self.delete_matching_predictions({"prediction_id": [prediction_id]}, running=True).predictions > 0
        with self._units.change():
            deleted = self._tables.predictions.delete_in_transaction(prediction_id)
            if deleted:
                self._tables.sweep_in_transaction(chains=False)
        return deleted

    def _delete_later(self, prediction_id: str) -> None:
        """Make a deletion durable, for the next drain to do."""
        with Uninterrupted():
            self._tables.predictions.forget_known()
            self._tables.deleted.note(prediction_id)
            try:
                self._buffer.flush()
            except BaseException:
                self._tables.deleted.take_back(prediction_id)
                raise

    def delete_dataset_predictions(self, dataset_name: str) -> int:
        """Delete a dataset's predictions, and the chains and ended pipelines that are empty then; how many
        predictions.
        """
        name = checks.text(dataset_name, "dataset_name")
        return self.delete_matching_predictions({"dataset_name": name}).predictions

    def delete_matching_predictions(self, filters: dict[str, Any], *, running: bool = False) -> Deleted:
        """Delete predictions with their arrays, and the chains and ended pipelines that are empty then; those that are
        `running`, too, if asked for.

        InvalidInputError without any filter: that would be all of them. An empty list, which is none for a query, names
        nothing here.
        """
        given = [value for value in map(checks.plain, filters.values()) if value is not None]
        names_nothing = [isinstance(value, list | tuple) and not value for value in given]
        if all(names_nothing):
            raise InvalidInputError("name what is to be deleted; no filter would mean every prediction")
        if any(names_nothing):
            return Deleted()
        inside = self._units.is_open
        with self._units.change():
            found = self._queries.places(filters)
            chain_ids, pipeline_ids = (
                sorted(set(found[name].to_pylist()) - {None}) for name in ("chain_id", "pipeline_id")
            )
            if not found.num_rows:
                return Deleted()
            self._tables.forget_known()
            was_running = self._tables.pipelines.any_open
            deleted = self._tables.predictions.delete_these_in_transaction(found)
            emptied, pipelines = self._tables.delete_emptied_in_transaction(chain_ids, pipeline_ids, running)
            if was_running and not self._tables.pipelines.any_open:
                self._tables.artifacts.release()  # as at the end of the last one
            wanted, now = (
                self._units.collect() if emptied else Collection(),
                self._collected_later(inside and bool(emptied)),
            )
        files = now if inside else wanted.removed
        return Deleted(deleted, emptied, len(pipelines), files, len(chain_ids) - emptied)

    def gc(self, progress: Progress | None) -> int:
        """Collect unused artifacts; the number of files removed."""
        inside = self._units.is_open
        with self._units.change():
            wanted, now = self._units.collect(orphans=True, progress=progress), self._collected_later(inside)
        return now if inside else wanted.removed

    def delete_file(self, path: str) -> None:
        """Remove a file from the folder of artifacts, unless a row names it or a running save is about to."""
        with self._units.change():
            self._units.collect_file(path)

    def clean_up_transient(self, run_id: str, dataset_name: str, winners: list[str]) -> int:
        """Let go of artifacts that a refit made unnecessary, then collect; the number of files removed."""
        kept, inside = set(checks.texts(winners, "winning_pipeline_ids")), self._units.is_open
        with self._units.change():
            pipelines = self._tables.pipelines.listed(run_id, dataset_name)["pipeline_id"].to_list()
            chains = self._tables.chains.of_pipelines(pipelines)
            self._tables.chains.release_in_transaction(self._collector.transient(run_id, dataset_name, chains, kept))
            wanted, now = self._units.collect(orphans=True), self._collected_later(inside)
        return now if inside else wanted.removed

    def _collected_later(self, inside: bool) -> int:
        """How many files would go if the transaction that this is `inside` of ended now."""
        if not inside:
            return 0
        claimed = self._collector.lock()
        self._collector.unlock()
        return len(self._collector.doomed(claimed, orphans=True)[1])
