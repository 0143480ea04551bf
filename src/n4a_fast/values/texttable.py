"""Rows as lines of plain text, within a width: long texts are cut, then columns left out, never those that matter.

What is printed is the text as it is, on one line: no markup, no escapes of the terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_GAP = "  "
_SHORTEST = 12  # characters that a cut text keeps at least
_SHORT_ID = 8
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of text cells: `kept` ones are never left out, `cut` ones may be shortened."""

    title: str
    cells: Sequence[str]
    right: bool = False
    kept: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """A table as text: the head, a line a row, and the titles of columns that had no room."""

    head: str
    rows: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.head, *self.rows])


def table(columns: Sequence[Column], width: int | None = None, indent: str = "") -> Lines:
    """The columns side by side; within `width` characters, None for as many as it takes."""
    room = None if width is None else width - len(indent)
    shown, limit = _fitting(columns, room)
    left_out = tuple(column.title for column in columns if column not in shown)
    return Lines(
        indent + _line([(column, _cut(column.title, limit if column.cut else None)) for column in shown], shown, limit),
        tuple(
            indent + _line([(column, column.cells[place]) for column in shown], shown, limit)
            for place in range(len(columns[0].cells) if columns else 0)
        ),
        left_out,
    )


def plain(value: Any) -> str:
    """A value as text on one line: what would move the cursor or change colours is taken out."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else number(value) if isinstance(value, float) else str(value)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in text)


def plain_lines(text: str) -> str:
    """The same for a text of several lines."""
    return text if text.isprintable() else "\n".join(map(plain, text.split("\n")))


def shortened(text: str) -> str:
    """A text as it is up to two thousand characters, of a longer one the beginning and the end."""
    if len(text) <= _LONGEST:
        return text
    kept = _LONGEST // 2
    return f"{text[:kept]} ... ({len(text) - 2 * kept:,} characters left out) ... {text[-kept:]}"


def number(value: float | None, digits: int = 4) -> str:
    """A score for people: four significant digits."""
    return "" if value is None else f"{value:.{digits}g}"


def short_ids(identifiers: Sequence[str]) -> list[str]:
    """The ends of ids, long enough that no two of these look the same: ids begin with the time."""
    distinct = set(identifiers)
    length = _SHORT_ID
    while len({each[-length:] for each in distinct}) < len(distinct):
        length += 1
    return [each[-length:] for each in identifiers]


def cell_width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _fitting(columns: Sequence[Column], width: int | None) -> tuple[list[Column], int | None]:
    """The columns that have room, and to how many characters those that may be cut are cut."""
    shown = list(columns)
    if width is None:
        return shown, None
    while True:
        longest = max((_needed(column) for column in shown if column.cut), default=_SHORTEST)
        for limit in range(max(longest, _SHORTEST), _SHORTEST - 1, -1):
            if _total(shown, limit) <= width:
                return shown, limit
        dropped = next((column for column in reversed(shown) if not column.kept), None)
        if dropped is None:
            return shown, _SHORTEST
        shown.remove(dropped)


def _needed(column: Column) -> int:
    return max(map(cell_width, [column.title, *column.cells]))


def _width(column: Column, limit: int | None) -> int:
    needed = _needed(column)
    return min(needed, limit) if column.cut and limit is not None else needed


def _total(columns: Sequence[Column], limit: int) -> int:
    return sum(_width(column, limit) for column in columns) + len(_GAP) * (len(columns) - 1)


def _line(cells: Sequence[tuple[Column, str]], columns: Sequence[Column], limit: int | None) -> str:
    parts = []
    for column, cell in cells:
        text, width = _cut(cell, limit if column.cut else None), _width(column, limit)
        space = " " * (width - cell_width(text))
        parts.append(space + text if column.right else text + space)
    return _GAP.join(parts).rstrip()


def _cut(text: str, limit: int | None) -> str:
    if limit is None or cell_width(text) <= limit:
        return text
    kept = text[:limit]
    while cell_width(kept) > limit - 1:
        kept = kept[:-1]
    return kept + "…"
