"""`watch`, `tail`: a run while it runs; nothing is written for it, and its writers are not made to wait."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n4a_fast.cli.application import OneRun, WorkspaceOption, command, reading, say, split, stop
from n4a_fast.cli.printing import (
    JsonOption,
    json_row,
    json_text,
    print_document,
    size_text,
    terminal_width,
    time_text,
    write,
)
from n4a_fast.values.texttable import number, plain

if TYPE_CHECKING:
    from n4a_fast.maintenance.progress import RunProgress
    from n4a_fast.store import WorkspaceStore

_BAR = 40
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LOG = """SELECT l.created_at, l.level, p.name AS pipeline, l.step_idx, l.operator_class, l.event, l.duration_ms,
    l.message, l.log_id
FROM logs l JOIN pipelines p ON p.pipeline_id = l.pipeline_id
WHERE p.run_id = ?1 AND list_contains(?2, l.level) AND (?3 IS NULL OR (l.created_at, l.log_id) > (?3, ?4))
ORDER BY l.created_at DESC, l.log_id DESC LIMIT ?5"""

Interval = Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, envvar="N4A_FAST_INTERVAL")]


@command("watch", "watch my_sweep --until-done")
def watch(
    things: OneRun = None,
    option: WorkspaceOption = None,
    interval: Interval = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when the run has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a run is: rate, time left, best chains, newest error."""
    place, rest = split(things, option)
    with reading(place) as store:
        run = store.find(rest[0], "run") if rest else None
        if as_json or once:
            _print(place, store.progress(run), as_json)
            return
        _live(place, store, run, interval, until_done)


def _print(place: Path, found: RunProgress, as_json: bool) -> None:
    if as_json:
        print_document("watch", place, _fields(found))
    else:
        write("\n".join(screen(place, found, terminal_width())))


def _live(place: Path, store: WorkspaceStore, run: str | None, interval: float, until_done: bool) -> None:
    from rich.live import Live
    from rich.text import Text

    from n4a_fast.cli.workspaces import console

    shown_on = console()
    with Live(console=shown_on, auto_refresh=False) as live:
        while True:
            found = store.progress(run)
            live.update(Text("\n".join(screen(place, found, shown_on.width))), refresh=True)
            if until_done and found.status != "running":
                return
            time.sleep(interval)


def screen(place: Path, found: RunProgress, width: int | None) -> list[str]:
    """The lines of `watch`."""
    from n4a_fast.values import checks

    spent = ((found.ended or checks.now()) - found.started).total_seconds()
    lines = [f"{plain(found.name)} · run {found.run_id} · {found.status} · {time_text(spent)}", _bar(found)]
    for best in found.best:
        if best.score is not None:
            ago = time_text((checks.now() - best.created_at).total_seconds())
            chain = " > ".join(part for part in (plain(best.preprocessings), plain(best.model_name)) if part)
            lines.append(f"best {number(best.score)} {plain(best.metric)} ({plain(best.dataset)})  {chain}  {ago} ago")
    if found.failures:
        lines.append(f"last error: {plain(found.failures[0].pipeline)}: {plain(found.failures[0].error)}")
    if found.error:
        lines.append(f"the run failed: {plain(found.error)}")
    alive = sum(writer.is_alive for writer in found.writers)
    lines.append(f"writers {alive} alive, {found.waiting} flushes not in the tables yet; {_disk(place)}")
    return [line if width is None else line[:width] for line in lines]


def _bar(found: RunProgress) -> str:
    rate = f"  {found.per_second:.2g}/s" if found.per_second else ""
    counts = f"{found.done:,} done, {found.failed:,} failed, {found.running:,} running{rate}"
    if not found.expected:
        return counts
    share = min((found.done + found.failed) / found.expected, 1.0)
    left = "" if found.left is None else f"  left {time_text(found.left.total_seconds())}"
    full = round(share * _BAR)
    return f"[{'#' * full}{'-' * (_BAR - full)}] {share:.0%} of {found.expected:,}  {counts}{left}"


def _disk(place: Path) -> str:
    used = sum(file.stat().st_size for file in place.glob("store.duckdb*") if file.is_file())
    return f"store {size_text(used)}, {size_text(shutil.disk_usage(place).free)} free"


def _fields(found: RunProgress) -> dict[str, Any]:
    names = (
        "run_id",
        "name",
        "status",
        "started",
        "ended",
        "done",
        "failed",
        "running",
        "expected",
        "per_second",
        "error",
    )
    return {
        **{name: getattr(found, name) for name in names},
        "left_seconds": None if found.left is None else found.left.total_seconds(),
        "waiting": found.waiting,
        "best": [{name: getattr(each, name) for name in each.__dataclass_fields__} for each in found.best],
        "failures": [{"pipeline": each.pipeline, "error": each.error, "at": each.at} for each in found.failures],
        "writers": [{"pid": each.pid, "is_alive": each.is_alive, "flushes": each.flushes} for each in found.writers],
    }


@command("tail", "tail my_sweep --level warning --follow")
def tail(
    things: OneRun = None,
    option: WorkspaceOption = None,
    level: Annotated[str, typer.Option(help=f"The least level: {', '.join(_LEVELS)}.")] = "info",
    n: Annotated[int, typer.Option("-n", help="How many of the newest entries.", min=0)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on with what comes.")] = False,
    interval: Interval = 2.0,
    as_json: JsonOption = False,
) -> None:
    """The newest log entries of a run; with --json one object a line."""
    place, rest = split(things, option)
    if level not in _LEVELS:
        stop(f"--level {level!r} is not one of {', '.join(_LEVELS)}", 2)
    levels = list(_LEVELS[_LEVELS.index(level) :])
    with reading(place) as store:
        run = store.find(rest[0] if rest else "@last", "run")
        last: tuple[Any, Any] = (None, None)
        while True:
            rows = store.sql(_LOG, (run, levels, *last, n if last[0] is None else 10_000)).to_dicts()[::-1]
            for row in rows:
                write(json_text(json_row(row)) if as_json else _entry(row))
            if rows:
                last = (rows[-1]["created_at"], rows[-1]["log_id"])
            if not follow:
                if not rows:
                    say(f"run {run} has no log entries of level {level} and above")
                return
            time.sleep(interval)


def _entry(row: dict[str, Any]) -> str:
    took = "" if row["duration_ms"] is None else f" {row['duration_ms']} ms"
    told = f" {plain(row['message'])}" if row["message"] else ""
    step = f"{row['step_idx']} {plain(row['operator_class'])} {plain(row['event'])}"
    return f"{row['created_at']:%H:%M:%S} {row['level']:<8} {plain(row['pipeline'])} {step}{took}{told}"
