"""What commands print: rows as a table, CSV, Markdown, or JSON with a schema.

Tables keep to the terminal's width, in a pipe they are as wide as they need; columns that have no room are left out
from the right, never ranks, ids or scores. JSON has every column, whole ids, times in UTC and full precision.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from n4a_fast.cli.application import readable, say
from n4a_fast.values.texttable import Column, plain, short_ids, table

_PIECE = 2**16  # characters


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    MD = "md"


FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="How to print it.", envvar="N4A_FAST_FORMAT", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
WideOption = Annotated[bool, typer.Option("--wide", help="All columns and whole ids, whatever the width.")]
CountOption = Annotated[int, typer.Option("-n", min=0, help="How many at most.", envvar="N4A_FAST_N")]


@dataclass(frozen=True, slots=True)
class Style:
    """How a command prints: the format, how wide a table may be (None: as wide as it needs), and what gives the columns
    that had no room.
    """

    format: Format
    width: int | None
    cure: str

    @property
    def whole_ids(self) -> bool:
        """Whether ids are printed whole: there is room, or a program reads them."""
        return self.width is None

    @property
    def is_json(self) -> bool:
        return self.format in (Format.JSON, Format.JSONL)


def style(given: Format = Format.TABLE, as_json: bool = False, wide: bool | None = None) -> Style:
    """The style asked for, on the stdout that there is; `wide` of commands that have the option."""
    cure = "a wider terminal or a pipe has room" if wide is None else "--wide"
    return Style(Format.JSON if as_json else given, None if wide else terminal_width(), cure)


def terminal_width() -> int | None:
    """Columns of the terminal, or `$COLUMNS`; None for a pipe or a file."""
    named = os.environ.get("COLUMNS", "")
    if named.isdigit() and int(named):
        return int(named)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def write(text: str) -> None:
    """A line, or lines, of data."""
    _pieces(readable(text, sys.stdout) + "\n")


def write_data(text: str) -> None:
    """Lines for another program, as they are; a terminal gets them as `write` gives them."""
    if sys.stdout.isatty():
        write(text)
    else:
        _pieces(text + "\n")


def _pieces(told: str) -> None:
    for start in range(0, len(told), _PIECE):  # an unbuffered stdout tells of a closed pipe with the next piece only
        sys.stdout.write(told[start : start + _PIECE])


@contextmanager
def working(what: str) -> Iterator[None]:
    """On a terminal, a bar that moves while the block works, and goes with its end; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    from n4a_fast.cli.workspaces import moving_bar

    with moving_bar(what):
        yield


def document(name: str, place: Path, rows: Sequence[dict[str, Any]], truncated: bool = False, **more: Any) -> str:
    """Rows as the JSON document of a command."""
    head = {"schema": f"n4a_fast.{name}/1", "workspace": str(place.resolve()), "truncated": truncated}
    return json_text({**head, **plain_json(more), "rows": [json_row(row) for row in rows]})


def print_document(name: str, place: Path, content: dict[str, Any]) -> None:
    """One object as the JSON document of a command."""
    head = {"schema": f"n4a_fast.{name}/1", "workspace": str(place.resolve())}
    write(json_text({**head, **plain_json(content)}))


def show_rows(
    name: str,
    place: Path,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[Column],
    how: Style,
    *,
    truncated: bool = False,
    nothing: str = "nothing to show",
) -> None:
    """Rows in the style asked for; why there are none goes to stderr."""
    if how.format is Format.JSON:
        write(document(name, place, rows, truncated))
    elif how.format is Format.JSONL:
        for row in rows:
            write(json_text(json_row(row)))
    elif how.format is Format.CSV:
        print_csv(rows)
    elif how.format is Format.MD:
        print_markdown(columns)
    elif rows:
        print_table(columns, how)
    if not rows:
        say(nothing)


def print_table(columns: Sequence[Column], how: Style, indent: str = "") -> None:
    """A table, and on stderr what had no room."""
    lines = table(columns, how.width, indent)
    write(str(lines))
    if lines.left_out:
        say_left_out(len(lines.left_out), how, f" ({', '.join(lines.left_out)})")


def say_left_out(number: int, how: Style, names: str = "") -> None:
    """On stderr, how many columns had no room, and what gives them."""
    say(f"+{number} column{'s'[: number != 1]}{names}: {how.cure}")


def print_csv(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as CSV; lists and objects as JSON text."""
    if rows:
        write_data("\n".join(_csv_line(values) for values in (rows[0], *(row.values() for row in rows))))


def _csv_line(values: Iterable[Any]) -> str:
    """One row; Python quotes a lone carriage return only where lines end with one."""
    import csv

    line = io.StringIO(newline="")
    csv.writer(line).writerow(map(_csv_cell, values))
    return line.getvalue().removesuffix("\r\n")


def print_markdown(columns: Sequence[Column]) -> None:
    """A table in GitHub's Markdown."""
    write("| " + " | ".join(_markdown(column.title) for column in columns) + " |")
    write("|" + "|".join("---:" if column.right else "---" for column in columns) + "|")
    for place in range(len(columns[0].cells) if columns else 0):
        write("| " + " | ".join(_markdown(column.cells[place]) for column in columns) + " |")


def columns_of(
    rows: Sequence[dict[str, Any]], kept: Sequence[str] = (), ids: Sequence[str] = (), whole: bool = True
) -> list[Column]:
    """The columns of any rows, named by their keys; `ids` are shortened unless `whole`."""
    found = []
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        right = any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        cells = [cell(value) for value in values]
        if name in ids and not whole:
            cells = short_ids(cells)
        found.append(Column(name, cells, right, name in kept or name in ids, cut=not right and name not in ids))
    return found


def cell(value: Any) -> str:
    """A value as one line of text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, list | dict):
        return plain(json.dumps(plain_json(value), ensure_ascii=False))
    return plain(value)


def json_text(value: Any) -> str:
    """A value as JSON on one line, in which every character can be seen; others are escaped, as JSON may."""
    told = json.dumps(value, ensure_ascii=False)
    return (
        told if told.isprintable() else "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in told)
    )


def json_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON; what is NaN or infinite is null, and named under "nan"."""
    nan = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**plain_json(row), **({"nan": nan} if nan else {})}


def plain_json(value: Any) -> Any:
    """A value as JSON knows it: times in ISO 8601 with Z, paths as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def size_text(size: float) -> str:
    """A number of bytes for people, in powers of 1,000."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def time_text(seconds: float) -> str:
    """A duration as hh:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(plain_json(value), ensure_ascii=False)
    return plain_json(value) if isinstance(value, datetime | date) else value


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
