"""The shape of the package: which way imports point, who may import what, how long things get.

Each rule is a function from parsed sources to complaints. The tests at the end feed each of them
a bad source, so a rule that cannot fail is noticed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

import n4a_fast

PACKAGE = Path(__file__).parents[1] / "src" / "n4a_fast"
NAME = "n4a_fast"
ROOT = ""  # the package itself: its __init__

# Lowest first; a module imports from its own layer and from those before it. A part is a module or a folder;
# the longest one that a module lies in counts.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "version", "values", "_native", "platform"),
    (
        "durable/sync",
        "engine/session",
        "engine/identity",
        "engine/fork",
        "engine/ending",
        "engine/background",
        "engine/living",
    ),
    ("durable", "engine/lease", "engine/frames", "log/record", "log/segment"),
    ("engine/connection",),
    ("schema", "log", "memtable/key_ranges", "memtable/pending_table", "maintenance/vacuum"),
    ("artifacts",),
    ("tables", "artifacts/gc", "artifacts/loader"),
    ("predictions",),
    ("replay", "bundles", "memtable"),
    ("engine",),
    ("merging", "maintenance", "integrations/workspaces"),
    ("report", "leaderboard", "views", "learning"),
    ("store",),
    ("library", "chain_builder"),
    ("integrations",),
    (ROOT,),
    ("cli",),
    ("__main__", "run"),
)

# one system's own, or a way around it
SYSTEM_MODULES = frozenset({"ctypes", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"})
SYSTEM_MODULES |= {"_winapi", "msvcrt", "nt", "winreg", "winsound"}
SYSTEM_QUESTIONS = frozenset({"os.name", "sys.platform", "platform.system", "sys.getwindowsversion"})
# what `platform` has a call of its own for, by the rules of each system
PUBLISHING = frozenset({"os.fsync", "os.link", "os.rename", "os.renames", "os.replace", "shutil.move"})
PUBLISHING_METHODS = frozenset({"hardlink_to", "rename", "replace"})  # of a path, with one argument
# `module.name` of those modules that have other names on another system; tests/systems/names.py tells how it is made
EVERYWHERE = frozenset((Path(__file__).parent / "systems" / "names_on_every_system.txt").read_text().split())
VARYING_MODULES = frozenset(name.partition(".")[0] for name in EVERYWHERE)

RUN_BY_NAME = ("run", "version")  # `python -m n4a_fast.run`; the number that the build reads

FUNCTION_LINES = 40  # of the body, without the docstring
MODULE_LINES = 400
# Longer on purpose: file, lines, reason.
LONG_MODULES = {
    "store.py": 1500,  # one facade, with the users' docstrings of every documented method
    "tables/artifacts.py": 475,  # rows of artifacts
    "library.py": 406,
}
FACADE_STATEMENTS = 3

# Who may turn what a file says into an import, a call or an object: one folder. Beside it, with the reason:
GATE = "artifacts/trust/"
BESIDE_THE_GATE: dict[str, str] = {
    "artifacts/codec.py": "loads what the gate has decided on",
    "artifacts/pickles.py": "walks over a pickle with stand-ins, and makes nothing of it",
    "bundles/scripts/pickled.py": "text of a script that its user runs",
    "run.py": "runs the script that its user names",
}
LOADERS = {
    "pickle": {"load", "loads", "Unpickler", "_Unpickler"},
    "joblib": {"load"},
    "cloudpickle": {"load", "loads"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
    "dill": {"load", "loads"},
    "yaml": {
        "load",
        "load_all",
        "unsafe_load",
        "unsafe_load_all",
        "full_load",
        "full_load_all",
        "Loader",
        "UnsafeLoader",
    },
    "pandas": {"read_pickle"},
    "runpy": {"run_module", "run_path"},
    "builtins": {"eval", "exec", "compile", "__import__"},
    "ctypes": {"CDLL", "PyDLL", "cdll", "pydll", "pythonapi", "cast"},
}
# Readers that unpickle unless they are told not to, and the word that tells them.
PLAIN_READERS = {"numpy.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
ALIASES = {"np": "numpy", "pd": "pandas", "eval": "builtins.eval", "exec": "builtins.exec"}
# Modules and their attributes by a name that is no literal: file, where the names come from.
OWN_NAMES: dict[str, str] = {
    "__init__.py": "names of this package's own tables",
    "replay/fused/linear_operators.py": "compares a class with what its module calls by its name",
}


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: where it lies in the package, its text, its syntax tree and all of that tree's nodes."""

    path: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...] = field(compare=False)

    @property
    def place(self) -> str:
        """Its path without the ending, that of its folder for a folder's `__init__`."""
        return self.path.removesuffix(".py").removesuffix("__init__").removesuffix("/")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `a.b.c`, its line, and whether it runs only when a function is called."""

    target: str
    line: int
    lazy: bool


def parsed(path: str, text: str) -> Module:
    tree = ast.parse(text)
    return Module(path, text, tree, tuple(ast.walk(tree)))


@cache
def package() -> list[Module]:
    return [parsed(file.relative_to(PACKAGE).as_posix(), file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))]


@cache
def imports(module: Module) -> list[Import]:
    """Everything that a module imports, by statement or by name, types included."""
    lazy = {id(node) for function in _functions(module) for node in ast.walk(function)}
    return [
        Import(target, node.lineno, id(node) in lazy)  # type: ignore[attr-defined]
        for node in module.nodes
        for target in _targets(module, node)
    ]


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


def _layer_of(place: str) -> int | None:
    """The layer of the longest part that `place` (folders and names, with slashes) lies in."""
    found = [(len(part), number) for number, layer in enumerate(LAYERS) for part in layer if _lies_in(place, part)]
    return max(found)[1] if found else None


def _lies_in(place: str, part: str) -> bool:
    return place == part or (part != ROOT and place.startswith(part + "/"))


def _place_of(target: str) -> str:
    """Where an imported name comes from; names that no layer knows are the package's own."""
    place = target.partition(".")[2].replace(".", "/")
    return place if _layer_of(place) is not None else ROOT


