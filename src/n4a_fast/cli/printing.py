"""Frames as text: tables for the terminal, CSV for programs.

Owns their layout. Promises one line a row within the width asked for: values are cut where they
do not fit, then whole columns left out; CSV is never cut. Leaves asking the store to the commands, and plots to
`plots`.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

CELL_CHARACTERS = 60
COLUMN_CHARACTERS = 12  # that a column shows at least, enough for any float


def leaderboard_table(frame: pl.DataFrame, title: str, shown: int) -> Table:
    """The first rows of a leaderboard: predictions of the fold "avg", best first, scores of both partitions."""
    metric, other = _score_names(frame)
    table = Table(
        title=f"{escape(title)}: best {min(shown, len(frame))} of {len(frame)} variants",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for heading in (
        "#",
        "preprocessing",
        "model",
        f"{metric}\nval",
        f"{metric}\ntest",
        f"{other}\nval",
        f"{other}\ntest",
    ):
        table.add_column(
            heading,
            justify="left" if heading in ("preprocessing", "model") else "right",
            vertical="bottom",
            no_wrap=True,
        )
    for rank, row in enumerate(frame.head(shown).iter_rows(named=True), start=1):
        scores = json.loads(row["scores"])
        second = [f"{scores[partition][other]:.3f}" for partition in ("val", "test")]
        firsts = [f"{row[name]:.4g}" for name in ("val_score", "test_score")]
        table.add_row(str(rank), escape(row["preprocessings"]), escape(row["model_name"]), *firsts, *second)
    return table


def frame_table(frame: pl.DataFrame, width: int | None) -> Table:
    """Any frame as a table, one line a row; within `width`, long values are cut and the last columns left out; None
    keeps all.
    """
    cells = [[_cell(value) for value in frame[name].to_list()] for name in frame.columns]
    needed = [max(map(cell_len, [name, *column])) for name, column in zip(frame.columns, cells, strict=True)]
    shown, limit = (len(cells), None) if width is None else _fitting(needed, width)
    table = Table(box=box.SIMPLE_HEAD)
    for name, dtype in list(frame.schema.items())[:shown]:
        table.add_column(
            escape(name),
            justify="right" if dtype.is_numeric() else "left",
            overflow="ellipsis",
            no_wrap=True,
            max_width=limit,
        )
    for row in zip(*cells[:shown], strict=True):
        table.add_row(*map(escape, row))
    return table


def _fitting(needed: list[int], width: int) -> tuple[int, int]:
    """How many of the columns have room, and how many characters the longest of them may have."""
    for shown in range(len(needed), 0, -1):
        for limit in range(CELL_CHARACTERS, COLUMN_CHARACTERS - 1, -1):
            if 1 + sum(3 + min(characters, limit) for characters in needed[:shown]) <= width:
                return shown, limit
    return 1, COLUMN_CHARACTERS


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as CSV; lists and structs, which CSV has no form for, as JSON text."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(name, [None if value is None else json.dumps(value, default=str) for value in frame[name].to_list()])
        for name in nested
    ]
    return frame.with_columns(texts).write_csv()


def size_text(size: float) -> str:
    """A number of bytes for people, in powers of 1,000."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _score_names(frame: pl.DataFrame) -> tuple[str, str]:
    names = list(json.loads(frame["scores"][0])["val"])
    return names[0], names[1]


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
