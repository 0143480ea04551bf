"""The pages of the reference, written from the package: methods by topic, commands, tables and views, errors.

Topics are the headings that stand between the methods in `store.py`; commands and their options are those of `--help`.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import n4a_fast
from n4a_fast import WorkspaceStore
from n4a_fast.cli import app

_CURE = re.compile(r"    (?P<depth>[| ]*)\+-- (?P<name>\w+)(?: \(\w+\))?\s+(?P<cure>.+)")
_TOPIC = re.compile(r"^    # -- (.+?) -*$")
_COLUMNS = """SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = 'main' ORDER BY table_name, ordinal_position"""


def write_pages(folder: Path) -> None:
    """Write every page of the reference below `folder`."""
    folder.mkdir(exist_ok=True)
    pages = {
        "store": _store_page(),
        "functions": _functions_page(),
        "commands": _commands_page(),
        "tables": _tables_page(),
        "errors": _errors_page(),
    }
    for name, text in pages.items():
        _write(folder / f"{name}.md", text)


def methods_by_topic() -> dict[str, list[str]]:
    """The public methods of `WorkspaceStore`, by the headings between them."""
    source = Path(n4a_fast.store.__file__).read_text(encoding="utf-8")
    headings = [
        (number, found.group(1)) for number, line in enumerate(source.splitlines(), 1) if (found := _TOPIC.match(line))
    ]
    (facade,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "WorkspaceStore"
    )
    topics: dict[str, list[str]] = {}
    for node in facade.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            above = [title for line, title in headings if line < node.lineno]
            topics.setdefault(above[-1] if above else "opening and closing", []).append(node.name)
    return topics


def _store_page() -> str:
    parts = ["# WorkspaceStore\n", _directive("autoclass", "n4a_fast.WorkspaceStore")]
    for topic, names in methods_by_topic().items():
        parts.append(f"## {topic.capitalize()}\n")
        for name in names:
            kind = "autoproperty" if isinstance(vars(WorkspaceStore)[name], property) else "automethod"
            parts.append(_directive(kind, f"n4a_fast.WorkspaceStore.{name}"))
    return "\n".join(parts)


def _functions_page() -> str:
    parts = ["# Functions and other classes\n"]
    for name in sorted(set(n4a_fast.__all__) - {"WorkspaceStore", "__version__"}):
        is_class = isinstance(getattr(n4a_fast, name), type)
        options = ["members:"] if is_class else []
        parts.append(_directive("autoclass" if is_class else "autofunction", f"n4a_fast.{name}", *options))
    return "\n".join(parts)


def _errors_page() -> str:
    rows = "\n".join(
        f"| {'&emsp;' * level}[`{name}`](#n4a_fast.errors.{name}) | {cure} |" for level, name, cure in cures()
    )
    head = "# Errors\n\nEvery error names its cause and its cure, and is of one of these classes, by what to do next.\n"
    table = f"| error | what to do |\n|---|---|\n{rows}\n"
    parts = [head, table, "## What they say and carry\n"]
    for _, name, _ in [(0, "StoreError", ""), *cures()]:
        parts.append(_directive("autoexception", f"n4a_fast.errors.{name}", "show-inheritance:"))
    return "\n".join(parts)


def cures() -> list[tuple[int, str, str]]:
    """Depth, name and cure of each error in the tree at the head of `errors`."""
    lines = (_CURE.match(line) for line in str(n4a_fast.errors.__doc__).splitlines())
    return [(len(found["depth"]) // 4, found["name"], found["cure"]) for found in lines if found]


def _commands_page() -> str:
    """A heading for each command with what its `--help` says: usage, arguments, options, and the example below them."""
    parts = ["# Commands\n"]
    for path, command, context in _commands(typer.main.get_command(app), "n4a-fast", None):
        parts.append(f"## {path}\n\n{(command.help or '').strip()}\n")
        parts.append(f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n")
        rows = [record for parameter in command.get_params(context) if (record := _help_of(parameter, context))]
        parts += [f"`{name}`\n: {text or '.'}\n" for name, text in rows]
        parts.append(_as_code(" ".join((command.epilog or "").split())))
    return "\n".join(parts)


def _as_code(epilog: str) -> str:
    """What stands below the options; an example as it is typed."""
    head, _, typed = epilog.partition("Example: ")
    return f"```text\n{typed}\n```\n" if typed else f"{head}\n"


def _help_of(parameter: Any, context: Any) -> tuple[str, str] | None:
    record = parameter.get_help_record(context)
    return None if record is None else (record[0], " ".join(record[1].split()))


def _commands(command: Any, path: str, above: Any) -> Iterator[tuple[str, Any, Any]]:
    """The program and each command, with the words to call it, and the context that its `--help` has."""
    with command.context_class(command, info_name=path, parent=above, **command.context_settings) as context:
        yield path, command, context
        for name, each in getattr(command, "commands", {}).items():
            yield from _commands(each, f"{path} {name}", context)


def _tables_page() -> str:
    with tempfile.TemporaryDirectory() as folder, WorkspaceStore(folder) as store:
        columns = store.sql(_COLUMNS).rows()
    parts = [
        "# Tables and views\n",
        "What `store.sql(...)`, `n4a-fast sql` and any DuckDB 2.0 or later see in `store.duckdb`.\n",
    ]
    for table in dict.fromkeys(name for name, _, _ in columns):
        rows = "\n".join(f"| `{column}` | `{kind}` |" for name, column, kind in columns if name == table)
        parts.append(f"## {table}\n\n| column | type |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _directive(kind: str, target: str, *options: str) -> str:
    lines = "".join(f"   :{option}\n" for option in options)
    return f"```{{eval-rst}}\n.. {kind}:: {target}\n{lines}```\n"


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
        path.write_text(text, encoding="utf-8")
