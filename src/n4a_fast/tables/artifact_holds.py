"""Artifacts that a session keeps until its pipelines have ended: the `artifact_holds` table."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.engine.session import Session
from n4a_fast.schema.columns import ARTIFACT_HOLDS, table_of

_TABLE = "artifact_holds"
_HOLD = (
    "INSERT INTO artifact_holds SELECT * FROM batch b WHERE NOT EXISTS (FROM artifact_holds h WHERE h.artifact_id ="
    " b.artifact_id AND h.holder = b.holder)"
)
_RELEASE = "DELETE FROM artifact_holds WHERE holder = ?"


class ArtifactHolds:
    """What this session holds, and the changes of it that are not in the table yet."""

    def __init__(self, database: Database, session: Session) -> None:
        self._database, self._session = database, session
        self._held: set[str] = set()
        self._unwritten: set[str] = set()
        # id and session since the table was written; None ends all of a session
        self._changes: list[tuple[str | None, str]] = []
        self._logged = 0
        self._are_noted = False

    def __len__(self) -> int:
        return len(self._changes)

    def hold(self, artifact_id: str) -> None:
        self._held.add(artifact_id)
        self._unwritten.add(artifact_id)

    def release(self) -> None:
        """This session holds nothing any more."""
        self._held.clear()

    def fresh(self) -> dict[str, Any]:
        """What has changed since the last flush, for a log record."""
        self._note()
        changes = self._changes[self._logged :]
        return {_TABLE: changes} if changes else {}

    def mark_logged(self) -> None:
        self._logged = len(self._changes)

    def replay(self, content: dict[str, Any]) -> None:
        """Note again what `fresh` once gave."""
        self._changes += [(artifact_id, holder) for artifact_id, holder in content.get(_TABLE, ())]

    def pending(self) -> dict[str, pa.Table]:
        self._note()
        return {_TABLE: table_of(list(self._changes), ARTIFACT_HOLDS)} if self._changes else {}

    def _note(self) -> None:
        """Turn what this session holds and has let go into changes to write."""
        self._changes += [(artifact_id, self._session.id) for artifact_id in sorted(self._unwritten & self._held)]
        self._unwritten.clear()
        if self._are_noted and not self._held:
            self._changes.append((None, self._session.id))
        self._are_noted = bool(self._held)

    def write_in_transaction(self, tables: dict[str, pa.Table]) -> None:
        """Apply the changes in their order: of a session that let go, only what it held later stays."""
        holds: dict[str, set[str]] = {}
        ended = set()
        for row in tables[_TABLE].to_pylist() if _TABLE in tables else ():
            if row["artifact_id"] is None:
                holds.pop(row["holder"], None)
                ended.add(row["holder"])
            else:
                holds.setdefault(row["holder"], set()).add(row["artifact_id"])
        for holder in sorted(ended):  # a sweep lets go after each pipeline
            self._database.execute(_RELEASE, (holder,))
        kept: list[tuple[object, ...]] = [
            (artifact_id, holder) for holder, ids in holds.items() for artifact_id in sorted(ids)
        ]
        if kept:
            self._database.insert(_HOLD, batch=table_of(kept, ARTIFACT_HOLDS))

    def clear(self) -> None:
        """Forget the changes: they are written, or given up."""
        self._changes, self._logged = [], 0
        self._unwritten.clear()
