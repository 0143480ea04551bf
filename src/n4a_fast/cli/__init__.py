"""The command `n4a-fast`: demo, info, sql, migrate, convert.

Owns the commands, their options and their exit codes: 0 done; 1 the store refused or a replay
differed, with one line on stderr; 2 wrong usage, or the demo's packages are missing. Leaves the
work to `demo`, `report` and `workspaces`; info and sql open workspaces read-only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console

from n4a_fast import WorkspaceStore, __version__
from n4a_fast.cli import printing, workspaces
from n4a_fast.errors import StoreError, UnsupportedVersionError
from n4a_fast.integrations.workspaces import convert as convert_workspace
from n4a_fast.integrations.workspaces import migrate as migrate_workspace
from n4a_fast.integrations.workspaces.migration import BACKUP_FILE

app = typer.Typer(
    name="n4a-fast",
    help="Look into n4a_fast workspaces, and try the package on real spectra.",
    no_args_is_help=True,
    add_completion=False,
)

DATABASE = "store.duckdb"
TABLES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
RUNS_SQL = """
SELECT r.name, r.status, strftime(r.created_at, '%Y-%m-%d %H:%M') AS created, count(p.pipeline_id) AS pipelines,
r.run_id, r.error
FROM runs r LEFT JOIN pipelines p USING (run_id) GROUP BY ALL ORDER BY created DESC, r.run_id DESC LIMIT 20
"""
ROWS_SHOWN = 100
DEMO_PACKAGES = {
    "chemotools": "chemotools",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}

Workspace = Annotated[Path, typer.Argument(help="Workspace folder, or the store.duckdb in it.", metavar="PATH")]


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", is_eager=True, callback=lambda given: _version(given)
        ),
    ] = False,
) -> None:
    """Look into n4a_fast workspaces, and try the package on real spectra."""


@app.command()
def demo(
    workspace: Annotated[Path, typer.Option(help="Folder to write to; an existing one gets another run.")] = Path(
        "n4a_demo"
    ),
    nirs4all: Annotated[
        bool, typer.Option("--nirs4all", help="Run a sweep of 100 variants through nirs4all 0.7.1 instead.")
    ] = False,
) -> None:
    """Run a sweep on real spectra, show the leaderboard, replay the best chains, draw plots."""
    if nirs4all:
        _demo_through_nirs4all(workspace)
        return
    with _one_line_errors():
        try:
            from n4a_fast.cli.demo import run_demo
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in DEMO_PACKAGES:
                raise
            _stop(
                f"the demo needs the package {error.name}; install what it takes: pip install"
                f" {' '.join(DEMO_PACKAGES.values())}",
                code=2,
            )
        complaint = run_demo(workspace, _console()).complaint
        if complaint is not None:
            _stop(complaint)


def _demo_through_nirs4all(workspace: Path) -> None:
    from n4a_fast.cli.demo_nirs4all import run_nirs4all_demo

    with _one_line_errors():
        try:
            complaint = run_nirs4all_demo(workspace, _console())
        except UnsupportedVersionError as error:
            _stop(str(error), code=2)
        if complaint is not None:
            _stop(complaint)


@app.command()
def info(path: Workspace) -> None:
    """Rows per table, sizes on disk, who writes and the newest runs of a workspace, also while a sweep is running."""
    with _one_line_errors(), WorkspaceStore.open_readonly(_folder(path)) as store:
        writers = store.stats().writers
        counts = store.sql(
            " UNION ALL ".join(
                f"SELECT {n} AS place, '{name}' AS name, count(*) AS n FROM {name}" for n, name in enumerate(TABLES)
            )
        )
        console = _console()
        console.print(f"\n{store.workspace_path.resolve()}", markup=False, soft_wrap=True)
        console.print(printing.frame_table(_sizes(store.workspace_path), console.width))
        console.print(
            printing.frame_table(
                counts.sort("place").select(pl.col("name").alias("table"), pl.col("n").alias("rows")), console.width
            )
        )
        if writers:
            rows = [(writer.pid, "running" if writer.is_alive else "ended", writer.flushes) for writer in writers]
            found = pl.DataFrame(rows, schema=["writer", "process", "flushes not yet in the tables"], orient="row")
            console.print(printing.frame_table(found, console.width))
        runs = store.sql(RUNS_SQL)
        console.print(printing.frame_table(runs.drop("error"), console.width))
        for run_id, error in runs.filter(pl.col("error").is_not_null()).select("run_id", "error").iter_rows():
            console.print(f"  {run_id} failed: {error}", markup=False)


@app.command()
def sql(
    path: Workspace,
    query: Annotated[str, typer.Argument(help="One SELECT in DuckDB's SQL.", metavar="QUERY")],
    csv: Annotated[bool, typer.Option("--csv", help="Every row and column as CSV.")] = False,
) -> None:
    """Ask a workspace in SQL, read-only."""
    with _one_line_errors(), WorkspaceStore.open_readonly(_folder(path)) as store:
        frame = store.sql(query)
        if csv:
            typer.echo(printing.csv_text(frame), nl=False)
            return
        console = _console()
        table = printing.frame_table(frame.head(ROWS_SHOWN), console.width if _has_width(console) else None)
        if not _has_width(console):
            console = Console(
                highlight=False,
                width=console.measure(table, options=console.options.update(max_width=sys.maxsize)).maximum,
            )
        console.print(table)
        if len(table.columns) < frame.width:
            typer.echo(f"{len(table.columns)} of {frame.width} columns; --csv shows all")
        if len(frame) > ROWS_SHOWN:
            typer.echo(f"{ROWS_SHOWN} of {len(frame):,} rows; --csv prints all of them")


@app.command()
def migrate(
    path: Annotated[
        Path,
        typer.Argument(
            help="Workspace folder of nirs4all 0.7 or early 0.8, or the store.duckdb in it.", metavar="PATH"
        ),
    ],
) -> None:
    """Make a DuckDB workspace of nirs4all one of n4a_fast, in place; the original is kept beside it."""
    console = _console()
    with _one_line_errors():
        with workspaces.bars(console) as progress:
            done = migrate_workspace(path, progress=progress)
        workspaces.show(done, console)


@app.command()
def convert(
    src: Annotated[Path, typer.Argument(help="Workspace folder: nirs4all's, or n4a_fast's.", metavar="SRC")],
    dst: Annotated[
        Path, typer.Argument(help="New folder: n4a_fast's for the first, nirs4all 1.4's for the second.", metavar="DST")
    ],
) -> None:
    """Write a workspace anew in another folder: nirs4all's as n4a_fast's, n4a_fast's as nirs4all's."""
    console = _console()
    with _one_line_errors():
        with workspaces.bars(console) as progress:
            done = convert_workspace(src, dst, progress=progress)
        workspaces.show(done, console)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """A store's error becomes one line on stderr and exit code 1."""
    try:
        yield
    except StoreError as error:
        _stop(str(error))


