"""The table of `tools/arm64.sh`: instructions for each value of X, by numpy and by the kernels."""

from __future__ import annotations

import sys
from pathlib import Path

FLOOR = 1.5


def main(cases: Path, marks: Path) -> None:
    counted = [int(line) for line in marks.read_text().split()]
    print(f"{'kernel':12}{'targets':>8}{'numpy':>8}{'ours':>8}{'times':>8}")
    missed = []
    for place, line in enumerate(cases.read_text().splitlines()):
        name, targets, size, difference = line.split()
        if float(difference) > 1e-11:
            sys.exit(f"{name} of {targets} targets differs from numpy by {difference}")
        before, after, begun, ended = counted[4 * place : 4 * place + 4]
        numpy, ours = (after - before) / int(size), (ended - begun) / int(size)
        print(f"{name:12}{targets:>8}{numpy:8.2f}{ours:8.2f}{numpy / ours:8.2f}")
        if numpy / ours < FLOOR:
            missed.append(f"{name} of {targets} targets")
    if missed:
        sys.exit(f"less than {FLOOR} times as few instructions as numpy: {', '.join(missed)}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
