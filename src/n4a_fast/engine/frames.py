"""Polars frames of Arrow tables, and the forked child that cannot make any.

Polars keeps a pool of threads from its first use on. A fork copies the process without them, and the child waits for
them for ever, in whatever it asks of Polars. So a child whose parent had such threads is told at once, by every call
that gives a frame; all other calls work in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n4a_fast import platform
from n4a_fast.engine.fork import tell_of_forks
from n4a_fast.errors import ForkedProcessError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def as_frame(table: pa.Table) -> pl.DataFrame:
    """The table as a frame; ForkedProcessError in a child that would wait for ever."""
    return _frames()(table)


def frame_of(rows: list[tuple[object, ...]], types: pl.Schema) -> pl.DataFrame:
    """Few rows as the frame that a table of these `types_of` its schema gives: of one row in half the time."""
    return _frames()(rows, schema=types, orient="row")


def types_of(schema: pa.Schema) -> pl.Schema:
    """The types of the frame that a table of this schema gives."""
    return as_frame(schema.empty_table()).schema


def _frames() -> type[pl.DataFrame]:
    if _POOL.is_lost:
        raise ForkedProcessError
    from polars import DataFrame

    return DataFrame


class _Pool:
    """Whether the threads of Polars were left behind in a parent."""

    def __init__(self) -> None:
        self.is_lost = self._ran = False

    def let_go_before_fork(self) -> None:
        self._ran = platform.runs_threads_named(r"polars-\d+")  # those of the pool

    def go_on_after_fork(self) -> None:
        pass

    def forget_after_fork(self) -> None:
        self.is_lost = self.is_lost or self._ran


_POOL = _Pool()
tell_of_forks(_POOL)
