"""What the package index shows: README.md, with links and pictures of the repository at this version, and addresses.

The index knows no files of the repository. Read by the build (`pyproject.toml`, `tool.dynamic-metadata`). The address
is that of the clone's `origin`, which an sdist states. Without one, links become their text and pictures go: nothing is
broken, or leads astray.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
# ![words](place) and [words](place), where the place is a file of the repository
_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
# as git has it; who may log in, and how, stays with whoever does
_ORIGIN = re.compile(r"(?:(?:https|ssh)://(?:[^/@]*@)?|git@)([\w.-]+\.\w+)[/:]([\w./~-]+?)(?:\.git)?/?")


def repository(project: Path) -> str | None:
    """Where the repository of a clone, or of an sdist, lies on the web; None where that is not known."""
    if not (project / ".git").exists():
        stated = project / "PKG-INFO"
        text = stated.read_text(encoding="utf-8") if stated.exists() else ""
        found = re.search(r"^Project-URL: Repository, (.+)$", text, re.M)
        return found[1] if found else None
    asked = ("git", "remote", "get-url", "origin")
    try:
        told = subprocess.run(asked, cwd=project, check=False, capture_output=True, text=True).stdout.strip()
    except OSError:  # there is no git
        return None
    found = _ORIGIN.fullmatch(told)
    return f"https://{found[1]}/{found[2]}" if found else None


def addresses(repository: str, version: str) -> dict[str, str]:
    """What the index links to beside the page."""
    return {
        "Repository": repository,
        "Documentation": f"{repository}/blob/v{version}/docs/index.md",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def absolute(text: str, repository: str | None, version: str) -> str:
    """Markdown whose relative links and pictures are complete addresses, or plain text without a repository."""

    def replaced(link: re.Match[str]) -> str:
        mark, words, place = link.groups()
        if repository is None:
            return "" if mark else words
        return f"{mark}[{words}]({repository}/{'raw' if mark else 'blob'}/v{version}/{place})"

    return _RELATIVE.sub(replaced, text)


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """`readme` and `urls` of the package's metadata, by the protocol of build backends."""
    found, version = repository(PROJECT), project["version"]
    text = absolute((PROJECT / "README.md").read_text(encoding="utf-8"), found, version)
    readme = {"content-type": "text/markdown", "text": text}
    return {"readme": readme, "urls": addresses(found, version)} if found else {"readme": readme}
