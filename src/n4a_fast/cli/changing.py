"""`delete`, `gc`, `vacuum`, `merge`: what changes a workspace; each can tell first what it would do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from n4a_fast.cli.application import (
    FOUND,
    OneWorkspace,
    Things,
    WorkspaceOption,
    command,
    confirmed,
    one,
    say,
    split,
    stop,
    words,
    writing,
)
from n4a_fast.cli.printing import JsonOption, columns_of, print_document, print_table, size_text, style, working, write

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without being asked.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]

_OLD = """SELECT run_id FROM runs WHERE (?1 IS NULL OR created_at < ?1) AND (?2 IS NULL OR status = ?2)
ORDER BY created_at"""


@command("delete", "delete my_sweep 4ec8967a --dry-run")
def delete(
    things: Things = None,
    option: WorkspaceOption = None,
    older_than: Annotated[str | None, typer.Option(help="All runs begun before this time: 90d, 2w.")] = None,
    status: Annotated[str | None, typer.Option(help="All runs of this state: failed.")] = None,
    keep_best: Annotated[int, typer.Option(help="Spare runs with one of the so many best chains of a board.")] = 0,
    yes: YesOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete runs, pipelines, chains or predictions.

    With all that belongs to them, and artifacts that nothing else uses.
    """
    from n4a_fast.cli.describing import found
    from n4a_fast.cli.looking import start

    place, rest = split(things, option)
    if not rest and older_than is None and status is None:
        stop("name what to delete, or give --older-than or --status", 2)
    with writing(place) as store:
        wanted = [found(store, text) for text in rest]
        targets = [(each.kind, each.identifier) for each in wanted]
        if older_than is not None or status is not None:
            spared = set(store.leaderboard(n=keep_best).frame["run_id"]) if keep_best else set()
            runs = store.sql(_OLD, (start(older_than), status))["run_id"].to_list()
            targets += [("run", run_id) for run_id in runs if run_id not in spared]
        if not targets:
            say("nothing to delete")
        with working("looking at what would go"):
            rows = [_deleted(store, kind, identifier, dry_run=True) for kind, identifier in targets]
        if not as_json and rows:
            print_table(columns_of(rows, kept=("kind", "id"), whole=False), style())
        if rows and not dry_run:
            confirmed(f"Delete {len(rows)} of {place}?", yes)
            with working("deleting"):
                rows = [_deleted(store, kind, identifier, dry_run=False) for kind, identifier in targets]
            say(f"deleted {sum(row['rows'] for row in rows):,} rows")
        if as_json:
            print_document("delete", place, {"dry_run": dry_run, "rows": rows})


def _deleted(store: Any, kind: str, identifier: str, *, dry_run: bool) -> dict[str, Any]:
    """A row of what is deleted, or would be."""
    number = getattr(store, f"delete_{kind}")(identifier, dry_run=dry_run)
    return {"kind": kind, "id": identifier, "rows": int(number)}


@command("gc", "gc my_sweep --dry-run")
def gc(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove artifacts that no chain uses, and what crashes left."""
    from n4a_fast.cli.workspaces import bars

    place = one(workspace, option)
    with writing(place) as store, bars() as progress:
        if dry_run:
            files = store.gc_artifacts(dry_run=True)
        else:
            files = store.gc_artifacts(progress=lambda done, total: progress("removing files", done, total))
    if as_json:
        print_document("gc", place, {"dry_run": dry_run, "files": files})
    else:
        write(f"{files:,} files {'would be ' if dry_run else ''}removed")


@command("vacuum", "vacuum my_sweep")
def vacuum(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give the space of deleted rows back to the disk."""
    place = one(workspace, option)
    with writing(place) as store:
        if dry_run:
            before = store.stats().nbytes["database"]
            content: dict[str, Any] = {"dry_run": True, "before": before, "after": None}
        else:
            with working("writing the file anew"):
                report = store.vacuum()
            content = {"dry_run": False, "before": report.before, "after": report.after}
    if as_json:
        print_document("vacuum", place, content)
    elif dry_run:
        write(f"{size_text(content['before'])} would be written anew")
    else:
        write(f"{size_text(content['before'])} before, {size_text(content['after'])} after")


@command("merge", "merge my_sweep other_sweep")
def merge(
    things: Annotated[list[str] | None, words("SRC...", "others, which it takes in")] = None,
    option: WorkspaceOption = None,
    shards: Annotated[bool, typer.Option("--shards", help="All shards below the workspace.")] = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Absorb other workspaces, or name what contradicts.

    What is here already is passed over; with a contradiction nothing of that workspace is taken.
    """
    from n4a_fast.cli.workspaces import bars
    from n4a_fast.errors import ConflictError

    place, sources = split(things, option)
    if not sources and not shards:
        stop("name workspaces to merge, or --shards", 2)
    with writing(place) as store, bars() as progress:
        try:
            told = partial(progress, "merging")
            report = store.merge(*map(Path, sources), progress=lambda _, *done: told(*done), dry_run=dry_run)
        except ConflictError as error:
            stop(str(error), FOUND)
    rows = [{"table": each.table, "found": each.found, "added": each.added} for each in report.tables]
    if as_json:
        sources = [str(each) for each in report.sources]
        print_document("merge", place, {"dry_run": dry_run, "sources": sources, "rows": rows})
        return
    print_table(columns_of([row for row in rows if row["found"]], kept=("table",)), style())
    write(f"{'would merge' if dry_run else 'merged'} {len(report.sources)} workspaces into {place}")
