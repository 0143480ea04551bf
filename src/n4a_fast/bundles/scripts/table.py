"""What every script has beside `predict`: checked spectra, tables from CSV files, and the command line.

A table may have a header (names, or wavelengths), sample names in its first column, any of the usual
separators, and decimal commas where the separator is not the comma.
"""

from __future__ import annotations

import csv
import sys
from typing import Any

import numpy as np

N_FEATURES = 1


def predict(X: Any) -> Any:
    """Stands for that of the script."""
    return X


# -- in every script from here on --


def predict_from_file(
    input_path: Any, output_path: Any = None, delimiter: str | None = None, skip_header: bool | None = None
) -> Any:
    """Predictions for the spectra in a CSV file, one a row; with `output_path` they are written there too.

    A header and names in the first column are found by what they are; `skip_header` and `delimiter` overrule that.
    """
    names, spectra = _read(input_path, delimiter, skip_header)
    found = predict(spectra)
    if output_path is not None:
        with open(output_path, "w", newline="", encoding="utf-8") as file:
            _write(file, names, found)
    return found


def _read(path: Any, delimiter: str | None, skip_header: bool | None) -> tuple[Any, Any]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        text = file.read()
    delimiter = delimiter or next((mark for mark in ("\t", ";", ",") if mark in text), " ")
    lines = text.splitlines()
    cells = [line.split() for line in lines] if delimiter == " " else list(csv.reader(lines, delimiter=delimiter))
    rows = [[cell.strip() for cell in row] for row in cells if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path} holds no rows")
    named = len(rows[-1]) == N_FEATURES + 1 if N_FEATURES else _number(rows[-1][0], delimiter) is None
    if skip_header or (skip_header is None and _is_header(rows, named, delimiter)):
        rows = rows[1:]
    names = [row[0] for row in rows] if named else None
    return names, np.array(
        [_values(path, number, row[named:], delimiter) for number, row in enumerate(rows, start=1)]
    ).reshape(len(rows), -1)


def _is_header(rows: list[list[str]], named: bool, delimiter: str) -> bool:
    """Whether the first row holds names, or wavelengths: numbers in even steps, as no spectrum has them."""
    if len(rows) < 2:
        return any(_number(cell, delimiter) is None for cell in rows[0][named:])
    values = [_number(cell, delimiter) for cell in rows[0][named - len(rows[1]) :]]
    if None in values:
        return True
    steps = np.diff(np.array(values, dtype=np.float64))
    return bool(
        len(steps) > 1 and (steps > 0).all() != (steps < 0).all() and np.abs(steps).max() <= 1.5 * np.abs(steps).min()
    )


def _values(path: Any, number: int, row: list[str], delimiter: str) -> list[Any]:
    values = [_number(cell, delimiter) for cell in row]
    if None in values:
        raise ValueError(f"{path}: row {number} of the spectra holds {row[values.index(None)]!r}, which is no number")
    if N_FEATURES and len(values) != N_FEATURES:
        raise ValueError(f"{path}: row {number} of the spectra has {len(values)} values, expected {N_FEATURES}")
    return values


def _number(cell: str, delimiter: str) -> float | None:
    """The number in a cell, NaN for an empty one; None when it is something else."""
    try:
        return float(cell.replace(",", ".") if delimiter != "," else cell) if cell else float("nan")
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
    """X as a float64 array of whole rows; ValueError when it is none."""
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
    if len(arguments) not in (1, 2) or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        if len(arguments) == 2:
            predict_from_file(arguments[0], arguments[1])
        else:
            names, spectra = _read(arguments[0], None, None)
            _write(sys.stdout, names, predict(spectra))
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
