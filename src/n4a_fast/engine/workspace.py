"""One open workspace: the parts of a store, shared by every `WorkspaceStore` on the same path in this process.

Here is what concerns several parts at once: transactions, cascades, collections, closing. Rows that
are not in the tables yet are the buffer's. Calls run one at a time under `lock`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from n4a_fast.artifacts.checkup import Progress, VerifyReport, verify
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.gc import Collector
from n4a_fast.engine.connection import Database
from n4a_fast.engine.lease import Turnstile
from n4a_fast.engine.session import Session
from n4a_fast.errors import InvalidInputError, StoreError, StoreLockedError, StoreMovedError
from n4a_fast.memtable.buffer import Buffer, FlushLimits
from n4a_fast.predictions.aggregates import Aggregates
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import PredictionQueries
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.predictions.summaries import ChainSummaries
from n4a_fast.replay.serve.persisted import CompiledChains
from n4a_fast.replay.serve.replayer import Replayer
from n4a_fast.tables.artifact_rows import Written
from n4a_fast.tables.predictions import bulk
from n4a_fast.values import checks, jsontext

STORE_FILE = "store.duckdb"


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


class Workspace:
    """Parts, buffers and transactions of one workspace folder."""

    def __init__(self, root: Path, *, read_only: bool, lock_timeout: float, limits: FlushLimits) -> None:
        self.root = root
        turnstile = Turnstile(turn=root, queue=root / "artifacts")
        self.database = Database(root / STORE_FILE, read_only=read_only, lock_timeout=lock_timeout, turnstile=turnstile)
        self.lock = self.database.lock
        self.session = self.database.identity.session = Session(self.database.path)
        files = ArtifactFiles(root / "artifacts", self.session)
        self.buffer = Buffer(
            self.database,
            files,
            limits,
            forget_known=self.forget_known,
            delete_in_transaction=self._delete_contents_in_transaction,
        )
        self.flush, self._parts = self.buffer.flush, self.buffer.parts
        (
            self.runs,
            self.pipelines,
            self.chains,
            self.logs,
            self.predictions,
            self.artifacts,
            self.projects,
            self.metadata,
            self.carried,
        ) = self._parts
        self.queries, self.arrays = PredictionQueries(self.database), ArrayReader(self.database)
        self.summaries, self.aggregates = ChainSummaries(self.database), Aggregates(self.database)
        self.collector = Collector(self.database, self.artifacts, self.buffer.place_others_in_transaction)
        self.compiled = CompiledChains(self.database)
        self.replayer = Replayer(
            self.database,
            self.chains,
            self.artifacts,
            self._load_artifact,
            self.compiled,
            self.flush,
            self.keep_compiled,
        )
        self.users = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What the block saves is committed at its end, or not at all if it raises; other threads wait."""
        with self.lock:
            if self.database.in_transaction:
                raise InvalidInputError("transaction() is already open; use one block")
            self.flush()
            try:
                with self.database.transaction(of_user=True):
                    yield
                    self.database.require_usable()  # a child forked in the block must not commit what is its parent's
                    self.flush()
            except BaseException:
                self._give_up_pending()
                raise

    def _give_up_pending(self) -> None:
        for part in self._parts:
            part.clear()
        self.pipelines.forget_open()
        self.forget_known()
        self.artifacts.release_claims()
        self.artifacts.files.claims.unlock()

    def forget_known(self) -> None:
        """Rows may have come or gone: ids must be looked up again."""
        for part in (
            self.runs,
            self.pipelines,
            self.chains,
            self.artifacts,
            self.projects,
            self.metadata,
            self.replayer,
        ):
            part.forget_known()

    # -- what spans several parts ----------------------------------------------------------

    def require_places(self, pipeline_id: str, chain_id: str | None) -> None:
        """NotFoundError unless the pipeline and the chain, where one is given, are known."""
        self.pipelines.require_known(pipeline_id)
        if chain_id is not None:
            self.chains.require(chain_id)

    def register_artifact(self, written: Written) -> str:
        """Note a file that is already below `artifacts/`; ConflictError when its id means other content."""
        (result,) = self.artifacts.register([written])
        if isinstance(result, StoreError):
            raise result
        return result

    def save_chain(self, pipeline_id: str, *described: Any, **texts: Any) -> str:
        """Buffer a chain; collections of other processes spare what it names from now on."""
        self.pipelines.require_known(pipeline_id)
        chain_id = self.chains.save(pipeline_id, *described, **texts)
        self.artifacts.claim(self.chains.references(chain_id))
        return chain_id

    def rename_artifacts(self, chain_id: str, names: dict[str, str]) -> None:
        """Let a chain of this session refer to other artifacts: old id to new."""
        with self.lock:
            if self.chains.get(chain_id) is None:  # in its table meanwhile
                with self.database.transaction():
                    self.chains.take_back_in_transaction(chain_id)
            self.chains.rename_artifacts(chain_id, names)

    def end_pipeline(self) -> None:
        """Flush after a pipeline has ended; without another open one, its artifacts are held by chains alone."""
        if not self.pipelines.any_open:
            self.artifacts.release()
        self.flush()

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Remove the pipeline's predictions, chains and logs, and keep its failed row, in one transaction."""
        # on its own: if the transaction below cannot commit, what other pipelines have pending must not go with it
        self.flush()
        self.pipelines.fail(pipeline_id, error)
        with self.database.transaction():
            self.end_pipeline()
            self._delete_contents_in_transaction([pipeline_id])

    def rehearsed(self, work: Callable[[], T], dry_run: bool) -> T:
        """What `work` gives; with `dry_run` it is rolled back, so that the answer is what it would have been."""
        if not dry_run:
            return work()
        if self.database.in_transaction:
            raise InvalidInputError("dry_run=True cannot be asked for inside transaction(); ask before it")
        self.flush()
        try:
            with self.database.transaction():
                raise _Rehearsed(work())
        except _Rehearsed as rehearsed:
            return cast(T, rehearsed.result)
        finally:
            self.artifacts.files.claims.unlock()
            self.forget_known()

    def delete_pipeline(self, pipeline_id: str, delete_artifacts: bool) -> int:
        """Delete a pipeline and all below it in one transaction; the number of rows in the documented tables."""
        self.flush()
        self.pipelines.require_known(pipeline_id)
        with self.collector.transaction():
            deleted = self._delete_contents_in_transaction([pipeline_id])
            deleted += self.pipelines.delete_in_transaction(pipeline_id)
            if delete_artifacts:
                self.collector.collect_in_transaction(orphans=False)
        return deleted

    def delete_chain(self, chain_id: str, delete_artifacts: bool) -> int:
        """Delete a chain and its predictions in one transaction; the number of rows in the documented tables."""
        self.flush()
        self.chains.require(chain_id)
        with self.collector.transaction():
            self.forget_known()
            deleted = self.predictions.delete_of_chain_in_transaction(chain_id)
            self.metadata.sweep_in_transaction()
            deleted += self.chains.delete_empty_in_transaction([chain_id])
            self.compiled.sweep_in_transaction()
            self.carried.sweep_in_transaction()
            if delete_artifacts:
                self.collector.collect_in_transaction(orphans=False)
        return deleted

    def delete_run(self, run_id: str, delete_artifacts: bool) -> int:
        """Delete a run and all below it in one transaction; the number of rows in the documented tables."""
        self.flush()
        self.runs.require(run_id)
        pipeline_ids = self.pipelines.ids_of_run(run_id)
        with self.collector.transaction():
            deleted = self._delete_contents_in_transaction(pipeline_ids)
            deleted += self.pipelines.delete_of_run_in_transaction(run_id) + self.runs.delete_in_transaction(run_id)
            self.runs.note_deleted_in_transaction(run_id)
            self.carried.sweep_in_transaction()
            if delete_artifacts:
                self.collector.collect_in_transaction(orphans=False)
        return deleted

    def save_arrays(self, prediction_id: str, arrays: tuple[Any, ...], sample_metadata: dict[str, Any] | None) -> None:
        """Buffer a prediction's arrays and what is known of its samples; without metadata it keeps those it had."""
        content = (
            None
            if sample_metadata is None
            else jsontext.encode(checks.mapping(sample_metadata, "sample_metadata"), "sample_metadata")
        )
        self.predictions.save_arrays(prediction_id, *arrays)
        if content is not None:
            self.metadata.save(prediction_id, content)

    def save_predictions(self, columns: Any, arrays: dict[str, Any]) -> list[str]:
        """Write many predictions in one transaction, past the buffer; durable on return."""
        checked = bulk.checked(columns, arrays)
        for pipeline_id in checked.distinct("pipeline_id"):
            self.pipelines.require_known(pipeline_id)
        for chain_id in checked.distinct("chain_id"):
            self.chains.require(chain_id)
        with self.database.transaction():
            return self.predictions.write_bulk_in_transaction(checked)

    def keep_compiled(self) -> None:
        """Store the compiled chains that wait for it; if that cannot be, they wait on: they are derived, and a replay
        must not fail for them.
        """
        with self.lock:
            if not len(self.compiled):
                return
            try:
                self.flush()
                with self.database.transaction():
                    self.compiled.write_in_transaction()
                self.compiled.clear()
            except StoreError:
                pass  # what stands in the way of other rows too is told by their own flush

    def _load_artifact(self, artifact_id: str) -> Any:
        with self.lock:
            self.flush()
            return self.artifacts.shared(artifact_id)

    def delete_prediction(self, prediction_id: str) -> bool:
        with self.database.transaction():
            deleted = self.predictions.delete_in_transaction(prediction_id)
            self.metadata.sweep_in_transaction()
            self.carried.sweep_in_transaction()
        return deleted

    def delete_dataset_predictions(self, dataset_name: str) -> int:
        """Delete a dataset's predictions, and the chains and ended pipelines that are empty then; how many
        predictions.
        """
        return self.delete_matching_predictions({"dataset_name": dataset_name}).predictions

    def delete_matching_predictions(self, filters: dict[str, Any]) -> Deleted:
        """Delete predictions with their arrays, and the chains and ended pipelines that are empty then.

        InvalidInputError without any filter: that would be all of them.
        """
        if all(value is None or value == [] for value in filters.values()):
            raise InvalidInputError("name what is to be deleted; no filter would mean every prediction")
        found = self.queries.places(filters)
        if not found.num_rows:
            return Deleted()
        chain_ids, pipeline_ids = (
            sorted(set(found[name].to_pylist()) - {None}) for name in ("chain_id", "pipeline_id")
        )
        with self.collector.transaction():
            self.forget_known()
            deleted = self.predictions.delete_these_in_transaction(found.select(["prediction_id", "id_key"]))
            self.metadata.sweep_in_transaction()
            emptied = self.chains.delete_empty_in_transaction(chain_ids)
            self.compiled.sweep_in_transaction()
            pipelines = self.pipelines.delete_empty_in_transaction(pipeline_ids)
            self.logs.delete_in_transaction(pipelines)
            self.carried.sweep_in_transaction()
            files = len(self.collector.collect_in_transaction(orphans=False)) if emptied else 0
        return Deleted(deleted, emptied, len(pipelines), files, len(chain_ids) - emptied)

    def set_run_project(self, run_id: str, project_id: str | None) -> None:
        if project_id is not None:
            self.projects.require(project_id)
        self.runs.set_project(run_id, project_id)

    def set_metric_direction(self, metric: str, higher_is_better: bool) -> None:
        with self.database.transaction():
            Metrics(self.database).store_in_transaction(metric, higher_is_better, "user")

    def delete_project(self, project_id: str) -> None:
        with self.database.transaction():
            self.projects.delete_in_transaction(project_id)

    def gc(self, progress: Progress | None) -> int:
        """Collect unused artifacts; the number of files removed."""
        with self.collector.transaction():
            return len(self.collector.collect_in_transaction(progress))

    def verify_artifacts(self, progress: Progress | None) -> VerifyReport:
        """Check every file against its row; others may go on saving meanwhile."""
        with self.lock:
            self.flush()
            addresses = self.artifacts.addresses()
        report = verify(self.artifacts.files, addresses, progress)
        with self.lock:
            return report.of_stored(self.artifacts.addresses())

    def clean_up_transient(self, run_id: str, dataset_name: str, winners: list[str]) -> int:
        """Let go of artifacts that a refit made unnecessary, then collect; the number of files removed."""
        pipelines = self.pipelines.listed(run_id, dataset_name)["pipeline_id"].to_list()
        chains = self.chains.of_pipelines(pipelines)
        with self.collector.transaction():
            self.chains.unlink_in_transaction(self.collector.transient(run_id, dataset_name, chains, set(winners)))
            return len(self.collector.collect_in_transaction())

    def invalidate_dataset(self, dataset_hash: str) -> int:
        with self.database.transaction():
            return self.artifacts.invalidate_in_transaction(dataset_hash)

    def _delete_contents_in_transaction(self, pipeline_ids: list[str]) -> int:
        self.forget_known()
        deleted = self.predictions.delete_of_pipelines_in_transaction(pipeline_ids)
        self.metadata.sweep_in_transaction()
        deleted += self.chains.delete_in_transaction(pipeline_ids) + self.logs.delete_in_transaction(pipeline_ids)
        self.compiled.sweep_in_transaction()
        self.carried.sweep_in_transaction()
        return deleted

    # -- life ------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is pending and let the file go; one that is no longer there is let go all the same, and told."""
        self.artifacts.release()
        try:
            self.flush()
            self.buffer.rest()
            self.keep_compiled()
        except StoreLockedError:
            pass  # it is durable in the log, and whoever uses the file next applies it
        except StoreMovedError:
            self._let_go()
            raise
        self._let_go()

    def _let_go(self) -> None:
        self.buffer.log.close()
        self.database.close()
        self.artifacts.close()

    def forget_after_fork(self) -> None:
        """In a forked child: the parent writes its own pending rows, so they must not be written here."""
        self.lock = self.database.lock
        self.session.forget_after_fork()
        self.buffer.log.forget()
        self._give_up_pending()
