"""What a release must state, and the README as the package index gets it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import index_page
import pytest
import release

PROJECT = Path(__file__).parents[1]

FILES = {
    "src/n4a_fast/version.py": '__version__ = "1.2.3"\n',
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3 (2026-12-01)\n\n- New.\n\n## 1.2.2 (2026-11-01)\n",
    "CITATION.cff": "cff-version: 1.2.0\nversion: 1.2.3\n",
}


def _git(project: Path, command: str) -> None:
    name = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *name, *command.split()], cwd=project, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository that is ready to be released."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in ("init -q", "remote add origin git@example.org:a/b.git", "add .", "commit -q -m all"):
        _git(tmp_path, command)
    return tmp_path


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))
        _git(project, "commit -q -a -m edited")

    return edit


def test_what_is_ready_has_no_complaint(project: Path) -> None:
    assert list(release.complaints(project)) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_edit("src/n4a_fast/version.py", "1.2.3", "1.2.3.dev1"), "a release is like"),
        (_edit("CHANGELOG.md", "2026-12-01", "unreleased"), "CHANGELOG.md begins with"),
        (_edit("CITATION.cff", "1.2.3", "1.2.2"), "CITATION.cff states another version"),
        (lambda project: _git(project, "remote set-url origin /home/me/clone"), "origin is no address on the web"),
        (lambda project: (project / "new.py").touch(), "not committed"),
        (lambda project: _git(project, "tag v1.2.3"), "v1.2.3 is there already"),
    ],
)
def test_what_keeps_from_a_release_is_told(project: Path, spoil: Callable[[Path], object], told: str) -> None:
    spoil(project)
    assert told in "\n".join(release.complaints(project))


def test_every_command_of_a_release_is_a_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.M))
    assert {command.split()[1] for command in release.COMMANDS} <= targets


def test_the_citation_names_the_version_of_the_package() -> None:
    assert release.wrong_citation(PROJECT) is None


TEXT = "a [page](docs/page.md#part), ![a picture](docs/a.png), [PyPI](https://pypi.org/x), [here](#below)"


def test_links_of_the_readme_lead_to_the_tag_of_this_version() -> None:
    assert index_page.absolute(TEXT, "https://example.org/a/b", "1.2.3") == (
        "a [page](https://example.org/a/b/blob/v1.2.3/docs/page.md#part), "
        "![a picture](https://example.org/a/b/raw/v1.2.3/docs/a.png), "
        "[PyPI](https://pypi.org/x), [here](#below)"
    )


def test_without_a_repository_links_are_their_text() -> None:
    assert index_page.absolute(TEXT, None, "1.2.3") == "a page, , [PyPI](https://pypi.org/x), [here](#below)"


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("git@example.org:a/b.git", "https://example.org/a/b"),
        ("https://example.org/a/b.git", "https://example.org/a/b"),
        ("https://me:secret@example.org/a/b", "https://example.org/a/b"),
        ("ssh://git@example.org/a/b/", "https://example.org/a/b"),
        ("/home/me/clone.git", None),
        ("../clone", None),
    ],
)
def test_addresses_are_those_of_the_repository_that_was_cloned(project: Path, origin: str, address: str | None) -> None:
    _git(project, f"remote set-url origin {origin}")
    assert index_page.repository(project) == address


def test_an_sdist_states_the_address_of_its_repository(tmp_path: Path) -> None:
    assert index_page.repository(tmp_path) is None
    addresses = index_page.addresses("https://example.org/a/b", "1.2.3")
    lines = "".join(f"Project-URL: {name}, {address}\n" for name, address in addresses.items())
    (tmp_path / "PKG-INFO").write_text(f"Name: n4a_fast\n{lines}")
    assert index_page.repository(tmp_path) == "https://example.org/a/b"
