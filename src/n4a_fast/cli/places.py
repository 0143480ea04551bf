"""`migrate`, `convert`, `demo`: workspaces of nirs4all in and out, and something to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from n4a_fast.cli.application import command, reading, stop
from n4a_fast.cli.changing import DryOption
from n4a_fast.cli.printing import JsonOption, print_document

DEMO_PACKAGES = {
    "chemotools": "chemotools",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}


@command("demo", "demo --workspace my_demo")
def demo(
    workspace: Annotated[Path, typer.Option(help="Folder to write to; an existing one gets another run.")] = Path(
        "n4a_demo"
    ),
    nirs4all: Annotated[
        bool, typer.Option("--nirs4all", help="Run a sweep of 100 variants through nirs4all 0.7.1 instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """A sweep on real spectra, with leaderboard, replay and report."""
    (_demo_through_nirs4all if nirs4all else _demo)(workspace, as_json)
    if as_json:
        _print_demo(workspace)


def _demo(workspace: Path, quiet: bool) -> None:
    """The demo; `quiet` leaves stdout to a program."""
    from n4a_fast.cli.workspaces import console

    try:
        from n4a_fast.cli.demo import run_demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in DEMO_PACKAGES:
            raise
        needed = " ".join(DEMO_PACKAGES.values())
        stop(f"the demo needs the package {error.name}; install what it takes: pip install {needed}", code=2)
    complaint = run_demo(workspace, console(stderr=quiet)).complaint
    if complaint is not None:
        stop(complaint)


def _demo_through_nirs4all(workspace: Path, quiet: bool) -> None:
    from n4a_fast.cli.demo_nirs4all import run_nirs4all_demo
    from n4a_fast.cli.workspaces import console
    from n4a_fast.errors import UnsupportedVersionError

    try:
        complaint = run_nirs4all_demo(workspace, console(stderr=quiet))
    except UnsupportedVersionError as error:
        stop(str(error), code=2)
    if complaint is not None:
        stop(complaint)


def _print_demo(workspace: Path) -> None:
    """What a demo has left."""
    report, plots = workspace / "report.html", sorted(map(str, workspace.glob("demo_*.png")))
    with reading(workspace) as store:
        run_id = store.find("@last", "run")
        chains = {each.dataset: each.chains for each in store.leaderboard(run=run_id, n=1).boards}
    found = {"run_id": run_id, "report": report if report.exists() else None, "plots": plots, "chains": chains}
    print_document("demo", workspace, found)


@command("migrate", "migrate old_workspace")
def migrate(
    path: Annotated[
        Path,
        typer.Argument(
            help="Workspace folder of nirs4all, of any release since 0.7, or the store file in it.", metavar="PATH"
        ),
    ],
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a workspace of nirs4all one of n4a_fast, in place.

    The original is kept beside it.
    """
    from n4a_fast.cli import workspaces
    from n4a_fast.integrations.workspaces import migrate as migrate_workspace

    with workspaces.bars() as progress:
        done = migrate_workspace(path, progress=progress, dry_run=dry_run)
    _tell("migrate", done, as_json, dry_run)


@command("convert", "convert nirs4all_workspace new_folder")
def convert(
    src: Annotated[Path, typer.Argument(help="Workspace folder: nirs4all's, or n4a_fast's.", metavar="SRC")],
    dst: Annotated[
        Path, typer.Argument(help="New folder: n4a_fast's for the first, nirs4all 1.4's for the second.", metavar="DST")
    ],
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a workspace anew: nirs4all's as ours, ours as nirs4all's."""
    from n4a_fast.cli import workspaces
    from n4a_fast.integrations.workspaces import convert as convert_workspace

    with workspaces.bars() as progress:
        done = convert_workspace(src, dst, progress=progress, dry_run=dry_run)
    _tell("convert", done, as_json, dry_run)


def _tell(name: str, done: Any, as_json: bool, dry_run: bool) -> None:
    from n4a_fast.cli import workspaces

    if not as_json:
        workspaces.show(done, dry_run)
        return
    tables = [
        {"table": each.table, "found": each.found, "written": each.written, "note": each.note} for each in done.tables
    ]
    content = {
        "dry_run": dry_run,
        "kind": done.kind,
        "already_done": done.already_done,
        "arrays_compared": done.arrays_compared,
        "rows": tables,
    }
    print_document(
        name, done.destination, {**content, "backup": done.backup and str(done.backup), "seconds": done.seconds}
    )
