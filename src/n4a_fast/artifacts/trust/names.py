"""Stored names become objects: nowhere else is a module imported, or an attribute taken, by a name from a file."""

from __future__ import annotations

import importlib
from typing import Any


def imported(module: str, name: str) -> Any:
    """What a module calls by this name; ImportError or AttributeError when there is none. A dotted name is a nested
    class: it is looked for in classes alone, since a module also offers what it imported itself.
    """
    found = getattr(importlib.import_module(module), name.partition(".")[0])
    for part in name.split(".")[1:]:
        if not isinstance(found, type):
            raise AttributeError(f"{module}.{name} is not inside a class")
        found = getattr(found, part)
    return found


def imported_by_path(path: str) -> Any:
    """The same for `package.module.Class`."""
    module, _, name = path.rpartition(".")
    return imported(module, name)
