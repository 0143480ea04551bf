"""README.md as the package index shows it: its links and pictures lead to the repository, at the tag of this version.

The index knows no files of the repository. Read by the build (`pyproject.toml`, `tool.dynamic-metadata`), the address
comes from `[project.urls]`. Without one, links become their text and pictures go: nothing is broken, or leads astray.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
# ![words](place) and [words](place), where the place is a file of the repository
_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def absolute(text: str, repository: str | None, version: str) -> str:
    """Markdown whose relative links and pictures are complete addresses, or plain text without a repository."""

    def replaced(link: re.Match[str]) -> str:
        mark, words, place = link.groups()
        if repository is None:
            return "" if mark else words
        return f"{mark}[{words}]({repository.rstrip('/')}/{'raw' if mark else 'blob'}/v{version}/{place})"

    return _RELATIVE.sub(replaced, text)


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """The `readme` of the package's metadata, by the protocol of build backends."""
    text = absolute(README.read_text(encoding="utf-8"), project.get("urls", {}).get("Repository"), project["version"])
    return {"readme": {"content-type": "text/markdown", "text": text}}
