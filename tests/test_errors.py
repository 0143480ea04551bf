"""Every error is a StoreError, fits the builtin its users expect, and names the thing and the cure."""

from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path

import pytest

from n4a_fast import errors

PATH = Path("workspace/store.duckdb")
EXAMPLES = [
    errors.NotFoundError("run", "r1"),
    errors.ArtifactMissingError("a1", PATH),
    errors.TemplateMissingError("pls", PATH),
    errors.InvalidInputError("n must be a whole number"),
    errors.UnsafePathError("../secret", PATH),
    errors.ConflictError("artifact", "a1", "aa", "bb"),
    errors.UnknownDirectionError("crunch"),
    errors.AmbiguousError("sweep", ("run r1", "run r2")),
    errors.TemplateExistsError("pls", PATH),
    errors.StoreClosedError(PATH),
    errors.ReadOnlyError(PATH),
    errors.ForkedProcessError(),
    errors.StoreLockedError(PATH, 123),
    errors.StoreUnavailableError(PATH, "disk full"),
    errors.DiskWithoutLocksError(PATH, PATH.parent),
    errors.MemoryLimitError(PATH, "Out of Memory Error: failed to pin block of size 256.0 KiB"),
    errors.StoreMovedError(PATH, "renamed with its folder"),
    errors.NotAStoreError(PATH, "not a DuckDB file"),
    errors.LogDamagedError(PATH, 1, 2),
    errors.DamagedStoreError(PATH, "a checksum is wrong"),
    errors.ForeignStoreError(PATH),
    errors.CopyDiffersError(PATH, "rows of runs"),
    errors.NewerFormatError(PATH, 9, 1, "3.0"),
    errors.BundleError(PATH, "it has no manifest.json"),
    errors.ArtifactCorruptError(PATH, "aa", "bb"),
    errors.UntrustedArtifactError("a1", "os.system", "safe"),
    errors.ArtifactUnreadableError("a1", "a tree has a child that is not there"),
    errors.ArtifactImportError("a1", "No module named mypackage"),
    errors.UnsupportedVersionError("nirs4all", "1.4.10", ("0.7.1",)),
    errors.ReplayError("c1", "no model"),
]
ABSTRACT = {"StoreError", "StoreFormatError"}


def test_every_error_has_an_example_here() -> None:
    defined = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.StoreError)
    }
    assert defined - ABSTRACT == {type(example).__name__ for example in EXAMPLES}


def test_the_tree_in_the_docstring_names_every_error() -> None:
    drawn = errors.__doc__ or ""
    assert all(type(example).__name__ in drawn for example in EXAMPLES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_message_is_one_readable_sentence(error: errors.StoreError) -> None:
    text = str(error)
    assert isinstance(error, errors.StoreError)
    assert "\n" not in text
    assert not text.startswith(("'", '"', "(", "["))


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("NotFoundError", KeyError),
        ("ArtifactMissingError", FileNotFoundError),
        ("InvalidInputError", ValueError),
        ("UnsafePathError", ValueError),
        ("ConflictError", ValueError),
        ("StoreLockedError", OSError),
        ("StoreUnavailableError", OSError),
        ("ArtifactCorruptError", OSError),
        ("ReplayError", RuntimeError),
        ("TemplateMissingError", FileNotFoundError),
        ("TemplateExistsError", FileExistsError),
    ],
)
def test_errors_are_caught_as_the_builtin_they_resemble(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_errors_carry_their_facts() -> None:
    assert (EXAMPLES[0].kind, EXAMPLES[0].identifier) == ("run", "r1")  # type: ignore[attr-defined]
    locked = errors.StoreLockedError(PATH, 123)
    assert (locked.path, locked.pid) == (PATH, 123)
    assert "123" in str(locked)
    newer = errors.NewerFormatError(PATH, 9, 1, "3.0")
    assert (newer.found, newer.supported, newer.written_by) == (9, 1, "3.0")
    assert "install n4a_fast 3.0" in str(newer)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_cross_process_boundaries(error: errors.StoreError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("No space left on device", "free disk space"),
        ("Permission denied", "make it writable"),
        ("Read-only file system", "make it writable"),
        ("Too many open files", "ulimit -n"),
        ("No such file or directory", "check that the folder exists"),
        ("Input/output error", "check the disk"),
        ("something that nobody knows", "see to that"),
    ],
)
def test_a_cause_is_told_with_its_own_cure(reason: str, cure: str) -> None:
    told = str(errors.StoreUnavailableError(PATH, reason))
    assert cure in told
    assert ("free disk space" in told) == ("space" in reason)
    assert "elsewhere" in str(errors.StoreUnavailableError(PATH, reason, "look elsewhere"))


def test_a_file_that_this_process_holds_itself_is_told_as_such() -> None:
    assert "this very process" in str(errors.StoreLockedError(PATH, os.getpid()))
    assert "this very process" not in str(errors.StoreLockedError(PATH, os.getpid() + 1))


def test_what_is_long_hides_neither_the_thing_nor_the_cure() -> None:
    for error in (errors.NotFoundError("run", "r" * 100_000), errors.InvalidInputError(f"begins {'r ' * 9_999} ends")):
        told = str(error)
        assert len(told) < 2100
        assert told[:12] == str(error.args[0])[:12]
        assert told[-30:] == str(error.args[0])[-30:]
        assert "characters left out" in told
        assert str(pickle.loads(pickle.dumps(error))) == told
