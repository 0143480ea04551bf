"""A part of the suite as on another system: what that one refuses, or has not got, is refused or taken away here.

`tests/systems` holds the rules. For Windows the package runs on its own module for that system, above an imitation of
the kernel's calls; what is said here is no proof of Windows itself, and `make test-windows` runs its Python under Wine,
which refuses less.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lacking
import pytest

TESTS = Path(__file__).parents[1]
RULES = TESTS / "systems"
DEADLINE = 600.0
# what opens, locks, renames, replaces, removes and maps files
PART = ("durable", "log/test_write_ahead.py", "platform", "schema/test_versions.py")
SHORT = ("durable/test_publish.py", "platform/test_every_call.py", "platform/test_locks.py")
KEPT = "-knot other_system"


def outcome_of(system: str, *part: str) -> str:
    """What pytest says at the end of its run by the rules of a system."""
    environment = {**os.environ, "N4A_STRICT": system, "PYTHONPATH": os.pathsep.join([str(RULES), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", KEPT, *part],
        env=environment,
        cwd=TESTS,
        text=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="the rules are imitated on Linux")
@pytest.mark.parametrize("part", [SHORT, pytest.param(PART, marks=pytest.mark.slow)], ids=["short", "whole"])
@pytest.mark.parametrize("system", ["windows", "macos"])
def test_a_part_of_the_suite_passes_by_the_rules_of(system: str, part: tuple[str, ...]) -> None:
    assert " passed" in outcome_of(system, *part)


PROBE = """
import multiprocessing, os, pathlib, sys
from n4a_fast import platform
folder = pathlib.Path(sys.argv[1])
said = []
def refused(what, call):
    try:
        call()
    except OSError:
        said.append(what)
kept = (folder / "kept").open("w")
refused("removal of an open file", lambda: (folder / "kept").unlink())
refused("rename of an open file", lambda: (folder / "kept").rename(folder / "moved"))
refused("rename of its folder", lambda: folder.rename(folder.with_name("elsewhere")))
(folder / "draft").write_text("new")
refused("replacement of an open file", lambda: os.replace(folder / "draft", folder / "kept"))
for name in ("CON", "aux.txt", "a:b", "dot.", "blank "):
    refused(name, lambda: (folder / name).write_text("x"))
refused("a folder as a file", lambda: os.open(folder, os.O_RDONLY))
with (folder / "draft").open() as file:
    refused("sync of what is read", lambda: os.fsync(file.fileno()))
(folder / "DRAFT").write_text("one name")
said += ["one name for two spellings"] * ((folder / "draft").read_text() == "one name")
own = platform.open_regular(folder / "draft")
platform.remove(folder / "draft")
said += ["ours can be removed, and the name is free"] * (not (folder / "draft").exists())
(folder / "draft").write_text("next")
os.close(own)
said.append(platform.exchange(folder, folder))
print(*said, sep=chr(10))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the rules are imitated on Linux")
def test_the_rules_of_windows_refuse_what_they_say(tmp_path: Path) -> None:
    environment = {**os.environ, "N4A_STRICT": "windows", "PYTHONPATH": os.pathsep.join([str(RULES), *sys.path])}
    folder = tmp_path / "held"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", PROBE, folder], env=environment, text=True, capture_output=True)
    assert done.stdout.splitlines() == [
        "removal of an open file",
        "rename of an open file",
        "rename of its folder",
        "replacement of an open file",
        *("CON", "aux.txt", "a:b", "dot.", "blank "),
        "a folder as a file",
        "sync of what is read",
        "one name for two spellings",
        "ours can be removed, and the name is free",
        "False",
    ], done.stderr


NEEDS = '''
import os, pytest
CHILD = """
import os
os.fork()
"""
@pytest.fixture
def linked(tmp_path):
    tmp_path.symlink_to("elsewhere")
def run(code): ...
def test_forks(): run(CHILD)
def test_links(linked): ...
@pytest.mark.parametrize("make", [os.mkfifo])
def test_made(make): ...
def test_plain(tmp_path): os.replace(tmp_path, tmp_path); os._exit(0)
'''


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("test_forks", "there is no os.fork"),
        ("test_links", "links are made by administrators"),
        ("test_made", "there is no os.mkfifo"),
        ("test_plain", None),
        ("test_of_another_module", None),
    ],
)
def test_what_windows_lacks_is_read_from_a_test_and_what_it_uses(tmp_path: Path, test: str, why: str | None) -> None:
    file = tmp_path / "test_needs.py"
    file.write_text(NEEDS)
    assert lacking.reason(file, test) == why
