"""Skips on Windows what needs things that it has not got: told by a test's own text, so that no list has to be kept.

Read are the test itself and what it names in its module: helpers, fixtures, programs of child processes. What the text
does not show has the marker `not_on`.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

EVERYWHERE = frozenset((Path(__file__).parent / "systems" / "names_on_every_system.txt").read_text().split())
NAME = re.compile(rf"\b(?:{'|'.join(sorted({name.partition('.')[0] for name in EVERYWHERE}))})\.[a-zA-Z]\w*\b")
# what is there and does something else, or is for administrators
WORDS = {
    "import fcntl": "there is no fcntl",
    "import resource": "limits of a process are not set",
    "LD_PRELOAD": "no library is loaded before all others",
    "/proc/": "there is no /proc",
    "/dev/": "there is no /dev",
    "symlink": "links are made by administrators",
    "chmod": "permissions are lists, which chmod does not write",
    "SIGTERM": "no process is asked to end by a signal",
    "send_signal": "no process is asked anything by a signal",
    'get_context("fork")': "there is no fork",
    "bin/": "programs lie in Scripts",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if why := reason(item.path, item.name.partition("[")[0]):
            item.add_marker(pytest.mark.skip(reason=f"windows: {why}"))


def reason(file: Path, test: str) -> str | None:
    """Why a test cannot run on Windows; None where nothing says so."""
    parts = _parts(file)
    wanted, text = [test], ""
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in parts and name not in seen:
            seen.add(name)
            source, names = parts[name]
            text += source
            wanted += names
    lacking = sorted({found for found in NAME.findall(text) if found not in EVERYWHERE})
    told = [f"there is no {', '.join(lacking)}"] if lacking else []
    return next(iter(told + [why for word, why in WORDS.items() if word in text]), None)


@cache
def _parts(file: Path) -> dict[str, tuple[str, list[str]]]:
    """Of each name at the top of a module: its text, and the names in it, those of fixtures included."""
    text = file.read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        inner = list(ast.walk(node))
        names = [part.id for part in inner if isinstance(part, ast.Name)]
        names += [part.arg for part in inner if isinstance(part, ast.arg)]
        source = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            decorators = [ast.get_source_segment(text, decorator) or "" for decorator in node.decorator_list]
            found[node.name] = ("\n".join([*decorators, source, ""]), names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = (source + "\n", names)
    return found
