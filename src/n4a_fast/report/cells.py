"""What objects show in a notebook: HTML that stands without scripts and styles, bounded, and never an error.

Nothing here asks the file for more than it gives at once: where it is busy, the text stands alone.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from n4a_fast.leaderboard import board_columns, board_head
from n4a_fast.values.texttable import Column, number, plain

if TYPE_CHECKING:
    from n4a_fast.leaderboard import Leaderboard
    from n4a_fast.maintenance.glance import Glance
    from n4a_fast.maintenance.progress import RunProgress
    from n4a_fast.predictions.reading import LoadedArrays
    from n4a_fast.replay.serve.plan_report import PlanReport

ROWS, BINS = 20, 24
P = ParamSpec("P")


def never_raises(cell: Callable[P, str]) -> Callable[P, str | None]:
    """None instead of an error: the notebook then shows the text."""

    @wraps(cell)
    def shown(*args: P.args, **kwargs: P.kwargs) -> str | None:
        try:
            return cell(*args, **kwargs)
        except Exception:  # whatever it is, a cell must not fail for showing its result
            return None

    return shown


@never_raises
def leaderboard_cell(board: Leaderboard) -> str:
    """The boards as tables with a bar behind each score."""
    parts = []
    for each in board.boards:
        columns = board_columns(each.frame.head(ROWS), board.score)
        parts.append(f"<p><b>{_text(board_head(each))}</b></p>{_table(columns)}")
        if each.chains > ROWS:
            parts.append(f"<p>{min(ROWS, each.frame.height)} of {each.chains:,} chains</p>")
    parts += [f"<p>not ranked: {_text(name)}</p>" for name in board.unranked]
    return "".join(parts) or "<p>nothing is ranked yet</p>"


@never_raises
def run_cell(progress: RunProgress) -> str:
    """A run's state with a bar of how far it is, its best chains and newest errors."""
    ended = progress.done + progress.failed
    total = progress.expected or ended + progress.running
    bar = f'<progress max="{max(total, 1)}" value="{ended}"></progress>'
    best = "".join(
        f"<li>best {number(each.score)} {_text(each.metric)} ({_text(each.dataset)}): {_text(each.preprocessings)} "
        f"{_text(each.model_name)}, chain <code>{each.chain_id[-8:]}</code></li>"
        for each in progress.best
        if each.score is not None
    )
    errors = "".join(f"<li>{_text(each.pipeline)}: {_text(each.error)}</li>" for each in progress.failures)
    return f"<p>{_text(str(progress))}</p>{bar}<ul>{best}{errors}</ul>"


@never_raises
def store_cell(path: str, glance: Glance | None) -> str:
    """A workspace at a glance: rows, sizes, runs."""
    head = f"<p><b>WorkspaceStore</b> <code>{_text(path)}</code></p>"
    if glance is None:
        return f"{head}<p>busy: another call or process has the file</p>"
    facts = ", ".join(f"{n:,} {_text(name)}" for name, n in glance.rows.items() if n)
    runs = [
        Column("run", [each[0][-8:] for each in glance.runs]),
        Column("name", [plain(each[1]) for each in glance.runs]),
        Column("status", [each[2] for each in glance.runs]),
        Column("done", [f"{each[3]:,}" for each in glance.runs], right=True),
    ]
    size = f"{glance.nbytes / 1e6:,.1f} MB in the store file"
    return f"{head}<p>{facts or 'empty'}; {size}</p>{_table(runs) if glance.runs else ''}"


@never_raises
def arrays_cell(arrays: LoadedArrays) -> str:
    """Each column of loaded arrays: shapes, range, and the first one's distribution."""
    rows = []
    for name in arrays.columns:
        views = getattr(arrays, name)
        first = next((views[place] for place in range(min(len(views), 100)) if views[place] is not None), None)
        if first is None:
            rows.append((name, "none", "", "", ""))
            continue
        values = np.asarray(first, dtype=np.float64).ravel()
        good = values[np.isfinite(values)]
        span = f"{good.min():.4g} to {good.max():.4g}, mean {good.mean():.4g}" if len(good) else ""
        rows.append((name, str(np.shape(first)), span, f"{len(values) - len(good)}", _sparkline(good)))
    body = "".join(
        f"<tr><td>{_text(a)}</td><td>{_text(b)}</td><td>{_text(c)}</td><td>{_text(d)}</td><td>{e}</td></tr>"
        for a, b, c, d, e in rows
    )
    heads = "".join(f"<th>{each}</th>" for each in ("array", "shape of the first", "its values", "NaN", ""))
    return f"<p>{_text(repr(arrays))}</p><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


@never_raises
def plan_cell(plan: PlanReport) -> str:
    """The steps of a plan as boxes; those of a compiled chain stand in one frame."""
    frame = "border:2px solid #4c78a8" if plan.compiled else "border:1px dashed #888"
    boxes = "".join(
        f'<li style="border:1px solid #888;padding:2px 8px;margin:2px">{_text(step)}</li>' for step in plan.steps
    )
    listed = f'<ol style="{frame};padding:4px;list-style:none;display:inline-block">{boxes}</ol>' if boxes else ""
    return f"<p>{_text(str(plan).splitlines()[0])}</p>{listed}"


@never_raises
def lines_cell(text: str) -> str:
    """Text as it is printed."""
    return f"<pre>{html.escape(text)}</pre>"


def _table(columns: list[Column]) -> str:
    heads = "".join(f"<th>{_text(column.title)}</th>" for column in columns)
    sides = ["right" if column.right else "left" for column in columns]
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{side}">{_text(column.cells[place])}</td>'
            for column, side in zip(columns, sides, strict=True)
        )
        + "</tr>"
        for place in range(len(columns[0].cells))
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _sparkline(values: np.ndarray[Any, Any]) -> str:
    if not len(values):
        return ""
    counts, _ = np.histogram(values, bins=BINS)
    top = max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{4 * place}" y="{20 - 20 * n / top:.1f}" width="3" height="{20 * n / top:.1f}" fill="#4c78a8"/>'
        for place, n in enumerate(counts)
    )
    return f'<svg width="{4 * BINS}" height="20" role="img" aria-label="distribution">{bars}</svg>'


def _text(value: Any) -> str:
    return html.escape(plain(value))
