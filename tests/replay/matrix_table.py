"""`make matrix`: the whole matrix, and its table between the marks of docs/replay.md; fails on a wrong cell.

What has been measured lies in build/matrix, a file for each estimator, under the sources that it was measured with:
a run that was ended goes on where it was. `MATRIX='--minutes 7'` ends one by itself, `MATRIX='--only SVR Ridge'`
measures these again, `MATRIX=--kept` takes what other sources have given.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib.metadata import distributions
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from matrix import VARIANTS, WAYS, Cell, cases, estimators, measured  # noqa: E402

PAGE, KEPT = ROOT / "docs" / "replay.md", ROOT / "build" / "matrix"
MARKS = "<!-- matrix -->", "<!-- end of matrix -->"
AT_A_TIME = 6
Found = dict[tuple[str, str], list[Cell]]


def sources() -> str:
    """A hash of the package, of the matrix, and of the releases that it runs with."""
    digest = sha256(json.dumps(sorted(f"{one.name} {one.version}" for one in distributions())).encode())
    folders = ("src/n4a_fast", "src/_native", "tests/replay")
    for path in sorted(one for folder in folders for one in (ROOT / folder).rglob("*.*") if one.suffix in _SOURCES):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = (".py", ".pyx", ".c", ".h", ".txt")


def part(names: Sequence[str]) -> Found:
    """The cells of these estimators."""
    warnings.simplefilter("ignore")
    made = estimators()
    with tempfile.TemporaryDirectory() as folder:
        return measured([case for name in names for case in cases(name, made[name])], Path(folder))


def keep(names: Sequence[str], found: Found, at: str) -> None:
    """Write down what these estimators have given."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names:
        cells = {
            variant: [tuple(vars(one).values()) for one in found[key]]
            for key in found
            for variant in key[1:]
            if key[0] == name
        }
        (KEPT / f"{name}.json").write_text(json.dumps({"sources": at, "cells": cells}), encoding="utf-8")


def kept(names: Sequence[str], at: str | None) -> dict[str, Found]:
    """What was written down of these, by estimator; of any sources if `at` is None."""
    found: dict[str, Found] = {}
    for name in names:
        path = KEPT / f"{name}.json"
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if stored and at in (None, stored["sources"]):
            found[name] = {(name, one): [Cell(*cell) for cell in cells] for one, cells in stored["cells"].items()}
    return found


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


def unfitted(found: Found) -> str:
    """What needs other data than the toy set, or an argument that nobody could guess."""
    return ", ".join(sorted(estimators().keys() - {name for name, _ in found}, key=str.lower)) or "none"


def reasons(found: Found) -> str:
    """Why cells are refused, once each."""
    words = (one.refused for cells in found.values() for one in cells if one.refused)
    told = {re.sub(r"chain '[^']*' cannot be replayed: |step \d+ \([^)]*\) ", "", one) for one in words}
    return "\n".join(f"- {reason}" for reason in sorted(told))


def counts(found: Found) -> str:
    """How many predictions there are, and what became of them."""
    cells = [one for each in found.values() for one in each]
    refused, wrong = sum(bool(one.refused) for one in cells), sum(bool(one.wrong) for one in cells)
    names = {name for name, _ in found}
    return (
        f"{len(names)} estimators and operators, {len(found):,} chains, {len(cells):,} predictions:"
        f" {len(cells) - refused - wrong:,} equal, {refused:,} refused, {wrong:,} wrong."
    )


def wrong_cells(found: Found) -> list[str]:
    """What is neither equal nor refused."""
    listed = ((*key, one) for key, cells in found.items() for one in cells if one.wrong)
    return [f"{name}, {variant}, {one.way}: {one.wrong}" for name, variant, one in listed]


def measure(names: Sequence[str], at: str, minutes: float) -> bool:
    """Measure and keep these, in two processes, as long as there is time; whether all are done."""
    until = time.monotonic() + 60 * minutes
    parts = [names[first : first + AT_A_TIME] for first in range(0, len(names), AT_A_TIME)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for first in range(0, len(parts), 2):
            if time.monotonic() > until:
                return False
            for done, cells in zip(parts[first : first + 2], pool.map(part, parts[first : first + 2]), strict=True):
                keep(done, cells, at)
                print(f"{done[0]} to {done[-1]}", *wrong_cells(cells), sep="\n  ", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="measure these again, and write no table")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing more after so many")
    parser.add_argument("--kept", action="store_true", help="take what other sources have given")
    given = parser.parse_args()
    names, at = list(estimators()), sources()
    before = {} if given.only else kept(names, None if given.kept else at)
    all_done = measure([name for name in given.only or names if name not in before], at, given.minutes)
    found = {
        key: cells
        for one in kept(given.only or names, None if given.kept else at).values()
        for key, cells in one.items()
    }
    print(*wrong_cells(found), counts(found), sep="\n")
    right = not wrong_cells(found) and all_done
    if right and not given.only:
        write(found)
    return not right


def write(found: Found) -> None:
    """The table and the reasons, into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    told = f"{counts(found)} Not fitted by the toy set: {unfitted(found)}."
    body = f"{told}\n\n{table(found)}\n\nRefused with these words:\n\n{reasons(found)}"
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
