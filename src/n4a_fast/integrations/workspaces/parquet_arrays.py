"""The arrays of nirs4all 0.8 and later: one Parquet file per dataset, the last row of a prediction counts.

Class labels that are texts or integers come as JSON with a vocabulary. Integers become numbers;
texts become positions in the sorted union of the labels that the prediction's targets name, and
the JSON is carried along.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from n4a_fast.errors import StoreUnavailableError
from n4a_fast.integrations.workspaces.batches import ARRAYS, ArrayBatch, views
from n4a_fast.values import jsontext

# repeated from the relational tables, or taken apart here
_KNOWN = frozenset(
    {
        "prediction_id",
        "dataset_name",
        "model_name",
        "fold_id",
        "partition",
        "metric",
        "val_score",
        "task_type",
        "sample_metadata",
        *ARRAYS,
        *(f"{name}_shape" for name in ARRAYS),
    }
)
_LABELS = ("y_true_labels", "y_pred_labels")
_MOST_SAMPLES = 10**7  # of a prediction, on the average of a row group
_READ_ROWS = 1024  # lists of a thousand samples each


class ParquetArrays:
    """The files below `arrays/`, read in pieces."""

    def __init__(self, folder: Path) -> None:
        # a link could lead anywhere, and a pipe would never end
        self._files = [file for file in sorted(folder.glob("*.parquet")) if file.is_file() and not file.is_symlink()]
        self._last: dict[str, int] = {}  # prediction -> the row that counts, and the file in the high bits
        for number, file in enumerate(self._files):
            ids = _opened(file).read(["prediction_id"])["prediction_id"].to_pylist()
            self._last.update({identifier: (number << 40) + row for row, identifier in enumerate(ids)})

    def __len__(self) -> int:
        return len(self._last)

    def state(self) -> object:
        """Names, sizes and times of the files."""
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self._files)

    def batches(self) -> Iterator[ArrayBatch]:
        """Every prediction once, with its last row."""
        for number, file in enumerate(self._files):
            start = 0
            for piece in _opened(file).iter_batches(_READ_ROWS):
                ids = piece["prediction_id"].to_pylist()
                kept = [
                    row for row, identifier in enumerate(ids) if self._last[identifier] == (number << 40) + start + row
                ]
                start += len(ids)
                if kept:
                    yield _batch(pa.table(piece).take(pa.array(kept)))


def _opened(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreUnavailableError(file, f"it is no Parquet file that can be read ({error})") from error
    if (reason := _unlikely(opened.metadata, file.stat().st_size)) is not None:
        raise StoreUnavailableError(file, reason)
    return opened


def _unlikely(told: pq.FileMetaData, nbytes: int) -> str | None:
    """Why a file cannot hold arrays of predictions, before anything is unpacked: what repeats takes no bytes in it.

    Each row has an id of its own, so there are no more rows than bytes; and a prediction has so many samples at most.
    """
    if told.num_rows > nbytes:
        return f"it states {told.num_rows} predictions in {nbytes} bytes"
    for number in range(told.num_row_groups):
        group = told.row_group(number)
        most = max((group.column(place).num_values for place in range(group.num_columns)), default=0)
        if most > _MOST_SAMPLES * max(group.num_rows, 1):
            return f"it states {most} values in {group.num_rows} predictions"
    return None


def _batch(table: pa.Table) -> ArrayBatch:
    arrays = {name: _column(table, name) for name in ARRAYS}
    carried: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    unknown = [name for name in table.column_names if name not in _KNOWN]
    for name in unknown:
        for content, value in zip(carried, table[name].to_pylist(), strict=True):
            content.update({} if value is None else {name: value})
    for place, content in enumerate(carried):
        for name, values in _labels(content).items():
            arrays[name][place] = values
    metadata = (
        table["sample_metadata"].to_pylist() if "sample_metadata" in table.column_names else [None] * table.num_rows
    )
    return ArrayBatch(table["prediction_id"].to_pylist(), arrays, metadata, carried)


def _column(table: pa.Table, name: str) -> list[np.ndarray[Any, Any] | None]:
    """An array of each row, in the shape that a column of shapes tells."""
    if name not in table.column_names:
        return [None] * table.num_rows
    flat = views(table[name], np.int64 if name == "sample_indices" else np.float64)
    if f"{name}_shape" not in table.column_names:
        return flat
    shapes = table[f"{name}_shape"].to_pylist()
    return [_shaped(value, shape) for value, shape in zip(flat, shapes, strict=True)]


def _shaped(flat: np.ndarray[Any, Any] | None, shape: list[int] | None) -> np.ndarray[Any, Any] | None:
    return (
        flat.reshape(shape)
        if flat is not None and shape is not None and len(shape) == 2 and shape[0] * shape[1] == len(flat)
        else flat
    )


def _labels(content: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Targets given as labels, as numbers."""
    payloads = {name.removesuffix("_labels"): jsontext.decode(content[name]) for name in _LABELS if content.get(name)}
    texts = sorted(
        {label for payload in payloads.values() for label in payload["vocabulary"] if isinstance(label, str)}
    )
    position = {label: place for place, label in enumerate(texts)}
    found = {}
    for name, payload in payloads.items():
        codes = np.array([position.get(label, label) for label in payload["vocabulary"]], np.float64)
        values = codes[np.asarray(payload["indices"], np.int64)] if len(codes) else codes
        found[name] = values.reshape(payload["shape"]) if len(payload["shape"]) == 2 else values
    return found
