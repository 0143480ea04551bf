"""What is known of each sample of a prediction: JSON beside its arrays, stored once per content.

The predictions of a fold share their samples, so the same metadata comes with many of them.
They go with the predictions.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import xxhash

from n4a_fast.engine.connection import Database
from n4a_fast.schema.columns import PREDICTION_METADATA, SHARED_METADATA, table_of
from n4a_fast.tables.rows import PendingRows
from n4a_fast.values import jsontext

_ANY = "SELECT 1 FROM prediction_metadata LIMIT 1"
_GET_HASH = "SELECT content_hash FROM prediction_metadata WHERE prediction_id = ?"
_GET = "SELECT content FROM shared_metadata WHERE content_hash = ?"
_INSERT = (
    "INSERT INTO shared_metadata SELECT * FROM batch b WHERE NOT EXISTS (FROM shared_metadata s WHERE s.content_hash ="
    " b.content_hash)"
)
_DELETE = "DELETE FROM prediction_metadata WHERE prediction_id IN (SELECT prediction_id FROM gone)"
_SWEEP_SHARED = """DELETE FROM shared_metadata WHERE content_hash NOT IN (
    SELECT content_hash FROM prediction_metadata WHERE content_hash IN (SELECT content_hash FROM shared_metadata))"""


class SampleMetadata(PendingRows):
    """The `prediction_metadata` and `shared_metadata` tables; a row in memory carries its content along."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "prediction_metadata", PREDICTION_METADATA)
        self._none_in: tuple[int, int] | None = None  # the state of the file in which no prediction has any

    def save(self, prediction_id: str, content: str | None) -> None:
        """Keep JSON text as a prediction's metadata, in place of what it had; None: nothing of what is in memory."""
        address = None if content is None else xxhash.xxh3_128_hexdigest(content.encode())
        self.put({"prediction_id": prediction_id, "content_hash": address, "content": content})

    def forget(self, prediction_id: str) -> None:
        """The id means another prediction from now on: what is in memory under it goes."""
        if self.get(prediction_id) is not None:
            self.save(prediction_id, None)

    def replay(self, content: dict[str, Any]) -> None:
        for row in content.get("prediction_metadata", ()):
            self.save(row["prediction_id"], row["content"])

    def find(self, prediction_id: str, *, own: bool = True) -> dict[str, Any]:
        """The metadata of a prediction, empty when it has none; `own=False`: what the tables have of it."""
        with self._database.reading(own):
            if self._are_none():
                return {}
            # a join of the two would take twice as long, most have none
            found = self._database.rows(_GET_HASH, (prediction_id,), own=own)
            return jsontext.decode(self._database.rows(_GET, found[0], own=own)[0][0]) if found else {}

    def _are_none(self) -> bool:
        """Whether no prediction has any, looked up once for each state of the file."""
        database = self._database
        if database.in_transaction:
            return False
        if self._none_in != database.state and not database.rows(_ANY, own=False):
            self._none_in = database.state
        return self._none_in == database.state

    def pending_of(self, prediction_id: str) -> dict[str, Any] | None:
        """The metadata of a prediction that is in memory, empty for none; None when memory says nothing of it."""
        row = self.get(prediction_id)
        return None if row is None else {} if row["content"] is None else jsontext.decode(row["content"])

    def pending(self) -> dict[str, pa.Table]:
        kept = [row for row in self.values() if row["content"] is not None]
        if not kept:
            return {}
        contents = {row["content_hash"]: row["content"] for row in kept}
        rows: list[tuple[object, ...]] = [(row["prediction_id"], row["content_hash"]) for row in kept]
        return {
            "prediction_metadata": table_of(rows, PREDICTION_METADATA),
            "shared_metadata": table_of(list(contents.items()), SHARED_METADATA),
        }

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        super().write_in_transaction(tables, beyond)
        if "shared_metadata" in tables:
            self._database.insert(_INSERT, batch=tables["shared_metadata"])

    def delete_in_transaction(self, gone: pa.Table) -> None:
        """Remove those of predictions (`prediction_id`) that go, and contents that no other one has."""
        if self._database.rows(_ANY) and self._database.insert(_DELETE, gone=gone.select(["prediction_id"])):
            self._database.execute(_SWEEP_SHARED)
