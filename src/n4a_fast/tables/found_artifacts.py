"""Rows of artifacts whose file was there already when they were saved."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from n4a_fast.tables.rows import PendingRows

_IF_ABSENT = (
    "INSERT INTO stored_artifacts BY NAME SELECT * FROM batch WHERE artifact_id NOT IN (SELECT artifact_id FROM"
    " stored_artifacts)"
)
_SAVED_HERE = """UPDATE stored_artifacts SET origin = 'saved'
WHERE origin = 'imported' AND artifact_id IN (SELECT artifact_id FROM batch WHERE origin = 'saved')"""


class FoundRows(PendingRows):
    """Rows of content whose file was there already: most likely stored, by whatever process, and left as they are
    then.
    """

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        if self._table in tables:
            self._database.insert(_SAVED_HERE, batch=tables[self._table])
            self._database.insert(_IF_ABSENT, batch=tables[self._table])
