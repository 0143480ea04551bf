"""`Nirs4allStore`: the store as nirs4all 0.7.1, its users and its tests call it.

Adds to the documented API what they take for granted: private ways to send SQL, configurations
that hold objects, artifact ids that come back with other content, stores that travel to worker
processes, and runs that nobody ends because Ctrl-C passes nirs4all's error handling by. None of
it belongs to the store's own API.
"""

from __future__ import annotations

import atexit
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import polars as pl

from n4a_fast.artifacts.checkup import Progress
from n4a_fast.artifacts.codec import EXTENSIONS
from n4a_fast.artifacts.model_files import library_of
from n4a_fast.engine.workspace import STORE_FILE, Workspace
from n4a_fast.errors import ConflictError, InvalidInputError, NotFoundError, StoreError
from n4a_fast.integrations.nirs4all.artifact_names import ArtifactNames, free_id
from n4a_fast.integrations.nirs4all.host_connection import Connection
from n4a_fast.platform import at_fork
from n4a_fast.store import WorkspaceStore
from n4a_fast.tables.artifact_rows import Written
from n4a_fast.values import jsontext
from n4a_fast.values.chain_input import ChainInput

P = ParamSpec("P")
R = TypeVar("R")


def _tolerant(method: Callable[Concatenate[WorkspaceStore, P], R]) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """The method, with objects that are no JSON stored as text, as nirs4all's own store does."""

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except InvalidInputError:
            return method(
                self, *(plain(value) for value in args), **{name: plain(value) for name, value in kwargs.items()}
            )

    return call


def _begins(method: Callable[Concatenate[WorkspaceStore, P], str]) -> Callable[Concatenate[WorkspaceStore, P], str]:
    """The method, with what it began noted until it is ended."""

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> str:
        identifier = method(self, *args, **kwargs)
        _UNFINISHED[identifier] = self
        return identifier

    return call


def _before_registering(
    method: Callable[Concatenate[WorkspaceStore, P], R],
) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """The method, which makes nothing durable that was saved before it: artifacts that await registration may wait
    on.
    """

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        assert isinstance(self, Nirs4allStore)
        if not self._awaiting:
            return method(self, *args, **kwargs)
        self._lets_wait = threading.get_ident()  # another thread that comes in between registers early, or for both
        try:
            return method(self, *args, **kwargs)
        finally:
            self._lets_wait = 0

    return call


_save_chain = _tolerant(WorkspaceStore.save_chain)


