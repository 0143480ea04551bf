"""The files of a workspace beside its tables: artifacts, templates, shards, log segments."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, StoreError
from n4a_fast.maintenance.findings import RESTORE, Finding

_YOUNG_SECONDS = 3600.0  # a file that a save is about to register
_TEMPLATE_FILES = ("pipeline.json", "metadata.json")
_CURE = "restore the file from a backup, or delete the chains that use it"


def artifact(files: ArtifactFiles, address: tuple[str, str, str], *, read: bool) -> Finding | None:
    """What is wrong with the file of an artifact (id, path, hash); `read`: its bytes are compared with the hash."""
    identifier, relative, content_hash = address
    name = f"artifact {identifier}"
    try:
        path = files.path(relative)
        if read:
            files.read(identifier, relative, content_hash)
        elif not path.is_file():
            raise ArtifactMissingError(identifier, path)
    except ArtifactMissingError:
        return Finding("missing file", name, files.root / relative, "the file is gone", _CURE)
    except ArtifactCorruptError as error:
        return Finding("damaged file", name, files.root / relative, f"its content is {error.found}", _CURE)
    except (StoreError, OSError) as error:
        return Finding("damaged file", name, files.root / relative, str(error), _CURE)
    return None


def orphans(files: ArtifactFiles, used: set[str]) -> Iterator[Finding]:
    """Files that no row names, and that nobody can be about to register."""
    limit = time.time() - _YOUNG_SECONDS
    for relative in files.listed():
        if relative not in used and files.changed_at(relative) < limit:
            message = "no artifact has this file"
            cure = "gc_artifacts() or verify(repair=True) removes it"
            yield Finding("orphaned file", relative, files.root / relative, message, cure, is_leftover=True)


def templates(root: Path) -> tuple[int, list[Finding]]:
    """How many templates there are below a workspace, and the files of them that cannot be read."""
    folders = [folder for folder in sorted((root / "library").glob("*/*")) if not folder.name.startswith(".")]
    found = []
    for path in (folder / name for folder in folders if folder.is_dir() for name in _TEMPLATE_FILES):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            cure = "restore the file from a backup, or delete the template"
            found.append(Finding("damaged template", path.parent.name, path, f"cannot be read: {error}", cure))
    return len(folders), found


def unreadable(error: StoreError, path: Path) -> Finding:
    """A part of the store that could not be looked at at all."""
    place = getattr(error, "path", None)
    return Finding("damaged store", type(error).__name__, Path(place) if place else path, str(error), RESTORE)
