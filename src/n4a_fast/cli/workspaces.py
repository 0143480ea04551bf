"""`migrate` and `convert` on the terminal: a bar for each step while it runs, one row per table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from n4a_fast.cli.printing import columns_of, print_table, style, terminal_width, write
from n4a_fast.integrations.workspaces import Progress, Report


def console(stderr: bool = False) -> Console:
    """A console that changes no text; 100 columns wide where the terminal does not say."""
    return Console(highlight=False, emoji=False, markup=True, stderr=stderr, width=terminal_width() or 100)


@contextmanager
def bars(shown_on: Console | None = None) -> Iterator[Progress]:
    """Progress as one bar per step, on stderr; nothing is drawn where there is no terminal."""
    tasks: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    place = shown_on or Console(file=sys.stderr, highlight=False)
    with Bars(*columns, console=place, disable=not place.is_terminal) as drawn:

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=total)
            drawn.update(tasks[what], completed=done)

        yield told


@contextmanager
def moving_bar(what: str) -> Iterator[None]:
    """A bar on the terminal for work whose end is not known."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(file=sys.stderr, highlight=False), transient=True) as drawn:
        drawn.add_task(what, total=None)
        yield


def show(done: Report, dry_run: bool = False) -> None:
    """What a migration or conversion did, or would do."""
    if done.already_done:
        write(f"{done.source} is an n4a_fast workspace already; there is nothing to do")
        return
    rows = [
        {"table": each.table, "found": each.found, "written": each.written, "note": each.note}
        for each in done.tables
        if each.found
    ]
    print_table(columns_of(rows, kept=("table", "found", "written")), style())
    write(f"{done.kind},\nevery row and {done.arrays_compared:,} arrays compared, {done.seconds:.1f} s")
    if dry_run:
        write(f"nothing was changed; without --dry-run this is written to {done.destination}")
        return
    write(f"written to {done.destination}")
    if done.backup is not None:
        write(f"the original is kept as {done.backup}")
