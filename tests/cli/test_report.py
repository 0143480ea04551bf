"""Frames as text."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from rich.console import Console

from n4a_fast.cli.printing import csv_text, frame_table, size_text


def rendered(frame: pl.DataFrame) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100).print(frame_table(frame, 100))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (3e9, "3.0 GB"), (5e12, "5000.0 GB")],
)
def test_sizes_are_in_powers_of_a_thousand(size: float, text: str) -> None:
    assert size_text(size) == text


def test_table_keeps_each_row_on_one_line_and_within_the_width() -> None:
    frame = pl.DataFrame({f"column {n}": ["two\nlines and " + "more " * 50] * 3 for n in range(4)})
    lines = rendered(frame).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert sum("two lines" in line for line in lines) == 3


def test_table_shows_nulls_and_brackets_as_they_are() -> None:
    text = rendered(pl.DataFrame({"[red]name": ["[bold]x[/bold]", None]}))
    assert "[red]name" in text
    assert "[bold]x[/bold]" in text
    assert "NULL" in text


def test_empty_frame_has_its_headings() -> None:
    assert "score" in rendered(pl.DataFrame(schema={"score": pl.Float64}))
    assert csv_text(pl.DataFrame(schema={"score": pl.Float64})) == "score\n"


def test_csv_writes_lists_structs_and_nulls() -> None:
    frame = pl.DataFrame({"l": [[1.0, 2.5], None], "s": [{"a": 1}, {"a": 2}], "n": [1, 2]})
    read = pl.read_csv(io.StringIO(csv_text(frame)))
    assert json.loads(read["l"][0]) == [1.0, 2.5]
    assert read["l"][1] is None
    assert json.loads(read["s"][1]) == {"a": 2}
    assert read["n"].to_list() == [1, 2]


def test_a_narrow_table_keeps_short_columns_and_leaves_out_whole_ones() -> None:
    frame = pl.DataFrame(
        {"long": ["x" * 300], "n": [5], "other": ["y" * 300], **{f"column_{n}": [f"value {n}"] for n in range(20)}}
    )
    few = frame_table(frame.select("long", "n", "other"), 100)
    assert [column.header for column in few.columns] == ["long", "n", "other"]
    table = frame_table(frame, 100)
    text = rendered(frame)
    assert 5 <= len(table.columns) < frame.width
    assert max(map(len, text.splitlines())) <= 100
    headings, values = text.split(), next(line for line in text.splitlines() if "xxx" in line).split()
    assert "column_0" in headings
    assert values[1] == "5"
    assert len(frame_table(frame, None).columns) == frame.width
    assert len(frame_table(frame, 3).columns) == 1
