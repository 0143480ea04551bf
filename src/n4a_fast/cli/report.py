"""Frames as text: tables for the terminal, CSV for programs.

Owns their layout. Promises one line a row and values that fit, cut where they do not; CSV is
never cut. Leaves asking the store to the commands, and plots to `plots`.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

CELL_CHARACTERS = 60


def leaderboard_table(frame: pl.DataFrame, title: str, shown: int) -> Table:
    """The first rows of a leaderboard: predictions of the fold "avg", best first, scores of both partitions."""
    metric, other = _score_names(frame)
    table = Table(title=f"{escape(title)}: best {min(shown, len(frame))} of {len(frame)} variants", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("#", "preprocessing", "model", f"{metric}\nval", f"{metric}\ntest", f"{other}\nval", f"{other}\ntest"):
        table.add_column(heading, justify="left" if heading in ("preprocessing", "model") else "right", vertical="bottom", no_wrap=True)
    for rank, row in enumerate(frame.head(shown).iter_rows(named=True), start=1):
        scores = json.loads(row["scores"])
        second = [f"{scores[partition][other]:.3f}" for partition in ("val", "test")]
        firsts = [f"{row[name]:.4g}" for name in ("val_score", "test_score")]
        table.add_row(str(rank), escape(row["preprocessings"]), escape(row["model_name"]), *firsts, *second)
    return table


def frame_table(frame: pl.DataFrame) -> Table:
    """Any frame as a table, one line a row; long values are cut."""
    table = Table(box=box.SIMPLE_HEAD)
    for name, dtype in frame.schema.items():
        table.add_column(escape(name), justify="right" if dtype.is_numeric() else "left", overflow="ellipsis", no_wrap=True)
    for row in frame.iter_rows():
        table.add_row(*(escape(_cell(value)) for value in row))
    return table


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as CSV; lists and structs, which CSV has no form for, as JSON text."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [pl.Series(name, [None if value is None else json.dumps(value, default=str) for value in frame[name].to_list()]) for name in nested]
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
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= CELL_CHARACTERS else f"{text[: CELL_CHARACTERS - 1]}…"
