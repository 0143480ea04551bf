"""The shape of the package: which way imports point, who may import what, how long things get.

Each rule is a function from parsed sources to complaints. The tests at the end feed each of them
a bad source, so a rule that cannot fail is noticed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "n4a_fast"
NAME = "n4a_fast"
ROOT = ""  # the package itself: its __init__

# Lowest first; a module imports from its own layer and from those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "ids",
        "jsontext",
        "_native",
        "version",
        "checks",
        "durable",
        "turnstile",
        "forks",
        "idleness",
        "frames",
        "interrupts",
    ),
    ("database",),
    ("schema", "journal", "vacuum", "between"),
    ("records", "artifacts", "predictions"),
    ("replay", "bundles", "buffer"),
    ("workspace",),
    ("opening", "journaled", "merging", "shards", "stats"),
    ("store",),
    ("library", "chain_builder"),
    ("integrations",),
    (ROOT,),
    ("cli",),
    ("__main__", "run"),
)

FUNCTION_LINES = 40  # of the body, without the docstring
MODULE_LINES = 400
# Longer on purpose: file, lines, reason.
LONG_MODULES = {
    "store.py": 960,  # one facade, with the users' docstrings of every documented method
    "database/database.py": 489,  # one attachment, and everything that may be done with it
    "artifacts/catalog.py": 488,  # rows of artifacts
    "library.py": 406,
}
FACADE_STATEMENTS = 3


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: where it lies in the package, its text, its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The module or folder directly under the package that it belongs to."""
        first = self.path.partition("/")[0].removesuffix(".py")
        return ROOT if first == "__init__" else first


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `a.b.c`, its line, and whether it runs only when a function is called."""

    target: str
    line: int
    lazy: bool


def parsed(path: str, text: str) -> Module:
    return Module(path, text, ast.parse(text))


def package() -> list[Module]:
    return [parsed(file.relative_to(PACKAGE).as_posix(), file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))]


def imports(module: Module) -> Iterator[Import]:
    """Everything that a module imports, by statement or by name, types included."""
    lazy = {
        id(node)
        for function in ast.walk(module.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(module.tree):
        for target in _targets(module, node):
            yield Import(target, node.lineno, id(node) in lazy)  # type: ignore[attr-defined]


def _targets(module: Module, node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        if node.level:
            folders = [NAME, *module.path.split("/")[:-1]]
            origin = ".".join([*folders[: len(folders) - node.level + 1], *([node.module] if node.module else [])])
        return [f"{origin}.{name.name}" for name in node.names]
    if (
        isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return [node.args[0].value] if called in ("import_module", "__import__") else []
    return []


def _layer_of(part: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if part in layer), None)


def upward_imports(modules: list[Module]) -> list[str]:
    """Imports of a layer that comes later, and modules that no layer names."""
    parts = {name for layer in LAYERS for name in layer}
    found = []
    for module in modules:
        own = _layer_of(module.part)
        if own is None:
            found.append(f"{module.path} belongs to no layer; add {module.part!r} to LAYERS")
            continue
        for imported in imports(module):
            package_name, _, rest = imported.target.partition(".")
            if package_name != NAME:
                continue
            part = rest.partition(".")[0]
            layer = _layer_of(part if part in parts else ROOT)
            if layer is not None and layer > own:
                found.append(f"{module.path}:{imported.line} imports {imported.target} from a later layer")
    return found


def foreign_imports(modules: list[Module], library: str, home: str, lazy: bool) -> list[str]:
    """Imports of `library` outside `home` (a file, or a folder ending in "/"), or inside it but not within a
    function.
    """
    found = []
    for module in modules:
        for imported in imports(module):
            if imported.target.partition(".")[0] != library:
                continue
            if not (module.path == home or (home.endswith("/") and module.path.startswith(home))):
                found.append(f"{module.path}:{imported.line} imports {library}; only {home} may")
            elif lazy and not imported.lazy:
                found.append(
                    f"{module.path}:{imported.line} imports {library} when it is loaded; import it in the function that"
                    " needs it"
                )
    return found


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def facade_decisions(modules: list[Module], name: str = "WorkspaceStore") -> list[str]:
    """Methods of the facade with more statements than a delegation needs; nested ones count."""
    classes = [
        (module, node)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    found = [] if classes else [f"there is no class {name}"]
    for module, facade in classes:
        for method in facade.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                count = sum(
                    isinstance(node, ast.stmt)
                    for statement in _without_docstring(method)
                    for node in ast.walk(statement)
                )
                if count > FACADE_STATEMENTS:
                    found.append(f"{module.path}:{method.lineno} {name}.{method.name} has {count} statements")
    return found


def long_functions(modules: list[Module]) -> list[str]:
    """Functions with more lines than one can read at a glance; signature and docstring do not count."""
    found = []
    for module in modules:
        for function in _functions(module):
            body = _without_docstring(function)
            length = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > FUNCTION_LINES:
                found.append(f"{module.path}:{function.lineno} {function.name} has {length} lines")
    return found


def long_modules(modules: list[Module]) -> list[str]:
    """Modules that want to be split."""
    lengths = [(module.path, len(module.text.splitlines())) for module in modules]
    return [f"{path} has {length} lines" for path, length in lengths if length > LONG_MODULES.get(path, MODULE_LINES)]


def test_the_package_is_found() -> None:
    assert {"errors.py", "database/database.py", "store.py", "_native/__init__.py"} <= {
        module.path for module in package()
    }


def test_imports_point_one_way() -> None:
    assert upward_imports(package()) == []


def test_only_the_database_folder_imports_duckdb() -> None:
    assert foreign_imports(package(), "duckdb", "database/", lazy=False) == []


def test_only_the_integrations_import_nirs4all_and_only_when_called() -> None:
    assert foreign_imports(package(), "nirs4all", "integrations/", lazy=True) == []


def test_the_facade_delegates() -> None:
    assert facade_decisions(package()) == []


def test_functions_and_modules_stay_short() -> None:
    assert long_functions(package()) + long_modules(package()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import n4a_fast.database"),
        ("database/database.py", "from n4a_fast.schema.ddl import STATEMENTS"),
        ("schema/ddl.py", "from n4a_fast import store"),
        ("records/runs.py", "def late():\n    from n4a_fast import WorkspaceStore"),
        ("records/runs.py", "from ..workspace import Workspace"),
        ("records/runs.py", "from .. import store"),
        ("predictions/table.py", "if TYPE_CHECKING:\n    from n4a_fast.store import WorkspaceStore"),
        ("replay/plan.py", "import importlib\nimportlib.import_module('n4a_fast.cli')"),
        ("newcomer.py", ""),
    ],
)
def test_an_upward_import_is_found(path: str, source: str) -> None:
    assert len(upward_imports([parsed(path, source)])) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "records/runs.py",
            "from n4a_fast.database import Database\nfrom . import rows\nfrom .. import checks\nimport os",
        ),
        ("cli/__init__.py", "from n4a_fast import WorkspaceStore"),
        ("__init__.py", "from n4a_fast.store import WorkspaceStore"),
    ],
)
def test_a_downward_import_is_not(path: str, source: str) -> None:
    assert upward_imports([parsed(path, source)]) == []


@pytest.mark.parametrize(
    "source",
    ["import duckdb", "from duckdb import sql", "def f():\n    import duckdb.typing as t", "__import__('duckdb')"],
)
def test_a_second_importer_of_duckdb_is_found(source: str) -> None:
    assert len(foreign_imports([parsed("store.py", source)], "duckdb", "database/", lazy=False)) == 1
    assert foreign_imports([parsed("database/database.py", source)], "duckdb", "database/", lazy=False) == []


def test_an_eager_or_stray_import_of_nirs4all_is_found() -> None:
    lazy, eager = "def install():\n    import nirs4all.pipeline", "from nirs4all import pipeline"
    assert foreign_imports([parsed("integrations/nirs4all.py", lazy)], "nirs4all", "integrations/", lazy=True) == []
    assert (
        len(foreign_imports([parsed("integrations/nirs4all.py", eager)], "nirs4all", "integrations/", lazy=True)) == 1
    )
    assert len(foreign_imports([parsed("cli/__init__.py", lazy)], "nirs4all", "integrations/", lazy=True)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "a()\n  b()\n  c()\n  d()",
        "if a:\n   b()\n   c()\n  return d()",
        "'doc'\n  with a:\n   for b in c:\n    d()\n    e()",
        "def f():\n   return 1\n  a()\n  b()",
    ],
)
def test_a_facade_that_decides_is_found(body: str) -> None:
    assert len(facade_decisions([parsed("store.py", f"class WorkspaceStore:\n def method(self):\n  {body}")])) == 1


def test_a_missing_facade_is_found() -> None:
    assert facade_decisions([parsed("store.py", "")]) == ["there is no class WorkspaceStore"]


def test_a_delegation_with_a_long_docstring_is_none() -> None:
    docstring = '"""' + "line\n" * 80 + '"""'
    source = f"class WorkspaceStore:\n def method(self):\n  {docstring}\n  a()\n  b()\n  return c()"
    assert facade_decisions([parsed("store.py", source)]) == long_functions([parsed("store.py", source)]) == []


def test_long_functions_and_modules_are_found() -> None:
    long = "def f(\n    a,\n):\n" + "    a()\n" * (FUNCTION_LINES + 1)
    assert long_functions([parsed("store.py", long)]) == [f"store.py:1 f has {FUNCTION_LINES + 1} lines"]
    assert long_functions([parsed("store.py", long.removesuffix("    a()\n"))]) == []
    assert long_modules([parsed("ids.py", "a\n" * (MODULE_LINES + 1))]) == [f"ids.py has {MODULE_LINES + 1} lines"]
    assert long_modules([parsed("ids.py", "a\n" * MODULE_LINES)]) == []
