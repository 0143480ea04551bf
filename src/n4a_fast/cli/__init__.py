"""The command `n4a-fast`: looking at workspaces, predicting with them, changing them.

A module for each family of commands; `application` has what all of them promise, `printing` how they print. What a
command does is a documented call of the library, imported when it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from n4a_fast.cli import asking, changing, drawing, keeping, looking, places, predicting, serving, watching
from n4a_fast.cli.application import app
from n4a_fast.version import __version__

__all__ = ["app", "asking", "changing", "drawing", "keeping", "looking", "places", "predicting", "serving", "watching"]

_FAMILIES = (  # in the order of what people do
    ("runs", "top", "show", "compare", "info", "watch", "tail", "sql"),
    ("plot", "report", "ui"),
    ("predict", "export", "import", "extract"),
    ("verify", "backup", "restore"),
    ("delete", "gc", "vacuum", "merge"),
    ("migrate", "convert", "doctor", "demo"),
)
_ORDER = [name for family in _FAMILIES for name in family]
app.registered_commands.sort(key=lambda each: _ORDER.index(str(each.name)))


def _version(given: bool) -> None:
    if given:
        typer.echo(f"n4a_fast {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Look into n4a_fast workspaces, predict with what they hold, and try the package on real spectra."""
