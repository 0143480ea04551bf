"""What every script has beside `predict`: checked spectra, tables from text files, and the command line.

Promises one prediction for each spectrum in a table, or an error that names the line. A table may have a
header (names, or wavelengths), leading columns that name its rows, comment lines, quotes, any of the usual
separators, decimal commas, and any of the usual encodings; it may be packed by gzip.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from typing import Any

import numpy as np

N_FEATURES = 1
COLUMNS: list[str] = []
WAVELENGTHS: list[float] = []


def predict(X: Any) -> Any:
    """Stands for that of the script."""
    return X


# -- in every script from here on --


def predict_from_file(
    input_path: Any, output_path: Any = None, delimiter: str | None = None, skip_header: bool | None = None
) -> Any:
    """Predictions for the spectra in a table, one a row; with `output_path` they are written there too.

    A header and names of rows are found by what they are; `skip_header` and `delimiter` overrule that. ValueError
    names the line that is no spectrum.
    """
    names, spectra = _read(input_path, delimiter, skip_header)
    found = predict(spectra)
    if output_path is not None:
        with open(output_path, "w", newline="", encoding="utf-8") as file:
            _write(file, names, found)
    return found


def _read(path: Any, delimiter: str | None, skip_header: bool | None) -> tuple[Any, Any]:
    """Names of the rows, or None, and the spectra."""
    rows = _rows(path, _text(path), delimiter)
    if not rows:
        raise ValueError(f"{path} holds no rows")
    if all(len(row) > 1 and not row[-1] for _, row in rows):  # each line ends with a delimiter
        rows = [(line, row[:-1]) for line, row in rows]
    named = _columns_of_names(path, rows)
    header = _is_header(path, rows, named) if skip_header is None else skip_header
    if header:
        _check_header(path, rows[0][0], rows[0][1])
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{path} holds a header and no spectra")
    comma = any("," in cell for _, row in rows for cell in row[named:])
    values = [_values(path, line, row, named, comma) for line, row in rows]
    return [" ".join(row[:named]) for _, row in rows] if named else None, np.array(values, dtype=np.float64)


def _text(path: Any) -> str:
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if b"\0" in data[:2]:  # digits and separators in two bytes, without a mark of their order
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _rows(path: Any, text: str, delimiter: str | None) -> list[tuple[int, list[str]]]:
    """Line number and cells of each row; comments, empty lines and a `sep=` line left out."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if lines and lines[0][1].strip().strip('"').lower().startswith("sep="):
        delimiter = delimiter or lines[0][1].strip().strip('"')[4:] or None
        lines = lines[1:]
    lines = [(number, line) for number, line in lines if not line.lstrip('" \t').startswith("#")]
    best: list[tuple[int, list[str]]] = []
    for mark in [delimiter] if delimiter else ["\t", ";", "|", ",", " "]:
        rows = [(number, _cells(line, mark)) for number, line in lines]
        rows = [(number, row) for number, row in rows if any(row)]
        if not best or _fits(rows) > _fits(best):
            best = rows
    return best


def _cells(line: str, delimiter: str) -> list[str]:
    cells = line.split() if delimiter == " " else next(csv.reader([line], delimiter=delimiter), [])
    return [cell.strip().strip('"') for cell in cells]


def _fits(rows: list[tuple[int, list[str]]]) -> tuple[int, bool]:
    """How many rows a separator cuts into enough cells, and whether it cuts at all."""
    width = len(rows[-1][1]) if rows else 0
    return sum(len(row) >= (N_FEATURES or width) for _, row in rows) if N_FEATURES else 0, width > 1