def upward_imports(modules: list[Module]) -> list[str]:
    """Imports of a layer that comes later, and modules that no layer names."""
    found = []
    for module in modules:
        own = _layer_of(module.place)
        if own is None:
            found.append(f"{module.path} belongs to no layer; add {module.place!r} to LAYERS")
            continue
        for imported in imports(module):
            if imported.target.partition(".")[0] != NAME:
                continue
            layer = _layer_of(_place_of(imported.target))
            if layer is not None and layer > own:
                found.append(f"{module.path}:{imported.line} imports {imported.target} from a later layer")
    return found


def shared_names(modules: list[Module]) -> list[str]:
    """Names that two modules have: a room is found by its folder, a module by its name."""
    places: dict[str, list[str]] = {}
    for module in modules:
        name = module.path.rpartition("/")[2]
        if not name.startswith("__"):
            places.setdefault(name, []).append(module.path)
    return [f"{name}: {', '.join(paths)}" for name, paths in places.items() if len(paths) > 1]


def strays_at_the_root(modules: list[Module], places: Collection[str]) -> list[str]:
    """Modules beside the folders that hold nothing a user imports, or runs by its name."""
    return [
        f"{module.path} is no user's"
        for module in modules
        if "/" not in module.path
        and not module.path.startswith("__")
        and module.path.removesuffix(".py") not in {*places, *RUN_BY_NAME}
    ]


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


def system_questions(modules: list[Module], home: str = "platform/") -> list[str]:
    """Uses of what one operating system has and another has not, and questions which one this is, outside `home`."""
    found = []
    for module in modules:
        if module.path.startswith(home):
            continue
        names = _names_of_imports(module)
        asked = [(imported.target, imported.line) for imported in imports(module)]
        libraries = {target.partition(".")[0] for target, _ in asked}
        asked += [
            (target, node.lineno)
            for node in module.nodes
            if (target := _attribute(node, names)).partition(".")[0] in libraries  # else a variable of that name
        ]
        if "sqlglot" not in libraries:  # whose expressions are replaced
            asked += [(f"Path.{node.func.attr}", node.lineno) for node in module.nodes if _moves_a_path(node)]
        found += [
            f"{module.path}:{line} uses {target}; only {home} may" for target, line in asked if _is_of_a_system(target)
        ]
    return found


def texts_of_the_system(modules: list[Module]) -> list[str]:
    """Texts that each system would write with its own line ends, or read and write in its own encoding."""
    return [
        f"{module.path}:{node.lineno} {told}; write bytes, or name encoding and newline"
        for module in modules
        if not module.path.startswith("platform/")
        for node in module.nodes
        if isinstance(node, ast.Call) and (told := _text_of_the_system(node))
    ]


