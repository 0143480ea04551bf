"""What is in a bundle, told without loading any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n4a_fast.artifacts.pickles import Budget
from n4a_fast.bundles.archive import members_of
from n4a_fast.bundles.reader import FOLDER, budget_of, contents_in, digests_of, header_of
from n4a_fast.values import checks
from n4a_fast.values.notebook import report_cell, report_text


@dataclass(frozen=True, slots=True)
class BundleMember:
    """One file in a bundle; `class_name` and `globals` are those of its pickle, empty for JSON."""

    name: str
    size_bytes: int
    sha256: str
    class_name: str = ""
    globals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BundleReport:
    """Header and members of a bundle."""

    path: Path
    manifest: Mapping[str, Any]
    members: tuple[BundleMember, ...]

    @property
    def globals(self) -> tuple[str, ...]:
        """Everything that loading its operators would import."""
        return tuple(sorted({name for member in self.members for name in member.globals}))

    def __str__(self) -> str:
        imported = ", ".join(self.globals) or "nothing"
        return f"{self.path}: {len(self.members):,} files; loading it would import {imported}"

    def __repr__(self) -> str:
        files = (f"{each.name}: {each.size_bytes:,} bytes {each.class_name}".rstrip() for each in self.members)
        return report_text(str(self), list(files))

    def _repr_html_(self) -> str | None:
        rows = [{"file": each.name, "bytes": each.size_bytes, "class": each.class_name} for each in self.members]
        return report_cell(str(self), rows)


def inspect_bundle(path: str | Path, *, max_bytes: int | None = None) -> BundleReport:
    """Header, members, classes and globals of a `.n4a` file, whoever wrote it; nothing is unpickled or imported.

    Raises BundleError for a file that is damaged, unsafe, or larger unpacked than `max_bytes` (by default
    256 MiB, or 20 times the file). Hashes that the manifest states are verified.
    """
    place = checks.path(path, "path")
    members = members_of(place, max_bytes)
    budget = budget_of(place, members, max_bytes)
    told = header_of(place, members, digest_of := digests_of(members))
    listed = (_member(place, name, data, digest_of(name), budget) for name, data in members.items())
    return BundleReport(place, told, tuple(listed))


def _member(path: Path, name: str, data: bytes, digest: str, budget: Budget) -> BundleMember:
    if not name.startswith(FOLDER):
        return BundleMember(name, len(data), digest)
    found = contents_in(path, name, data, budget)
    return BundleMember(name, len(data), digest, found.class_name, found.globals)
