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
    """A table; numbers are aligned right and carry their full value for sorting."""
    told = f"<caption>{text(caption)}</caption>" if caption else ""
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in heads)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    label = text(caption or "table")
    inside = f'<table class="{kind}">{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{inside}</div>'


def _cell(value: Any) -> str:
    if isinstance(value, Raw):
        return f"<td>{value.html}</td>"
    if isinstance(value, float):
        return f'<td class="n" data-value="{value:.10g}">{number(value)}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="n" data-value="{value}">{value:,}</td>'
    return f"<td>{text(value)}</td>"


class Raw:
    """HTML that is safe already."""

    def __init__(self, html: str) -> None:
        self.html = html


def section(title: str, content: str, identifier: str) -> str:
    """A section with its heading; nothing for no content."""
    return f'<section id="{identifier}"><h2>{text(title)}</h2>{content}</section>' if content else ""


def figure(svg: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A picture with its caption and its numbers, which open on demand."""
    picture = f'<div role="img" aria-label="{text(caption)}">{svg}</div>' if svg else ""
    numbers = f"<details><summary>numbers</summary>{table(heads, rows, caption=caption)}</details>" if rows else ""
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption>{numbers}</figure>"
