"""The reference of the documentation site names everything that is public."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import begin_sweep
from typer.testing import CliRunner

import n4a_fast
from n4a_fast import PipelineLibrary, WorkspaceStore, __version__, errors
from n4a_fast.cli import app
from n4a_fast.log.record import HEADER_SIZE
from n4a_fast.schema.versions import FORMAT_VERSION

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


def _help(*command: str) -> tuple[str, dict[str, str]]:
    """The usage line of `--help`, and its arguments and options, each with its text; without blanks, which wrap."""
    with app.only(command):
        result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"}, prog_name="n4a-fast")
    assert result.exit_code == 0, result.output
    paragraphs = result.stdout.split("\n\n")
    entries: dict[str, str] = {}
    for paragraph in paragraphs:
        if paragraph.startswith(("Arguments:\n", "Options:\n")):
            for name, text in re.findall(r"^  (\S.*?)(?:  +|\n)(.*(?:\n   .*)*)", paragraph, re.MULTILINE):
                entries[_packed(name)] = _packed(text)
    return _packed(paragraphs[0].removeprefix("Usage:")), entries


def _packed(text: str) -> str:
    return "".join(text.split())


def test_the_page_of_commands_says_what_their_help_says_and_nothing_else(pages: dict[str, str]) -> None:
    heads = re.findall(r"^## (n4a-fast.*)$", pages["commands"], re.MULTILINE)
    commands = [f"n4a-fast {each.name}" for each in app.registered_commands]
    assert heads == ["n4a-fast", *commands]
    sections = dict(zip(heads, re.split(r"^## n4a-fast.*$", pages["commands"], flags=re.MULTILINE)[1:], strict=True))
    for head, section in sections.items():
        usage, entries = _help(*head.split()[1:])
        assert "-h,--help" in entries
        found = re.findall(r"^`(.+)`\n: (.+)$", section, re.MULTILINE)
        assert {_packed(name): _packed(text) for name, text in found} == entries, head
        typed = re.findall(r"^```text\n(.*)\n```$", section, re.MULTILINE)
        assert _packed(typed[0]) == usage
        assert head == "n4a-fast" or typed[1].startswith(f"{head} "), head  # the example


def test_every_error_is_listed_with_its_cure_below_the_class_it_is_of(pages: dict[str, str]) -> None:
    listed = reference_pages.cures()
    classes = {
        name for name, each in vars(errors).items() if isinstance(each, type) and each.__module__ == errors.__name__
    }
    assert sorted(name for _, name, _ in listed) == sorted(classes - {"StoreError"})
    above = ["StoreError"]
    for depth, name, cure in listed:
        above[depth + 1 :] = [name]
        assert getattr(errors, above[depth]) in getattr(errors, name).__bases__
        assert f"[`{name}`](#n4a_fast.errors.{name}) | {cure} |" in pages["errors"]
        assert f"autoexception:: n4a_fast.errors.{name}\n" in pages["errors"]


def test_what_lies_in_a_workspace_is_on_the_page_about_the_disk(tmp_path: Path) -> None:
    page = (DOCS / "disk.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", page[: page.index("## The tables")], re.MULTILINE)
    with WorkspaceStore(tmp_path / "w") as store:
        run = begin_sweep(store).run
        store.save_artifact(np.arange(3), "numpy.ndarray", "model", "joblib")
        store.flush()
        store.shard(tmp_path / "w" / "shards" / "task", run_id=run).open().close()
        PipelineLibrary(tmp_path / "w").save_template({"steps": ["SNV"]}, "first")
        found = {path.relative_to(tmp_path / "w").as_posix() for path in (tmp_path / "w").rglob("*") if path.is_file()}
        (log,) = (tmp_path / "w").glob("store.duckdb.log-*")
        head = log.read_bytes()[:HEADER_SIZE]
        store.backup(tmp_path / "b")
    found |= {path.name for path in (tmp_path / "b").iterdir() if path.is_file()}
    patterns = [
        re.escape(each).replace("XX", "[0-9a-f]{2}").replace("ID", "[0-9a-f-]{36}").replace(r"\*", ".*")
        .replace("HASH", "[0-9a-f]{32}").replace("CATEGORY", "[^/]+").replace("NAME", "[^/]+")
        + (".+" if each.endswith("/") else "")
        for each in named
    ]  # fmt: skip
    assert [path for path in found if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []
    widths = re.findall(r"^\| (\d+) \|", page[page.index("## The log") : page.index("## Formats")], re.M)
    assert sum(map(int, widths)) == len(head)
    assert f"a header of {HEADER_SIZE} bytes" in page
    assert head.startswith(b"n4a\0log\2")
    assert f"| {FORMAT_VERSION} | {__version__} | as it is |" in page


def test_documented_tables_are_listed_with_their_columns(pages: dict[str, str]) -> None:
    for name in ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs"):
        assert f"## {name}\n" in pages["tables"]
    assert "| `y_pred` | `DOUBLE[]` |" in pages["tables"]
