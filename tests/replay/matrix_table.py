"""`make matrix`: the whole matrix, and its table between the marks of docs/replay.md; fails on a wrong cell."""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from matrix import VARIANTS, WAYS, Cell, cases, estimators, measured  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "replay.md"
MARKS = "<!-- matrix -->", "<!-- end of matrix -->"
AT_A_TIME = 6
Found = dict[tuple[str, str], list[Cell]]


def part(names: Sequence[str]) -> Found:
    """The cells of these estimators."""
    warnings.simplefilter("ignore")
    made = estimators()
    with tempfile.TemporaryDirectory() as folder:
        return measured([case for name in names for case in cases(name, made[name])], Path(folder))


def cell(cells: Sequence[Cell] | None) -> str:
    """One cell of the table: equal everywhere, or the ways that refuse."""
    if cells is None:
        return ""
    refused = [one.way for one in sorted(cells, key=lambda one: WAYS.index(one.way)) if one.refused]
    if len(refused) == len(WAYS):
        return "refused"
    return f"not {', '.join(refused)}" if refused else "="


def table(found: Found) -> str:
    """The matrix as Markdown, estimators in rows."""
    names = sorted({name for name, _ in found}, key=str.lower)
    lines = [f"| Estimator | {' | '.join(VARIANTS)} |", "|---" * (len(VARIANTS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(found.get((name, one))) for one in VARIANTS)} |" for name in names]
    return "\n".join(lines)


def reasons(found: Found) -> str:
    """Why cells are refused, once each."""
    words = (one.refused for cells in found.values() for one in cells if one.refused)
    told = {re.sub(r"chain '[^']*' cannot be replayed: |step \d+ \([^)]*\) ", "", one) for one in words}
    return "\n".join(f"- {reason}" for reason in sorted(told))


def wrong_cells(found: Found) -> list[str]:
    """What is neither equal nor refused."""
    listed = ((*key, one) for key, cells in found.items() for one in cells if one.wrong)
    return [f"{name}, {variant}, {one.way}: {one.wrong}" for name, variant, one in listed]


def main() -> int:
    names = list(estimators())
    parts = [names[first : first + AT_A_TIME] for first in range(0, len(names), AT_A_TIME)]
    found: Found = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for done, cells in zip(parts, pool.map(part, parts), strict=True):
            found |= cells
            print(f"{done[0]} to {done[-1]}", *wrong_cells(cells), sep="\n  ", flush=True)
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    body = f"{table(found)}\n\nRefused with these words:\n\n{reasons(found)}"
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}", encoding="utf-8")
    return len(wrong_cells(found)) > 0


if __name__ == "__main__":
    sys.exit(main())
