"""What must hold before a release, as a list that checks itself: python tools/release.py [--facts]

First the facts (version, changelog, citation, addresses, a clean tree, a free tag), then every command that a release
has to pass; it stops at the first one that fails, and at the end tells the two steps that are left to a person.
`--facts` looks at the facts alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import index_page

PROJECT = Path(__file__).parents[1]
COMMANDS = (
    "make lint",
    "make test",
    "make slow",
    "make gate",
    "make crash MINUTES=10",
    "make test-lowest",
    "make wheels-check",
    "make test-windows",
    "make docs",
    "make wheels",  # the last one: what it leaves in build/wheels/dist is what is uploaded
)


def version_of(project: Path) -> str:
    """The version that the package states."""
    text = (project / "src" / "n4a_fast" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    return found[1] if found else ""


def wrong_version(project: Path) -> str | None:
    """A release is three numbers, with nothing behind them."""
    version = version_of(project)
    return None if re.fullmatch(r"\d+\.\d+\.\d+", version) else f"version.py says {version!r}; a release is like 1.2.3"


def wrong_changelog(project: Path) -> str | None:
    """Its first heading is this version, with its day."""
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = next((line for line in text.splitlines() if line.startswith("## ")), "")
    wanted = rf"## {re.escape(version_of(project))} \(\d{{4}}-\d\d-\d\d\)"
    return None if re.fullmatch(wanted, heading) else f"CHANGELOG.md begins with {heading!r}; give version and day"


def wrong_citation(project: Path) -> str | None:
    """CITATION.cff names this version."""
    text = (project / "CITATION.cff").read_text(encoding="utf-8")
    stated = re.search(r"^version: (.+)$", text, re.M)
    return None if stated and stated[1] == version_of(project) else "CITATION.cff states another version"


def wrong_addresses(project: Path) -> str | None:
    """The package index links to the repository that this clone comes from."""
    told = "origin is no address on the web; the package index would link to nothing"
    return None if index_page.repository(project) else told


def unclean_tree(project: Path) -> str | None:
    """What is built is what is committed."""
    changed = _git(project, "status", "--porcelain")
    return f"not committed:\n{changed}" if changed else None


def taken_tag(project: Path) -> str | None:
    """A version is released once."""
    tag = f"v{version_of(project)}"
    return f"{tag} is there already" if _git(project, "tag", "--list", tag) else None


FACTS: tuple[Callable[[Path], str | None], ...] = (
    wrong_version,
    wrong_changelog,
    wrong_citation,
    wrong_addresses,
    unclean_tree,
    taken_tag,
)


def complaints(project: Path) -> Iterator[str]:
    """Each fact that does not hold, in a sentence."""
    return filter(None, (fact(project) for fact in FACTS))


def _git(project: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str]) -> None:
    if found := list(complaints(PROJECT)):
        sys.exit("\n".join(found))
    for command in () if "--facts" in arguments else COMMANDS:
        print(f"== {command}", flush=True)
        subprocess.run(command.split(), cwd=PROJECT, check=True)
    tag = f"v{version_of(PROJECT)}"
    print(f"left to you: git tag {tag} && git push origin {tag}, which builds the wheels of every platform;")
    print("upload these and the sdist with `twine upload` once their tests have passed")


if __name__ == "__main__":
    main(sys.argv[1:])