class Nirs4allStore(WorkspaceStore):
    """A `WorkspaceStore` that nirs4all 0.7.1 cannot tell from its own."""

    begin_run = _begins(_tolerant(WorkspaceStore.begin_run))
    begin_pipeline = _begins(_tolerant(WorkspaceStore.begin_pipeline))
    save_prediction = _before_registering(_tolerant(WorkspaceStore.save_prediction))
    save_prediction_arrays = _before_registering(WorkspaceStore.save_prediction_arrays)
    log_step = _tolerant(WorkspaceStore.log_step)

    _names: ArtifactNames
    _chain_ids: dict[str, list[str]]  # by pipeline, of those that this store has not ended
    _awaiting: list[Written]  # to be registered by the next call that makes anything durable, or reads
    _lets_wait = 0  # the thread whose call does neither
    _is_copy = False

    # -- chains and artifacts ----------------------------------------------------------------

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
        """Like the store's, for artifacts as nirs4all names them."""
        steps, fold_artifacts, shared_artifacts = map(
            self._names.in_references, (steps, fold_artifacts, shared_artifacts)
        )
        texts = (model_class, preprocessings, fold_strategy)
        chain_id = _save_chain(
            self,
            pipeline_id,
            steps,
            model_step_idx,
            *texts,
            fold_artifacts,
            shared_artifacts,
            branch_path,
            source_index,
            input=input,
        )
        self._chain_ids.setdefault(pipeline_id, []).append(chain_id)
        return chain_id

    def get_chains_for_pipeline(self, pipeline_id: str) -> pl.DataFrame:
        """Like the store's; chains that this store saved a moment ago need not be put in their table first."""
        workspace = self._opened()
        with workspace.lock:
            self._begin_registering(workspace)
            pending = workspace.chains.pending_frame(self._chain_ids.get(pipeline_id, ()))
        return self._stored_chains(pipeline_id) if pending is None else pending

    def _begin_registering(self, workspace: Workspace) -> None:
        """nirs4all asks for chains between registrations and predictions: a thread reads the files meanwhile."""
        if self._awaiting:
            workspace.artifacts.begin_registering(self._awaiting)

    def _stored_chains(self, pipeline_id: str) -> pl.DataFrame:
        return super().get_chains_for_pipeline(pipeline_id)

    def save_artifact(self, obj: Any, operator_class: str, artifact_type: str, format: str) -> str:
        """Like the store's; nirs4all's other names for a format ("sklearn", "json", ...) all mean a pickle."""
        return super().save_artifact(obj, operator_class, artifact_type, _format(format, "cloudpickle"))

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
        """Like the store's, for every name of a format that `save_artifact` takes."""
        key = (chain_path_hash, input_data_hash, dataset_hash)
        written = _format(format, "cloudpickle")
        return super().save_artifact_with_cache_key(obj, operator_class, artifact_type, written, *key)

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
        """Like the store's, at the next call that reads or ends something: nirs4all comes with all that a run has made,
        after each pipeline.

        That call raises what stands against it, for the first such artifact, when all others are registered. An id that
        is taken by other content gets the content's hash appended, in the chains that mean it, too.
        """
        if self._names.registered.get(artifact_id) != content_hash:
            written = _format(format, "pickle")
            self._awaiting.append(
                Written(artifact_id, path, content_hash, operator_class, artifact_type, written, size_bytes)
            )
        return artifact_id

    def _register_awaiting(self) -> None:
        workspace = super()._open(writing=True)
        with workspace.lock:
            awaiting, self._awaiting = self._awaiting, []
            refused = []
            for written, stored_id in zip(awaiting, self._register(workspace, awaiting), strict=True):
                if isinstance(stored_id, ConflictError):
                    (stored_id,) = self._register(workspace, [written._replace(artifact_id=free_id(stored_id))])
                if isinstance(stored_id, StoreError):
                    refused.append(stored_id)
                    continue
                self._let_chains_mean(written.artifact_id, stored_id)
                self._names.note(written.artifact_id, written.content_hash, stored_id)
        if refused:
            raise refused[0]

    def _register(self, workspace: Workspace, awaiting: list[Written]) -> list[str | StoreError]:
        return workspace.artifacts.register(awaiting)

    def _let_chains_mean(self, artifact_id: str, stored_id: str) -> None:
        meant = self._names.meant(artifact_id)
        for chain_id in (
            [chain_id for ids in self._chain_ids.values() for chain_id in ids] if meant != stored_id else ()
        ):
            self._open().rename_artifacts(chain_id, {meant: stored_id})

    def cleanup_transient_artifacts(
        self, run_id: str, dataset_name: str, winning_pipeline_ids: list[str], *, dry_run: bool = False
    ) -> int:
        """Like the store's."""
        count = super().cleanup_transient_artifacts(run_id, dataset_name, winning_pipeline_ids, dry_run=dry_run)
        self._names.forget_registered()
        return count

    def gc_artifacts(self, *, progress: Progress | None = None, dry_run: bool = False) -> int:
        """Like the store's."""
        count = super().gc_artifacts(progress=progress, dry_run=dry_run)
        self._names.forget_registered()
        return count

    def delete_run(self, run_id: str, delete_artifacts: bool = True, *, dry_run: bool = False) -> int:
        """Like the store's; of a run that is not there, nothing is deleted."""
        try:
            count = super().delete_run(run_id, delete_artifacts, dry_run=dry_run)
        except NotFoundError:
            return 0
        self._names.forget_registered()
        return count

    def vacuum(self) -> None:  # type: ignore[override]
        """Give the space of deleted rows back to the disk."""
        super().vacuum()

    # -- ends --------------------------------------------------------------------------------

    def complete_run(self, run_id: str, summary: dict[str, Any]) -> None:
        """Like the store's."""
        super().complete_run(run_id, plain(summary))
        self._note_end(run_id)

    def fail_run(self, run_id: str, error: str) -> None:
        """Like the store's."""
        super().fail_run(run_id, error)
        self._note_end(run_id)

    def complete_pipeline(
        self, pipeline_id: str, best_val: float, best_test: float, metric: str, duration_ms: int
    ) -> None:
        """Like the store's."""
        super().complete_pipeline(pipeline_id, best_val, best_test, metric, duration_ms)
        self._note_end(pipeline_id)

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Like the store's."""
        super().fail_pipeline(pipeline_id, error)
        self._note_end(pipeline_id)

    def close(self) -> None:
        """Write what is pending and let the file go; what was begun may be ended after another opening."""
        if self._workspace is not None:
            self._open()
        super().close()
        for identifier in [identifier for identifier, store in _UNFINISHED.items() if store is self]:
            self._note_end(identifier)

    def _note_end(self, identifier: str) -> None:
        _UNFINISHED.pop(identifier, None)
        self._chain_ids.pop(identifier, None)

    # -- private members that callers use ----------------------------------------------------

    def _ensure_open(self) -> Connection:
        """What answers `execute(sql, params)`; StoreClosedError when the store is closed."""
        self._open()
        return Connection(self)

    def _fetch_one(self, sql: str, params: Sequence[Any] | None = None) -> dict[str, Any] | None:
        """The first row of a SELECT by column name, or None."""
        return next(self.sql(sql, params or ()).iter_rows(named=True), None)

    def _fetch_pl(self, sql: str, params: Sequence[Any] | None = None) -> pl.DataFrame:
        """All rows of a SELECT."""
        return self.sql(sql, params or ())

    # -- life --------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:  # joblib sends nirs4all's whole context, store included, to its workers
        return _copied, (type(self), self._path, self._read_only)

    def __new__(cls, *_: Any, **__: Any) -> Self:
        store = super().__new__(cls)
        store._names, store._chain_ids, store._awaiting = ArtifactNames(), {}, []
        return store

    def _opened(self, *, writing: bool = False) -> Workspace:
        if self._is_copy:
            self._is_copy = False
            self._connect(self._path, read_only=self._read_only, lock_timeout=30.0)
        return super()._open(writing=writing)

    def _open(self, *, writing: bool = False) -> Workspace:
        workspace = self._opened(writing=writing)
        if self._awaiting and self._lets_wait != threading.get_ident():
            self._register_awaiting()
        return workspace


