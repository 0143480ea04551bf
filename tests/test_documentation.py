"""What the pages and the heads of modules point at is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
_ANCHOR = re.compile(r"\]\(([\w.]+\.md)?#([^)\s]+)\)")
_TEST = re.compile(r"\btests/[\w/]+(?:\.py)?\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    # pages that `make docs` writes
    missing = [link for link in missing if not link.startswith("reference/")]
    missing = [link for link in missing if not (ROOT / "examples" / f"{link.removeprefix('tutorials/')}.py").exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_heading_that_a_page_links_to_is_there(page: Path) -> None:
    for name, anchor in _ANCHOR.findall(page.read_text()):
        assert anchor in _anchors(page.parent / name if name else page), f"{name}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Headings as links name them: in small letters, `-` for blanks, without signs."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_test_that_a_page_or_a_module_names_is_there() -> None:
    named = {
        (file.relative_to(ROOT), name)
        for file in [*PAGES, *(ROOT / "src").rglob("*.py")]
        for name in _TEST.findall(file.read_text())
    }
    assert len(named) > 20
    assert {(file, name) for file, name in named if not (ROOT / name).exists()} == set()


def test_every_line_of_the_protocol_is_held_by_tests() -> None:
    """The protocol stands at the engine; the design page has its lines, each with tests."""
    head = (ROOT / "src/n4a_fast/engine/__init__.py").read_text()
    names = "Identity|Life|Durability|Order of locks|Drains|Units|Exit|Fork|The file heals"
    lines = re.findall(rf"^({names})", head, re.MULTILINE)
    page = (ROOT / "docs/design.md").read_text()
    table = page[page.index("## The protocol") : page.index("## Decisions")]
    rows = [row for row in table.splitlines() if row.startswith("|")][2:]
    assert {row.split("|")[1].strip().split(":")[0] for row in rows} == set(lines)
    assert all("](../tests/" in row for row in rows)


def test_the_numbers_of_the_readme_are_those_that_were_measured() -> None:
    sys.path.append(str(ROOT / "benchmarks"))
    import page

    made = page.six(page.history()[-1])
    assert made.count("\n") == 7
    assert made in (ROOT / "README.md").read_text()
    assert page.table(page.history()[-1]) in (ROOT / "docs" / "benchmarks.md").read_text()
