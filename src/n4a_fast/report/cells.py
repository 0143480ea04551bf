"""What objects show in a notebook: HTML that stands without scripts and styles, bounded, and never an error.

Nothing here asks the file for more than it gives at once: where it is busy, the text stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n4a_fast.leaderboard import board_columns
from n4a_fast.maintenance.glance import glance
from n4a_fast.values.notebook import html_text, never_raises
from n4a_fast.values.texttable import Column, number, plain

if TYPE_CHECKING:
    from n4a_fast.engine.workspace import Workspace
    from n4a_fast.leaderboard import Leaderboard
    from n4a_fast.maintenance.glance import Glance
    from n4a_fast.maintenance.progress import RunProgress

ROWS = 20


@never_raises
def leaderboard_cell(board: Leaderboard) -> str:
    """The boards as tables with a bar behind each score."""
    parts = []
    for each in board.boards:
        columns = board_columns(each.frame.head(ROWS), board.score)
        parts.append(f"<p><b>{html_text(str(each))}</b></p>{_table(columns)}")
        if each.chains > ROWS:
            parts.append(f"<p>{min(ROWS, each.frame.height)} of {each.chains:,} chains</p>")
    parts += [f"<p>not ranked: {html_text(name)}</p>" for name in board.unranked]
    return "".join(parts) or "<p>nothing is ranked yet</p>"


@never_raises
def run_cell(progress: RunProgress) -> str:
    """A run's state with a bar of how far it is, its best chains and newest errors."""
    ended = progress.done + progress.failed
    total = progress.expected or ended + progress.running
    bar = f'<progress max="{max(total, 1)}" value="{ended}"></progress>'
    best = "".join(
        f"<li>best {number(each.score)} {html_text(each.metric)} ({html_text(each.dataset)}): "
        f"{html_text(each.preprocessings)} "
        f"{html_text(each.model_name)}, chain <code>{each.chain_id[-8:]}</code></li>"
        for each in progress.best
        if each.score is not None
    )
    errors = "".join(f"<li>{html_text(each.pipeline)}: {html_text(each.error)}</li>" for each in progress.failures)
    return f"<p>{html_text(str(progress))}</p>{bar}<ul>{best}{errors}</ul>"


def store_text(name: str, workspace: Workspace | None) -> str:
    """A workspace at a glance, in one line."""
    if workspace is None:
        return f"{name}: closed"
    try:
        found = glance(workspace)
    except Exception:  # a repr must not raise
        found = None
    return f"{name}: {found or 'busy'}"


@never_raises
def store_cell(path: str, glance: Glance | None) -> str:
    """A workspace at a glance: rows, sizes, runs."""
    head = f"<p><b>WorkspaceStore</b> <code>{html_text(path)}</code></p>"
    if glance is None:
        return f"{head}<p>closed, or busy: another call or process has the file</p>"
    runs = [
        Column("run", [each[0][-8:] for each in glance.runs]),
        Column("name", [plain(each[1]) for each in glance.runs]),
        Column("status", [each[2] for each in glance.runs]),
        Column("done", [f"{each[3]:,}" for each in glance.runs], right=True),
    ]
    return f"{head}<p>{html_text(str(glance))}</p>{_table(runs) if glance.runs else ''}"


def _table(columns: list[Column]) -> str:
    heads = "".join(f"<th>{html_text(column.title)}</th>" for column in columns)
    sides = ["right" if column.right else "left" for column in columns]
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{side}">{html_text(column.cells[place])}</td>'
            for column, side in zip(columns, sides, strict=True)
        )
        + "</tr>"
        for place in range(len(columns[0].cells))
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
