"""What `make test` and `make quick` print, and what they leave out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import subprocess, sys
import pytest

@pytest.mark.parametrize("case", range(5))
def test_cases(case): assert case < 2

def test_process(): subprocess.run([sys.executable, "-c", ""])

@pytest.mark.skip(reason="no such disk")
def test_disk(): ...
"""


LIBRARY = """
import warnings
def warn_somewhere(): warnings.warn("new")
def warn_caller(): warnings.warn("new", stacklevel=2)
"""

WARNINGS = """
import warnings
import library

def test_of_others(): library.warn_somewhere()
def test_of_a_new_release(): warnings.warn("soon", DeprecationWarning)
def test_of_our_own_lines(): warnings.warn("odd")
def test_of_a_call_that_tells_its_caller(): library.warn_caller()
def test_of_a_file_that_stays_open(tmp_path): open(tmp_path / "file", "w")
"""


def told(folder: Path, *options: str) -> list[str]:
    """The lines that pytest prints of these tests."""
    (folder / "tests" / "disks").mkdir(parents=True)
    (folder / "tests" / "disks" / "test_one.py").write_text(TESTS)
    (folder / "tests" / "test_two.py").write_text("def test_two(): ...\n")
    return lines_of(folder, *options)


def _of_no_run() -> dict[str, str]:
    """The environment without what this run of pytest, and the `make` that began it, were told."""
    told = ("PYTEST_", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(told)}


def lines_of(folder: Path, *options: str) -> list[str]:
    """What pytest prints of a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "progress", "-p", "no:cacheprovider", *options],
        env={**_of_no_run(), "PYTHONPATH": str(Path(__file__).parent)},
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
    )
    return [re.sub(r"[\d.]+ s\b", "N s", line) for line in done.stdout.splitlines()]


def test_a_line_for_each_folder_and_a_reason_for_each_skip(tmp_path: Path) -> None:
    lines = told(tmp_path, "--by-folder", "-n", "2")
    assert [line.split() for line in lines if " N s " in line and "in N s" not in line] in (
        [["disks", "N", "s", "3", "failed,", "3", "passed,", "1", "skipped"], ["tests", "N", "s", "1", "passed"]],
        [["tests", "N", "s", "1", "passed"], ["disks", "N", "s", "3", "failed,", "3", "passed,", "1", "skipped"]],
    )
    assert any(line.endswith("no such disk") and line.startswith("SKIPPED") for line in lines)


def test_a_quick_run_takes_few_cases_and_starts_no_process(tmp_path: Path) -> None:
    lines = told(tmp_path, "--by-folder", "--few-cases", "2", "--without-processes", "-n", "0")
    assert any(line.split() == ["disks", "N", "s", "2", "passed,", "2", "skipped"] for line in lines), lines
    assert "1 tests start processes and were left out" in lines


def test_a_warning_fails_a_test_by_our_own_lines_alone(tmp_path: Path) -> None:
    """A new release of a library may warn of anything within itself."""
    (tmp_path / "test_warnings.py").write_text(WARNINGS)
    (tmp_path / "library.py").write_text(LIBRARY)
    settings = shutil.copy(Path(__file__).parents[1] / "pyproject.toml", tmp_path)
    lines = lines_of(tmp_path, "-c", str(settings), "-n", "0", "-rf", "test_warnings.py")
    failed = [line.partition("::")[2].partition(" ")[0] for line in lines if line.startswith("FAILED")]
    ours = ["test_of_our_own_lines", "test_of_a_call_that_tells_its_caller", "test_of_a_file_that_stays_open"]
    assert failed == ours, lines
    assert any("UserWarning: new" in line for line in lines)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_python_that_does_not_start_is_refused_by_its_name() -> None:
    asked = ["make", "-n", "test", "PYTHON=python-of-nowhere"]
    done = subprocess.run(
        asked, cwd=Path(__file__).parents[1], env=_of_no_run(), text=True, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert "python-of-nowhere is no Python that starts here" in done.stderr
    assert done.stdout == ""
