"""Stored objects for another process: where their files are, and their loading, without the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from n4a_fast.artifacts import codec
from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.database import Database
from n4a_fast.errors import NotFoundError

_PLACES = "SELECT a.artifact_id, a.artifact_path, a.content_hash, a.format FROM stored_artifacts a SEMI JOIN batch ON batch.artifact_id = a.artifact_id"


@dataclass(frozen=True, slots=True)
class ArtifactReader:
    """Loads artifacts from their files, verified; it can be pickled."""

    root: Path
    places: Mapping[str, tuple[str, str, str]]  # path, content hash, format

    def __call__(self, artifact_id: str) -> Any:
        if artifact_id not in self.places:
            raise NotFoundError("artifact", artifact_id)
        path, content_hash, format_name = self.places[artifact_id]
        return codec.loads(ArtifactFiles(self.root).read(artifact_id, path, content_hash), format_name)


def reader_of(database: Database, root: Path, artifact_ids: Sequence[str]) -> ArtifactReader:
    """A reader of these artifacts; it says which is missing when that one is asked for."""
    wanted = pa.table({"artifact_id": pa.array(sorted(set(artifact_ids)), pa.string())})
    rows = database.select(_PLACES, batch=wanted).to_pylist()
    return ArtifactReader(root, {row["artifact_id"]: (row["artifact_path"], row["content_hash"], row["format"]) for row in rows})
