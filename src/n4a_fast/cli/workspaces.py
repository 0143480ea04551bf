"""`migrate` and `convert` on the terminal: a bar for each step while it runs, one row per table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from n4a_fast.cli import printing
from n4a_fast.integrations.workspaces import Progress, Report


@contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Progress as one bar per step; nothing is drawn where there is no terminal."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as drawn:

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=total)
            drawn.update(tasks[what], completed=done)

        yield told


def show(done: Report, console: Console) -> None:
    """What a migration or conversion did."""
    if done.already_done:
        console.print(
            f"{done.source} is an n4a_fast workspace already; there is nothing to do", markup=False, soft_wrap=True
        )
        return
    rows = [(table.table, table.found, table.written, table.note) for table in done.tables if table.found]
    console.print(
        printing.frame_table(
            pl.DataFrame(rows, schema=["table", "found", "written", "note"], orient="row"), console.width
        )
    )
    console.print(
        f"{done.kind}: every row and {done.arrays_compared:,} arrays compared, {done.seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"written to {done.destination}", markup=False, soft_wrap=True)
    if done.backup is not None:
        console.print(f"the original is kept as {done.backup}", markup=False, soft_wrap=True)
