"""What a migration or a conversion did, table by table, and how it says so while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Progress = Callable[[str, int, int], object]  # what is being done, how many rows of it are done, of how many


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: rows found, rows written, and why these differ where they do."""

    table: str
    found: int
    written: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished migration or conversion; every row and every array was read back and compared before it took
    effect.
    """

    source: Path
    destination: Path
    kind: str  # of the source
    tables: tuple[TableReport, ...]
    arrays_compared: int
    seconds: float
    backup: Path | None = None
    already_done: bool = False

    def written(self, table: str) -> int:
        """Rows written to `table`."""
        return sum(report.written for report in self.tables if report.table == table)
