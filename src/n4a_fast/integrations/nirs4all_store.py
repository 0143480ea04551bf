"""`Nirs4allStore`: the store as nirs4all 0.7.1, its users and its tests call it.

Adds to the documented API what they take for granted: private ways to send SQL, configurations
that hold objects, stores that travel to worker processes, and runs that are never ended because
Ctrl-C passes nirs4all's error handling by. None of it belongs to the store's own API.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import polars as pl

from n4a_fast import jsontext
from n4a_fast.errors import InvalidInputError
from n4a_fast.store import WorkspaceStore
from n4a_fast.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")


def _tolerant(method: Callable[Concatenate[WorkspaceStore, P], R]) -> Callable[Concatenate[WorkspaceStore, P], R]:
    """The method, with objects that are no JSON stored as text, as nirs4all's own store does."""

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except InvalidInputError:
            return method(self, *(_plain(value) for value in args), **{name: _plain(value) for name, value in kwargs.items()})

    return call


def _begins(method: Callable[Concatenate[WorkspaceStore, P], str]) -> Callable[Concatenate[WorkspaceStore, P], str]:
    """The method, with what it began noted until it is ended."""

    @wraps(method)
    def call(self: WorkspaceStore, /, *args: P.args, **kwargs: P.kwargs) -> str:
        identifier = method(self, *args, **kwargs)
        _UNFINISHED[identifier] = self
        return identifier

    return call


class Nirs4allStore(WorkspaceStore):
    """A `WorkspaceStore` that nirs4all 0.7.1 cannot tell from its own."""

    begin_run = _begins(_tolerant(WorkspaceStore.begin_run))
    begin_pipeline = _begins(_tolerant(WorkspaceStore.begin_pipeline))
    save_chain = _tolerant(WorkspaceStore.save_chain)
    save_prediction = _tolerant(WorkspaceStore.save_prediction)
    log_step = _tolerant(WorkspaceStore.log_step)

    def complete_run(self, run_id: str, summary: dict[str, Any]) -> None:
        """Like the store's, and the run needs no end at exit any more."""
        super().complete_run(run_id, _plain(summary))
        _UNFINISHED.pop(run_id, None)

    def fail_run(self, run_id: str, error: str) -> None:
        """Like the store's, and the run needs no end at exit any more."""
        super().fail_run(run_id, error)
        _UNFINISHED.pop(run_id, None)

    def complete_pipeline(self, pipeline_id: str, best_val: float, best_test: float, metric: str, duration_ms: int) -> None:
        """Like the store's, and the pipeline needs no end at exit any more."""
        super().complete_pipeline(pipeline_id, best_val, best_test, metric, duration_ms)
        _UNFINISHED.pop(pipeline_id, None)

    def fail_pipeline(self, pipeline_id: str, error: str) -> None:
        """Like the store's, and the pipeline needs no end at exit any more."""
        super().fail_pipeline(pipeline_id, error)
        _UNFINISHED.pop(pipeline_id, None)

    _travelled = False  # unpickled in a worker process: the folder is opened when the copy is first used, which nirs4all never does

    def __reduce__(self) -> tuple[Any, ...]:
        return _travelled, (type(self), self._path, self._read_only)

    def _open(self, *, writing: bool = False) -> Workspace:
        if self._travelled:
            self._connect(self._path, read_only=self._read_only, lock_timeout=30.0)
            self._travelled = False
        return super()._open(writing=writing)

    def close(self) -> None:
        """Write what is pending and let the file go; what was begun may be ended after another opening."""
        super().close()
        for identifier in [identifier for identifier, store in _UNFINISHED.items() if store is self]:
            del _UNFINISHED[identifier]

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


def _travelled(kind: type[Nirs4allStore], path: Path, read_only: bool) -> Nirs4allStore:
    store = kind.__new__(kind)
    store._path, store._read_only, store._workspace, store._travelled = path, read_only, None, True
    return store


class Connection:
    """As much of a DuckDB connection as nirs4all's users reach for: SELECTs, answered by the store's `sql`."""

    def __init__(self, store: WorkspaceStore) -> None:
        self._store = store

    def execute(self, query: str, parameters: Sequence[Any] | None = None) -> Result:
        """The answer to one SELECT; anything that writes raises InvalidInputError."""
        return Result(self._store.sql(query, parameters or ()))


class Result:
    """Rows to be fetched once, like those of a DuckDB cursor."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._rows = frame.iter_rows()

    @property
    def description(self) -> list[tuple[str, Any]]:
        """Name and type of each column."""
        return list(self._frame.schema.items())

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return list(self._rows)

    def pl(self) -> pl.DataFrame:
        """All rows as a frame."""
        return self._frame


def _plain(value: Any) -> Any:
    """`value` with every object that is no JSON replaced by its text, without the address in it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    try:
        jsontext.encode(value, "value")
    except InvalidInputError:
        return re.sub(r" at 0x[0-9a-f]+", "", str(value))
    return value


def _fail_what_is_unfinished() -> None:
    """At the end of the program: nirs4all handles no KeyboardInterrupt, and its runs would stay "running" for ever."""
    uncaught = getattr(sys, "last_type", None)
    error = f"{uncaught.__name__ if uncaught else 'interrupted'}: the program ended before this did"
    for identifier, store in reversed(list(_UNFINISHED.items())):
        if store.get_run(identifier) is None:
            store.fail_pipeline(identifier, error)
        else:
            store.fail_run(identifier, error)


# runs and pipelines begun here and not ended, with the store that has to say so
_UNFINISHED: dict[str, WorkspaceStore] = {}
os.register_at_fork(after_in_child=_UNFINISHED.clear)
atexit.register(_fail_what_is_unfinished)  # after the workspace's own hook, and so before it: the last one registered runs first
