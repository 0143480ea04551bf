"""`Store1x`: the store as nirs4all 1.x calls it.

What nirs4all's own class makes of its SQL alone (results of analyses, what its studio reads, summaries by
scope) is taken from it when it is replaced (see `hosting`) and runs on our tables; here is what has to
be done otherwise. Signatures, and so the order of arguments, are nirs4all's.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from n4a_fast.engine.deletions import Deleted
from n4a_fast.engine.refusals import told, told_of_ends
from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.integrations.nirs4all.answers import Answers
from n4a_fast.integrations.nirs4all.array_facade import ArrayFacade
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore, require_store
from n4a_fast.integrations.nirs4all.promises import Promises
from n4a_fast.integrations.nirs4all.relations import is_nan, manifest_of, names_of_fold, relation_of, require_canonical
from n4a_fast.integrations.nirs4all.rows_by_name import RowConnection
from n4a_fast.integrations.nirs4all.rows_of_runs import RowsOfRuns, rows_gone
from n4a_fast.integrations.workspaces.sqlite_schema import RELATION, REPLAY, SUMMARY
from n4a_fast.store import WorkspaceStore
from n4a_fast.tables.artifact_rows import Written
from n4a_fast.values import jsontext
from n4a_fast.values.chain_input import ChainInput

Array = np.ndarray[Any, Any]

_NUMBERS = ("val_score", "test_score", "train_score", "exclusion_rate")
_BESIDE_CHAINS = (*SUMMARY, *REPLAY)


class Store1x(Nirs4allStore):
    """A `WorkspaceStore` that nirs4all 1.0.4 to 1.4.10 cannot tell from its own."""

    AUTO_COMPACT_TOMBSTONE_THRESHOLD = 64  # read by its users; nothing here has to be compacted

    _of_runs: RowsOfRuns
    _answers: Answers
    _unused_saves: dict[str, int]  # by id, calls that saved an artifact that no chain has named since
    _promises: Promises
    _facade: weakref.ref[ArrayFacade] | None

    def __new__(cls, *_: Any, **__: Any) -> Any:
        store = super().__new__(cls)
        store._promises, store._of_runs, store._answers = Promises(), RowsOfRuns(), Answers()
        store._unused_saves, store._facade = {}, None
        return store

    def __init__(self, workspace_path: str | Path, *, read_only: bool = False, **options: Any) -> None:
        if read_only:
            require_store(Path(workspace_path))
            self._connect(Path(workspace_path), read_only=True, lock_timeout=30.0)
        else:
            Path(workspace_path).mkdir(parents=True, exist_ok=True)
            super().__init__(workspace_path, **options)

    @classmethod
    def open_readonly(cls, workspace_path: str | Path, **options: Any) -> Any:
        """Like the store's; a folder without one raises FileNotFoundError."""
        require_store(Path(workspace_path))
        return super().open_readonly(workspace_path, **options)

    @property
    def array_store(self) -> ArrayFacade:
        """The arrays, by nirs4all's calls: one object as long as anyone has it."""
        facade = None if self._facade is None else self._facade()
        if facade is None:
            facade = ArrayFacade(self)
            self._facade = weakref.ref(facade)  # which holds this store
        return facade

    _array_store = array_store

    @property
    def _workspace_path(self) -> Path:
        return self._path

    @property
    def _artifacts_dir(self) -> Path:
        return self._path / "artifacts"

    @property
    def _lock(self) -> Any:
        return self._open().lock

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """What the block saves is committed together; a block inside another joins it. nirs4all has one for what a
        pipeline found, a moment after it saved the pipeline: they share a sync.
        """
        workspace = self._open(writing=True)
        with workspace.lock:
            if workspace.database.in_transaction:
                yield self
                return
            with told_of_ends(self._path, workspace.transaction(flushed=False)):
                yield self

    # -- SQL ---------------------------------------------------------------------------------

    def _ensure_open(self) -> Any:
        self._open()
        return RowConnection(self)

    @property
    def _conn(self) -> Any:
        return None if self._workspace is None else RowConnection(self)

    def _fetch_one(self, sql: str, params: Sequence[Any] | None = None) -> dict[str, Any] | None:
        return next(self._fetch_pl(sql, params).iter_rows(named=True), None)

    def _fetch_pl(self, sql: str, params: Sequence[Any] | None = None) -> pl.DataFrame:
        return RowConnection(self).frame(sql, params)

    def _execute_with_retry(self, sql: str, params: Sequence[Any] | None = None, **_: Any) -> None:
        RowConnection(self).execute(sql, params)

    # -- artifacts ---------------------------------------------------------------------------

    def _register(self, workspace: Workspace, awaiting: list[Written]) -> list[Any]:
        return self._promises.register(workspace, awaiting)

    def _begin_registering(self, workspace: Workspace) -> None:
        """Their files have not come yet."""

    def _keep_promises(self) -> None:
        """Verify the files that have come since they were promised."""
        here = self._promises.kept(self._opened())
        for written in here:
            self._names.registered.pop(written.artifact_id, None)
        self._awaiting += here
        self._open()

    def save_artifact(self, obj: Any, operator_class: str, artifact_type: str, format: str) -> str:
        """Like the store's; each call counts in `artifacts.ref_count`, until a chain names the artifact and counts."""
        artifact_id = super().save_artifact(obj, operator_class, artifact_type, format)
        self._unused_saves[artifact_id] = self._unused_saves.get(artifact_id, 0) + 1
        return artifact_id

    def load_artifact(self, artifact_id: str) -> Any:
        """Like the store's."""
        self._keep_promises()
        return super().load_artifact(artifact_id)

    def get_artifact_path(self, artifact_id: str) -> Path:
        """Like the store's."""
        self._keep_promises()
        return super().get_artifact_path(artifact_id)

    def cleanup_transient_artifacts(self, *given: Any, **options: Any) -> int:
        """Like the store's."""
        self._keep_promises()
        return super().cleanup_transient_artifacts(*given, **options)

    def gc_artifacts(self, **options: Any) -> int:
        """Like the store's; nothing inside `transaction()`, since files cannot be brought back."""
        if self._opened().units.is_open:
            return 0
        self._keep_promises()
        return super().gc_artifacts(**options)

    def close(self) -> None:
        """Like the store's."""
        if self._workspace is not None and self._promises:
            self._keep_promises()
        super().close()

    # -- runs and pipelines ------------------------------------------------------------------

    def complete_run(self, run_id: str, summary: dict[str, Any]) -> None:
        """Like the store's."""
        self._keep_promises()
        super().complete_run(run_id, summary)

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Mark a pipeline as failed; what its models stored before stays, as in nirs4all."""
        workspace = self._open(writing=True)
        with workspace.lock:
            workspace.pipelines.fail(pipeline_id, error)
            workspace.end_pipeline()
        self._note_end(pipeline_id)

    def get_pipeline(self, pipeline_id: str) -> dict[str, Any] | None:
        """Like the store's; one of this process is found in memory."""
        workspace = self._opened()
        with workspace.lock:
            pending = workspace.pipelines.pending_row(pipeline_id)
        return self._of_runs.pipeline(self._open(), pipeline_id) if pending is None else pending

    # -- chains ------------------------------------------------------------------------------

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
        dataset_name: str | None = None,
        relation_replay_manifest: Any = None,
        *,
        input: ChainInput | Mapping[str, Any] | None = None,
    ) -> str:
        """Like the store's; the manifest is kept beside the chain. Its dataset is that of its pipeline."""
        given = (model_step_idx, model_class, preprocessings, fold_strategy, fold_artifacts, shared_artifacts)
        manifest = manifest_of(relation_replay_manifest)
        chain_id = super().save_chain(pipeline_id, steps, *given, branch_path, source_index, input=input)
        if self._unused_saves:
            for artifact_id in self._open().chains.references(chain_id):
                self._unused_saves.pop(artifact_id, None)
        if manifest is not None:
            beside = {
                "relation_replay_manifest": jsontext.encode(manifest, "relation_replay_manifest"),
                "relation_replay_version": manifest.get("version"),
                "relation_replay_fingerprint": manifest.get("fingerprint"),
            }
            self.save_beside("chains", chain_id, beside)
        return chain_id

    def _stored_chains(self, pipeline_id: str) -> pl.DataFrame:
        return self._of_runs.chains(self._open(), pipeline_id)

    def get_chain(self, chain_id: str) -> dict[str, Any] | None:
        """The chain with its summary and its manifest."""
        chain = super().get_chain(chain_id)
        if chain is None:
            return None
        (more,) = self._beside_chains([chain_id]).iter_rows(named=True)
        more["relation_replay_manifest"] = jsontext.decode(more["relation_replay_manifest"])
        return {**chain, **{name: more[name] for name in _BESIDE_CHAINS}}

    def _beside_chains(self, chain_ids: list[str]) -> pl.DataFrame:
        columns = ", ".join(("chain_id", *_BESIDE_CHAINS))
        marks = ", ".join("?" * len(chain_ids))
        return self._fetch_pl(f"SELECT {columns} FROM chains WHERE chain_id IN ({marks})", chain_ids)

    def update_chain_summary(self, chain_id: str) -> None:
        """Nothing to do: summaries follow from the predictions."""

    def bulk_update_chain_summaries(self, chain_ids: list[str]) -> None:
        """Nothing to do: summaries follow from the predictions."""

    def export_chain(
        self,
        chain_id: str,
        output_path: str | Path,
        format: str = "n4a",
        relation_replay_manifest: Any = None,
    ) -> Path:
        """Like the store's; InvalidInputError for a chain that relations are replayed for, which no such file holds."""
        self._keep_promises()
        if relation_replay_manifest is not None or self.beside("chains", [chain_id]):
            raise InvalidInputError(
                f"chain {chain_id!r} has a relation_replay_manifest, which bundles written here cannot hold; export it"
                " from a workspace of nirs4all's own (n4a-fast convert)"
            )
        self._validate_chain_export(chain_id)
        return super().export_chain(chain_id, output_path, format)

    def _validate_chain_export(self, chain_id: str) -> None:
        """Overridden by nirs4all's own, where it has one."""

    # -- predictions -------------------------------------------------------------------------

    def save_prediction(self, *args: Any, **kwargs: Any) -> str:
        """Like the store's; NaN counts as no score, and places in relations are kept beside the row."""
        require_canonical(kwargs.get("prediction_id"), "save_prediction.prediction_id")
        relation = relation_of(kwargs)
        kwargs |= {name: None for name in _NUMBERS if is_nan(kwargs.get(name))}
        args = tuple(None if is_nan(value) else value for value in args)
        prediction_id = super().save_prediction(*args, **kwargs)
        if relation:
            self.save_beside("predictions", prediction_id, relation)
        return prediction_id

    def get_prediction(
        self, prediction_id: str, load_arrays: bool = False, *, labels: bool = False
    ) -> dict[str, Any] | None:
        """The prediction with its places in relations, and with `load_arrays` what `array_store` gives."""
        row = super().get_prediction(prediction_id, load_arrays, labels=labels)
        if row is None:
            return None
        arrays = self.array_store.taken_from(row) if load_arrays else {}
        return row | dict.fromkeys(RELATION) | self.beside_row("predictions", prediction_id) | arrays

    def delete_run(self, run_id: str, delete_artifacts: bool = True, *, dry_run: bool = False) -> int:
        """Like the store's; how many of nirs4all's rows: results of analyses count, arrays do not."""
        workspace = self._open(writing=True)
        delete = partial(WorkspaceStore.delete_run, self, run_id, delete_artifacts)
        try:
            gone = workspace.deletions.rehearsed(partial(rows_gone, workspace, delete), dry_run)
        except NotFoundError:
            return 0
        self._names.forget_registered()
        return gone

    def delete_prediction(self, prediction_id: str, *, dry_run: bool = False) -> bool:
        """Delete a prediction, and the chain and the pipeline that this empties; whether there was one."""
        if dry_run:
            return super().delete_prediction(prediction_id, dry_run=True)
        workspace = self._open(writing=True)
        with workspace.lock:
            workspace.flush()
            return workspace.deletions.delete_prediction(prediction_id, emptied=True)

    def _delete_prediction_group(self, chain_id: str, fold_id: str) -> int:
        return int(self._delete_predictions_matching(chain_id=chain_id, fold_id=fold_id)["deleted_predictions"])

    def _delete_chain_predictions(self, chain_id: str) -> int:
        return int(self._delete_predictions_matching(chain_id=chain_id)["deleted_predictions"])

    def delete_predictions_matching(self, **filters: Any) -> dict[str, Any]:
        """What the studio calls to delete predictions; how many of what went."""
        return self._delete_predictions_matching(**filters)

    def _delete_predictions_matching(
        self,
        *,
        prediction_ids: list[str] | None = None,
        chain_id: str | None = None,
        fold_id: str | None = None,
        dataset_name: str | None = None,
    ) -> dict[str, Any]:
        folds = None if fold_id is None else names_of_fold(fold_id)
        filters = {"chain_id": chain_id, "fold_id": folds, "dataset_name": dataset_name}
        if prediction_ids is None and not any(value is not None for value in filters.values()):
            raise ValueError("name what is to be deleted: prediction_ids, chain_id, fold_id or dataset_name")
        workspace = self._open(writing=True)
        with workspace.lock:
            workspace.flush()
            wanted = {**filters, "prediction_id": prediction_ids}
            gone = (
                Deleted()
                if prediction_ids == []
                else workspace.deletions.delete_matching_predictions(wanted, running=True)
            )
        return {
            "success": True,
            "deleted_predictions": gone.predictions,
            "deleted_arrays": gone.predictions,
            "deleted_chains": gone.chains,
            "deleted_pipelines": gone.pipelines,
            "deleted_artifacts": gone.files,
            "updated_chains": gone.chains_left,
        }

    def compact_arrays(self, dataset_name: str | None = None) -> dict[str, dict[str, Any]]:
        """Nothing to do: what is deleted leaves no trace; see `array_store.compact`."""
        if self._open().units.is_open:
            raise RuntimeError("arrays are compacted outside of transaction()")
        return self.array_store.compact(dataset_name)

    # -- what is kept beside rows ------------------------------------------------------------

    @contextmanager
    def read_together(self) -> Iterator[Workspace]:
        """Several reads of one state: nobody writes meanwhile, and the file stays attached."""
        workspace = self._open()
        with workspace.lock, workspace.database.reading():
            yield workspace

    @contextmanager
    def saving(self) -> Iterator[Workspace]:
        """For several saves in one turn; artifacts that await registration may wait on."""
        with told(self._path), self._opened(writing=True).lock:
            workspace = self._held()
            yield workspace
            workspace.database.yield_turn()

    def save_beside(self, table: str, row_id: str, content: Mapping[str, Any]) -> None:
        """Keep JSON beside a row of one of nirs4all's tables."""
        workspace = self._open(writing=True)
        with workspace.lock:
            workspace.carried.save(table, row_id, content)

    def beside(self, table: str, row_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """What is kept beside rows, by row."""
        with self.read_together() as workspace:
            return workspace.carried.of_rows(table, row_ids) if table in workspace.tables.kept() else {}

    def beside_row(self, table: str, row_id: str) -> dict[str, Any]:
        """What is kept beside one row, empty for nothing."""
        with self.read_together() as workspace:
            return workspace.carried.of_row(table, row_id) if table in workspace.tables.kept() else {}