def _stop(message: str, code: int = 1) -> None:
    typer.echo(f"n4a-fast: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def _version(given: bool) -> None:
    if given:
        typer.echo(f"n4a_fast {__version__}")
        raise typer.Exit()


def _folder(path: Path) -> Path:
    return path.parent if path.name == DATABASE else path


def _console() -> Console:
    """A console on stdout, 100 columns wide where the terminal does not say."""
    console = Console(highlight=False)
    return console if _has_width(console) else Console(highlight=False, width=100)


def _has_width(console: Console) -> bool:
    """Whether there is a width to keep to; a file or a pipe takes any."""
    return console.is_terminal or "COLUMNS" in os.environ


def _sizes(folder: Path) -> pl.DataFrame:
    """What lies in the workspace, as files and bytes."""
    database = [file for file in folder.glob(f"{DATABASE}*") if file.is_file()]
    kept = [file for file in database if file.name.startswith(BACKUP_FILE)]
    artifacts = [file for file in (folder / "artifacts").glob("[!.]*/*") if file.is_file()]
    groups = {DATABASE: [file for file in database if file not in kept], "artifacts/": artifacts, BACKUP_FILE: kept}
    rows = [
        (name, len(files), printing.size_text(sum(file.stat().st_size for file in files)))
        for name, files in groups.items()
        if files or files is not kept
    ]
    return pl.DataFrame(rows, schema=["on disk", "files", "size"], orient="row")
