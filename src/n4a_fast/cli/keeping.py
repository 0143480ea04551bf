"""`verify`, `backup`, `restore`, `extract`: whether a workspace is sound, and copies of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import (
    FOUND,
    OneWorkspace,
    WorkspaceOption,
    command,
    folder,
    ids,
    one,
    reading,
    say,
    split,
    stop,
    words,
    writing,
)
from n4a_fast.cli.printing import JsonOption, columns_of, print_document, print_table, size_text, style, working, write

if TYPE_CHECKING:
    from n4a_fast.maintenance.backup import BackupReport
    from n4a_fast.maintenance.findings import VerificationReport

_SHOWN = ("kind", "id", "message", "cure")


@command("verify", "verify my_sweep --quick")
def verify(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out blocks, keys and the bytes of artifacts.")] = False,
    sample: Annotated[str | None, typer.Option(help="The share of blocks and artifacts to read: 5%.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what loses nothing; copies are kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check everything in a workspace; exit code 3 for findings.

    Blocks, rows, keys, references and artifacts are compared with what can be known of them.
    """
    place = one(workspace, option)
    report = _verified(place, quick, _share(sample), repair)
    if as_json:
        print_document("verify", place, report.to_dict())
    else:
        _tell(report)
    if not report.is_sound:
        raise typer.Exit(FOUND)


def _verified(place: Path, quick: bool, sample: float | None, repair: bool) -> VerificationReport:
    from n4a_fast.cli.workspaces import bars
    from n4a_fast.errors import DamagedStoreError
    from n4a_fast.maintenance.verify import verify_closed

    try:
        with (writing if repair else reading)(place) as store, bars() as progress:
            return store.verify(quick=quick, sample=sample, repair=repair, progress=progress)
    except DamagedStoreError as error:
        return verify_closed(place, error)


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        stop(f"--sample is {text!r}; give a share, such as 5% or 0.05", 2)


def _tell(report: VerificationReport) -> None:
    rows: list[dict[str, Any]] = [
        {**{name: getattr(each, name) for name in _SHOWN}, "cure": "repaired" if each.is_repaired else each.cure}
        for each in report.findings
    ]
    if rows:
        print_table(columns_of(rows, kept=("kind", "id")), style())
    looked = ", ".join(f"{count:,} {part}" for part, count in report.checked.items() if count)
    wrong = sum(not (each.is_leftover or each.is_repaired) for each in report.findings)
    say(f"{looked} in {report.seconds:.1f} s")
    if report.kept is not None:
        say(f"copies of what was changed are in {report.kept}")
    write(f"{report.path} is sound" if report.is_sound else f"{report.path}: {wrong:,} findings")


@command("backup", "backup my_sweep /backups/my_sweep")
def backup(
    things: Annotated[list[str] | None, words("TO", "the folder to make")] = None,
    option: WorkspaceOption = None,
    full: Annotated[bool, typer.Option("--full", help="Take nothing over from the backup before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A verified copy, made beside running writers.

    It takes the place of the one before when it is whole.
    """
    from n4a_fast.cli.workspaces import bars

    place, rest = split(things, option)
    if len(rest) != 1:
        stop("give the folder of the backup", 2)
    with reading(place) as store, bars() as progress:
        report = store.backup(rest[0], incremental=not full, progress=progress)
    _tell_copy("backup", place, report, as_json)


@command("restore", "restore /backups/my_sweep my_sweep")
def restore(
    backup: Annotated[Path, typer.Argument(help="Folder of the backup.", metavar="BACKUP")],
    to: Annotated[Path, typer.Argument(help="Where the workspace is to be.", metavar="TO")],
    replace: Annotated[bool, typer.Option("--replace", help="In place of a workspace, which is kept aside.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A workspace from a backup, verified before it takes its place."""
    from n4a_fast.cli.workspaces import bars
    from n4a_fast.store import WorkspaceStore

    with bars() as progress:
        report = WorkspaceStore.restore(folder(backup), folder(to), replace, progress=progress)
    _tell_copy("restore", folder(backup), report, as_json)


def _tell_copy(name: str, place: Path, report: BackupReport, as_json: bool) -> None:
    content: dict[str, Any] = {
        "to": str(report.path),
        "artifacts": report.artifacts,
        "unchanged": report.unchanged,
        "bytes": report.nbytes,
        "replaced": str(report.replaced) if report.replaced else None,
        "seconds": report.seconds,
    }
    if as_json:
        print_document(name, place, content)
        return
    write(f"{report.path}: {size_text(report.nbytes)} of rows, {report.artifacts:,} artifacts, verified")
    if report.replaced is not None:
        say(f"what was there is kept in {report.replaced}")


@command("extract", "extract my_sweep 4ec8967a one_run")
def extract(
    things: Annotated[list[str] | None, ids("RUN... TO", "runs, and last the folder to make")] = None,
    option: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Some runs as a workspace of their own.

    `merge` brings them back, or into another one.
    """
    from n4a_fast.cli.describing import found

    place, rest = split(things, option)
    if len(rest) < 2:
        stop("name runs, and the folder to make", 2)
    with reading(place) as store:
        wanted = [found(store, text) for text in rest[:-1]]
        if others := [each.identifier for each in wanted if each.kind != "run"]:
            stop(f"{others[0]} is no run; extract takes whole runs", 2)
        with working("copying"):
            report = store.extract([each.identifier for each in wanted], rest[-1])
    rows = [{"table": each.table, "rows": each.added} for each in report.tables]
    if as_json:
        print_document("extract", place, {"to": str(Path(rest[-1]).resolve()), "rows": rows})
        return
    print_table(columns_of([row for row in rows if row["rows"]], kept=("table",)), style())
