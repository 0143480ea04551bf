"""What a check of a workspace found, and what it says of each finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from n4a_fast.values.notebook import report_cell, report_text

Progress = Callable[[str, int, int], object]  # the part that is looked at, how much of it is done, of how much

RESTORE = "restore a backup"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written."""

    kind: str  # such as "damaged block", "missing file", "dangling reference"
    id: str  # of the row, the block or the file
    path: Path
    message: str
    cure: str
    is_leftover: bool = False  # takes space, and nothing else
    is_repaired: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.id} in {self.path}: {self.message}; {'repaired' if self.is_repaired else self.cure}"


@dataclass(slots=True)
class VerificationReport:
    """Outcome of `verify`: what was looked at, what was found, and where repairs put what they changed."""

    path: Path
    checked: dict[str, int] = field(default_factory=dict)  # blocks, rows, artifacts, ... that were looked at
    findings: list[Finding] = field(default_factory=list)
    kept: Path | None = None  # a folder with copies of all that was changed
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong that was not repaired; leftovers are not wrong."""
        return all(finding.is_leftover or finding.is_repaired for finding in self.findings)

    def __bool__(self) -> bool:
        return self.is_sound

    def __str__(self) -> str:
        wrong = sum(not (finding.is_leftover or finding.is_repaired) for finding in self.findings)
        looked = ", ".join(f"{count:,} {part}" for part, count in self.checked.items() if count)
        found = "is sound" if self.is_sound else f"has {wrong:,} finding{'s'[: wrong != 1]}"
        return f"{self.path} {found}; looked at {looked or 'the file'}"

    def __repr__(self) -> str:
        return report_text(str(self), [str(finding) for finding in self.findings])

    def _repr_html_(self) -> str | None:
        rows = [
            {
                "kind": each.kind,
                "id": each.id,
                "what": each.message,
                "cure": "repaired" if each.is_repaired else each.cure,
            }
            for each in self.findings
        ]
        return report_cell(str(self), rows, is_bad=not self.is_sound)

    def to_dict(self) -> dict[str, Any]:
        """The report in types of JSON."""
        findings = [{**asdict(finding), "path": str(finding.path)} for finding in self.findings]
        return {
            "path": str(self.path),
            "is_sound": self.is_sound,
            "checked": dict(self.checked),
            "findings": findings,
            "kept": str(self.kept) if self.kept else None,
            "seconds": self.seconds,
        }
