"""The reference of the documentation site names everything that is public."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import n4a_fast
from n4a_fast import WorkspaceStore
from n4a_fast.cli import app

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import reference_pages  # noqa: E402


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    reference_pages.write_pages(folder)
    return {page.stem: page.read_text(encoding="utf-8") for page in folder.iterdir()}


def test_every_public_method_has_its_place(pages: dict[str, str]) -> None:
    public = {name for name in vars(WorkspaceStore) if not name.startswith("_")}
    topics = reference_pages.methods_by_topic()
    assert {name for names in topics.values() for name in names} == public
    assert all(f"n4a_fast.WorkspaceStore.{name}\n" in pages["store"] for name in public)


def test_every_public_name_has_its_place(pages: dict[str, str]) -> None:
    for name in set(n4a_fast.__all__) - {"__version__"}:
        assert f"n4a_fast.{name}\n" in pages["store"] + pages["functions"], name


def test_every_command_has_its_place(pages: dict[str, str]) -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        assert f"## n4a-fast {name}\n" in pages["commands"]


def test_documented_tables_are_listed_with_their_columns(pages: dict[str, str]) -> None:
    for name in ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs"):
        assert f"## {name}\n" in pages["tables"]
    assert "| `y_pred` | `DOUBLE[]` |" in pages["tables"]
