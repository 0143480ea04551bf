"""The lower bounds of pyproject.toml as pins for pip: python tools/lowest.py > constraints.txt"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def pins(requirements: list[str]) -> list[str]:
    """`name==lowest` of each requirement that has a lower bound."""
    found = (re.match(r"([\w-]+)(?:\[.*?\])?>=([\d.]+)", requirement) for requirement in requirements)
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print(*pins(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]), sep="\n")
