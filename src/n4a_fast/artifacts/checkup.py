"""What an artifact is, told without running it, and whether the stored files still hold what their rows say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.artifacts.model_files import library_of
from n4a_fast.artifacts.pickles import Contents, contents_of
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, StoreError
from n4a_fast.values import jsontext
from n4a_fast.values.notebook import report_cell, report_text

Progress = Callable[[int, int], object]
T = TypeVar("T")
_STEP = 256  # files between two calls of a progress callback


@dataclass(frozen=True, slots=True)
class ArtifactDescription:
    """An artifact as its row and its pickle tell it; nothing of it was loaded."""

    artifact_id: str
    class_name: str  # of the pickled object, "" for plain data
    operator_class: str  # as it was saved with
    artifact_type: str
    format: str
    origin: str  # saved, registered or imported
    path: str  # below artifacts/
    content_hash: str
    size_bytes: int
    file_bytes: int  # less than size_bytes when the file is compressed
    ref_count: int
    libraries: dict[str, str]  # versions that were there when it was saved
    globals: tuple[str, ...]  # every name that loading it would import
    created_at: datetime

    def __repr__(self) -> str:
        kind = f"{self.artifact_type} {self.class_name or self.operator_class}".strip()
        told = f"{self.artifact_id}: {kind}, {self.size_bytes:,} bytes of {self.format}, {self.origin}"
        made_with = ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        used = f"{self.path}, used by {self.ref_count:,}"
        lines = (used, made_with and f"saved with {made_with}", f"imports {', '.join(self.globals) or 'nothing'}")
        return report_text(told, [line for line in lines if line])


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Outcome of `verify_artifacts`: `damaged` names each artifact whose file is gone or does not match, with the
    error.
    """

    checked: int
    nbytes: int
    damaged: dict[str, StoreError]

    def of_stored(self, addresses: Iterable[tuple[Any, ...]]) -> VerifyReport:
        """The same for those that are stored still: a file that was collected meanwhile is no damage."""
        stored = {address[0] for address in addresses} if self.damaged else set()
        return replace(self, damaged={key: error for key, error in self.damaged.items() if key in stored})

    def __bool__(self) -> bool:
        """Whether all is well."""
        return not self.damaged

    def __str__(self) -> str:
        return f"{self.checked:,} artifacts, {self.nbytes / 1e6:,.1f} MB: {len(self.damaged):,} damaged"

    def __repr__(self) -> str:
        return report_text(str(self), [f"{name}: {error}" for name, error in self.damaged.items()])

    def _repr_html_(self) -> str | None:
        rows = [{"artifact": name, "what": error} for name, error in self.damaged.items()]
        return report_cell(str(self), rows, is_bad=True)


def described(files: ArtifactFiles, row: dict[str, Any], ref_count: int) -> ArtifactDescription:
    """The description of a stored row; its file is verified first."""
    data = files.read(row["artifact_id"], row["artifact_path"], row["content_hash"])
    is_pickle = library_of(row["format"]) is None
    contents = contents_of(data) if is_pickle else Contents(row["operator_class"], ())
    libraries = jsontext.decode(row.get("libraries")) or {}
    if contents.sklearn_version is not None:
        libraries["sklearn"] = contents.sklearn_version
    return ArtifactDescription(
        artifact_id=row["artifact_id"],
        class_name=contents.class_name,
        operator_class=row["operator_class"],
        artifact_type=row["artifact_type"],
        format=row["format"],
        origin=row["origin"],
        path=row["artifact_path"],
        content_hash=row["content_hash"],
        size_bytes=row["size_bytes"],
        file_bytes=os.path.getsize(files.path(row["artifact_path"])),
        ref_count=ref_count,
        libraries=libraries,
        globals=contents.globals,
        created_at=row["created_at"],
    )


def verify(files: ArtifactFiles, rows: Sequence[tuple[str, str, str]], progress: Progress | None) -> VerifyReport:
    """Read and hash the file of each (id, path, hash), each file once."""
    damaged: dict[str, StoreError] = {}
    nbytes = 0
    for artifact_id, relative, content_hash in reported(rows, progress):
        try:
            nbytes += len(files.read(artifact_id, relative, content_hash))
        except (ArtifactCorruptError, ArtifactMissingError) as error:
            damaged[artifact_id] = error
    return VerifyReport(len(rows), nbytes, damaged)


def reported(items: Sequence[T], progress: Progress | None, step: int = _STEP) -> Iterator[T]:
    """The items, with the progress through them told each so many."""
    for done, item in enumerate(items):
        if progress is not None and done % step == 0:
            progress(done, len(items))
        yield item
    if progress is not None:
        progress(len(items), len(items))
