"""Pieces of HTML from values: everything that comes from users is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from n4a_fast.values.texttable import number, plain


def text(value: Any) -> str:
    """A value as text that is safe between tags and in attributes."""
    return escape(plain(value), quote=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "", caption: str = "") -> str:
    """A table; numbers are aligned right, as their heads are, and carry their full value for sorting."""
    told = f"<caption>{text(caption)}</caption>" if caption else ""
    right = [any(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * len(heads)
    sides = [' class="n"' if each else "" for each in right]
    head = "".join(f'<th scope="col"{side}>{text(each)}</th>' for each, side in zip(heads, sides, strict=True))
    body = "".join("<tr>" + "".join(map(_cell, row, sides)) + "</tr>" for row in rows)
    label = text(caption or "table")
    inside = f'<table class="{kind}">{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{inside}</div>'


def _cell(value: Any, side: str) -> str:
    if isinstance(value, Raw):
        shown, sorts = value.html, value.number
    elif isinstance(value, float):
        shown, sorts = number(value), value
    elif _is_number(value):
        shown, sorts = f"{value:,}", value
    else:
        shown, sorts = text(value), None
    given = "" if sorts is None else f' data-value="{sorts:.10g}"'
    return f"<td{side}{given}>{shown}</td>"


def _is_number(value: Any) -> bool:
    if isinstance(value, Raw):
        return value.number is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


class Raw:
    """HTML that is safe already, and the number that it stands for, if it is one."""

    def __init__(self, html: str, number: float | None = None) -> None:
        self.html, self.number = html, number


def counted(number: int, what: str) -> str:
    """A number of things: 1 run, 2 runs."""
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def section(title: str, content: str, identifier: str) -> str:
    """A section with its heading; nothing for no content."""
    return f'<section id="{identifier}"><h2>{text(title)}</h2>{content}</section>' if content else ""


def figure(svg: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A picture with its caption and its numbers, which open on demand."""
    picture = f'<div role="img" aria-label="{text(caption)}">{svg}</div>' if svg else ""
    numbers = f"<details><summary>numbers</summary>{table(heads, rows, caption=caption)}</details>" if rows else ""
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption>{numbers}</figure>"
