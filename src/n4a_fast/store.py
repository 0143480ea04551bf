"""`WorkspaceStore`: the documented API, one delegation a method; the user's docstrings live here.

The contract, for every method:

* Saving methods append to memory and return. `complete_pipeline`, `fail_pipeline`,
  `complete_run`, `fail_run`, `flush`, `close` and the end of a `transaction()` write all that
  came before in one transaction; when they return, it survives `kill -9` and power loss.
* What was only buffered may be lost, never half written. A failed flush raises, keeps the
  buffer, and can be repeated.
* Reads see everything this process has saved. Times are UTC.
* Bad arguments and unknown ids raise before anything is written (see `n4a_fast.errors`).
* A store may be used by several threads; its calls then run one at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import polars as pl

from n4a_fast.artifacts.checkup import ArtifactDescription, Progress, VerifyReport
from n4a_fast.artifacts.settings import DEFAULTS, OBJECT_CACHE_BYTES, ArtifactSettings, settings
from n4a_fast.bundles import export, importer, parquet, tabular
from n4a_fast.engine.begun import Begun
from n4a_fast.engine.connection import checked_limit
from n4a_fast.engine.refusals import OF_ARGUMENTS, checked, required, tell, tell_of_arguments, told, told_of_ends
from n4a_fast.engine.registry import open_workspace
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import InvalidInputError, ReadOnlyError, StoreClosedError, StoreMovedError
from n4a_fast.leaderboard import Leaderboard
from n4a_fast.learning.crossval import Data, save_cross_validation
from n4a_fast.learning.replayed import NewSpectra, replay_and_save
from n4a_fast.learning.searches import save_search
from n4a_fast.learning.stored_estimator import estimator_of
from n4a_fast.maintenance.backup import BackupReport, backup, restore
from n4a_fast.maintenance.findings import Progress as VerifyProgress
from n4a_fast.maintenance.findings import VerificationReport
from n4a_fast.maintenance.glance import glance, looking
from n4a_fast.maintenance.progress import RunProgress, progress_of
from n4a_fast.maintenance.stats import StoreStats, stats_of
from n4a_fast.maintenance.vacuum import VacuumReport, vacuum
from n4a_fast.maintenance.verify import verify
from n4a_fast.memtable.buffer import FlushLimits
from n4a_fast.merging.extract import extract
from n4a_fast.merging.merge import MergeReport
from n4a_fast.merging.shards import Shard, merge_all, new_shard
from n4a_fast.predictions.finding import find
from n4a_fast.predictions.loaded import LoadedArrays
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.ranking import Question
from n4a_fast.replay.serve.description import ChainDescription, describe_chain
from n4a_fast.replay.serve.plan_report import PlanReport, report_plan
from n4a_fast.replay.serve.replayer import Choice
from n4a_fast.replay.serve.several import Work
from n4a_fast.replay.serve.streaming import replay_into
from n4a_fast.report import Chart, ReportFile, figures, write_report
from n4a_fast.report.cells import store_cell, store_text
from n4a_fast.tables.artifact_rows import Written
from n4a_fast.values import checks
from n4a_fast.values.chain_input import ChainInput
from n4a_fast.values.notebook import never_raises
from n4a_fast.views import Chain, Run

OneOrMore = str | list[str] | None
P = ParamSpec("P")
R = TypeVar("R")


def _reads(method: Callable[Concatenate[WorkspaceStore, P], R]) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """A call that must see what was saved before it."""

    require = required(method)

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        workspace = self._open()
        require(args, kwargs)
        with workspace.lock:
            try:
                if workspace.database.drains:
                    workspace.flush()
                result = method(self, *args, **kwargs)
                workspace.database.yield_turn()
                return result
            except OSError as error:
                tell(error, self._path)
            except OF_ARGUMENTS as error:
                tell_of_arguments(error, method, args, kwargs)

    return call


def _writes(method: Callable[Concatenate[WorkspaceStore, P], R]) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """A call that saves: refused on a read-only store, flushed when the buffer is full."""

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        workspace = self._workspace
        if workspace is None or self._read_only:
            workspace = self._open(writing=True)
        else:
            workspace.require_usable(self._lock_timeout)
        database = workspace.database
        lock = database.lock
        # `with` would call two functions of Python's, and a sweep calls this by the thousand
        if not lock.acquire(False):
            lock.__enter__()
        try:
            result = method(self, *args, **kwargs)
            workspace.buffer.flush_when_full()
            database.yield_turn()
            return result
        except OSError as error:
            tell(error, self._path)
        except OF_ARGUMENTS as error:
            tell_of_arguments(error, method, args, kwargs)
        finally:
            lock.release()

    return call


def _told(method: Callable[Concatenate[WorkspaceStore, P], R]) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """A call that takes the file for moments only, and the lock when it needs it."""
    work = checked(method)

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with told(self._path):
            return work(self, *args, **kwargs)

    return call


class WorkspaceStore:
    """Runs, pipelines, chains, predictions, artifacts and logs of one workspace folder.

    The folder holds `store.duckdb` and `artifacts/`; both are created when they are missing.
    Use it as a context manager, or call `close()`.
    """

    _workspace: Workspace | None
    _path: Path
    _read_only: bool
    _lock_timeout: float
    _artifacts: ArtifactSettings
    _limits: FlushLimits | None
    _memory_limit: int | None
    _root: Path
    _begun: Begun
    _finalizer: weakref.finalize[[ArtifactSettings], WorkspaceStore]

    def __init__(
        self,
        workspace_path: str | Path,
        *,
        lock_timeout: float = 30.0,
        flush_rows: int = 4096,
        flush_bytes: int = 64 * 2**20,
        flush_interval: float | None = 5.0,
        trusted: str | Iterable[str] = "workspace",
        compression: str | None = None,
        object_cache_bytes: int = OBJECT_CACHE_BYTES,
        memory_limit: int | str | None = None,
    ) -> None:
        """Open the workspace at `workspace_path`, creating it if need be.

        `lock_timeout` is how many seconds a call waits while another process uses the file.
        What is saved and not written by a call such as `complete_pipeline` is flushed once there are
        `flush_rows` predictions or `flush_bytes` of arrays in memory, or after `flush_interval` seconds
        (None: not by time). Stores of one process on one path share these limits, the newest count.
        `trusted` limits what artifacts may import when they are loaded: "workspace" (what came through an import only
        what is on the default list), a list of classes and `package.*`, or "none" (docs/security.md); `compression`
        is None or "zstd" for new artifacts; replays share up to `object_cache_bytes` of loaded ones.
        `memory_limit` (bytes, or text such as "2GB") is what DuckDB may take, beside the results: 512 MiB unless given.
        What does not fit goes to a folder beside the file meanwhile; MemoryLimitError where that is not possible.
        Raises StoreUnavailableError, StoreLockedError, or a StoreFormatError for a file that is
        not a store of this format; such a file is left unchanged.
        """
        limits = FlushLimits(rows=flush_rows, nbytes=flush_bytes, seconds=flush_interval)
        artifacts = settings(trusted, compression, object_cache_bytes)
        self._connect(workspace_path, False, lock_timeout, limits, artifacts, checked_limit(memory_limit))

    @classmethod
    def open_readonly(
        cls,
        workspace_path: str | Path,
        *,
        lock_timeout: float = 30.0,
        trusted: str | Iterable[str] = "workspace",
        object_cache_bytes: int = OBJECT_CACHE_BYTES,
        memory_limit: int | str | None = None,
    ) -> Self:
        """The workspace at `workspace_path` for reading; saving raises ReadOnlyError, a missing file NotFoundError."""
        store = cls.__new__(cls)
        store._connect(
            workspace_path,
            True,
            lock_timeout,
            artifacts=settings(trusted, None, object_cache_bytes),
            memory_limit=checked_limit(memory_limit),
        )
        return store

    @property
    def workspace_path(self) -> Path:
        """Root folder of the workspace, as it was given."""
        return self._path

    def close(self) -> None:
        """Write what is pending, durably, and let the file go; a second call does nothing."""
        if self._workspace is not None:
            _release(self, self._workspace)
        self._workspace = None

    def __repr__(self) -> str:
        """The class, the folder, and what is there where that can be had at once."""
        return store_text(f"{type(self).__name__}({str(self._path)!r})", self._workspace)

    @never_raises
    def _repr_html_(self) -> str | None:
        return store_cell(str(self._path), None if self._workspace is None else glance(self._workspace))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception, what this store began and nobody ended has failed with its text."""
        if error is not None and self._workspace is not None:
            self._begun.fail(self._workspace, error)
        self.close()

    def __copy__(self) -> Self:
        raise InvalidInputError(f"a store cannot be copied: open {str(self._path)!r} again, or pickle it for a worker")

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, a store is where it is and how it was opened: it is opened anew where it is loaded."""
        where = (self._root, self._read_only, self._lock_timeout)
        return _opened_again, (type(self), *where, self._limits, self._artifacts, self._memory_limit)

    @_reads
    def flush(self) -> None:
        """Write everything saved so far; durable on return."""
        self._open().flush()

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """What the block saves is committed together at its end, or not at all if it raises.

        Reads inside see it, and from the first one on other processes are kept out until the end; other threads
        always are. A block inside another joins it; one that raises is given up alone, unless it had read or deleted
        something: then the outer one cannot be committed either, and says so. `close`, `vacuum` and `merge` raise
        InvalidInputError inside. Files of artifacts saved in a block that raises are left for `gc_artifacts`.
        """
        with told_of_ends(self._path, self._open(writing=True).transaction()):
            yield self

    @_reads
    def sql(self, query: str, params: Sequence[Any] = ()) -> pl.DataFrame:
        """Result of one SELECT in DuckDB's SQL, with `?` bound to `params`; anything that writes is refused."""
        return self._open().sql(query, checks.items(params, "params"))

    # -- looking -----------------------------------------------------------------------------

    @_reads
    def leaderboard(
        self,
        metric: str | None = None,
        *,
        dataset: str | None = None,
        run: str | None = None,
        by: str | None = None,
        n: int | None = 20,
        score: str = "val",
        where: str | None = None,
        include_running: bool = False,
        higher_is_better: bool | None = None,
        all_scores: bool = False,
    ) -> Leaderboard:
        """The chains of the workspace, best first, by one rule that every surface of this package keeps.

        Within one data set and one metric, the chains of completed pipelines are ranked by the mean validation score
        of their own folds (averaged predictions, refits and the test set never count), in the direction stored for
        the metric; a chain with a missing or NaN fold ranks after all others, and ties go to the older chain.

        `metric` may be any score that the predictions hold; None ranks by each metric they were saved with. `run` is
        an id, the end of one, or a name; `by` ("model" or "preprocessing") keeps the best chain of each; `n` rows a
        board, None for all; `score` "test" or "final" orders by another score, which is no choice of a model; `where`
        is a condition in SQL on the columns of `.frame`; `all_scores` gives `.scores`, in little memory the score of
        every ranked chain. UnknownDirectionError for a metric of which nobody has said whether higher is better: see
        `set_metric_direction`, or give `higher_is_better`.
        """
        question = Question(
            metric,
            dataset,
            None if run is None else self.find(run, "run"),
            by,
            n,
            score,
            where,
            include_running,
            higher_is_better,
            all_scores,
        )
        return Leaderboard(self, self._open().ranking.ranked(question), score)

    @_reads
    def set_metric_direction(self, metric: str, higher_is_better: bool) -> None:
        """Say once for this workspace whether higher values of a metric are the better ones; durable on return."""
        self._open(writing=True).set_metric_direction(metric, higher_is_better)

    @_reads
    def metric_direction(self, metric: str) -> bool | None:
        """Whether higher values of a metric are better, as stored or else as known of its name; None when it is not."""
        return Metrics(self._open().database).direction(metric)

    @_reads
    def find(self, text: str, kind: str | None = None) -> str:
        """The whole id that `text` means: an id, its last four or more characters, a run's or pipeline's name, "@best"
        (the first of the leaderboard) or "@last".

        `kind` is "run", "pipeline", "chain" or "prediction". NotFoundError for none, AmbiguousError for several.
        """
        return find(self._open().database, text, kind).identifier

    @_reads
    def run(self, text: str = "@last") -> Run:
        """One run to look at, by what `find` understands."""
        return Run(self, find(self._open().database, text, "run").identifier)

    @_reads
    def runs(self, status: str | None = None, dataset: str | None = None, limit: int = 100) -> list[Run]:
        """Runs to look at, newest first."""
        return [Run(self, run_id) for run_id in self.list_runs(status, dataset, limit)["run_id"]]

    @_reads
    def chain(self, text: str = "@best") -> Chain:
        """One chain to look at, by what `find` understands."""
        return Chain(self, find(self._open().database, text, "chain").identifier)

    def progress(self, run_id: str | None = None, *, wait: float | None = None) -> RunProgress:
        """How far a run is: pipelines by state, rate, best chains so far, the newest errors; None for the newest that
        is running, or else the newest. Read from what is in the tables; nothing that waits is put there for it.
        `wait` is how many seconds to wait for the store at most, None for `lock_timeout`; with it nothing is written,
        and best chains are left out while tens of thousands of predictions are to be ranked first.
        """
        return progress_of(self._open(), run_id, wait)

    def undrained(self, wait: float | None = None) -> AbstractContextManager[None]:
        """Reads of the block, by this thread, see what is in the tables now: nothing that waits in logs is put there
        for them, so that looking at a running sweep again and again does not make its writers stop. With `wait` the
        block has the store for itself, and takes so many seconds at most to get it and its file, or StoreLockedError.
        """
        return looking(self._open(), wait)

    @checked
    def save_cross_validation(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        cv: Any = 5,
        scoring: Any = None,
        groups: Any = None,
        X_test: Any = None,
        y_test: Any = None,
        refit: bool = True,
        run: str | None = None,
        name: str | None = None,
        dataset: str = "data",
        wavelengths: Sequence[float] | None = None,
        target: str | None = None,
        unit: str | None = None,
        n_jobs: int | None = None,
    ) -> Chain:
        """Cross-validate an estimator of scikit-learn and keep all of it: fold models, predictions, scores; the chain.

        `cv`, `scoring` (the first ranks; errors are stored positive, `neg_root_mean_squared_error` as rmse) and
        `groups` are those of `sklearn.model_selection.cross_validate`, which does the work before anything is stored;
        then all rows are one transaction. The whole fitted estimator of each fold is the chain's model, with `refit`
        also one fitted on all rows, which then predicts; `X_test`, `y_test` are scored by each. Text labels are stored
        as such, with the classes in the order of the probabilities. `run` (an id) adds to an open run, without it a run
        is made and completed.
        """
        data = Data(X, y, groups, X_test, y_test, dataset, wavelengths, target, unit)
        options = {"cv": cv, "scoring": scoring, "refit": refit, "run": run, "name": name, "n_jobs": n_jobs}
        return Chain(self, save_cross_validation(self, estimator, data, **options))

    @checked
    def save_search(
        self, search: Any, *, dataset: str = "data", run: str | None = None, name: str | None = None
    ) -> Run:
        """Keep a fitted `GridSearchCV` or another search of scikit-learn: a pipeline for each candidate, the scores of
        its folds, and the refitted best one, which can predict; in one transaction. The run.
        """
        return Run(self, save_search(self, search, dataset=dataset, run=run, name=name))

    def estimator(self, chain: str = "@best") -> Any:
        """A stored chain as a fitted estimator of scikit-learn, for displays, scorers and inspection: it replays.

        `chain` is what `find` understands. The estimator uses this store, which must stay open.
        """
        return estimator_of(self, chain)

    @_reads
    def plot(
        self,
        kind: str,
        identifier: str | None = None,
        *,
        dataset: str | None = None,
        metric: str | None = None,
        run: str | None = None,
    ) -> Chart:
        """A chart, to show in a notebook or to `save` as .svg, .png, .html or .json (needs the extra `report`).

        "scatter", "residuals" and "confusion" are of a chain (`identifier` as `find` understands it, the best without
        one) and show predictions of samples that its fold models had not seen; "heatmap", "scores", "boxes", "folds"
        and "impact" are of all ranked chains of one data set and metric; "timeline" is of a run, or of all.
        """
        return figures.chart(self, kind, identifier, dataset, metric, run)

    @_reads
    def report(
        self,
        path: str | Path,
        *,
        run: str | None = None,
        dataset: str | None = None,
        metric: str | None = None,
        charts: bool = True,
        title: str | None = None,
        progress: Progress | None = None,
    ) -> ReportFile:
        """Write the workspace's report: one HTML file that needs no network and no scripts, at most some megabytes
        however many predictions there are.

        It has the leaderboards, the best chains' predictions, what preprocessing and models do, errors and disk.
        Without the extra `report`, or `charts`, it has tables only. `progress(done, total)` is called for each chart.
        """
        scope = {"run": run, "dataset": dataset, "metric": metric, "title": title}
        return write_report(self, Path(path), **scope, with_charts=charts, progress=progress)

    # -- runs --------------------------------------------------------------------------------

    @_writes
    def begin_run(self, name: str, config: Any, datasets: list[dict[str, Any]], *, expected: int | None = None) -> str:
        """Id of a new run (UUIDv7). `config` and `datasets` (dicts with `name`, `path`, `hash`, ...) are stored as
        JSON.

        `expected` is how many pipelines it will have, where that is known: `progress` then tells the time left.
        """
        return self._begun.run(self._open().runs.begin(name, config, datasets, expected))

    @_writes
    def complete_run(self, run_id: str, summary: dict[str, Any]) -> None:
        """Mark a run as completed and write everything pending, durably."""
        self._open().runs.complete(run_id, summary)
        self._open().flush()

    @_writes
    def fail_run(self, run_id: str, error: str) -> None:
        """Mark a run as failed, keep what it stored, and write everything pending, durably."""
        self._open().runs.fail(run_id, error)
        self._open().flush()

    @_reads
    def get_run(self, run_id: str) -> dict[str, Any] | None:
        """The run, its `config`, `datasets` and `summary` as Python values; None for an unknown id."""
        return self._open().runs.find(run_id)

    @_reads
    def list_runs(
        self, status: str | None = None, dataset: str | None = None, limit: int = 100, offset: int = 0
    ) -> pl.DataFrame:
        """Runs, newest first. `dataset` is the exact name of one of a run's datasets."""
        return self._open().runs.listed(status, dataset, limit, offset)

    # -- pipelines ---------------------------------------------------------------------------

    @_writes
    def begin_pipeline(
        self,
        run_id: str,
        name: str,
        expanded_config: Any,
        generator_choices: list[Any],
        dataset_name: str,
        dataset_hash: str,
        original_template: Any = None,
    ) -> str:
        """Id of a new pipeline (UUIDv7) under a run; NotFoundError for an unknown run. The template is the one before
        expansion.
        """
        self._open().runs.require_known(run_id)
        described = (expanded_config, generator_choices, dataset_name, dataset_hash, original_template)
        return self._begun.pipeline(self._open().begin_pipeline(run_id, name, *described))

    @_writes
    def complete_pipeline(
        self, pipeline_id: str, best_val: float, best_test: float, metric: str, duration_ms: int
    ) -> None:
        """Mark a pipeline as completed and write everything pending, durably; InvalidInputError for one that has
        failed.
        """
        self._open().pipelines.complete(pipeline_id, best_val, best_test, metric, duration_ms)
        self._open().end_pipeline()

    @_writes
    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Remove the pipeline's predictions, arrays, chains and logs, durably; its row stays, failed, with `error`."""
        self._open().fail_pipeline(pipeline_id, error)

    @_reads
    def get_pipeline(self, pipeline_id: str) -> dict[str, Any] | None:
        """The pipeline, its JSON columns as Python values; None for an unknown id."""
        return self._open().pipelines.find(pipeline_id)

    @_reads
    def list_pipelines(self, run_id: str | None = None, dataset_name: str | None = None) -> pl.DataFrame:
        """Pipelines, newest first."""
        return self._open().pipelines.listed(run_id, dataset_name)

    # -- chains ------------------------------------------------------------------------------

    @_writes
    def save_chain(
        self,
        pipeline_id: str,
        steps: list[dict[str, Any]],
        model_step_idx: int,
        model_class: str,
        preprocessings: str,
        fold_strategy: str,
        fold_artifacts: dict[Any, Any],
        shared_artifacts: dict[Any, Any],
        branch_path: list[int] | None = None,
        source_index: int | None = None,
        *,
        input: ChainInput | Mapping[str, Any] | None = None,
    ) -> str:
        """Id of a new chain (UUIDv7): the ordered steps to a model, and the artifacts they use.

        `steps` holds dicts with `step_idx`, `operator_class`, `params`, `artifact_id`, `stateless`;
        `fold_artifacts` maps a fold to its model's artifact id, `shared_artifacts` a step index to
        one id or a list. Artifacts may be registered afterwards; from now on, while the chain is there, they are kept.
        `input` tells what the chain was trained on (`ChainInput`, or a mapping of some of its fields: `n_features`,
        `wavelengths`, `wavelength_unit`, `columns`, `classes`, `targets`, `target_unit`, `prediction_range`); replays
        refuse other spectra, `describe_chain` shows it.
        """
        facts = {"model_class": model_class, "preprocessings": preprocessings, "fold_strategy": fold_strategy}
        return self._open().save_chain(
            pipeline_id,
            steps,
            model_step_idx,
            fold_artifacts,
            shared_artifacts,
            branch_path,
            source_index,
            input=input,
            **facts,
        )

    @_reads
    def get_chain(self, chain_id: str) -> dict[str, Any] | None:
        """The chain, its JSON columns as Python values; None for an unknown id."""
        return self._open().chains.find(chain_id)

    @_reads
    def describe_chain(self, chain_id: str) -> ChainDescription:
        """A chain's steps, folds and what it was trained on: columns, wavelengths, classes, target. Print it.

        What `save_chain(input=)` did not tell, the operators do, which are loaded for it, and the stored training
        predictions.
        """
        return describe_chain(self._open().replayer, self._open().arrays, chain_id)

    @_reads
    def get_chains_for_pipeline(self, pipeline_id: str) -> pl.DataFrame:
        """Chains of one pipeline, oldest first; no rows when it has none."""
        return self._open().chains.of_pipeline(pipeline_id)

    # -- predictions -------------------------------------------------------------------------

    @_writes
    def save_prediction(
        self,
        pipeline_id: str,
        chain_id: str,
        dataset_name: str,
        model_name: str,
        model_class: str,
        fold_id: str,
        partition: str,
        val_score: float,
        test_score: float,
        train_score: float,
        metric: str,
        task_type: str,
        n_samples: int,
        n_features: int,
        scores: dict[str, Any],
        best_params: dict[str, Any],
        branch_id: int | None,
        branch_name: str | None,
        exclusion_count: int,
        exclusion_rate: float,
        preprocessings: str = "",
        prediction_id: str | None = None,
        refit_context: str | None = None,
    ) -> str:
        """Id of the stored prediction.

        A prediction with the same pipeline, chain, fold, partition, model name and branch is
        replaced, and keeps its arrays until new ones come. It keeps the id that it was first saved under, whatever
        `prediction_id` says; without one, the id follows from the above. An id that another prediction
        has is taken from that one, which goes.
        Scores may be NaN or infinite; `refit_context` marks a refit.
        """
        given = (
            pipeline_id,
            chain_id,
            dataset_name,
            model_name,
            model_class,
            fold_id,
            partition,
            val_score,
            test_score,
            train_score,
            metric,
            task_type,
            n_samples,
            n_features,
            scores,
            best_params,
            preprocessings,
            branch_id,
            branch_name,
            exclusion_count,
            exclusion_rate,
            refit_context,
        )
        return self._held().save_prediction(given, prediction_id)

    @_writes
    def save_prediction_arrays(
        self,
        prediction_id: str,
        y_true: np.ndarray[Any, Any] | None,
        y_pred: np.ndarray[Any, Any] | None,
        y_proba: np.ndarray[Any, Any] | None = None,
        sample_indices: np.ndarray[Any, Any] | None = None,
        weights: np.ndarray[Any, Any] | None = None,
        sample_metadata: dict[str, Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Store copies of a prediction's arrays as float64, replacing earlier ones.

        `y_true` and `y_pred`: (n_samples,) or (n_samples, n_targets), where one target counts as (n_samples,);
        `y_proba`: (n_samples, n_classes); `sample_indices`: (n_samples,) whole numbers; `weights`: 1-D of any length.
        Other lengths, ragged and non-numeric arrays raise InvalidInputError, an unknown prediction NotFoundError.
        `sample_metadata` (JSON, such as a list per column) comes back with `get_prediction(..., load_arrays=True)`.

        Targets that are text are labels: each is stored as its place among the `classes`, by default the sorted
        labels of both targets, and comes back as text with `labels=True`; None or NaN is a missing label.
        """
        arrays = (y_true, y_pred, y_proba, sample_indices, weights, classes)
        self._held().save_arrays(prediction_id, arrays, sample_metadata)

    @_reads
    def save_predictions(
        self,
        columns: Any,
        *,
        y_true: Any = None,
        y_pred: Any = None,
        y_proba: Any = None,
        sample_indices: Any = None,
        weights: Any = None,
        classes: Sequence[str] | None = None,
    ) -> list[str]:
        """Store many predictions in one transaction, durable on return; their ids, in order.

        `columns`: a mapping of sequences, a pyarrow Table or a polars DataFrame with the arguments of
        `save_prediction`; single values count for every row. Each array argument is a 2-D matrix
        with a row per prediction (contiguous float64 is not copied), a list of arrays, an Arrow list
        array, or one 1-D array for all. Targets that are text are labels, as in `save_prediction_arrays`; all
        predictions of the call have the same `classes`.
        """
        self._open(writing=True)
        arrays = {
            "y_true": y_true,
            "y_pred": y_pred,
            "y_proba": y_proba,
            "sample_indices": sample_indices,
            "weights": weights,
        }
        return self._open().save_predictions(columns, arrays, classes)

    @_reads
    def load_arrays(
        self,
        /,
        prediction_ids: Sequence[str] | None = None,
        *,
        columns: Sequence[str] = ("y_true", "y_pred"),
        labels: bool = False,
        **filters: Any,
    ) -> LoadedArrays:
        """Arrays of many predictions in one query, in the order of `prediction_ids` or, by filters, oldest first.

        `columns` names some of y_true, y_pred, y_proba, sample_indices, weights; `filters` are those of
        `query_predictions`, and `chain_id`. The arrays are read-only views of shared buffers; with `labels` targets
        that are classes are text.
        """
        return self._open().arrays.load(prediction_ids, filters, columns, labels)

    @checked
    def iter_arrays(
        self,
        prediction_ids: Sequence[str] | None = None,
        *,
        batch_size: int = 10_000,
        columns: Sequence[str] = ("y_true", "y_pred"),
        labels: bool = False,
        **filters: Any,
    ) -> Iterator[LoadedArrays]:
        """`load_arrays` in pieces of `batch_size` predictions, for more than memory holds."""
        self.flush()
        return self._open().arrays.batches(prediction_ids, filters, columns, batch_size, labels)

    @checked
    def get_prediction(
        self, prediction_id: str, load_arrays: bool = False, *, labels: bool = False
    ) -> dict[str, Any] | None:
        """The prediction, if `load_arrays` with numpy arrays in the shapes they were saved in, targets (n_samples, 1)
        as (n_samples,), and if `labels` with targets that are classes as text; None for an unknown id.
        """
        pending = self._open().pending_prediction(prediction_id, load_arrays, labels)
        return self._get_stored_prediction(prediction_id, load_arrays, labels) if pending is None else pending

    @_reads
    def _get_stored_prediction(self, prediction_id: str, load_arrays: bool, labels: bool) -> dict[str, Any] | None:
        return self._open().queries.find(prediction_id, load_arrays, labels)

    @checked
    def get_prediction_arrays(self, prediction_id: str, *, labels: bool = False) -> dict[str, Any] | None:
        """`y_true`, `y_pred`, `y_proba`, `sample_indices`, `weights` as arrays or None, with `labels` targets that are
        classes as text; None when the prediction has none.
        """
        pending = self._open().pending_arrays(prediction_id, labels)
        return self._get_stored_arrays(prediction_id, labels) if pending is None else pending

    @_reads
    def _get_stored_arrays(self, prediction_id: str, labels: bool) -> dict[str, Any] | None:
        return self._open().queries.arrays_of(prediction_id, labels)

    @_reads
    def query_predictions(
        self,
        dataset_name: str | None = None,
        model_class: str | None = None,
        partition: str | None = None,
        fold_id: str | None = None,
        branch_id: int | None = None,
        pipeline_id: str | None = None,
        run_id: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> pl.DataFrame:
        """Predictions that match every filter, newest first. `model_class` is a SQL LIKE pattern, the others are
        equalities.
        """
        filters = {name: value for name, value in locals().items() if name not in ("self", "limit", "offset")}
        return self._open().queries.query(limit, offset, **filters)

    @_reads
    def top_predictions(
        self,
        n: int,
        metric: str = "val_score",
        ascending: bool = True,
        partition: str = "val",
        dataset_name: str | None = None,
        group_by: str | None = None,
    ) -> pl.DataFrame:
        """The `n` best predictions by `metric` (val_score, test_score or train_score), best first.

        Single predictions by one number, in the direction given: not the ranking of chains, for which see
        `leaderboard`. NaN and NULL come last in both directions, ties are ordered by prediction id. With
        `group_by` (a column such as `model_class` or `dataset_name`) the `n` best of each group.
        """
        return self._open().queries.top(n, metric, ascending, partition, dataset_name, group_by)

    @_reads
    def query_aggregated_predictions(
        self,
        run_id: str | None = None,
        pipeline_id: str | None = None,
        chain_id: str | None = None,
        dataset_name: str | None = None,
        model_class: str | None = None,
        metric: str | None = None,
    ) -> pl.DataFrame:
        """One row per chain, model, metric and dataset with fold counts and min, max and mean scores; refits left
        out.
        """
        return self._open().aggregates.query(**{name: value for name, value in locals().items() if name != "self"})

    @_reads
    def iter_aggregated_predictions(self, /, *, batch_size: int = 1000, **filters: Any) -> Iterator[pl.DataFrame]:
        """`query_aggregated_predictions` in pages of `batch_size` chains, for more than memory holds."""
        return self._open().aggregates.pages(batch_size, filters)

    @_reads
    def query_top_aggregated_predictions(
        self,
        /,
        metric: str,
        n: int = 10,
        score_column: str = "avg_val_score",
        ascending: bool | None = None,
        **filters: Any,
    ) -> pl.DataFrame:
        """The `n` best aggregated rows of a metric; the direction is that of `metric_direction` unless given.

        Averages of folds and chains of unfinished pipelines count too: not the ranking of chains, for which see
        `leaderboard`. `filters`: run_id, pipeline_id, chain_id, dataset_name, model_class.
        """
        return self._open().aggregates.top(metric, n, score_column, ascending, filters)

    @_reads
    def get_chain_predictions(
        self, chain_id: str, partition: str | None = None, fold_id: str | None = None
    ) -> pl.DataFrame:
        """Predictions of one chain, by partition and fold."""
        return self._open().queries.of_chain(chain_id, partition, fold_id)

    @_reads
    def delete_prediction(self, prediction_id: str, *, dry_run: bool = False) -> bool:
        """Delete a prediction and its arrays, with `dry_run` only look; whether there was one."""
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(lambda: workspace.deletions.delete_prediction(prediction_id), dry_run)

    @_reads
    def delete_dataset_predictions(self, dataset_name: str, *, dry_run: bool = False) -> int:
        """Delete a dataset's predictions, with the chains and ended pipelines that this empties and artifacts nothing
        uses; how many predictions. With `dry_run` nothing goes.
        """
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(
            lambda: workspace.deletions.delete_dataset_predictions(dataset_name), dry_run
        )

    @_reads
    def query_chain_summaries(
        self,
        run_id: OneOrMore = None,
        pipeline_id: OneOrMore = None,
        chain_id: OneOrMore = None,
        dataset_name: OneOrMore = None,
        model_class: OneOrMore = None,
        metric: OneOrMore = None,
        task_type: OneOrMore = None,
    ) -> pl.DataFrame:
        """One row per chain with predictions: cross-validation means, scores of its refit, by chain id.

        Each filter is one value or a list; a single `model_class` is a LIKE pattern.
        """
        return self._open().summaries.query({name: value for name, value in locals().items() if name != "self"})

    @_reads
    def count_chain_summaries(
        self,
        run_id: OneOrMore = None,
        pipeline_id: OneOrMore = None,
        chain_id: OneOrMore = None,
        dataset_name: OneOrMore = None,
        model_class: OneOrMore = None,
        metric: OneOrMore = None,
        task_type: OneOrMore = None,
    ) -> int:
        """How many rows `query_chain_summaries` has for these filters."""
        return self._open().summaries.count({name: value for name, value in locals().items() if name != "self"})

    @_reads
    def query_top_chains(
        self,
        /,
        metric: str | None = None,
        n: int = 10,
        offset: int = 0,
        score_column: str = "cv_val_score",
        ascending: bool | None = None,
        **filters: Any,
    ) -> pl.DataFrame:
        """The `n` best chain summaries after the first `offset`; the direction is that of `metric_direction` unless
        given, without a metric lower is better.

        Chains of unfinished pipelines count too, and NaN folds do not: not the ranking, for which see `leaderboard`.
        """
        return self._open().summaries.top(metric, n, offset, score_column, ascending, filters)

    # -- projects ----------------------------------------------------------------------------

    @_writes
    def create_project(self, name: str, description: str = "", color: str = "#14b8a6") -> str:
        """Id of a new project (UUIDv7), which groups runs."""
        return self._open().projects.create(name, description, color)

    @_reads
    def list_projects(self) -> pl.DataFrame:
        """Projects, newest first."""
        return self._open().projects.listed()

    @_reads
    def get_project(self, project_id: str) -> dict[str, Any] | None:
        """The project; None for an unknown id."""
        return self._open().projects.find(project_id)

    @_reads
    def get_project_by_name(self, name: str) -> dict[str, Any] | None:
        """The oldest project of this name, or None."""
        return self._open().projects.find_by_name(name)

    @_writes
    def update_project(self, project_id: str, name: str, description: str = "", color: str = "#14b8a6") -> None:
        """Give a project another name, description and color."""
        self._open().projects.update(project_id, name, description, color)

    @_reads
    def delete_project(self, project_id: str, *, dry_run: bool = False) -> None:
        """Delete a project; its runs stay and belong to none. With `dry_run` only an unknown id is told."""
        workspace = self._open(writing=True)
        workspace.deletions.rehearsed(lambda: workspace.delete_project(project_id), dry_run)

    @_writes
    def set_run_project(self, run_id: str, project_id: str | None) -> None:
        """Put a run into a project, or with None into none."""
        self._open().set_run_project(run_id, project_id)

    @_reads
    def get_or_create_project(self, name: str) -> str:
        """Id of the project of this name, a new one if there is none."""
        found = self._open(writing=True).projects.find_by_name(name)
        return str(found["project_id"]) if found else self._open().projects.create(name, "", "#14b8a6")

    # -- artifacts ---------------------------------------------------------------------------

    @_writes
    def save_artifact(self, obj: Any, operator_class: str, artifact_type: str, format: str) -> str:
        """Id of the stored object: the hash of its bytes, so equal bytes give the same id and one file.

        `format` is "joblib", "cloudpickle" (lambdas and local classes) or "pickle". The object is kept until the
        pipelines open in this process have ended, then for as long as a chain refers to it.
        """
        return self._open().artifacts.save(
            obj, operator_class, artifact_type, format, compress=self._artifacts.compress
        )

    @_writes
    def save_artifact_with_cache_key(
        self,
        obj: Any,
        operator_class: str,
        artifact_type: str,
        format: str,
        chain_path_hash: str,
        input_data_hash: str,
        dataset_hash: str,
    ) -> str:
        """Like `save_artifact`, findable by `find_cached_artifact` under the two first hashes."""
        key = {"chain_path_hash": chain_path_hash, "input_data_hash": input_data_hash, "dataset_hash": dataset_hash}
        return self._open().artifacts.save(
            obj, operator_class, artifact_type, format, key, compress=self._artifacts.compress
        )

    @_writes
    def register_existing_artifact(
        self,
        artifact_id: str,
        path: str,
        content_hash: str,
        operator_class: str,
        artifact_type: str,
        format: str,
        size_bytes: int,
    ) -> str:
        """`artifact_id`, now naming a file already below `artifacts/` (`path` relative to it).

        `content_hash` is "sha256:<hex>" or an xxh3-128; loading verifies it. The same id with the same
        hash again is a no-op, with another hash a ConflictError.
        """
        written = Written(artifact_id, path, content_hash, operator_class, artifact_type, format, size_bytes)
        return self._open().register_artifact(written)

    @_writes
    def update_artifact_cache_key(
        self, artifact_id: str, chain_path_hash: str, input_data_hash: str, dataset_hash: str
    ) -> None:
        """Make a stored artifact findable by `find_cached_artifact`."""
        self._open().artifacts.set_cache_key(artifact_id, chain_path_hash, input_data_hash, dataset_hash)

    @_reads
    def find_cached_artifact(self, chain_path_hash: str, input_data_hash: str) -> str | None:
        """Id of the artifact saved last under this cache key, or None."""
        return self._open().artifacts.find_cached(chain_path_hash, input_data_hash)

    @_reads
    def invalidate_dataset_cache(self, dataset_hash: str) -> int:
        """Forget the cache keys of a dataset's artifacts; how many. The artifacts stay."""
        self._open(writing=True)
        return self._open().invalidate_dataset(dataset_hash)

    @_reads
    def load_artifact(self, artifact_id: str) -> Any:
        """The stored object, after its bytes were verified. Loading runs code that the file names, as far as `trusted`
        allows.

        Raises NotFoundError, ArtifactMissingError, ArtifactCorruptError or UntrustedArtifactError.
        """
        return self._open().artifacts.load(artifact_id)

    @_reads
    def shared_artifact(self, artifact_id: str) -> Any:
        """Like `load_artifact`, the same object for every caller, kept in memory for the next one: do not change it."""
        return self._open().artifacts.shared(artifact_id)

    @_reads
    def describe_artifact(self, artifact_id: str) -> ArtifactDescription:
        """Class, library versions, sizes, references and the globals it would import, without loading anything of
        it.
        """
        return self._open().artifacts.describe(artifact_id)

    @_told
    def verify(
        self,
        *,
        quick: bool = False,
        sample: float | None = None,
        repair: bool = False,
        progress: VerifyProgress | None = None,
    ) -> VerificationReport:
        """Compare everything in the workspace with what can be known of it; other processes go on meanwhile.

        Looks at every block of the file, keys, references and derived columns of all rows, the bytes of all artifacts,
        what waits in logs, templates and shards. `quick` leaves out blocks, keys and bytes; `sample` is the share
        of blocks and of artifact files that is read, between 0 and 1. `repair` removes leftovers and derives again what
        is derived, after a copy into `repairs/`; it never touches what may be the only copy of something. The report
        is true when the store is sound. `progress(part, done, total)` is called now and then.
        """
        return verify(self._open(writing=repair), quick, sample, repair, progress)

    @_told
    def verify_artifacts(self, *, progress: Progress | None = None) -> VerifyReport:
        """Read every artifact file and compare it with its hash; `progress(done, total)` is called now and then."""
        return self._open().verify_artifacts(progress)

    @_reads
    def get_artifact_path(self, artifact_id: str) -> Path:
        """Where the artifact's file is; NotFoundError for an unknown id."""
        return self._open().artifacts.path_of(artifact_id)

    @_reads
    def gc_artifacts(self, *, progress: Progress | None = None, dry_run: bool = False) -> int:
        """Remove artifacts that nothing refers to, and files a crash left behind; the number of files removed.

        `progress(done, total)` is called now and then while files are removed. With `dry_run` none is.
        """
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(lambda: workspace.deletions.gc(progress), dry_run)

    @_reads
    def cleanup_transient_artifacts(
        self, run_id: str, dataset_name: str, winning_pipeline_ids: list[str], *, dry_run: bool = False
    ) -> int:
        """After a refit, let go of fold models and losing chains' transformers that no stored prediction needs.

        Chains and predictions stay. Returns the number of files removed, with `dry_run` of those that would be.
        """
        deletions = self._open(writing=True).deletions
        return deletions.rehearsed(
            lambda: deletions.clean_up_transient(run_id, dataset_name, winning_pipeline_ids), dry_run
        )

    # -- logs --------------------------------------------------------------------------------

    @_writes
    def log_step(
        self,
        pipeline_id: str,
        step_idx: int,
        operator_class: str,
        event: str,
        duration_ms: int | None = None,
        message: str | None = None,
        details: dict[str, Any] | None = None,
        level: str = "info",
    ) -> None:
        """Note an event ("start", "end", "warning", ...) of a step; `level` is debug, info, warning, error or
        critical.
        """
        self._open().pipelines.require_known(pipeline_id)
        self._open().logs.add(pipeline_id, step_idx, operator_class, event, duration_ms, message, details, level)

    @_reads
    def get_pipeline_log(self, pipeline_id: str) -> pl.DataFrame:
        """Log entries of a pipeline, by step and then in the order they were written."""
        return self._open().logs.of_pipeline(pipeline_id)

    @_reads
    def get_run_log_summary(self, run_id: str) -> pl.DataFrame:
        """One row per pipeline of a run: entries, total duration of "end" events in ms, warnings, errors."""
        return self._open().logs.summary_of_run(run_id)

    # -- replay ------------------------------------------------------------------------------

    @checked
    def replay_chain(
        self,
        chain_id: str,
        X: np.ndarray[Any, Any],
        wavelengths: np.ndarray[Any, Any] | None = None,
        *,
        folds: Any = "auto",
        fold_weights: Any = None,
        return_proba: bool = False,
    ) -> np.ndarray[Any, Any]:
        """Predictions of a stored chain on new spectra; see `n4a_fast.replay_chain`."""
        return self._open().replayer.replay(chain_id, X, wavelengths, Choice(folds, fold_weights), return_proba)

    @checked
    def replay_chains(
        self,
        chain_ids: Sequence[str],
        X: Any,
        wavelengths: np.ndarray[Any, Any] | None = None,
        *,
        folds: Any = "auto",
        fold_weights: Any = None,
        return_proba: bool = False,
        n_jobs: int = 1,
        threads: int = 1,
        progress: Callable[[int, int], object] | None = None,
        max_bytes: int = 2**28,
        out: np.ndarray[Any, Any] | str | Path | None = None,
    ) -> Any:
        """Predictions of many chains on the same spectra, (n_chains, n_samples[, n_targets]); see
        `n4a_fast.replay_chains`. `X` may be more than memory holds, and `out` an array or a file to fill.
        """
        work = Work(X, wavelengths, Choice(folds, fold_weights), return_proba, n_jobs, threads, max_bytes)
        return replay_into(self._open().replayer, chain_ids, work, out, progress)

    @checked
    def replay_and_save(
        self,
        chain_ids: Sequence[str],
        X: np.ndarray[Any, Any],
        y: Any = None,
        *,
        dataset: str,
        wavelengths: Any = None,
        sample_indices: Any = None,
        partition: str = "test",
        run: str | None = None,
        folds: Any = "auto",
        n_jobs: int = 1,
        threads: int = 1,
    ) -> list[str]:
        """Predict new spectra with stored chains and keep the predictions, all of them or none; their ids, in order.

        `y` (n_samples[, n_targets]), as the chains predict, gives scores: rmse, r2 and mae, or accuracy, balanced
        accuracy and macro F1. What was not measured is NaN, or None among labels, and has no part in them. The
        predictions belong to a pipeline of their own on `dataset`, in the open run `run` or in one that is made and
        completed, under the fold "avg", which no ranking of chains counts.
        """
        data = NewSpectra(X, y, wavelengths, sample_indices, dataset, partition)
        return replay_and_save(self, chain_ids, data, run, {"folds": folds, "n_jobs": n_jobs, "threads": threads})

    def replay_plan(
        self, chain_id: str, X: np.ndarray[Any, Any] | None = None, wavelengths: np.ndarray[Any, Any] | None = None
    ) -> PlanReport:
        """How `replay_chain` runs a chain: which steps are fused, which run plainly and why. Print it.

        A chain that was never replayed has no such plan yet, unless spectra `X` are given to make it with.
        """
        return report_plan(self._open().replayer, chain_id, X, wavelengths)

    # -- exports -----------------------------------------------------------------------------

    @_reads
    def export_pipeline_config(self, pipeline_id: str, output_path: str | Path) -> Path:
        """Write a pipeline's expanded configuration as JSON; the file appears whole or not at all."""
        return tabular.export_pipeline_config(self._open().pipelines, pipeline_id, Path(output_path))

    @_reads
    def export_run(self, run_id: str, output_path: str | Path) -> Path:
        """Write a run, its summary, its pipelines and their chains as YAML that `yaml.safe_load` reads."""
        workspace = self._open()
        return tabular.export_run(workspace.runs, workspace.pipelines, workspace.chains, run_id, Path(output_path))

    @_reads
    def export_predictions_parquet(
        self,
        /,
        output_path: str | Path,
        *,
        arrays: bool = False,
        labels: bool = False,
        partition_by: str | Sequence[str] | None = None,
        **filters: Any,
    ) -> Path:
        """Write the predictions that match every filter (those of `query_predictions`) as Parquet, in the order of
        time.

        `arrays` adds y_true, y_pred, y_proba, sample_indices and weights as lists, row-major, `labels` also
        y_true_labels and y_pred_labels, null for targets that are numbers. `partition_by` (columns
        such as "dataset_name") writes a new folder with a file for each value, `dataset_name=corn/data.parquet`.
        """
        content: parquet.Arrays = "with labels" if labels else "numbers" if arrays else "none"
        return parquet.export_predictions(self._open().database, Path(output_path), content, partition_by, filters)

    @_reads
    def export_predictions_csv(self, /, output_path: str | Path, **filters: Any) -> Path:
        """Write the predictions that match every filter (those of `query_predictions`) as CSV with a head, in the order
        of time.

        What is not known is an empty field, times are in UTC, `scores` and `best_params` JSON. Arrays go into Parquet.
        """
        return parquet.export_csv(self._open().database, Path(output_path), filters)

    @_reads
    def export_chain(self, chain_id: str, output_path: str | Path, format: str = "n4a") -> Path:
        """Write a chain as one file that needs no store: "n4a", a bundle that nirs4all reads too, or "n4a.py", a
        script.

        A script holds weights where the chain is one linear map (numpy alone runs it), else pickled operators.
        A path without a suffix gets that of the format. The operators are loaded for it. ReplayError, with the
        step, for what such a file cannot hold: several sources, or operators that need wavelengths.
        """
        workspace = self._open()
        return export.export_chain(
            workspace.chains, workspace.artifacts, workspace.arrays, chain_id, Path(output_path), format
        )

    @_reads
    def import_chain(self, path: str | Path, *, max_bytes: int | None = None) -> str:
        """Id of the chain in a `.n4a` file, written by this package or by nirs4all; durable on return.

        It gets a run and a pipeline of its own. The same bundle again gives the same chain; one with other operators
        under the ids of a chain that is here becomes a chain of its own. Hashes are verified
        and nothing is unpickled: that happens on replay, by the store's rule for imported artifacts. BundleError,
        before anything is written, for a file that is damaged, unsafe, unpacks to more than `max_bytes`, or
        holds what no chain can.
        """
        return importer.import_chain(self._open(writing=True), Path(path), max_bytes)

    # -- deleting ----------------------------------------------------------------------------

    @_reads
    def delete_run(self, run_id: str, delete_artifacts: bool = True, *, dry_run: bool = False) -> int:
        """Delete a run and everything below it in one transaction; the number of rows deleted.

        Counts rows of runs, pipelines, chains, predictions, prediction_arrays and logs. Unless
        `delete_artifacts` is False, artifacts that nothing else uses go too. With `dry_run` everything is rolled
        back: the number is what would have gone.
        """
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(lambda: workspace.deletions.delete_run(run_id, delete_artifacts), dry_run)

    @_reads
    def delete_pipeline(self, pipeline_id: str, delete_artifacts: bool = True, *, dry_run: bool = False) -> int:
        """Delete a pipeline with its chains, predictions and logs, as `delete_run` does a run; the number of rows."""
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(
            lambda: workspace.deletions.delete_pipeline(pipeline_id, delete_artifacts), dry_run
        )

    @_reads
    def delete_chain(self, chain_id: str, delete_artifacts: bool = True, *, dry_run: bool = False) -> int:
        """Delete a chain with its predictions, as `delete_run` does a run; the number of rows. Its pipeline stays."""
        workspace = self._open(writing=True)
        return workspace.deletions.rehearsed(
            lambda: workspace.deletions.delete_chain(chain_id, delete_artifacts), dry_run
        )

    @_reads
    def vacuum(self) -> VacuumReport:
        """Give the space of deleted rows back to the disk; the file's bytes `before` and `after`.

        Writes a fresh copy beside the file and swaps it in at once; needs that much free disk.
        """
        self._open(writing=True).require_no_unit("vacuum()")
        return vacuum(self._open().database)

    @_told
    def stats(self) -> StoreStats:
        """Rows and bytes, what is durable but not in the tables yet, and the processes that write; nothing is flushed
        for it.
        """
        return stats_of(self._open())

    # -- other workspaces ----------------------------------------------------------------------

    @_told
    def shard(self, path: str | Path | None = None, *, run_id: str | None = None) -> Shard[WorkspaceStore]:
        """A picklable handle on a private workspace for one writer, at `path` or below this one's `shards/`.

        `handle.open()` gives its store, in whatever process. With `run_id`, pipelines can be begun in that run
        there. `merge` brings what was saved here.
        """
        return new_shard(self._open(), path, run_id, type(self))

    @_told
    def merge(
        self,
        *sources: str | Path | Shard[WorkspaceStore],
        progress: Callable[[str, int, int], object] = lambda *_: None,
        dry_run: bool = False,
    ) -> MergeReport:
        """Absorb other workspaces, or without any named all shards below this one; rows found and added by table.

        Each is taken in one transaction; what is here already is passed over, so merging twice, or again after a
        kill, changes nothing. Raises ConflictError for an id that has other content here; nothing of that workspace
        is taken then. `progress` gets the path of each merged workspace, how many are done, and of how many.
        Workspaces of nirs4all, of any release since 0.7, are sources as well; they are only read. With `dry_run` each
        is taken and rolled back, so that the answer is what it would add to what is here now; no file is copied.
        """
        self._open(writing=True).require_no_unit("merge()")
        return merge_all(self._open(), sources, progress, checks.flag(dry_run, "dry_run"))

    @_reads
    def extract(self, run_ids: Sequence[str], to: str | Path) -> MergeReport:
        """Make a new workspace at `to` of these runs, with all below them, in shards too, and their artifacts; rows by
        table.

        The inverse of `merge`: merged into another workspace, it brings these runs there. `to` must not exist, or be an
        empty folder, and appears whole or not at all. NotFoundError for an unknown run.
        """
        return extract(self._open(), run_ids, Path(to))

    @_told
    def backup(
        self, to: str | Path, incremental: bool = True, *, progress: VerifyProgress | None = None
    ) -> BackupReport:
        """Copy everything committed at one moment to the folder `to`, verified, beside running writers.

        The backup is a workspace that can be opened. One that is at `to` already is replaced in one step when the new
        one is whole; `incremental` takes its unchanged artifacts over. Artifacts are linked where the disk allows it.
        Shards below this workspace are backed up with it. The backup of another workspace is refused. Raises
        DamagedStoreError, and leaves the former backup as it is, when this store is damaged.
        """
        return backup(self._open(), Path(to), incremental, progress)

    @classmethod
    @checked
    def restore(
        cls,
        backup: str | Path,
        to: str | Path,
        replace: bool = False,
        *,
        progress: VerifyProgress | None = None,
    ) -> BackupReport:
        """Make a workspace at `to` of a backup, verified before it takes its place.

        An existing workspace is refused unless `replace` is given; then it is kept beside `to`, under the name in the
        report. Raises StoreLockedError while another process has it open for writing.
        """
        source = checks.path(backup, "backup")
        with told(source):
            return restore(source, checks.path(to, "to"), checks.flag(replace, "replace"), progress)

    def _connect(
        self,
        workspace_path: str | Path,
        read_only: bool,
        lock_timeout: float,
        limits: FlushLimits | None = None,
        artifacts: ArtifactSettings = DEFAULTS,
        memory_limit: int | None = None,
    ) -> None:
        self._workspace = open_workspace(
            path := checks.path(workspace_path, "workspace_path"),
            read_only=read_only,
            lock_timeout=(lock_timeout := checks.seconds(lock_timeout, "lock_timeout")),
            limits=limits,
            artifacts=artifacts,
            memory_limit=memory_limit,
        )
        self._path, self._root, self._read_only, self._memory_limit = (
            path,
            self._workspace.root,
            read_only,
            memory_limit,
        )
        self._lock_timeout, self._limits, self._artifacts, self._begun, self._finalizer = (
            lock_timeout,
            limits,
            artifacts,
            Begun(),
            _finalizer_of(self, self._workspace, artifacts),
        )

    def _open(self, *, writing: bool = False) -> Workspace:
        return _usable(self._workspace, self._path, writing and self._read_only, self._lock_timeout)

    def _held(self) -> Workspace:
        """The workspace of a call that has its lock now: another thread may have closed it meanwhile."""
        workspace = self._workspace
        return self._open() if workspace is None or workspace.database.is_closed else workspace


def _opened_again(
    kind: type[WorkspaceStore],
    path: Path,
    read_only: bool,
    lock_timeout: float,
    limits: FlushLimits | None,
    artifacts: ArtifactSettings,
    memory_limit: int | None = None,
) -> WorkspaceStore:
    """What a pickled store becomes where it is loaded."""
    store = kind.__new__(kind)
    store._connect(path, read_only, lock_timeout, limits, artifacts, memory_limit)
    return store


def _usable(workspace: Workspace | None, path: Path, refused: bool, lock_timeout: float) -> Workspace:
    if workspace is None:
        raise StoreClosedError(path)
    if refused:
        raise ReadOnlyError(path)
    workspace.require_usable(lock_timeout)
    return workspace


def _release(store: WorkspaceStore, workspace: Workspace) -> None:
    """A store uses its workspace no more; nothing when another thread closes it just now."""
    if store._finalizer.detach() is None:
        return
    try:
        workspace.release(store._artifacts, may_repeat=True)
    except StoreMovedError:
        raise
    except BaseException:  # it can be closed again
        store._finalizer = _finalizer_of(store, workspace, store._artifacts)
        raise


def _finalizer_of(
    store: WorkspaceStore, workspace: Workspace, artifacts: ArtifactSettings
) -> weakref.finalize[[ArtifactSettings], WorkspaceStore]:
    """Closes what nobody has closed, once nobody has the store any more."""
    finalizer = weakref.finalize(store, workspace.drop, artifacts)
    finalizer.atexit = False  # the end of the program closes all that is open
    return finalizer
