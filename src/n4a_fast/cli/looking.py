"""`runs`, `top`, `show`, `compare`, `info`: what a workspace holds, and which chain is best."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import OneWorkspace, Things, WorkspaceOption, command, one, reading, say, split, stop
from n4a_fast.cli.printing import (
    CountOption,
    Format,
    FormatOption,
    JsonOption,
    Style,
    WideOption,
    cell,
    document,
    print_csv,
    print_markdown,
    say_left_out,
    show_rows,
    style,
    write,
)
from n4a_fast.values.texttable import Column, number, plain, short_ids

if TYPE_CHECKING:
    from n4a_fast.leaderboard import Leaderboard
    from n4a_fast.store import WorkspaceStore

_RUNS = """SELECT r.run_id, r.name, r.status, r.created_at, r.completed_at,
    count(p.pipeline_id) FILTER (p.status = 'completed') AS done,
    count(p.pipeline_id) FILTER (p.status = 'failed') AS failed,
    count(p.pipeline_id) FILTER (p.status = 'running') AS running,
    json_extract_string(any_value(r.datasets), '$[*].name') AS datasets, r.error
FROM runs r LEFT JOIN pipelines p ON p.run_id = r.run_id
WHERE (?1 IS NULL OR r.status = ?1) AND (?2 IS NULL OR list_contains(json_extract_string(r.datasets, '$[*].name'), ?2))
    AND (?3 IS NULL OR r.created_at >= ?3)
