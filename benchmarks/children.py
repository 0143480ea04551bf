"""Child processes in which things are counted: with a preloaded library, or under callgrind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BUILD = FOLDER.parent / "build" / "benchmarks"


def compiled(name: str, *options: str) -> Path:
    """The shared library made of `native/<name>.c`, newer than its source."""
    source, library = FOLDER / "native" / f"{name}.c", BUILD / f"{name}.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", library, source, *options], check=True
        )
    return library


def count_calls(workspace: Path) -> dict[str, Any]:
    """What count_calls.py prints: syncs, bytes, statements and allocations of a sweep and of bulk calls."""
    environment = os.environ | {"LD_PRELOAD": str(compiled("counters", "-ldl")), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, FOLDER / "count_calls.py", workspace],
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=600,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def count_instructions(workspace: Path) -> dict[str, float]:
    """Instructions of the calling thread per call of each section of count_instructions.py, by name."""
    marks, output = compiled("marks"), workspace / "callgrind"
    command = [
        "valgrind",
        "-q",
        "--tool=callgrind",
        "--instr-atstart=no",
        "--separate-threads=yes",
        f"--callgrind-out-file={output}",
    ]
    done = subprocess.run(
        [*command, sys.executable, FOLDER / "count_instructions.py", marks, workspace],
        check=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    calls: dict[str, int] = json.loads(done.stdout)
    return {
        name: count / calls[name]
        for path in workspace.glob("callgrind.*-01")
        for name, count in [_section(path)]
        if name in calls
    }


def instructions_of(folder: Path, *words: object, **variables: str) -> int:
    """Instructions of a whole Python process with these arguments, its modules compiled by a first one."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""} | variables
    python = [sys.executable, *map(str, words)]
    first = subprocess.run(python, check=True, env=environment, stdout=subprocess.PIPE, timeout=100)
    counting = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder / 'callgrind.whole'}"]
    counted = subprocess.run(
        [*counting, *python],
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=300,
    )
    assert counted.stdout == first.stdout
    return int((re.search(r"^(?:totals|summary): (\d+)", (folder / "callgrind.whole").read_text(), re.M) or [0, 0])[1])


def build_workspace(folder: Path, rows: int) -> dict[str, Any]:
    """A workspace of `rows` predictions at `folder`, and what build_workspace.py prints of it."""
    command = [sys.executable, FOLDER / "build_workspace.py", folder, str(rows)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=300).stdout
    )
    return found


def build_chains(folder: Path, chains: int) -> None:
    """A workspace of so many chains with three predictions each, as build_chains.py makes it."""
    subprocess.run(
        [sys.executable, FOLDER / "build_chains.py", folder, str(chains)], check=True, stdout=subprocess.DEVNULL
    )


def _section(path: Path) -> tuple[str, int]:
    """Name and instructions of one dump."""
    text = path.read_text()
    name, total = (
        re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M),
        re.search(r"^(?:totals|summary): (\d+)", text, re.M),
    )
    return (name.group(1) if name else "", int(total.group(1)) if total else 0)
