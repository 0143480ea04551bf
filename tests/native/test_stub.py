"""The hand-written stub and the built module describe the same thing, in both directions."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import n4a_fast._native as native
from n4a_fast._native import arguments, columns, files, kernels, keys, newest_rows, opcodes, references

# Cython gives every class these; they are not part of what users call.
MACHINERY = {
    "__new__",
    "__reduce__",
    "__setstate__",
    "__reduce_cython__",
    "__setstate_cython__",
    "__pyx_vtable__",
    "__doc__",
    "__module__",
    "__weakref__",
}


def _stub(module: ModuleType) -> ast.Module:
    folders = [Path(folder) for folder in native.__path__]
    name = module.__name__.rpartition(".")[2] + ".pyi"
    return ast.parse(next(folder / name for folder in folders if (folder / name).exists()).read_text())


def _described(body: list[ast.stmt]) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _is_property(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list
    )


def _arguments_of_stub(node: ast.FunctionDef) -> list[tuple[str, object]]:
    names = [argument.arg for argument in node.args.args]
    missing: list[object] = [inspect.Parameter.empty] * (len(names) - len(node.args.defaults))
    return list(zip(names, missing + [ast.literal_eval(value) for value in node.args.defaults], strict=True))


def _arguments_of_built(thing: object) -> list[tuple[str, object]]:
    return [(parameter.name, parameter.default) for parameter in inspect.signature(thing).parameters.values()]  # type: ignore[arg-type]


def differences(module: ModuleType, stub: ast.Module) -> list[str]:
    """Every way in which the stub and the module disagree; empty when they agree."""
    described = _described(stub.body)
    public = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    found = [f"only in one: {name}" for name in sorted(public ^ set(described))]
    found += [f"not in __all__: {name}" for name in sorted(public ^ set(module.__all__))]
    for name in sorted(public & set(described)):
        node, built = described[name], getattr(module, name)
        found += (
            _class_differences(node, built)
            if isinstance(node, ast.ClassDef)
            else _function_differences(name, node, built)
        )
    return found


def _class_differences(node: ast.ClassDef, built: type) -> list[str]:
    described = _described(node.body)
    members = {name for name in vars(built) if name not in MACHINERY and not name.startswith("_")} | {
        name for name in vars(built) if name.startswith("__") and name not in MACHINERY
    }
    # a class that cannot be made directly has an __init__ that only raises
    found = [f"only in one: {node.name}.{name}" for name in sorted((members ^ set(described)) - {"__init__"})]
    for name in sorted(members & set(described)):
        member, path = described[name], f"{node.name}.{name}"
        if _is_property(member) != inspect.isdatadescriptor(vars(built)[name]):
            found.append(f"property in one only: {path}")
        elif name == "__init__":
            found += _argument_differences(path, _arguments_of_stub(member)[1:], _arguments_of_built(built))  # type: ignore[arg-type]
        elif not _is_property(member) and name not in (
            "__len__",
            "__contains__",
        ):  # slots, with signatures of the language
            found += _function_differences(path, member, vars(built)[name])  # type: ignore[arg-type]
    return found


def _function_differences(name: str, node: ast.FunctionDef, built: object) -> list[str]:
    found = _argument_differences(name, _arguments_of_stub(node), _arguments_of_built(built))
    if inspect.cleandoc(ast.get_docstring(node) or "") != inspect.cleandoc(built.__doc__ or ""):
        found.append(f"docstring: {name}")
    return found


def _argument_differences(name: str, described: list[tuple[str, object]], built: list[tuple[str, object]]) -> list[str]:
    return [] if described == built else [f"arguments of {name}: {described} in the stub, {built} built"]


@pytest.mark.parametrize("module", [arguments, columns, files, kernels, keys, newest_rows, opcodes, references])
def test_the_stub_describes_the_built_module_and_nothing_else(module: ModuleType) -> None:
    assert differences(module, _stub(module)) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def live_blocks", "def dead_blocks", "only in one: live_blocks"),
        ("def finish", "def end", "only in one: ListColumn.finish"),
        ("def values(self, index: int)", "def values(self, row: int)", "arguments of ListColumn.values"),
        ("capacity: int=0", "capacity: int=1", "arguments of ListColumn.__init__"),
        ("large: bool=False) -> ListArray", "large: bool) -> ListArray", "arguments of list_column_from_matrix"),
        ("Copy one row", "Take one row", "docstring: ListColumn.append"),
        ("@property\n    def nbytes", "def nbytes", "property in one only: ListArray.nbytes"),
    ],
)
def test_a_stub_that_differs_is_told(old: str, new: str, told: str) -> None:
    source = ast.unparse(_stub(columns))
    assert old in source
    assert any(told in line for line in differences(columns, ast.parse(source.replace(old, new, 1))))
