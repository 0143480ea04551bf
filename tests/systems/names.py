"""What the standard library names on this system: python tests/systems/names.py

The names that Linux and Windows share (CPython 3.13) are in `names_on_every_system.txt`, which macOS has too; outside
`platform/` the package uses no others (`tests/test_architecture.py`). To make it anew, on Linux:

    build/windows/python tests/systems/names.py | tr -d '\r' | sort > there
    python tests/systems/names.py | sort | comm -12 - there > tests/systems/names_on_every_system.txt
"""

from __future__ import annotations

from importlib import import_module

# modules whose names are not the same everywhere
MODULES = ("errno", "mmap", "os", "select", "signal", "socket", "time")


def names() -> list[str]:
    """`module.name` of each public name."""
    return [f"{module}.{name}" for module in MODULES for name in dir(import_module(module)) if not name.startswith("_")]


if __name__ == "__main__":
    print(*names(), sep="\n")
