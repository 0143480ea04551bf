"""Under which id a natural key was saved first: it keeps that id, whatever comes with it later.

Ids that follow from the key need no memory. Given ids are noted here, by pipeline: of a pipeline that this process has
begun all are known without a look; of another one, the tables tell them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import WITHIN
from n4a_fast.tables.predictions.pending import KEY_PLACES, PredictionBatch
from n4a_fast.tables.predictions.prediction_tables import KEY
from n4a_fast.values import ids

_OF_PIPELINE = f"FROM predictions WHERE pipeline_id = ? AND nk {WITHIN} AND id_key"
_FOLLOWS = "nk - nk % 65536 + 32768 + nk // 16 % 4096"  # `ids.prediction_id`, its first 64 bits
_GIVEN = f"SELECT prediction_id, {', '.join(KEY)} {_OF_PIPELINE} <> {_FOLLOWS}"
_ANY_FOLLOWS = f"SELECT 1 {_OF_PIPELINE} = {_FOLLOWS} LIMIT 1"
_OF_KEY = "SELECT prediction_id FROM predictions WHERE nk = ? AND " + " AND ".join(
    f"{name} IS NOT DISTINCT FROM ?" for name in KEY
)
_MOST = 500_000  # given ids of pipelines other than the newest


@dataclass(slots=True)
class _Pipeline:
    """The given ids of one pipeline; `any_follows`: others follow from their keys, as far as known."""

    id_of: dict[int, str] = field(default_factory=dict)
    key_of: dict[str, int] = field(default_factory=dict)
    any_follows: bool = False

    def note(self, key: int, identifier: str) -> None:
        earlier = self.key_of.get(identifier, key)
        if earlier != key:
            del self.id_of[earlier]  # the id moves to another prediction, and this one is gone
        self.id_of[key], self.key_of[identifier] = identifier, key


class FirstIds:
    """The ids of a workspace's predictions that are not in memory."""

    def __init__(self, database: Database, batch: Callable[[], PredictionBatch]) -> None:
        self._database, self._batch = database, batch
        self._pipelines: dict[str, _Pipeline] = {}
        self._noted = 0

    def begin(self, pipeline_id: str) -> None:
        """A new pipeline: nothing is stored of it."""
        self._pipelines[pipeline_id] = _Pipeline()
        if self._noted > _MOST:
            self._pipelines, self._noted = {pipeline_id: self._pipelines[pipeline_id]}, 0

    def forget(self) -> None:
        """Rows may have gone: the tables must be asked again."""
        self._pipelines, self._noted = {}, 0

    def all_follow(self, pipeline_id: str) -> bool:
        """Whether ids of a pipeline are noted, all of which follow from their keys: `settle` would give another one its
        own.
        """
        known = self._pipelines.get(pipeline_id)
        return known is not None and known.any_follows and not known.id_of

    def settle(self, key: int, row: Sequence[Any], given: str | None) -> str:
        """The id of a natural key that is not in memory, whose row has the id that follows from it: its first one, else
        `given`, else that one; it is the first one from now on.
        """
        following: str = row[0]
        pipeline_id: str = row[1]
        known = self._pipelines.get(pipeline_id) or self._looked_up(pipeline_id)
        first = known.id_of.get(key)
        if first is None and given is not None and known.any_follows:
            found = self._database.rows(_OF_KEY, (ids.nk(key), *(row[place] for place in KEY_PLACES)), own=False)
            first = str(found[0][0]) if found else None
        if first is not None:
            return first
        if given is None or given == following:
            known.any_follows = True
            return following
        known.note(key, given)
        self._noted += 1
        return given

    def _looked_up(self, pipeline_id: str) -> _Pipeline:
        """What the tables know of a pipeline, and the rows in memory, which are on their way there."""
        where = (pipeline_id, *ids.nk_bounds([pipeline_id]))
        found = _Pipeline(any_follows=bool(self._database.rows(_ANY_FOLLOWS, where, own=False)))
        for identifier, *columns in self._database.rows(_GIVEN, where, own=False):
            found.note(ids.natural_key(*columns), identifier)
        for key, identifier in self._batch().ids_of_pipeline(pipeline_id):
            if identifier == ids.prediction_id(key):
                found.any_follows = True
            else:
                found.note(key, identifier)
        self._pipelines[pipeline_id] = found
        return found