def _format(name: str, otherwise: str) -> str:
    """A format by its name here; every name that nirs4all has for none of these means a pickle to it."""
    return name if name in EXTENSIONS or library_of(name) is not None else otherwise


def _copied(kind: type[Nirs4allStore], path: Path, read_only: bool) -> Nirs4allStore:
    """A store of the same folder, opened when it is first used: nirs4all's workers never do."""
    store = kind.__new__(kind)
    store._path, store._read_only, store._workspace, store._is_copy = path, read_only, None, True
    return store


def plain(value: Any) -> Any:
    """`value` with every object that is no JSON replaced by its text, without the address in it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    try:
        jsontext.encode(value, "value")
    except InvalidInputError:
        return re.sub(r" at 0x[0-9a-f]+", "", str(value))
    return value


class MissingWorkspaceError(NotFoundError, FileNotFoundError):
    """A folder opened for reading that holds no store."""


def require_store(folder: Path) -> None:
    if not (folder / STORE_FILE).is_file():
        raise MissingWorkspaceError("store file", str(folder / STORE_FILE), "check the path", where="")


def _fail_what_is_unfinished() -> None:
    """At the end of the program: nirs4all handles no KeyboardInterrupt, and its runs would stay "running" for ever."""
    uncaught = getattr(sys, "last_type", None)
    error = f"{uncaught.__name__ if uncaught else 'interrupted'}: the program ended before this did"
    for identifier, store in reversed(list(_UNFINISHED.items())):
        if store.get_run(identifier) is not None:
            store.fail_run(identifier, error)
        elif store.get_pipeline(identifier) is not None:  # else it was begun in a transaction that was rolled back
            store.fail_pipeline(identifier, error)


# runs and pipelines begun here and not ended, with the store that has to say so
_UNFINISHED: dict[str, WorkspaceStore] = {}
at_fork(in_child=_UNFINISHED.clear)
atexit.register(
    _fail_what_is_unfinished
)  # after the workspace's own hook, and so before it: the last one registered runs first
