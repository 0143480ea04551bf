"""Every error that n4a_fast raises, grouped by what the caller does next.

    StoreError
    +-- NotFoundError (KeyError)              check the id; an unknown id is never ignored
    |   +-- ArtifactMissingError (FileNotFoundError)   restore the file, or delete its chains
    |   +-- TemplateMissingError (FileNotFoundError)   check name and category
    +-- InvalidInputError (ValueError)        correct the argument; nothing was written
    |   +-- UnsafePathError                   use a path inside the workspace
    |   +-- UnknownDirectionError             say whether higher values of the metric are better
    |   +-- AmbiguousError                    give more characters of the id, or another name
    |   +-- ConflictError                     the id is taken by other content; use another id
    |   +-- TemplateExistsError (FileExistsError)      use another name, or overwrite=True
    +-- StoreClosedError (RuntimeError)       open the store again
    +-- ReadOnlyError (RuntimeError)          open the store for writing
    +-- StoreMovedError                       the file under the open store is another one, or gone: open the path again
    +-- StoreLockedError (OSError)            wait for, or stop, the process it names
    +-- ForkedProcessError (RuntimeError)     start the process by spawn, forkserver or loky
    +-- StoreUnavailableError (OSError)       what it names stands in the way: space, permissions, another program
    |   +-- DiskWithoutLocksError             use a folder on a disk with file locks
    |   +-- MemoryLimitError                  open the store with a higher memory_limit
    +-- StoreFormatError                      this file cannot be opened as it is
    |   +-- NotAStoreError                    not a DuckDB file, or not a workspace
    |   +-- DamagedStoreError                 run `n4a-fast verify`; restore a backup
    |   +-- ForeignStoreError                 written by nirs4all: migrate or convert it
    |   +-- CopyDiffersError                  what was copied is not what was read; nothing took effect
    |   +-- NewerFormatError                  upgrade n4a_fast
    |   +-- LogDamagedError                   restore the file, or move it away and do without its rows
    |   +-- BundleError                       get the bundle again from where it came; nothing was imported
    +-- ArtifactCorruptError (OSError)        restore the file from a copy
    +-- UntrustedArtifactError                the pickle wants a global that is not allowed
    +-- ArtifactUnreadableError               get the artifact again from where it came
    |   +-- ArtifactImportError (ImportError)   install what it was made with
    +-- UnsupportedVersionError (ImportError) install the version of the other package that it names
    +-- ReplayError (RuntimeError)            the chain cannot predict on this input

Each carries its facts as attributes and names the thing and the cure.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from n4a_fast.values.texttable import plain_lines, shortened


class StoreError(Exception):
    """Base of every error raised by this package."""

    def __str__(self) -> str:  # names in it are users': none of them moves a terminal's cursor, or hides the cure
        return shortened(plain_lines(super().__str__()))

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # pickled by what it says and knows: joblib carries errors between processes
        return _restored, (type(self), self.args, vars(self))


class NotFoundError(StoreError, KeyError):
    """An id that the store does not know."""

    def __init__(self, kind: str, identifier: str, cure: str | None = None, where: str = " in this workspace") -> None:
        hint = "; if another process began it, that process must flush() first" if kind in ("run", "pipeline") else ""
        super().__init__(
            f"no {kind} {identifier!r}{where}; {cure or 'check the id, or list what the store holds' + hint}"
        )
        self.kind, self.identifier = kind, identifier

    def __str__(self) -> str:  # KeyError would print the repr of the sentence
        return shortened(plain_lines(str(self.args[0])))


class ArtifactMissingError(NotFoundError, FileNotFoundError):
    """An artifact whose row exists but whose file is gone, or was never written (`promised`)."""

    def __init__(self, artifact_id: str, path: Path, *, promised: bool = False) -> None:
        cure = (
            f"nirs4all kept no model, {path} was never written: it writes those of the best variants only"
            if promised
            else f"{path} is gone: restore it from a copy, or delete the chains that use it"
        )
        super().__init__("artifact file", artifact_id, cure)
        self.path, self.promised = path, promised


class TemplateMissingError(NotFoundError, FileNotFoundError):
    """A template, or a file of it, that is not there."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(
            "template", name, f"{path} does not exist: check the name and the category, or see list_templates"
        )
        self.path = path


class InvalidInputError(StoreError, ValueError):
    """An argument that cannot be stored; raised before anything is written."""


class UnsafePathError(InvalidInputError):
    """A path that leaves the workspace, or whose place is taken by a link, a pipe or a device, as `what` says."""

    def __init__(self, path: str | Path, root: Path, what: str = "") -> None:
        cure = f"{what} and not read; put the file itself in its place, or remove it"
        super().__init__(f"{path} {cure if what else f'is outside {root}; give a relative path inside it'}")
        self.path, self.root = Path(path), root


class UnknownDirectionError(InvalidInputError):
    """A metric of which nobody has said whether higher values are better; it is not ranked by a guess."""

    def __init__(self, metric: str) -> None:
        super().__init__(
            f"metric {metric!r} cannot be ranked: it is not known whether higher values are better; say so once with"
            f" store.set_metric_direction({metric!r}, higher_is_better=True) (or False)"
        )
        self.metric = metric