def _columns_of_names(path: Any, rows: list[tuple[int, list[str]]]) -> int:
    """How many leading columns name the rows; ValueError where an extra column may be anything."""
    line, last = rows[-1]
    if not N_FEATURES:
        return int(_number(last[0], True) is None)
    extra = len(last) - N_FEATURES
    if extra <= 0:
        return 0
    body = [row for _, row in rows[1:]] or [last]
    texts = all(any(_number(row[place], True) is None for row in body if place < len(row)) for place in range(extra))
    first = rows[0][1]
    tail = [_number(cell, True) for cell in first[extra:]]
    words = all(cell and _number(cell, True) is None for cell in first[:extra])
    corner = first[:extra] == [""] * extra or (words and (None not in tail or _matches(tail, first[extra:])))
    counted = all(_counts([row[place] for row in body if place < len(row)]) for place in range(extra))
    if texts or (corner and len(first) == len(last)) or (counted and len(first) == N_FEATURES):
        return extra
    raise ValueError(
        f"{path}: line {line} has {len(last)} values, expected {N_FEATURES}, and nothing tells which of them are no"
        " part of the spectrum; remove these columns, or name the rows by texts in the first column"
    )


def _counts(cells: list[str]) -> bool:
    """Whether these are different whole numbers, as rows are numbered."""
    return len(set(cells)) == len(cells) and all(cell.isdecimal() for cell in cells)


def _is_header(path: Any, rows: list[tuple[int, list[str]]], named: int) -> bool:
    """Whether the first row holds names or wavelengths, told by what the rows below it hold."""
    line, first = rows[0]
    others = [row for _, row in rows[1:]]
    if others and len(first) == len(others[0]) - named and named:
        return True  # row names have no title, as R writes it
    cells = first[named:]
    values = [_number(cell, True) for cell in cells]
    if _matches(values, cells):
        return True
    if None in values:
        return _is_of_names(path, line, cells, values, others)
    axis = np.array(values, dtype=np.float64)
    if len(axis) < 3 or not _is_monotonic(axis):
        return False
    return _is_axis(path, line, axis, [row[named:] for row in others])


def _is_of_names(path: Any, line: int, cells: list[str], values: list[Any], others: list[list[str]]) -> bool:
    """True for a row of names; ValueError for a spectrum with something else in it."""
    letters = any(character.isalpha() for cell in cells for character in cell)
    if not letters or (others and values.count(None) * 2 < len(values)):
        raise ValueError(f"{path}: line {line} holds {cells[values.index(None)]!r}, which is no number")
    return True


def _matches(values: list[Any], cells: list[str]) -> bool:
    """Whether a row is the header that this script was made with."""
    return bool(COLUMNS and cells == COLUMNS) or _same_axis(values, WAVELENGTHS)


def _same_axis(values: list[Any], axis: list[float]) -> bool:
    return None not in values and len(values) == len(axis) > 0 and np.allclose(values, axis, rtol=1e-5, atol=0.0)


def _is_monotonic(values: Any) -> bool:
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def _is_axis(path: Any, line: int, axis: Any, others: list[list[str]]) -> bool:
    """Whether rising or falling numbers are wavelengths; ValueError where they may be a spectrum as well."""
    below = [np.array([np.nan if (value := _number(cell, True)) is None else value for cell in row]) for row in others]
    highest = max((np.nanmax(np.abs(row)) for row in below if np.isfinite(row).any()), default=np.inf)
    if np.abs(axis).min() > 3.0 * highest:
        return True
    even = [np.abs(np.diff(values)) for values in ([axis, 1.0 / axis] if (axis != 0).all() else [axis])]
    if len(axis) >= 5 and any(steps.max() <= 1.01 * steps.min() for steps in even):
        return True
    if any(len(row) == len(axis) and _is_monotonic(row) for row in below):
        return False
    if len(axis) >= 8 or (axis >= 100.0).all():
        raise ValueError(
            f"{path}: line {line} may hold wavelengths or a spectrum; say which with --header or --no-header"
            " (skip_header=True or False)"
        )
    return False


