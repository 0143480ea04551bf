"""The files of a workspace beside its tables: artifacts, templates, shards, log segments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from n4a_fast.artifacts.files import ArtifactFiles
from n4a_fast.durable.plain_files import read_text
from n4a_fast.errors import ArtifactCorruptError, ArtifactMissingError, DamagedStoreError, LogDamagedError, StoreError
from n4a_fast.maintenance.findings import RESTORE, Finding
from n4a_fast.values import jsontext
from n4a_fast.values.seals import is_broken

WAITING, UNREADABLE = "waiting rows", "damaged store"
_YOUNG_SECONDS = 3600.0  # a file that a save is about to register
_PIPELINE, _METADATA = "pipeline.json", "metadata.json"
_CURE = "restore the file from a backup, or delete the chains that use it"


def artifact(files: ArtifactFiles, address: tuple[str, str, str], *, read: bool) -> Finding | None:
    """What is wrong with the file of an artifact (id, path, hash); `read`: its bytes are compared with the hash."""
    identifier, relative, content_hash = address
    name, place = f"artifact {identifier}", files.root / str(relative)
    try:
        path = files.path(relative)
        if read:
            files.read(identifier, relative, content_hash)
        elif not path.is_file():
            raise ArtifactMissingError(identifier, path)
    except ArtifactMissingError:
        return Finding("missing file", name, place, "the file is gone", _CURE)
    except ArtifactCorruptError as error:
        return Finding("damaged file", name, place, f"its content is {error.found}", _CURE)
    except (StoreError, OSError) as error:
        return Finding("damaged file", name, place, str(error), _CURE)
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
    """How many templates there are below a workspace, and those whose files are not what was saved."""
    folders = [folder for folder in sorted((root / "library").glob("*/*")) if not folder.name.startswith(".")]
    found = [_template(folder) for folder in folders if folder.is_dir()]
    return len(found), [finding for finding in found if finding is not None]


def _template(folder: Path) -> Finding | None:
    texts = {}
    for name in (_PIPELINE, _METADATA):
        path = folder / name
        try:
            texts[name] = read_text(path)
            content = jsontext.decode(texts[name])
        except (OSError, ValueError) as error:
            cure = "restore the file from a backup, or delete the template"
            return Finding("damaged template", folder.name, path, f"cannot be read: {error}", cure)
    if not isinstance(content, dict) or is_broken(content, texts[_PIPELINE]):
        cure = "restore it from a backup; save it again if you have edited it yourself"
        return Finding("damaged template", folder.name, folder / _PIPELINE, "is not what was saved", cure)
    return None


def damaged_log(error: LogDamagedError) -> Finding:
    """A segment of the log with a record that is lost."""
    message = f"record {error.number} is damaged or missing, and record {error.follows} follows"
    cure = "verify(repair=True) takes over all that is whole, and keeps the file aside"
    return Finding("damaged log", error.path.name, error.path, message, cure)


def waiting(error: DamagedStoreError) -> Finding:
    """Rows of logs that the tables do not take."""
    message = f"what was saved last, and lies in logs, cannot go into the tables: {error.reason}"
    return Finding(WAITING, error.path.name, error.path, message, RESTORE)


def unreadable(error: StoreError, path: Path) -> Finding:
    """A part of the store that could not be looked at at all."""
    place = getattr(error, "path", None)
    return Finding(UNREADABLE, type(error).__name__, Path(place) if place else path, str(error), RESTORE)
