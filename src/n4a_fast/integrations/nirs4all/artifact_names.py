"""Artifacts under the ids that nirs4all gives them.

nirs4all 0.7.1 names an artifact by configuration and step, so another sweep of the same shape, on
other spectra, uses the same names for other models; its own store keeps the first, and replays the
wrong one. Here the later content gets an id of its own, and the chains that mean it are told.
nirs4all also registers everything a run has made again after each of its pipelines: what is
registered already costs one look into `registered`. Nothing is verified, stored or collected here.
"""

from __future__ import annotations

from typing import Any

from n4a_fast.errors import ConflictError
from n4a_fast.tables.chains import renamed


class ArtifactNames:
    """Which stored artifact each of nirs4all's ids stands for, in one store."""

    def __init__(self) -> None:
        self.registered: dict[str, str] = {}  # nirs4all's id -> hash of the content that was registered last under it
        self._renamed: dict[str, str] = {}  # nirs4all's id -> stored id, where they differ

    def meant(self, artifact_id: str) -> str:
        """The stored id that chains saved until now have for one of nirs4all's."""
        return self._renamed.get(artifact_id, artifact_id)

    def note(self, artifact_id: str, content_hash: str, stored_id: str) -> None:
        """From now on chains mean `stored_id`."""
        self.registered[artifact_id] = content_hash
        self._renamed.pop(artifact_id, None)
        if stored_id != artifact_id:
            self._renamed[artifact_id] = stored_id

    def forget_registered(self) -> None:
        """Artifacts may have been collected: each must be registered anew. Chains keep their meaning."""
        self.registered.clear()

    def in_references(self, value: Any) -> Any:
        """What a chain refers to, by stored ids."""
        return renamed(value, self._renamed) if self._renamed else value


def free_id(error: ConflictError) -> str:
    """An id for content whose own is taken: it ends in the content's hash, so the same content gets it again."""
    return f"{error.identifier}@{error.given.removeprefix('sha256:')[:16]}"
