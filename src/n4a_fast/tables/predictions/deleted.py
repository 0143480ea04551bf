"""Predictions that are deleted and still in the tables: a record of the log says so, and the next drain removes them.

One drain removes many, where each for itself takes ten statements and a commit. A deletion is noted when nothing else
waits, and no read comes between: what was saved before is in the tables then, and what is saved after it is written
after it.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import THIS_PREDICTION, WITHIN
from n4a_fast.tables.rows import PendingRows
from n4a_fast.values import ids

NAME = "deleted_predictions"  # in a record of the log and in a batch; no SQL table
_SCHEMA = pa.schema([("prediction_id", pa.string())])
_MOST = 4096  # of a chain's predictions that are remembered
_OWNERS = f"SELECT pipeline_id, chain_id FROM predictions p WHERE {THIS_PREDICTION.format('p')}"
_OF_CHAIN = (
    f"SELECT prediction_id FROM predictions WHERE pipeline_id = ? AND nk {WITHIN}"
    f" AND chain_id IS NOT DISTINCT FROM ? LIMIT {_MOST}"
)


def may_delete(record: bytes) -> bool:
    """Whether a record of the log holds deletions, told without decoding it: one that does has their name in it."""
    return NAME.encode() in record


class DeletedPredictions(PendingRows):
    """The deletions that wait, and what they leave of the chain that was asked for last."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, NAME, _SCHEMA)
        self._left = set[str]()
        self._state: tuple[int, int] | None = None  # of the file, in which these are left

    def left_with(self, prediction_id: str) -> Collection[str]:
        """Predictions of the same chain and pipeline that are left, this one included; none when it is not there.
        Asked while all that waits is deletions.
        """
        if self._state != self._database.state:
            self._state, self._left = self._database.state, set()
        if prediction_id not in self._left and self.get(prediction_id) is None:
            self._left = self._looked_up(prediction_id)
        return self._left if prediction_id in self._left else ()

    def names(self) -> list[str]:
        """The predictions whose deletion waits."""
        return list(self._rows)

    def note(self, prediction_id: str) -> None:
        """It is deleted from now on."""
        self.put({"prediction_id": prediction_id})
        self._left.discard(prediction_id)

    def take_back(self, prediction_id: str) -> None:
        """It could not be told to the log."""
        if self._fresh.pop(prediction_id, None):
            del self._rows[prediction_id]
            self._state = None

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        """Nothing: those of all processes go before any row is written; see `TableSet`."""

    def _looked_up(self, prediction_id: str) -> set[str]:
        owners = self._database.rows(_OWNERS, (ids.id_key(prediction_id), prediction_id))
        if not owners:
            return set()
        ((pipeline_id, chain_id),) = owners
        found = self._database.rows(_OF_CHAIN, (pipeline_id, *ids.nk_bounds([pipeline_id]), chain_id))
        return {prediction_id, *(name for (name,) in found)} - self._rows.keys()
