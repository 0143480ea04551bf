"""SQLite's `datetime`, `date`, `julianday`, with their modifiers, as DuckDB's times."""

from __future__ import annotations

import re

from sqlglot import exp

from n4a_fast.errors import InvalidInputError

_NOW = "CAST(current_timestamp AT TIME ZONE 'UTC' AS TIMESTAMP)"
_SHIFT = re.compile(r"\s*([+-]?\s*\d+(?:\.\d+)?)\s+(second|minute|hour|day|month|year)s?\s*")
_START = re.compile(r"start of (day|month|year)")
_NAMES = ("datetime", "date", "julianday")


def change(query: exp.Expr) -> None:
    """Replace the calls in a query; InvalidInputError for a modifier that is not known."""
    for found in list(query.find_all(exp.Anonymous, exp.Date, exp.Datetime, exp.TsOrDsToDate)):
        name = str(found.this).lower() if isinstance(found, exp.Anonymous) else _name_of(found)
        if name in _NAMES:
            given = found.expressions if isinstance(found, exp.Anonymous) else _arguments(found)
            found.replace(_time(name, [item.copy() for item in given]))


def _name_of(found: exp.Expr) -> str:
    return "datetime" if isinstance(found, exp.Datetime) else "date"


def _arguments(found: exp.Expr) -> list[exp.Expr]:
    return [item for item in (found.this, found.args.get("expression"), *found.expressions) if item is not None]


def _time(name: str, given: list[exp.Expr]) -> exp.Expr:
    value = given[0] if given else exp.Literal.string("now")
    is_now = isinstance(value, exp.Literal) and value.this == "now"
    text = _NOW if is_now else f"CAST({value.sql('duckdb')} AS TIMESTAMP)"
    for modifier in given[1:]:
        text = _modified(text, str(modifier.this))
    text = f"date_trunc('second', {text})" if name == "datetime" else text
    if name == "date":
        text = f"CAST({text} AS DATE)"
    if name == "julianday":
        text = f"(julian({text}) - 0.5)"  # SQLite counts from noon
    return exp.maybe_parse(text, dialect="duckdb")


def _modified(text: str, modifier: str) -> str:
    if modifier in ("localtime", "utc", "auto", "subsec"):
        return text
    if start := _START.fullmatch(modifier):
        return f"date_trunc('{start[1]}', {text})"
    shift = _SHIFT.fullmatch(modifier)
    if shift is None:
        raise InvalidInputError(f"the modifier {modifier!r} of a time is not known here")
    return f"({text} + INTERVAL '{shift[1].replace(' ', '')} {shift[2]}')"
