"""Predictions as Parquet, one file or a dataset folder in hive style, or as CSV.

Promises little memory, however many predictions there are and however long their arrays: they are
read and written in slices of some megabytes, and DuckDB's own memory is bounded meanwhile. Columns
keep the types of the store; `scores` and `best_params` are JSON text. Pipelines follow each other
in the order of time, and so do the predictions of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from n4a_fast.durable.publish import new_file, new_folder
from n4a_fast.engine.connection import Database
from n4a_fast.errors import DamagedStoreError, InvalidInputError
from n4a_fast.predictions.queries import GROUPS, one_of, where_on_predictions
from n4a_fast.predictions.reading import ArrayReader
from n4a_fast.schema.columns import LOOKUP_COLUMNS, PREDICTIONS, WITHIN
from n4a_fast.values import checks
from n4a_fast.values.ahead import begun

Arrays = Literal["none", "numbers", "with labels"]

_MEMORY = 64 * 2**20  # bytes that DuckDB may use for its share of an export
_SLICE_BYTES = 16 * 2**20
_FEWEST, _MOST, _FIRST = 64, 20_000, 512  # rows in a slice
_MOST_FILES = 10_000
_LONGEST_FOLDER = 255  # bytes, for every file system
_COLUMNS = tuple(name for name in PREDICTIONS.names if name not in LOOKUP_COLUMNS)
_KEYS = "SELECT id_key FROM predictions{where}"
_VALUES = "SELECT DISTINCT {columns} FROM predictions{where} ORDER BY ALL NULLS FIRST"
_ROWS = (
    f"SELECT {{columns}}, id_key FROM predictions{{where}} {{also}} id_key {WITHIN} ORDER BY created_at, prediction_id"
)
# a dictionary of numbers that hardly repeat costs time and is given up at the end
_REPETITIVE = (
    *PREDICTIONS.names,
    *(f"{name}.list.element" for name in ("y_true", "sample_indices", "weights", "y_true_labels", "y_pred_labels")),
)


def export_predictions(
    database: Database,
    target: Path,
    arrays: Arrays,
    partition_by: str | Sequence[str] | None,
    filters: dict[str, Any],
) -> Path:
    """Write the predictions that match every filter; with `partition_by` as a folder with a file for each value of
    these columns.
    """
    where, params = where_on_predictions(database, filters)
    given = () if partition_by is None else partition_by
    listed = [given] if isinstance(given, str) else checks.texts(given, "partition_by")
    names = tuple(one_of(name, GROUPS, "partition_by") for name in listed)
    if len(set(names)) < len(names):
        raise InvalidInputError(f"partition_by={list(names)} names a column twice")
    if partition_by is None:
        with new_file(target) as draft:
            _write(_Source(database, _COLUMNS, arrays, where, params), draft)
        return target
    if not names:
        raise InvalidInputError(f"partition_by is empty; name some of {', '.join(GROUPS)}")
    with new_folder(target) as folder:
        _write_folder(database, folder, names, arrays, where, params)
    return target


def export_csv(database: Database, target: Path, filters: dict[str, Any]) -> Path:
    """Write the predictions that match every filter as CSV with a head; what is not known is an empty field."""
    where, params = where_on_predictions(database, filters)
    source = _Source(database, _COLUMNS, "none", where, params)
    schema = source.schema
    # a path that is given to the writer is closed with the garbage, and Windows renames no file that is open
    with new_file(target) as draft, pa.OSFile(str(draft), "wb") as file, pyarrow.csv.CSVWriter(file, schema) as writer:
        for table in source.slices():
            writer.write_table(table.cast(schema))
    return target


def _write_folder(
    database: Database, folder: Path, names: tuple[str, ...], arrays: Arrays, where: str, params: list[Any]
) -> None:
    columns = tuple(name for name in _COLUMNS if name not in names)
    values = database.rows(_VALUES.format(columns=", ".join(names), where=where), params)
    if len(values) > _MOST_FILES:
        raise InvalidInputError(
            f"partition_by={list(names)} would give {len(values)} files, more than {_MOST_FILES}; choose columns with"
            " fewer values"
        )
    if not values:  # a dataset without rows has its columns too
        _write(_Source(database, columns, arrays, where, params), folder / "data.parquet")
    for chosen in values:
        place = folder.joinpath(*(_segment(name, value) for name, value in zip(names, chosen, strict=True)))
        place.mkdir(parents=True)
        terms = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in names)
        also = f"{where} {'AND' if where else 'WHERE'} {terms}"
        _write(_Source(database, columns, arrays, also, [*params, *chosen]), place / "data.parquet")


def _segment(name: str, value: Any) -> str:
    """The name of a folder that holds one value, as Hive, Spark, DuckDB and Polars read it."""
    told = "__HIVE_DEFAULT_PARTITION__" if value in (None, "") else quote(str(value), safe=" ()[]+,;@!$&~")
    if len(folder := f"{name}={told}") > _LONGEST_FOLDER:
        raise InvalidInputError(
            f"{name}={value!r} is too long for a folder's name ({len(folder)} bytes of {_LONGEST_FOLDER}); leave it out"
            " of partition_by"
        )
    return folder


class _Source:
    """Slices of the matching predictions."""

    def __init__(
        self, database: Database, columns: Sequence[str], arrays: Arrays, where: str, params: list[Any]
    ) -> None:
        self._database, self._where, self._params = database, where, params
        self._arrays, self._labels = ArrayReader(database) if arrays != "none" else None, arrays == "with labels"
        self._sql = _ROWS.format(columns=", ".join(columns), where=where, also="AND" if where else "WHERE")

    @property
    def schema(self) -> pa.Schema:
        return self._between(0, -1).schema

    def slices(self) -> Iterator[pa.Table]:
        """All rows, the next slice chosen by the size of the last."""
        found = self._database.in_little_memory(
            _MEMORY, lambda: self._database.arrow(_KEYS.format(where=self._where), self._params)
        )
        if found["id_key"].null_count:
            raise DamagedStoreError(self._database.path, "predictions have no id_key")
        keys = np.sort(found["id_key"].to_numpy())
        start, size = 0, _FIRST
        while start < len(keys):
            last = keys[min(start + size, len(keys)) - 1]
            table = self._between(int(keys[start]), int(last))
            yield table
            start = int(np.searchsorted(keys, last, side="right"))
            size = int(np.clip(_SLICE_BYTES // max(table.nbytes // max(table.num_rows, 1), 1), _FEWEST, _MOST))

    def _between(self, first: int, last: int) -> pa.Table:
        return self._database.in_little_memory(_MEMORY, lambda: self._read(first, max(last, 0)))

    def _read(self, first: int, last: int) -> pa.Table:
        rows = self._database.arrow(self._sql, [*self._params, first, last])
        table = _as_text(rows.drop_columns("id_key"))
        if self._arrays is not None:
            for name, values in self._arrays.of(rows, labels=self._labels).arrow_columns().items():
                table = table.append_column(name, values)
        return table


def _write(source: _Source, draft: Path) -> None:
    """Each slice is written in another thread while the next one is read."""
    schema = source.schema
    with (
        pq.ParquetWriter(draft, schema, compression="zstd", use_dictionary=list(_REPETITIVE)) as writer,
        ThreadPoolExecutor(1, "n4a_fast-parquet") as pool,
    ):
        written: Callable[[], None] | None = None
        for table in source.slices():
            if written is not None:
                written()
            written = begun(pool, writer.write_table, table.cast(schema))
        if written is not None:
            written()


def _as_text(table: pa.Table) -> pa.Table:
    """JSON columns as plain strings: readers without the JSON type get them too."""
    for place, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table.replace_schema_metadata()