class AmbiguousError(InvalidInputError):
    """A short id or a name that more than one thing has."""

    def __init__(self, text: str, candidates: tuple[str, ...], cure: str = "give more of the id") -> None:
        super().__init__(f"{text} may be {', '.join(candidates)}; {cure}")
        self.text, self.candidates = text, candidates


class ConflictError(InvalidInputError):
    """A known id given again with other content."""

    def __init__(self, kind: str, identifier: str, stored: str, given: str) -> None:
        super().__init__(
            f"{kind} {identifier!r} is already stored with content {stored}, now given as {given}; use another id"
        )
        self.kind, self.identifier, self.stored, self.given = kind, identifier, stored, given


class TemplateExistsError(InvalidInputError, FileExistsError):
    """A place that holds another template already; it was not touched."""

    def __init__(self, name: str, path: Path, cure: str = "use another name, or overwrite=True to replace it") -> None:
        super().__init__(f"template {name!r} cannot be written to {path}, which exists already; {cure}")
        self.name, self.path = name, path


class StoreClosedError(StoreError, RuntimeError):
    """A call on a store after `close()`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the store at {path} is closed; open it again with WorkspaceStore({str(path)!r})")
        self.path = path


class ReadOnlyError(StoreError, RuntimeError):
    """A writing call on a store opened with `open_readonly`."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the store at {path} was opened read-only; open it with WorkspaceStore({str(path)!r}) to write"
        )
        self.path = path


class StoreLockedError(StoreError, OSError):
    """Another process holds the database file, or another thread the workspace."""

    def __init__(self, path: Path, pid: int | None, by: str = "by another process") -> None:
        told = f"is held {f'by process {pid}' if pid else by}; wait until it is done, or stop it"
        if pid == os.getpid():
            told = "is open in this very process, by a DuckDB connection that is not this store's; close that one"
        super().__init__(f"{path} {told}")
        self.path, self.pid = path, pid


# by what a system, or DuckDB, says: the cure of that cause
_CURES = (
    (("No space left", "quota exceeded"), "free disk space, then try again"),
    (
        ("ermission denied", "Read-only file system", "not permitted", "not writable"),
        "make it writable, then try again",
    ),
    (("Too many open files",), "close what is open, or raise the limit (`ulimit -n`), then try again"),
    (("No such file or directory",), "check that the folder exists, then try again"),
    (("File too large",), "raise the limit of file sizes (`ulimit -f`), or use another disk, then try again"),
    (("Input/output error",), "check the disk, then try again"),
)
_SEE = "see to that, then try again"


class ForkedProcessError(StoreError, RuntimeError):
    """A forked child cannot do what needs threads that only its parent has."""

    def __init__(self) -> None:
        super().__init__(
            "this process was forked from one that had used Polars, whose threads a fork leaves behind, so it can give"
            " no frames; start it by spawn or forkserver (multiprocessing.set_start_method), or use joblib's loky"
        )


class StoreUnavailableError(StoreError, OSError):
    """The folder or the disk refuses the work; what was buffered is kept."""

    def __init__(self, path: Path, reason: str, cure: str | None = None) -> None:
        told = cure or next((cure for words, cure in _CURES if any(word in reason for word in words)), _SEE)
        super().__init__(f"{path} cannot be used: {reason}; {told}")
        self.path, self.reason = path, reason


class DiskWithoutLocksError(StoreUnavailableError):
    """A disk on which no process can tell whether another one lives."""

    def __init__(self, path: Path, disk: Path) -> None:
        super().__init__(
            path,
            f"the disk at {disk} has no file locks",
            "keep the workspace and its shards on a local disk, and copy the folder when it is closed",
        )
        self.disk = disk


class MemoryLimitError(StoreUnavailableError):
    """What was asked does not fit into the memory that the store may take; nothing was changed."""

    def __init__(self, path: Path, reason: str) -> None:
        cure = 'open the store with a higher limit, such as memory_limit="2GB", or ask for less at once'
        super().__init__(path, reason, cure)


class StoreMovedError(StoreError):
    """The store's file is no longer the one that was opened; nothing that this call was to save is acknowledged."""

    def __init__(self, path: Path, happened: str) -> None:
        super().__init__(
            f"{path} was {happened} while it was open here, so nothing more can be saved through this store; open the"
            f" workspace again with WorkspaceStore({str(path.parent)!r}), or where it is now"
        )
        self.path, self.happened = path, happened


class StoreFormatError(StoreError):
    """A file that cannot be opened as a store; it was not changed."""


class NotAStoreError(StoreFormatError):
    """A file that is no database, or no workspace."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is not a workspace store ({reason}); it was left unchanged: move it away, or choose another"
            " workspace folder"
        )
        self.path, self.reason = path, reason


class DamagedStoreError(StoreFormatError):
    """A file of the workspace whose bytes are not what was written; it was not changed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged ({reason}); it was left unchanged: `n4a-fast verify {path.parent}` tells what is wrong"
            " and what can be repaired, `n4a-fast restore` brings a backup back"
        )
        self.path, self.reason = path, reason


