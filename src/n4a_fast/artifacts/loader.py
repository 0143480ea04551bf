"""Stored objects for another process: where their files are, and their loading, without the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.trust import Trust
from n4a_fast.engine.connection import Database
from n4a_fast.errors import ArtifactMissingError, NotFoundError

FilePlace: TypeAlias = tuple[str, str, str, str]  # path, content hash, format, origin

_PLACES = (
    "SELECT a.artifact_id, artifact_path, content_hash, format, origin FROM stored_artifacts a SEMI JOIN batch ON"
    " batch.artifact_id = a.artifact_id"
)


@dataclass(frozen=True, slots=True)
class ArtifactReader:
    """Loads artifacts from their files, verified, as far as they are trusted; it can be pickled."""

    root: Path
    trust: Trust
    places: Mapping[str, FilePlace]

    def require_files(self, artifact_ids: Iterable[str]) -> None:
        """NotFoundError or ArtifactMissingError unless these artifacts are there."""
        files = ArtifactFiles(self.root)
        for artifact_id in artifact_ids:
            path = files.path(self._place(artifact_id)[0])
            if not path.is_file():
                raise ArtifactMissingError(artifact_id, path)

    def _place(self, artifact_id: str) -> FilePlace:
        if artifact_id not in self.places:
            raise NotFoundError("artifact", artifact_id)
        return self.places[artifact_id]

    def __call__(self, artifact_id: str) -> Any:
        path, content_hash, format_name, origin = self._place(artifact_id)
        return self.trust.loads(
            artifact_id, ArtifactFiles(self.root).read(artifact_id, path, content_hash), format_name, origin
        )


def places_of(database: Database, artifact_ids: Sequence[str]) -> dict[str, FilePlace]:
    """Where the files of these artifacts are, by id, as far as there are any."""
    wanted = pa.table({"artifact_id": pa.array(sorted(artifact_ids), pa.string())})
    rows = database.select(_PLACES, batch=wanted).to_pylist()
    return {
        row["artifact_id"]: (row["artifact_path"], row["content_hash"], row["format"], row["origin"]) for row in rows
    }
