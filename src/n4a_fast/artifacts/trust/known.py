"""The list of what may come in by default, by exact name, and what a user adds to it.

`trusted_globals.txt` is written by `tools/trusted_globals.py`, which walks the public estimators of well-known
packages. An entry `call` may be called with arguments; `make` may only be made empty and given its state, or be
passed along; `deny` was found and left out, for the reason beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

CALL, MAKE, DENY = "call", "make", "deny"
_FILE = Path(__file__).with_name("trusted_globals.txt")
# containers that a pickle fills item by item
CONTAINERS = frozenset(
    {
        *(f"collections.{name}" for name in ("Counter", "OrderedDict", "defaultdict", "deque")),
        "sklearn.utils._bunch.Bunch",  # a dict
    }
)


@cache
def listed() -> Mapping[str, str]:
    """The entry of each name on the list: call, make or deny."""
    lines = (line.split() for line in _FILE.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    return MappingProxyType({name: entry for entry, name, *_ in lines})


@cache
def listed_modules() -> frozenset[str]:
    """The modules of what may be made or called, and the packages around them: who looks there runs nothing new."""
    modules = {name.rpartition(".")[0] for name, entry in listed().items() if entry != DENY}
    return frozenset(
        ".".join(parts[:n]) for parts in (name.split(".") for name in modules) for n in range(1, len(parts) + 1)
    )


def is_denied(name: str) -> bool:
    """Whether this was looked at and left out, by itself or with its module."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) + ".*" for n in range(1, len(parts)))
    return listed().get(name) == DENY or any(listed().get(prefix) == DENY for prefix in prefixes)


def is_below(name: str, packages: Iterable[str]) -> bool:
    """Whether a name lies in one of these packages."""
    return any(name.startswith(f"{package}.") for package in packages)