class ForeignStoreError(StoreFormatError):
    """A database written by nirs4all itself."""

    def __init__(self, path: Path) -> None:
        told = f"{path} was written by nirs4all, not by n4a_fast; it was left unchanged"
        super().__init__(f"{told}: run `n4a-fast migrate {path.parent}`, or choose another workspace folder")
        self.path = path


class CopyDiffersError(StoreFormatError):
    """A copy that is not equal to its source; the copy was given up."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what} differ after copying; the original is unchanged and the copy was given up: stop what"
            " writes to it and try again"
        )
        self.path, self.what = path, what


class NewerFormatError(StoreFormatError):
    """A store, or a log, written by a newer n4a_fast."""

    def __init__(self, path: Path, found: int, supported: int, written_by: str) -> None:
        told = f"{path} has store format {found}, this version reads up to {supported}; it was left unchanged"
        super().__init__(f"{told}: install {f'n4a_fast {written_by} or newer' if written_by else 'a newer n4a_fast'}")
        self.path, self.found, self.supported, self.written_by = path, found, supported, written_by


class LogDamagedError(StoreFormatError):
    """A file of the write-ahead log that is damaged before a record which is whole; nothing was applied of what
    follows.
    """

    def __init__(self, path: Path, number: int, follows: int) -> None:
        super().__init__(
            f"{path}: record {number} is damaged or missing, and record {follows} follows; restore the workspace from a"
            f" backup, or run `n4a-fast verify {path.parent} --repair`, which takes over what is whole and keeps a copy"
        )
        self.path, self.number, self.follows = path, number, follows


class BundleError(StoreFormatError):
    """A bundle that cannot be read, or cannot be held by a chain; nothing was imported."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read as a bundle: {reason}")
        self.path, self.reason = path, reason


class ArtifactCorruptError(StoreError, OSError):
    """The stored bytes no longer match their address; they were not unpickled."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(
            f"{path}: content is {found}, its address says {expected}; restore the file from a copy, or delete the"
            " chains that use it"
        )
        self.path, self.expected, self.found = path, expected, found


class UntrustedArtifactError(StoreError):
    """A pickle or a step that names a global which the store's `trusted=` setting refuses; nothing was imported."""

    def __init__(self, artifact_id: str | None, global_name: str, trusted: str) -> None:
        who = "a step without an artifact" if artifact_id is None else f"artifact {artifact_id!r}"
        cure = (
            "name that class in trusted= if you know what it does, or save the fitted operator as an artifact"
            if artifact_id is None
            else "see what it holds with describe_artifact, and name a class in trusted= only if you know what it does"
        )
        super().__init__(
            f"{who} imports {global_name}, which trusted={trusted} does not allow; nothing was loaded: {cure}"
        )
        self.artifact_id, self.global_name, self.trusted = artifact_id, global_name, trusted


class ArtifactUnreadableError(StoreError):
    """An artifact from outside that is no whole, sound object; restore it, or get it again."""

    _cure = "get it again from where it came"

    def __init__(self, artifact_id: str, reason: str) -> None:
        super().__init__(f"artifact {artifact_id!r} cannot be loaded: {reason}; {self._cure}")
        self.artifact_id, self.reason = artifact_id, reason

    @classmethod
    def of(cls, artifact_id: str, error: BaseException) -> ArtifactUnreadableError:
        """The same with the cause's own words; still an ImportError where a package is missing."""
        kind = ArtifactImportError if isinstance(error, ImportError | AttributeError) else cls
        return kind(artifact_id, f"{type(error).__name__}: {error}")


class ArtifactImportError(ArtifactUnreadableError, ImportError):
    """An artifact from outside of a class that is not here; install what it was made with."""

    _cure = "install what it was made with, in that release"


class UnsupportedVersionError(StoreError, ImportError):
    """Another package is missing, or of a version that n4a_fast does not know; nothing was changed."""

    def __init__(self, package: str, found: str | None, supported: tuple[str, ...], differs: str = "") -> None:
        state = f"{package} {found} is not supported" if found else f"{package} is not installed"
        state += f": {differs}" if differs else ""
        super().__init__(
            f"{state}; n4a_fast works inside {package} {', '.join(supported)}: pip install {package}=={supported[-1]}"
        )
        self.package, self.found, self.supported = package, found, supported


class ReplayError(StoreError, RuntimeError):
    """A chain that cannot predict on this input; says which step and why."""

    def __init__(self, chain_id: str, reason: str) -> None:
        super().__init__(f"chain {chain_id!r} cannot be replayed: {reason}")
        self.chain_id, self.reason = chain_id, reason


def _restored(kind: type[StoreError], arguments: tuple[Any, ...], facts: dict[str, Any]) -> StoreError:
    maker: type[Exception] = OSError if issubclass(kind, OSError) else Exception  # an OSError has a layout of its own
    error = maker.__new__(kind)
    error.args = arguments
    vars(error).update(facts)
    return error
