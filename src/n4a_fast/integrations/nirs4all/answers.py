"""Answers to SQL of nirs4all 1.x and its studio: translated, read, and where it is about summaries of chains kept.

A studio asks for the same summaries and rankings again and again. What was answered once is true as long as nothing has
changed the tables; what differs from call to call by itself (the time, random numbers) is asked each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from n4a_fast.integrations.nirs4all.answers_in_memory import answer_in_memory
from n4a_fast.integrations.nirs4all.sqlite_ready import NEWEST_FIRST, newest_first, ready
from n4a_fast.integrations.nirs4all.sqlite_tables import CACHED_SUMMARIES, SAVED, SAVES, SUMMARIES, WITH_MORE
from n4a_fast.values import jsontext

if TYPE_CHECKING:
    from n4a_fast.engine.workspace import Workspace
    from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

Question = tuple[Any, ...]
Form = tuple[bool, frozenset[str]]  # whether times are texts, and tables with more, as in `source_of`

_MANY, _MOST_BYTES = 64, 2**20  # answers that are kept, and of each
_CHANGES = re.compile(r"now|current_|random|uuid", re.IGNORECASE)


class Answers:
    """What one store was asked about summaries since anything changed."""

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None
        self._kept: dict[Question, pl.DataFrame] = {}

    def find(self, workspace: Workspace, question: Question) -> pl.DataFrame | None:
        """The answer that was kept, if it is still true; asked within `reading`."""
        database = workspace.database
        if database.in_transaction:
            return None
        if database.state != self._state:
            self._state = database.state
            self._kept.clear()
        return self._kept.get(question)

    def keep(self, workspace: Workspace, question: Question, frame: pl.DataFrame) -> None:
        """Keep an answer that was read in the same `reading`."""
        database = workspace.database
        if database.in_transaction or frame.estimated_size() > _MOST_BYTES or _CHANGES.search(str(question)):
            return
        if database.state != self._state or len(self._kept) >= _MANY:
            self._state = database.state
            self._kept.clear()
        self._kept[question] = frame


def answer(
    store: Store1x, query: str, parameters: Sequence[Any] | None, *, times_as_text: bool = False
) -> pl.DataFrame:
    """The answer to a SELECT in SQLite's words."""
    given = [value.isoformat(" ") if isinstance(value, datetime) else value for value in parameters or ()]
    if not times_as_text and (found := answer_in_memory(store._open(), query, given)) is not None:
        return found
    with store.read_together() as workspace:
        with_more = workspace.tables.kept() & WITH_MORE | ({SAVED} if store._unused_saves else frozenset())
        form = (times_as_text, with_more)
        if SUMMARIES not in _translation(query, form):
            return _read(store, query, form, given)
        question = (query, times_as_text, *given)
        kept = store._answers.find(workspace, question)
        if kept is None:
            with workspace.reading_chains() as are_cached:
                kept = _read(store, query, form, given, CACHED_SUMMARIES if are_cached else SUMMARIES)
                store._answers.keep(workspace, question, kept)
        return kept


def _translation(query: str, form: Form, summaries: str = SUMMARIES) -> str:
    """The text to be asked, where nothing but that is of interest."""
    times_as_text, with_more = form
    if not times_as_text and (translation := ready(query, with_more, summaries)) is not None:
        return translation
    from n4a_fast.integrations.nirs4all.sqlite_dialect import translated  # the translator is slow to import

    return translated(query, *form, summaries).sql


def _read(store: Store1x, query: str, form: Form, given: list[Any], summaries: str = SUMMARIES) -> pl.DataFrame:
    times_as_text, with_more = form
    if not times_as_text and (ours := ready(query, with_more, summaries)) is not None:
        database = store._open().database  # nobody's SQL but ours, which need not be looked at
        if given or not ours.endswith(NEWEST_FIRST):
            return database.frame(ours, given)
        return newest_first(database.frame(ours.removesuffix(NEWEST_FIRST)))
    from n4a_fast.integrations.nirs4all.sqlite_dialect import translated

    translation = translated(query, *form, summaries)
    if SAVES in translation.sql:
        given = [list(store._unused_saves), list(store._unused_saves.values()), *given]
    frame = store.sql(translation.sql, given).cast({pl.Decimal: pl.Int64})  # sums of whole numbers have 128 bits
    for place in translation.json_columns:
        name = frame.columns[place]
        values = [jsontext.decode(text) for text in frame[name].to_list()]
        scalars = [jsontext.encode(value, name) if isinstance(value, dict | list) else value for value in values]
        frame = frame.with_columns(pl.Series(name, scalars, strict=False))
    return frame
