"""Switching nirs4all's store: who is rebound, when, and the way back.

A package in nirs4all's shape, whose modules bind `WorkspaceStore` the way the real ones do, stands in for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import DEADLINE, child

MODULES = {
    "nirs4all/__init__.py": "__version__ = {version!r}\nfrom nirs4all.pipeline.execution import orchestrator\n",
    "nirs4all/pipeline/__init__.py": "",
    "nirs4all/pipeline/storage/__init__.py": "from .workspace_store import WorkspaceStore\n",
    "nirs4all/pipeline/storage/workspace_store.py": "class WorkspaceStore:\n    '''nirs4all's own store.'''\n",
    "nirs4all/pipeline/execution/__init__.py": "",
    "nirs4all/pipeline/execution/orchestrator.py": (
        "from nirs4all.pipeline.storage.workspace_store import WorkspaceStore\n"
    ),
    "nirs4all/cli.py": "from nirs4all.pipeline.storage.workspace_store import WorkspaceStore\n",
    "nirs4all-{version}.dist-info/METADATA": "Metadata-Version: 2.1\nName: nirs4all\nVersion: {version}\n",
}

Program = Callable[..., subprocess.CompletedProcess[str]]
SUPPORTED = "n4a_fast works inside nirs4all 0.7.1, 1.0.4, 1.2.1, 1.4.10: pip install nirs4all==1.4.10"
OURS, THEIRS = "n4a_fast.integrations.nirs4all.host_store", "nirs4all.pipeline.storage.workspace_store"
LOOK = """
import importlib, json, sys
import n4a_fast
def homes(*names):
    return {getattr(importlib.import_module(name), "WorkspaceStore").__module__ for name in names}
EARLY = ("nirs4all.pipeline.storage",
         "nirs4all.pipeline.storage.workspace_store", "nirs4all.pipeline.execution.orchestrator")
