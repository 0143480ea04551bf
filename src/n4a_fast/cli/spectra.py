"""Spectra from a file: CSV, Parquet, npy or npz; never a spectrum lost or made up without a word.

The first line of a CSV is its head when it holds a text, or numbers that go steadily up or down as wavelengths do while
the next line does not; where both could be, `--header` decides. Columns of text are ids, or left out by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n4a_fast.errors import InvalidInputError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Spectra:
    """Spectra (n_samples, n_features), the wavelengths where columns are named by them, and what identifies each."""

    X: np.ndarray[Any, Any]
    wavelengths: np.ndarray[Any, Any] | None
    ids: list[Any]
    id_column: str

    def told(self) -> str:
        """What was read, in one line."""
        n, width = self.X.shape
        range_ = "" if self.wavelengths is None else f", {self.wavelengths[0]:g}-{self.wavelengths[-1]:g}"
        return f"read {n:,} spectra of {width:,} values{range_}, ids from {self.id_column}"


def read_spectra_file(
    path: Path, *, header: bool | None = None, id_column: str | None = None, drop: tuple[str, ...] = ()
) -> Spectra:
    """The spectra in a file; InvalidInputError, naming the place, for what is no number or cannot be told apart."""
    if not path.is_file():
        raise InvalidInputError(f"{path} is not a file; check the path")
    if path.suffix in (".npy", ".npz"):
        return _of_matrix(_array(path))
    if path.suffix == ".parquet":
        import polars as pl

        return _of_frame(pl.read_parquet(path), path, id_column, drop)
    return _of_frame(_csv(path, header), path, id_column, drop)


def _array(path: Path) -> np.ndarray[Any, Any]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        name = "X" if "X" in loaded.files else loaded.files[0] if len(loaded.files) == 1 else None
        if name is None:
            raise InvalidInputError(f"{path} holds {', '.join(loaded.files)}; name the spectra X")
        loaded = loaded[name]
    return np.atleast_2d(np.asarray(loaded, dtype=np.float64))


def _of_matrix(X: np.ndarray[Any, Any]) -> Spectra:
    if X.ndim != 2:
        raise InvalidInputError(f"spectra must be a matrix (n_samples, n_features), this has {X.ndim} dimensions")
    return Spectra(X, None, list(range(len(X))), "the row number")


def _csv(path: Path, header: bool | None) -> pl.DataFrame:
    import polars as pl

    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise InvalidInputError(f"{path} is empty")
    separator = max(";\t,", key=lines[0].count)
    comma = separator == ";" and "." not in lines[-1]
    rows = [[cell.strip().strip('"') for cell in line.split(separator)] for line in lines]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise InvalidInputError(f"{path}: lines have {min(widths)} to {max(widths)} cells; each spectrum needs as many")
    has_head = _has_head(rows, comma, path) if header is None else header
    names = rows[0] if has_head else [f"column {place}" for place in range(len(rows[0]))]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"{path}: two columns have the same name; name each once")
    body = rows[1:] if has_head else rows
    columns = {name: [_number(row[place], comma) for row in body] for place, name in enumerate(names)}
    return pl.DataFrame(
        {
            name: values if all(isinstance(v, float) for v in values) else [str(row[place]) for row in body]
            for place, (name, values) in enumerate(columns.items())
        }
    )


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _number(cell: str, comma: bool) -> float | str:
    try:
        return float(cell.replace(",", ".") if comma else cell)
    except ValueError:
        return cell


def _has_head(rows: list[list[str]], comma: bool, path: Path) -> bool:
    first = [_number(cell, comma) for cell in rows[0]]
    texts = [place for place, value in enumerate(first) if isinstance(value, str)]
    if texts:  # a text where the next line has a number is a name
        return (
            len(rows) < 2
            or any(isinstance(_number(rows[1][place], comma), float) for place in texts)
            or _steady(first[1:])
        )
    if not _steady(first):
        return False
    if len(rows) > 1 and _steady([_number(cell, comma) for cell in rows[1]]):
        raise InvalidInputError(f"{path}: the first line may be wavelengths or a spectrum; say --header or --no-header")
    return True


def _steady(values: list[float | str]) -> bool:
    """Whether these are numbers that go only up, or only down."""
    if len(values) < 3 or any(isinstance(value, str) for value in values):
        return False
    steps = np.diff(np.asarray(values, dtype=np.float64))
    return bool((steps > 0).all() or (steps < 0).all())


def _of_frame(frame: pl.DataFrame, path: Path, id_column: str | None, drop: tuple[str, ...]) -> Spectra:
    missing = [name for name in (*drop, *((id_column,) if id_column else ())) if name not in frame.columns]
    if missing:
        raise InvalidInputError(f"{path} has no column {missing[0]!r}; it has {', '.join(frame.columns[:8])}, ...")
    frame = frame.drop(*drop)
    texts = [name for name, dtype in frame.schema.items() if not dtype.is_numeric()]
    named = id_column or (texts[0] if texts else None)
    others = [name for name in texts if name != named]
    if others:
        raise InvalidInputError(f"{path}: column {others[0]!r} holds text; leave it out with --drop {others[0]!r}")
    values = frame.drop(named) if named else frame
    X = np.ascontiguousarray(values.to_numpy(), dtype=np.float64)
    ids = frame[named].to_list() if named else list(range(frame.height))
    return Spectra(X, _wavelengths(values.columns), ids, f"column {named!r}" if named else "the row number")


def _wavelengths(names: list[str]) -> np.ndarray[Any, Any] | None:
    try:
        found = np.array([float(name) for name in names])
    except ValueError:
        return None
    return found if len(found) > 1 else None
