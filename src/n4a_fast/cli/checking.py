"""What `doctor` looks at: versions, extras, kernels; of a workspace its format, who has it, and its disk."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from n4a_fast.cli.application import say
from n4a_fast.cli.printing import columns_of, print_document, print_table, size_text, style
from n4a_fast.errors import StoreError
from n4a_fast.version import __version__

_PACKAGES = ("duckdb", "numpy", "polars", "pyarrow", "scikit-learn", "nirs4all")
_EXTRAS = {
    "report": ("vl_convert",),
    "ui": ("starlette", "uvicorn"),
    "demo": ("chemotools", "matplotlib", "sklearn", "threadpoolctl"),
}


def findings(place: Path | None) -> list[dict[str, Any]]:
    """Rows of what was looked at, its state (ok, note, bad), and what was found."""
    found = [
        _finding("n4a_fast", "ok", __version__),
        _finding("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
    ]
    found += [_package(name) for name in _PACKAGES]
    found.append(_finding("processors", "ok", f"{os.cpu_count()} of {platform.machine()}"))
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        cure = f"pip install 'n4a_fast[{extra}]'"
        found.append(
            _finding(
                f"extra {extra}", "note" if missing else "ok", f"not installed: {cure}" if missing else "installed"
            )
        )
    return found + (_of_workspace(place) if place is not None else [])


def _package(name: str) -> dict[str, Any]:
    try:
        return _finding(name, "ok", version(name))
    except PackageNotFoundError:
        return _finding(name, "note", "not installed")


def _of_workspace(place: Path) -> list[dict[str, Any]]:
    from n4a_fast.store import WorkspaceStore

    try:
        with WorkspaceStore.open_readonly(place, lock_timeout=1.0) as store:
            stats = store.stats()
            info = store.sql("SELECT format_version, written_by FROM store_info").row(0)
    except StoreError as error:
        return [_finding("workspace", "bad", str(error))]
    ended = [writer.pid for writer in stats.writers if not writer.is_alive]
    need, free = stats.nbytes["database"], shutil.disk_usage(place).free
    return [
        _finding("workspace", "ok", f"format {info[0]}, written by {info[1]}"),
        _finding("rows", "ok", f"{stats.rows['predictions']:,} predictions, {stats.rows['chains']:,} chains"),
        _finding(
            "waiting",
            "note" if ended else "ok",
            f"{stats.pending} flushes" + (f"; writers that ended: {ended}" if ended else ""),
        ),
        _finding(
            "writable", "ok" if os.access(place, os.W_OK) else "note", "yes" if os.access(place, os.W_OK) else "no"
        ),
        _finding("disk", "ok" if free >= need else "bad", f"{size_text(free)} free; a vacuum needs {size_text(need)}"),
    ]


def _finding(what: str, state: str, found: str) -> dict[str, Any]:
    return {"what": what, "state": state, "found": found}


def print_findings(place: Path | None, found: list[dict[str, Any]], as_json: bool) -> None:
    """The rows as a table, or as the JSON document."""
    if as_json:
        print_document("doctor", place or Path(), {"rows": found})
    else:
        print_table(columns_of(found, kept=("what", "state", "found")), style())
        for each in found:
            if each["state"] == "bad":  # in full: it tells the cure
                say(f"{each['what']}: {each['found']}")