def _check_header(path: Any, line: int, first: list[str]) -> None:
    """ValueError for a header that names other columns than those the chain was trained on."""
    cells = first[-N_FEATURES:] if N_FEATURES else first
    expected: list[Any] = COLUMNS
    if not COLUMNS and not any(_number(cell, True) is None for cell in cells):
        expected = WAVELENGTHS
    for place, wanted in enumerate(expected):
        if place >= len(cells) or not _is_same(cells[place], wanted):
            found = repr(cells[place]) if place < len(cells) else "missing"
            raise ValueError(
                f"{path}: line {line} names other columns: column {place + 1} of the spectra is {found}, the chain was"
                f" trained on {wanted!r}; give the same columns in the same order"
            )


def _is_same(cell: str, wanted: Any) -> bool:
    """Whether a header's cell is this column: its name, the same number, or with the X that R puts before numbers."""
    number, plain = _number(str(wanted), True), cell[1:] if cell[:1] == "X" else cell
    return cell == wanted or (number is not None and _same_axis([_number(plain, True)], [number]))


def _values(path: Any, line: int, row: list[str], named: int, comma: bool) -> list[float]:
    cells = row[named:]
    if N_FEATURES and len(cells) != N_FEATURES:
        raise ValueError(f"{path}: line {line} has {len(cells)} values, expected {N_FEATURES}")
    values = [_number(cell, comma) if not (comma and "." in cell) else None for cell in cells]
    for place, value in enumerate(values):
        if value is None:
            raise ValueError(f"{path}: line {line} holds {cells[place]!r}, which is no number")
        if not np.isfinite(value):
            raise ValueError(f"{path}: line {line} holds an empty or infinite value; fill it or remove the line")
    return values  # type: ignore[return-value]


def _number(cell: str, comma: bool) -> float | None:
    """The number in a cell, NaN for an empty one; None when it is something else."""
    try:
        return float(cell.replace(",", ".") if comma else cell) if cell else float("nan")
    except ValueError:
        return None


def _write(file: Any, names: list[str] | None, found: Any) -> None:
    columns = found.reshape(len(found), -1)
    titles = ["prediction"] if columns.shape[1] == 1 else [f"prediction_{number}" for number in range(columns.shape[1])]
    writer = csv.writer(file)
    writer.writerow(["sample", *titles] if names else titles)
    for number, row in enumerate(columns.tolist()):
        writer.writerow([names[number], *row] if names else row)


def checked(X: Any) -> Any:
    """X as a float64 array of whole rows; ValueError when it is none, or a table with other columns."""
    names = [str(name) for name in getattr(X, "columns", [])]
    if COLUMNS and names and names != [str(place) for place in range(len(names))]:
        _check_header("X", 0, names)
    kind = np.asarray(X).dtype.kind
    if isinstance(X, np.ma.MaskedArray) or kind in "cmM":
        raise ValueError(f"X is a {type(X).__name__} of {np.asarray(X).dtype}; give a plain array of real numbers")
    rows = np.array(X, dtype=np.float64, ndmin=1)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"X has shape {rows.shape}; give samples in rows and wavelengths in columns")
    if N_FEATURES and rows.shape[1] != N_FEATURES:
        raise ValueError(f"X has {rows.shape[1]} columns, expected {N_FEATURES}; give spectra on the same wavelengths")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} of X holds NaN or infinite values; fill or drop it")
    return rows


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spectra", help="a table of spectra, one a row")
    parser.add_argument("predictions", nargs="?", help="the file to write; without it they are printed")
    parser.add_argument("--header", action="store_true", default=None, help="the first row is no spectrum")
    parser.add_argument("--no-header", dest="header", action="store_false", help="the first row is a spectrum")
    parser.add_argument("--delimiter", help="what separates the values")
    asked = parser.parse_args(arguments)
    try:
        if asked.predictions:
            predict_from_file(asked.spectra, asked.predictions, asked.delimiter, asked.header)
        else:
            names, spectra = _read(asked.spectra, asked.delimiter, asked.header)
            _write(sys.stdout, names, predict(spectra))
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
