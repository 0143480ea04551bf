"""Wheel and sdist build with plain pip on a machine without cmake, ninja and Cython, and what they install works.

Real environments and a real package index: about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
BUILD_TOOLS = ("cmake", "ctest", "cpack", "ninja", "cython")
REPOSITORY = "https://example.org/team/n4a_fast"
DEADLINE = 600.0  # seconds for one step; the package index may be slow

ROUND_TRIP = """
import json, sys
import numpy as np, pyarrow as pa
import n4a_fast
from n4a_fast._native import columns
column = columns.ListColumn("x", "float64")
for row in (np.arange(3, dtype="float32"), None, [[1, 2], [3, 4]]):
    column.append(row)
optional = ("chemotools", "sklearn", "matplotlib", "pytest")
missing = [name for name in optional if __import__("importlib.util").util.find_spec(name) is None]
print(json.dumps({"rows": pa.array(column.finish()).to_pylist(), "native": columns.__file__,
                  "version": n4a_fast.__version__, "missing": missing}))
"""


def _bare_path(folder: Path) -> str:
    """A folder of links to every program on the PATH but the build tools."""
    folder.mkdir()
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in Path(directory).iterdir() if Path(directory).is_dir() else ():
            link = folder / program.name
            if not program.name.startswith(BUILD_TOOLS) and not os.path.lexists(link):
                link.symlink_to(program)
    return str(folder)


class Place:
    """A virtual environment of its own, run with a PATH without build tools and nothing of this interpreter's."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CMAKE"))
        }
        self._environment["PATH"] = path
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=DEADLINE)

    def run(self, program: str, *arguments: str) -> str:
        """What a program of the environment prints."""
        done = subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.folder,
            env=self._environment,
            text=True,
            capture_output=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip(self, *arguments: str) -> str:
        return self.run("python", "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment with nothing but pip and the standard front end for sdists."""
    folder = tmp_path_factory.mktemp("packaging")
    place = Place(folder / "builder", _bare_path(folder / "bin"))
    place.pip("install", "build", "cmake", "readme_renderer[md]")
    return place


@pytest.fixture(scope="module")
def sdist(builder: Place) -> Path:
    builder.run("python", "-m", "build", "--sdist", "--outdir", str(builder.folder / "sdist"), str(PROJECT))
    (made,) = (builder.folder / "sdist").iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(builder: Place, sdist: Path) -> Path:
    """The wheel that pip builds from the sdist, in a clone of a repository on the web."""
    with tarfile.open(sdist) as archive:
        archive.extractall(builder.folder / "clone", filter="data")
    (clone,) = (builder.folder / "clone").iterdir()
    for command in ("init -q", f"remote add origin git@{REPOSITORY.removeprefix('https://').replace('/', ':', 1)}.git"):
        subprocess.run(["git", *command.split()], cwd=clone, check=True)
    builder.pip("wheel", "--no-deps", "--wheel-dir", str(builder.folder / "wheel"), str(clone))
    (made,) = (builder.folder / "wheel").iterdir()
    return made


def _inside(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_sdist_holds_what_a_build_needs_and_no_products(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "src/_native/CMakeLists.txt",
        "src/_native/columns.pyx",
        "src/_native/list_column.c",
    }
    needed |= {"src/_native/kernels.pyx", "src/_native/row_map.c", "src/_native/row_map_body.h"}
    needed |= {
        "Makefile",
        "tools/index_page.py",
        "benchmarks/README.md",
        "docs/design.md",
        "examples/job_array.py",
        "CITATION.cff",
    }
    needed |= {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "tests").rglob("*.py")}
    assert needed <= names
    assert not [
        name for name in names if name.endswith((".so", ".pyc", ".duckdb")) or name.startswith((".venv", "build/"))
    ]


def test_one_wheel_serves_python_3_11_and_later_and_is_typed(wheel: Path) -> None:
    names = _inside(wheel)
    assert "-cp311-abi3-" in wheel.name
    assert {
        "n4a_fast/py.typed",
        "n4a_fast/store.py",
        "n4a_fast/_native/columns.pyi",
        "n4a_fast/_native/columns.abi3.so",
    } <= names
    assert {"n4a_fast/_native/kernels.pyi", "n4a_fast/_native/kernels.abi3.so"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [
        name for name in names if name.endswith((".pyx", ".c", ".h", ".pyc")) or not name.startswith("n4a_fast")
    ]


RENDER = """
import email, json, re, sys, zipfile
from readme_renderer import markdown
archive = zipfile.ZipFile(sys.argv[1])
(name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
metadata = email.message_from_string(archive.read(name).decode())
assert metadata["Description-Content-Type"].startswith("text/markdown")
page = markdown.render(metadata.get_payload())
print(json.dumps({"links": re.findall(r'href="([^"]*)"', page), "pictures": re.findall(r'src="([^"]*)"', page),
                  "blocks": page.count("<pre"), "urls": metadata.get_all("Project-URL"),
                  "keywords": metadata["Keywords"]}))
"""


def test_the_package_index_shows_the_readme_with_its_pictures_and_where_the_project_lies(
    builder: Place, wheel: Path
) -> None:
    shown = json.loads(builder.run("python", "-c", RENDER, str(wheel)))
    assert shown["links"]
    assert [link for link in shown["links"] if not link.startswith(("https://", "#"))] == []
    assert len(shown["pictures"]) == 2
    for place in shown["pictures"]:
        folder, tag, file = place.removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert (folder, tag[0], (PROJECT / file).is_file()) == ("raw", "v", True)
    assert shown["blocks"] >= 3
    assert {line.split(", ")[0] for line in shown["urls"]} == {"Repository", "Documentation", "Changelog", "Issues"}
    assert all(line.split(", ")[1].startswith(REPOSITORY) for line in shown["urls"])
    assert "nirs4all" in shown["keywords"]


def test_the_free_threaded_python_is_refused_by_name(builder: Place, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sysconfig\nsysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1\n")
    python = builder.folder / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "cmake", "-S", PROJECT, "-B", tmp_path / "made", f"-DPython_EXECUTABLE={python}"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert done.returncode != 0
    assert "does not run on the free-threaded build of Python" in " ".join(done.stderr.split())


def test_the_wheel_holds_all_of_the_package(wheel: Path) -> None:
    """What the sdist left out, no wheel that is built from it could have; the source folder itself is installed by
    `make` in place.
    """
    source, sources = PROJECT / "src", (".pyx", ".c", ".h", ".so")
    files = (path for path in (source / "n4a_fast").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    kept = {path for path in files if path.suffix not in sources}
    modules = {path.stem for path in (source / "_native").glob("*.pyx")}
    expected = {str(path.relative_to(source)) for path in kept}
    expected |= {f"n4a_fast/_native/{name}.abi3.so" for name in modules}
    assert {name for name in _inside(wheel) if name.startswith("n4a_fast/")} == expected


def test_the_wheel_installs_and_works_without_the_extras(builder: Place, wheel: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "user", str(builder.folder.parent / "bin"))
    place.pip("install", str(wheel))
    found = json.loads(place.run("python", "-c", ROUND_TRIP))
    assert found["rows"] == [[0.0, 1.0, 2.0], None, [1.0, 2.0, 3.0, 4.0]]
    assert Path(found["native"]).is_relative_to(place.folder)
    assert found["version"] in wheel.name
    assert found["missing"] == ["chemotools", "sklearn", "matplotlib", "pytest"]
    assert "demo" in place.run("n4a-fast", "--help")