"""


def write_package(folder: Path, version: str) -> None:
    """A package `nirs4all` of this version in `folder`."""
    for name, text in MODULES.items():
        path = folder / name.format(version=version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(version=version))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Run Python with a nirs4all of some version on its path; None for none at all."""

    def run(*arguments: str, version: str | None = "0.7.1", **environment: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / f"with {version}"
        folder.mkdir(exist_ok=True)
        if version is not None:
            write_package(folder, version)
        if arguments[0] == "-c" and not environment:  # what happens when an interpreter starts is not asked
            forked = child(f"import sys; sys.path.insert(0, {str(folder)!r})\n{arguments[1]}")
            output, errors = forked.communicate(timeout=DEADLINE)
            return subprocess.CompletedProcess(arguments, forked.returncode, output, errors)
        variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
        return subprocess.run(
            [sys.executable, *arguments], env=variables, cwd=tmp_path, text=True, capture_output=True, timeout=DEADLINE
        )

    return run


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """What a program printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_modules_imported_before_and_after_get_the_store_and_give_it_back(program: Program) -> None:
    script = (
        LOOK + "import nirs4all\nfrom nirs4all.pipeline.storage import WorkspaceStore\nfound = [homes(*EARLY)]\n"
        "n4a_fast.install()\nfound += [homes(*EARLY), homes('nirs4all.cli'), {WorkspaceStore.__module__}]\n"
        "n4a_fast.uninstall()\nfound += [homes(*EARLY), homes('nirs4all.cli'), {WorkspaceStore.__module__}]\n"
        "print(json.dumps([sorted(names) for names in found]))"
    )
    assert answer(program("-c", script)) == [[THEIRS], [OURS], [OURS], [OURS], [THEIRS], [THEIRS], [THEIRS]]


def test_installing_first_does_not_import_nirs4all_and_takes_over_when_it_is_imported(program: Program) -> None:
    script = (
        LOOK + "n4a_fast.install()\nearly = 'nirs4all' in sys.modules\nimport nirs4all\nfound = [homes(*EARLY)]\nimport"
        " inspect\nsource ="
        " inspect.getsource(sys.modules['nirs4all.pipeline.storage.workspace_store'])\nn4a_fast.uninstall()\nfound +="
        " [homes(*EARLY)]\nprint(json.dumps([early, 'own store' in source, *map(sorted, found)]))"
    )
    assert answer(program("-c", script)) == [False, True, [OURS], [THEIRS]]


def test_uninstalling_before_nirs4all_is_imported_leaves_it_alone(program: Program) -> None:
    script = (
        LOOK + "n4a_fast.install()\nn4a_fast.uninstall()\nimport nirs4all\nprint(json.dumps([sorted(homes(*EARLY)),"
        " len(sys.meta_path)]))"
    )
    bare = LOOK + "import nirs4all\nprint(json.dumps([sorted(homes(*EARLY)), len(sys.meta_path)]))"
    assert answer(program("-c", script)) == answer(program("-c", bare))


def test_both_can_be_repeated(program: Program) -> None:
    script = (
        LOOK
        + "n4a_fast.uninstall()\nn4a_fast.install()\nn4a_fast.install()\nimport nirs4all\nn4a_fast.install()\nfound ="
        " [homes(*EARLY)]\nn4a_fast.uninstall()\nn4a_fast.uninstall()\nfound +="
        " [homes(*EARLY)]\nn4a_fast.install()\nfound += [homes(*EARLY)]\nprint(json.dumps([sorted(names) for names in"
        " found]))"
    )
    assert answer(program("-c", script)) == [[OURS], [THEIRS], [OURS]]


@pytest.mark.parametrize(
    ("version", "told"), [("0.8.3", "nirs4all 0.8.3 is not supported"), (None, "nirs4all is not installed")]
)
@pytest.mark.parametrize("imported", [True, False])
def test_another_version_is_refused_by_name_and_left_alone(
    program: Program, version: str | None, told: str, imported: bool
) -> None:
    script = (
        LOOK + f"if {imported and version is not None}: import nirs4all\n"
        "try:\n    n4a_fast.install()\nexcept ImportError as error:\n    told = str(error)\n"
        f"print(json.dumps([told, sorted(homes(*EARLY)) if {version is not None} else None]))"
    )
    message, homes = answer(program("-c", script, version=version))
    assert message == f"{told}; {SUPPORTED}"
    assert homes == (None if version is None else [THEIRS])


SCRIPT = (
    "import json, sys\nimport nirs4all\nstore = nirs4all.pipeline.execution.orchestrator.WorkspaceStore\n"
    + "print(json.dumps([store.__module__, __name__, sys.argv[1:], sys.path[0], __file__]))"
)


def test_run_runs_a_script_as_python_would(program: Program, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "sweep.py"
    script.write_text(SCRIPT)
    plain = answer(program(str(script), "--n", "3"))
    ran = answer(program("-m", "n4a_fast.run", str(script), "--n", "3"))
    assert plain == [THEIRS, "__main__", ["--n", "3"], str(script.parent), str(script)]
    assert ran == [OURS, *plain[1:]]


def test_run_runs_a_module_as_python_would(program: Program, tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(SCRIPT)
    assert answer(program("-m", "n4a_fast.run", "-m", "sweep", "3"))[:4] == [OURS, "__main__", ["3"], str(tmp_path)]


def test_run_without_a_script_or_a_supported_nirs4all_says_so(program: Program) -> None:
    assert "usage: python -m n4a_fast.run script.py" in program("-m", "n4a_fast.run").stderr
    done = program("-m", "n4a_fast.run", "sweep.py", version="0.8.3")
    assert done.returncode == 1
    assert done.stderr.startswith("n4a_fast.run: nirs4all 0.8.3 is not supported")
    assert "Traceback" not in done.stderr


def test_run_keeps_the_exit_code_and_the_traceback_of_the_script(program: Program, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise ValueError('no spectra')")
    done = program("-m", "n4a_fast.run", "fails.py")
    assert done.returncode == 1
    assert "ValueError: no spectra" in done.stderr


@pytest.mark.parametrize(("value", "home"), [("1", OURS), ("0", THEIRS), ("", THEIRS)])
def test_the_environment_variable_switches_without_a_change_to_the_program(
    program: Program, tmp_path: Path, value: str, home: str
) -> None:
    (tmp_path / "sweep.py").write_text(SCRIPT)
    assert answer(program("sweep.py", N4A_FAST_INSTALL=value))[0] == home


def test_what_the_environment_variable_switched_can_be_switched_back(program: Program) -> None:
    script = (
        LOOK + "from n4a_fast.integrations.nirs4all import is_installed\nfound ="
        " [is_installed()]\nn4a_fast.uninstall()\nfound += [is_installed()]\nimport"
        " nirs4all\nprint(json.dumps([found, sorted(homes(*EARLY))]))"
    )
    assert answer(program("-c", script, N4A_FAST_INSTALL="1")) == [[True, False], [THEIRS]]
    assert answer(program("-c", script)) == [[False, False], [THEIRS]]


def test_the_environment_variable_disturbs_no_other_program_and_refuses_other_versions(program: Program) -> None:
    done = program("-c", "print('fine')", version=None, N4A_FAST_INSTALL="1")
    assert (done.stdout, done.stderr) == ("fine\n", "")
    done = program("-c", "import sys; print({'n4a_fast', 'numpy', 'duckdb'} & set(sys.modules))", N4A_FAST_INSTALL="1")
    assert (done.stdout, done.stderr) == ("set()\n", "")
    refused = program("-c", "import nirs4all", version="0.8.3", N4A_FAST_INSTALL="1")
    assert refused.returncode == 1
    assert "UnsupportedVersionError: nirs4all 0.8.3 is not supported" in refused.stderr


def test_the_demo_through_nirs4all_needs_the_version_it_names(program: Program) -> None:
    done = program("-m", "n4a_fast", "demo", "--nirs4all", version="0.8.3")
    assert done.returncode == 2
    assert done.stderr == f"n4a-fast: nirs4all 0.8.3 is not supported; {SUPPORTED}\n"