GROUP BY r.run_id, r.name, r.status, r.created_at, r.completed_at, r.error
ORDER BY r.created_at DESC, r.run_id DESC LIMIT ?4"""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Score(StrEnum):
    """The score that orders a leaderboard."""

    VAL = "val"
    TEST = "test"
    FINAL = "final"


class By(StrEnum):
    """Of what only the best chain is kept."""

    MODEL = "model"
    PREPROCESSING = "preprocessing"


@command("runs", "runs my_sweep --status running --since 7d")
def runs(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    status: Annotated[str | None, typer.Option(help="running, completed or failed.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The exact name of a data set of the run.")] = None,
    since: Annotated[str | None, typer.Option(help="Begun within this time: 30m, 12h, 7d, 2w.")] = None,
    n: CountOption = 20,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
    wide: WideOption = False,
) -> None:
    """The runs, newest first: state, counts, the best chain."""
    place, how = one(workspace, option), style(format, as_json, wide)
    with reading(place) as store:
        found = store.sql(_RUNS, (status, dataset, start(since), n + 1)).to_dicts()
        rows = [{**row, "best": _best_of(store, row["run_id"])} for row in found[:n]]
    show_rows("runs", place, rows, _run_columns(rows, how), how, truncated=len(found) > n, nothing="no such runs")


@command("top", "top my_sweep -n 5 --by model")
def top(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    metric: Annotated[str | None, typer.Option("--metric", "-m", help="A score of the predictions.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    run: Annotated[str | None, typer.Option(help="Only this run: an id, the end of one, or a name.")] = None,
    by: Annotated[By | None, typer.Option(help="Only the best of each.")] = None,
    score: Annotated[Score, typer.Option(help="What to order by; only val is fit to choose a model.")] = Score.VAL,
    where: Annotated[str | None, typer.Option(help="A condition in SQL on the leaderboard's columns.")] = None,
    running: Annotated[bool, typer.Option("--running", help="Pipelines that still run, too.")] = False,
    higher: Annotated[bool | None, typer.Option("--higher/--lower", help="Which values are better, this time.")] = None,
    n: CountOption = 20,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
    wide: WideOption = False,
) -> None:
    """The leaderboard: which chain is best.

    Chains by the mean validation score of their folds, a block for each data set and metric.
    """
    place, how = one(workspace, option), style(format, as_json, wide)
    with reading(place) as store:
        board = store.leaderboard(
            metric,
            dataset=dataset,
            run=run,
            by=by and by.value,
            n=n,
            score=score.value,
            where=where,
            include_running=running,
            higher_is_better=higher,
        )
        _show_board(place, board, how)


def _show_board(place: Path, board: Leaderboard, how: Style) -> None:
    from n4a_fast.leaderboard import board_columns, board_text

    rows = board.frame.to_dicts()
    truncated = any(each.frame.height < each.chains for each in board.boards)
    if how.format is Format.JSON:
        heads = [
            {
                name: getattr(each, name)
                for name in (
                    "dataset",
                    "metric",
                    "higher_is_better",
                    "chains",
                    "incomplete",
                    "finished",
                    "running",
                    "failed",
                )
            }
            for each in board.boards
        ]
        write(document("top", place, rows, truncated, score=board.score, boards=heads, unranked=list(board.unranked)))
    elif how.format is Format.CSV or how.is_json:
        show_rows("top", place, rows, [], how)
    elif how.format is Format.MD:
        for each in board.boards:
            print_markdown(board_columns(each.frame, board.score, whole_ids=True))
    else:
        for each in board.boards:
            text, left_out = board_text(each, how.width, board.score, whole_ids=how.whole_ids)
            write(text)
            if left_out:
                say_left_out(left_out, how)
    for name in board.unranked:
        say(f"not ranked: {plain(name)}; say --higher or --lower with --metric {plain(name)}")
    if not rows:
        say("nothing is ranked yet: a chain is once its pipeline has completed")


def _best_of(store: WorkspaceStore, run_id: str) -> list[dict[str, Any]]:
    boards = store.leaderboard(run=run_id, n=1).boards
    names = ("dataset_name", "metric", "val_score", "chain_id")
    return [{name: board.frame[name][0] for name in names} for board in boards]


def _run_columns(rows: list[dict[str, Any]], how: Style) -> list[Column]:
    ids = [row["run_id"] for row in rows]
    return [
        Column("run", ids if how.whole_ids else short_ids(ids), kept=True),
        Column("name", [plain(row["name"]) for row in rows], cut=True, kept=True),
        Column("status", [row["status"] for row in rows], kept=True),
        Column("done", [f"{row['done']:,}" for row in rows], right=True),
        Column("failed", [f"{row['failed']:,}" for row in rows], right=True),
        Column("running", [f"{row['running']:,}" for row in rows], right=True),
        Column("best", [_best_text(row["best"]) for row in rows], cut=True),
        Column("started", [f"{row['created_at']:%Y-%m-%d %H:%M}" for row in rows]),
        Column("error", [plain(row["error"]) for row in rows], cut=True),
    ]


def _best_text(best: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{number(each['val_score'])} {plain(each['metric'])}" for each in best if each["val_score"] is not None
    )


def start(since: str | None) -> Any:
    from n4a_fast.values import checks

    if since is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", since.strip())
    if not found:
        stop(f"{since!r} is no time; give a number and s, m, h, d or w, such as 7d", 2)
    return checks.now() - timedelta(**{_UNITS[found[2]]: float(found[1])})


@command("show", "show my_sweep @best")
def show(
    things: Things = None,
    option: WorkspaceOption = None,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
    wide: WideOption = False,
) -> None:
    """One run, pipeline, chain or prediction in full.

    What it is, its scores, what belongs to it; without an id the last run.
    """
    from n4a_fast.cli.describing import described, print_described

    place, rest = split(things, option)
    how = style(format, as_json, wide)
    with reading(place) as store:
        for text in rest or ["@last"]:
            print_described(place, described(store, text), how)


@command("compare", "compare my_sweep 97d869a2 d6474e33")
def compare(
    things: Things = None,
    option: WorkspaceOption = None,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
    wide: WideOption = False,
) -> None:
    """Runs or chains beside each other: only what differs.

    For chains also the difference of each fold.
    """
    from n4a_fast.cli.describing import compared

    place, rest = split(things, option)
    if len(rest) < 2:
        stop("name two or more runs or chains to compare", 2)
    how = style(format, as_json, wide)
    with reading(place) as store:
        rows = compared(store, rest)
    if how.format is Format.CSV:
        print_csv(rows)
        return
    columns = (
        [Column(name, [plain(cell(row[name])) for row in rows], kept=True, cut=True) for name in rows[0]]
        if rows
        else []
    )
    show_rows("compare", place, rows, columns, how, nothing="they do not differ")


@command("info", "info my_sweep")
def info(
    workspace: OneWorkspace = None,
    option: WorkspaceOption = None,
    format: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Rows, sizes, writers and the newest runs.

    Also while a sweep is running.
    """
    from n4a_fast.cli.describing import overview, print_overview

    place, how = one(workspace, option), style(format, as_json)
    with reading(place) as store:
        print_overview(place, overview(store), how)