def _text_of_the_system(call: ast.Call) -> str:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {word.arg for word in call.keywords}
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[:2]
    texts = [each.value for each in modes if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if name == "open" and any(re.fullmatch("[wax]t?\\+?", text) for text in texts):
        return "" if {"encoding", "newline"} <= named else "opens a text to write it"
    if name == "write_text" and isinstance(call.func, ast.Attribute):
        return "" if {"encoding", "newline"} <= named else "writes a text"
    if name == "read_text" and isinstance(call.func, ast.Attribute):
        return "" if call.args or "encoding" in named else "reads a text"
    return ""


def _attribute(node: ast.AST, names: dict[str, str]) -> str:
    """`a.b`, `getattr(a, "b")` and `hasattr(a, "b")` as the path that they ask for; nothing for other nodes."""
    if isinstance(node, ast.Attribute):
        return _path_of(node, names)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr") and len(node.args) > 1:
        return f"{_path_of(node.args[0], names)}.{getattr(node.args[1], 'value', '')}"
    return ""


def _moves_a_path(node: ast.AST) -> bool:
    """Whether this gives a file another name; columns are renamed, and values replaced, by a dictionary."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in PUBLISHING_METHODS
        and len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Dict | ast.DictComp)
    )


def _is_of_a_system(target: str) -> bool:
    """Whether a module, or `module.name`, is not the same on every system, or is behind a call of `platform`."""
    library, _, name = target.partition(".")
    if library in SYSTEM_MODULES or target in SYSTEM_QUESTIONS | PUBLISHING or library == "Path":
        return True
    return name.isidentifier() and library in VARYING_MODULES and target not in EVERYWHERE


def gate_bypasses(modules: list[Module]) -> list[str]:
    """Calls that make code or objects of texts and bytes, outside the one place that asks whether they may."""
    return [
        f"{module.path}:{node.lineno} {what}; ask {GATE}"
        for module in modules
        if not module.path.startswith(GATE) and module.path not in BESIDE_THE_GATE
        for names in [_names_of_imports(module)]
        for node in module.nodes
        if (what := _bypass(module, node, names)) is not None
    ]


def _names_of_imports(module: Module) -> dict[str, str]:
    """What each name in a module stands for, as far as it was imported."""
    found = dict(ALIASES)
    for node in module.nodes:
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _bypass(module: Module, node: ast.AST, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        return _loader(module, node, names)
    if not isinstance(node, ast.Call):
        return None
    told = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    if told.get("allow_pickle", False) is not False:
        return "lets numpy unpickle"
    path = _path_of(node.func, names)
    if path in PLAIN_READERS and told.get(PLAIN_READERS[path][0]) is not PLAIN_READERS[path][1]:
        return f"does not tell {path} to unpickle nothing"
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    literal = [isinstance(argument, ast.Constant) for argument in node.args]
    if isinstance(node.func, ast.Name) and called == "compile":
        return f"runs {called}"
    if called in ("import_module", "__import__") and literal[:1] != [True] and module.path not in OWN_NAMES:
        return "imports by a name that is no literal"
    if called in ("attrgetter", "methodcaller") and not all(literal):
        return f"calls {called} with a name that is no literal"
    if called == "reduce" and node.args and getattr(node.args[0], "id", "") == "getattr":
        return "follows a path of attributes"
    if called == "getattr" and len(node.args) > 1 and _may_be_a_module(node.args[0]) and module.path not in OWN_NAMES:
        return None if literal[1] else "takes an attribute of a module by a name that is no literal"
    return None


def _may_be_a_module(node: ast.expr) -> bool:
    """Whether an expression is an import, something out of `sys.modules`, or a plain name of a module."""
    text = ast.unparse(node)
    return (
        "import_module" in text or "sys.modules" in text or text in ("module", "library", "package", "builtins", "os")
    )


def _path_of(node: ast.expr, names: dict[str, str]) -> str:
    """A name with its dots, from the module that it comes from."""
    first, _, rest = ast.unparse(node).partition(".")
    return f"{names.get(first, first)}.{rest}".strip(".")


def _loader(module: Module, node: ast.Name | ast.Attribute, names: dict[str, str]) -> str | None:
    """`pickle.loads` and the like under whatever name: called, inherited from, or passed along."""
    library, _, name = _path_of(node, names).rpartition(".")
    home = module.path.startswith("platform/") and library == "ctypes"  # the system's own functions
    return f"uses {library}.{name}" if name in LOADERS.get(library, ()) and not home else None


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in module.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def facade_decisions(modules: list[Module], name: str = "WorkspaceStore") -> list[str]:
    """Methods of the facade with more statements than a delegation needs; nested ones count."""
    classes = [
        (module, node)
        for module in modules
        for node in module.nodes
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


@pytest.mark.long
def test_the_package_is_found() -> None:
    assert {"errors.py", "engine/connection/database.py", "store.py", "_native/__init__.py"} <= {
        module.path for module in package()
    }


@pytest.mark.long
def test_imports_point_one_way() -> None:
    assert upward_imports(package()) == []


def test_no_two_modules_share_a_name() -> None:
    assert shared_names(package()) == []
    assert len(shared_names([parsed(path, "") for path in ("tables/rows.py", "cli/rows.py", "cli/__init__.py")])) == 1


def test_the_root_holds_what_a_user_imports() -> None:
    places = {*n4a_fast._PLACES.values(), *n4a_fast._MODULES}
    assert strays_at_the_root(package(), places) == []
    assert len(strays_at_the_root([parsed("helpers.py", ""), parsed("store.py", "")], places)) == 1


def test_only_the_connection_imports_duckdb() -> None:
    assert foreign_imports(package(), "duckdb", "engine/connection/", lazy=False) == []
    assert foreign_imports(package(), "_duckdb", "engine/glimpse.py", lazy=False) == []  # for completion alone


def test_only_the_integrations_import_nirs4all_and_only_when_called() -> None:
    assert foreign_imports(package(), "nirs4all", "integrations/", lazy=True) == []


@pytest.mark.long
def test_only_the_platform_asks_which_system_this_is() -> None:
    assert system_questions(package()) == []


def test_texts_have_the_same_bytes_on_every_system() -> None:
    assert texts_of_the_system(package()) == []


def test_nothing_passes_the_gate_by() -> None:
    assert gate_bypasses(package()) == []
    assert {path for path in (*BESIDE_THE_GATE, *OWN_NAMES) if not (PACKAGE / path).is_file()} == set()


def test_the_facade_delegates() -> None:
    assert facade_decisions(package()) == []


def test_functions_and_modules_stay_short() -> None:
    assert long_functions(package()) + long_modules(package()) == []


@pytest.mark.parametrize(
    ("source", "is_plain"),
    [
        ("path.write_text(text)", False),
        ("path.write_text(text, encoding='utf-8')", False),
        ("path.write_text(text, encoding='utf-8', newline='')", True),
        ("path.write_bytes(text.encode())", True),
        ("path.read_text()", False),
        ("path.read_text('utf-8')", True),
        ("open(path, 'w', newline='')", False),
        ("path.open('w', newline='', encoding='utf-8')", True),
        ("path.open(mode='x')", False),
        ("open(path, 'wb')", True),
        ("zipfile.ZipFile(path, 'w')", True),
    ],
)
def test_a_text_as_the_system_has_it_is_found(source: str, is_plain: bool) -> None:
    assert (texts_of_the_system([parsed("a.py", source)]) == []) is is_plain


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "import n4a_fast.engine.connection"),
        ("engine/connection/database.py", "from n4a_fast.schema.ddl import STATEMENTS"),
        ("schema/ddl.py", "from n4a_fast import store"),
        ("tables/runs.py", "def late():\n    from n4a_fast import WorkspaceStore"),
        ("tables/runs.py", "from ..engine.workspace import Workspace"),
        ("tables/runs.py", "from .. import store"),
        ("predictions/queries.py", "if TYPE_CHECKING:\n    from n4a_fast.store import WorkspaceStore"),
        ("replay/plan/load.py", "import importlib\nimportlib.import_module('n4a_fast.cli')"),
        ("newcomer.py", ""),
    ],
)
def test_an_upward_import_is_found(path: str, source: str) -> None:
    assert len(upward_imports([parsed(path, source)])) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "tables/runs.py",
            "from n4a_fast.engine.connection import Database\nfrom . import rows\nfrom ..values import checks",
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
    assert len(foreign_imports([parsed("store.py", source)], "duckdb", "engine/connection/", lazy=False)) == 1
    assert (
        foreign_imports([parsed("engine/connection/database.py", source)], "duckdb", "engine/connection/", lazy=False)
        == []
    )


def test_an_eager_or_stray_import_of_nirs4all_is_found() -> None:
    lazy, eager = "def install():\n    import nirs4all.pipeline", "from nirs4all import pipeline"
    assert foreign_imports([parsed("integrations/nirs4all.py", lazy)], "nirs4all", "integrations/", lazy=True) == []
    assert (
        len(foreign_imports([parsed("integrations/nirs4all.py", eager)], "nirs4all", "integrations/", lazy=True)) == 1
    )
    assert len(foreign_imports([parsed("cli/__init__.py", lazy)], "nirs4all", "integrations/", lazy=True)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "def f():\n    import ctypes.util",
        "from ctypes import CDLL",
        "import os\nif os.name == 'nt':\n    pass",
        "import sys\nif sys.platform.startswith('win'):\n    pass",
        "from sys import platform",
        "import platform\nplatform.system()",
        "import os\nos.uname()",
        "import os\nflags = os.O_CREAT | os.O_CLOEXEC",
        "import os as system\nsystem.fork()",
        "from os import pread",
        "import os\nhasattr(os, 'fdatasync')",
        "import os\ngetattr(os, 'O_BINARY', 0)",
        "import mmap\nmmap.MADV_DONTNEED",
        "import signal\nsignal.SIGKILL",
        "import time\ntime.clock_gettime(1)",
        "import pwd",
        "import os\nos.replace(draft, path)",
        "from os import fsync",
        "import shutil\nshutil.move(draft, path)",
        "draft.replace(path)",
        "draft.rename(path.with_name('a'))",
    ],
)
def test_a_question_which_system_this_is_is_found(source: str) -> None:
    assert len(system_questions([parsed("artifacts/files.py", source)])) == 1
    assert system_questions([parsed("platform/posix.py", source)]) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.open(path, os.O_RDWR | os.O_CREAT)\nos.path.join(a, b)",
        "from os import PathLike\ngetattr(os, 'fspath')(path)",
        "import signal\nsignal.SIGINT",
        "select = query.args\nselect.poll",
        "import mmap\nmapped.mmap.madvise",
    ],
)
def test_what_every_system_has_is_no_question_which_it_is(source: str) -> None:
    assert system_questions([parsed("artifacts/files.py", source)]) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "compile(text, '', 'exec')",
        "__import__(name)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
        "getattr(importlib.import_module('a'), name)",
        "getattr(sys.modules[name], name)",
        "reduce(getattr, names, module)",
        "operator.attrgetter(name)(thing)",
        "pickle.loads(data)",
        "pickle.Unpickler(file).load()",
        "class Mine(pickle._Unpickler):\n    pass",
        "joblib.load(path)",
        "cloudpickle.loads(data)",
        "marshal.loads(data)",
        "run = eval",
        "map(exec, texts)",
        "import builtins\nbuiltins.exec(text)",
        "import builtins as b\nb.__import__(name)",
        "import pickle as p\np.loads(data)",
        "from pickle import loads\nloads(data)",
        "from pickle import Unpickler as U\nclass Mine(U):\n    pass",
        "from joblib import load as read\nread(path)",
        "read = joblib.load",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.load(path)",
        "from numpy import load\nload(path)",
        "torch.load(path)",
        "numpy.lib.format.read_array(file, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "ctypes.CDLL(path)",
        "from ctypes import PyDLL\nPyDLL(path)",
        "runpy.run_path(path)",
    ],
)
def test_a_way_around_the_gate_is_found(source: str) -> None:
    assert gate_bypasses([parsed("tables/runs.py", source)]) != []
    assert gate_bypasses([parsed("artifacts/trust/gate.py", source)]) == []


@pytest.mark.parametrize(
    "source",
    [
        "import_module('threadpoolctl')",
        "getattr(model, name)",
        "getattr(module, 'name')",
        "pickle.dumps(x)",
        "re.compile(x)",
        "yaml.safe_load(text)",
        "frame.eval(x)",
        "model.load(x)",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "numpy.lib.format.read_array(file, allow_pickle=False)",
    ],
)
def test_what_loads_nothing_is_no_way_around_the_gate(source: str) -> None:
    assert gate_bypasses([parsed("tables/runs.py", source)]) == []


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
    assert long_modules([parsed("values/ids.py", "a\n" * (MODULE_LINES + 1))]) == [
        f"values/ids.py has {MODULE_LINES + 1} lines"
    ]
    assert long_modules([parsed("values/ids.py", "a\n" * MODULE_LINES)]) == []
