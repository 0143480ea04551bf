"""What a migration or a conversion did, table by table, and how it says so while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from n4a_fast.values.notebook import report_cell, report_text

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

    def __str__(self) -> str:
        if self.already_done:
            return f"{self.source} is an n4a_fast workspace already"
        compared = f"every row and {self.arrays_compared:,} arrays compared"
        return f"{self.kind}, {compared}, written to {self.destination} in {self.seconds:.1f} s"

    def __repr__(self) -> str:
        written = (f"{each.table}: {each.written:,} of {each.found:,} written" for each in self.tables if each.found)
        return report_text(str(self), list(written))

    def _repr_html_(self) -> str | None:
        return report_cell(str(self), [asdict(table) for table in self.tables if table.found])

    def written(self, table: str) -> int:
        """Rows written to `table`."""
        return sum(report.written for report in self.tables if report.table == table)
