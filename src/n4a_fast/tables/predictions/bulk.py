"""Many predictions in one call: columns and arrays turned into the tables of a batch.

Design choices:
(a) A contiguous float64 matrix becomes an Arrow list column over the same memory: no copy.
(b) Rows go out in slices, so memory is bounded by the slice, whatever the caller passes.
(c) Targets, indices and weights are addressed by content, as in the drop-in calls, so both
    ways fill the same tables; an array shared by all rows is hashed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast._native.columns import ListColumn
from n4a_fast.engine.connection import ROW_GROUP
from n4a_fast.errors import InvalidInputError
from n4a_fast.schema.columns import (
    LOOKUP_COLUMNS,
    PREDICTION_VALUES,
    PREDICTIONS,
    PREDICTIONS_ENCODED,
    SHARED_ARRAYS,
    SHARED_INDICES,
)
from n4a_fast.tables.predictions import arrays, labels
from n4a_fast.tables.predictions.contents import content_hash, lists, width_of
from n4a_fast.tables.predictions.keys import Column, Keys, id_keys, natural_keys
from n4a_fast.tables.predictions.pending import PredictionBatch
from n4a_fast.values import checks, jsontext

SLICE_ROWS = 65_536  # at most; whole row groups of DuckDB bypass its log, and each INSERT leaves blocks half full
_COPIED = 32 * 2**20  # bytes of arrays that a slice copies: those that are given one by one

_GIVEN = tuple(name for name in PREDICTIONS.names if name not in ("created_at", *LOOKUP_COLUMNS))
_REQUIRED = ("pipeline_id", "dataset_name", "model_name", "model_class", "fold_id", "partition")
_DEFAULTS: dict[str, Any] = {"preprocessings": "", "exclusion_count": 0, "exclusion_rate": 0.0}
_JSON = ("scores", "best_params")
_ARRAYS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")
_PER_SAMPLE, _TARGETS = _ARRAYS[:4], _ARRAYS[:2]


@dataclass(frozen=True, slots=True)
class Bulk:
    """Checked columns and arrays of one `save_predictions` call."""

    rows: int
    columns: Mapping[
        str, Column
    ]  # the fields of save_prediction, a value for all rows or one each; prediction_id may be NULL
    arrays: Mapping[str, Any]
    keys: Keys
    keys_are_distinct: bool
    encoded: bool  # all JSON was encoded here: none was given as text
    classes: str | None = None  # JSON text: the labels that the targets are places among

    @property
    def ids_follow(self) -> bool:
        """Whether every id follows from its key."""
        return isinstance(self.columns["prediction_id"], pa.Scalar)

    def distinct(self, name: str) -> list[str]:
        """The ids that a column names, None left out."""
        column = self.columns[name]
        values = [column.as_py()] if isinstance(column, pa.Scalar) else column.unique().to_pylist()
        return [value for value in values if value is not None]


def checked(columns: Any, given_arrays: Mapping[str, Any], labels_of: Sequence[str] | None = None) -> Bulk:
    """The arguments of `save_predictions`, `labels_of` its `classes`; InvalidInputError names the column or array that
    does not fit.
    """
    by_name = _by_name(columns)
    unknown = sorted(set(by_name) - set(_GIVEN))
    missing = [name for name in _REQUIRED if name not in by_name]
    if unknown or missing:
        what = f"unknown column {', '.join(unknown)}" if unknown else f"missing column {', '.join(missing)}"
        raise InvalidInputError(f"{what}; columns are the arguments of save_prediction")
    given = {name: value for name, value in given_arrays.items() if value is not None}
    for name, value in given.items():
        checks.array(value, name)
    present, classes = labels.coded_arguments(given, labels_of)
    rows = _row_count(by_name, present)
    table = {name: _column(name, by_name.get(name, _DEFAULTS.get(name))) for name in _GIVEN}
    for name in _REQUIRED:
        column = table[name]
        nulls = rows * (not column.is_valid) if isinstance(column, pa.Scalar) else column.null_count
        if nulls:
            raise InvalidInputError(f"column {name} has {nulls} missing values; give every row one")
    by_row = {name: _rows_of(name, value, rows) for name, value in present.items()}
    _check_agreement(by_row, rows)
    keys = natural_keys(table, rows)
    encoded = all(name not in by_name or _is_encoded(by_name[name]) for name in _JSON)
    return Bulk(rows, table, by_row, keys, keys.are_distinct(), encoded, classes)


def slices(bulk: Bulk) -> Iterator[tuple[pa.StringArray, dict[str, pa.Table]]]:
    """Ids and tables of each slice, in order."""
    keys, may_repeat = bulk.keys, not (bulk.ids_follow and bulk.keys_are_distinct)
    most = _rows_at_once(bulk)
    for start in range(0, bulk.rows, most):
        rows = slice(start, min(start + most, bulk.rows))
        part = {name: _expanded(name, column, rows) for name, column in bulk.columns.items()}
        identifiers, id_key = keys[rows].prediction_ids(), pa.array(keys[rows].id_key)
        if not bulk.ids_follow:
            identifiers = pc.coalesce(part["prediction_id"], identifiers)
            id_key = pa.array(id_keys(identifiers))
        given = {name: value if _is_shared(value) else value[rows] for name, value in bulk.arrays.items()}
        stamp = pa.repeat(pa.scalar(checks.now(), PREDICTIONS.field("created_at").type), len(identifiers))
        part.update(prediction_id=identifiers, id_key=id_key, nk=pa.array(keys[rows].nk), created_at=stamp)
        table = _rows_table(part, bulk.encoded)
        if may_repeat and not _are_distinct(numbers := keys[rows].numbers(), identifiers):
            yield _one_after_the_other(table, numbers, given, bulk)
        else:
            yield identifiers, {"predictions": table, **array_tables(given, identifiers, id_key, bulk.classes)}


def _rows_at_once(bulk: Bulk) -> int:
    """How many rows a slice has."""
    listed = (value for values in bulk.arrays.values() if isinstance(values, list) for value in values)
    nbytes = sum(value.nbytes for value in listed if value is not None)
    groups = _COPIED * bulk.rows // nbytes // ROW_GROUP if nbytes else SLICE_ROWS
    return min(SLICE_ROWS, max(1, groups) * ROW_GROUP)


def _rows_table(columns: Mapping[str, pa.Array | pa.ChunkedArray], encoded: bool) -> pa.Table:
    """The table `predictions`; DuckDB is told where JSON was `encoded` here."""
    schema = PREDICTIONS_ENCODED if encoded else PREDICTIONS
    fields = [field.with_type(columns[field.name].type) for field in schema]
    return pa.table([columns[name] for name in schema.names], schema=pa.schema(fields))


def _expanded(name: str, column: Column, rows: slice) -> pa.Array | pa.ChunkedArray:
    """The values of some rows; a text that all of them share is kept once."""
    count = rows.stop - rows.start
    if not isinstance(column, pa.Scalar):
        return column.slice(rows.start, count)
    if name in _JSON:  # of encoded JSON DuckDB takes texts, or views of texts
        return pa.repeat(pa.scalar(column.as_py(), pa.string_view()), count)
    if not pa.types.is_string(column.type):
        return pa.repeat(column, count)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array([column.as_py()], column.type))


def _are_distinct(keys: list[int], identifiers: pa.StringArray) -> bool:
    return bool(len(set(keys)) == len(keys) == pc.count_distinct(identifiers).as_py())


def _one_after_the_other(
    rows: pa.Table, keys: list[int], given: Mapping[str, Any], bulk: Bulk
) -> tuple[pa.StringArray, dict[str, pa.Table]]:
    """The ids and tables that saving row by row would give, for rows that replace one another."""
    batch, identifiers = PredictionBatch(), []
    for place, (row, key) in enumerate(
        zip(zip(*(column.to_pylist() for column in rows.columns), strict=True), keys, strict=True)
    ):
        identifiers.append(batch.put(row, key))
        of_row = {name: value if _is_shared(value) else value[place] for name, value in given.items()}
        if any(value is not None for value in of_row.values()):
            own = {name: of_row.get(name) for name in _ARRAYS}
            batch.put_arrays(identifiers[-1], arrays.Arrays(**own, classes=bulk.classes))
    tables = batch.pending()
    if not bulk.encoded:
        tables["predictions"] = tables["predictions"].cast(PREDICTIONS)
    return pa.array(identifiers, pa.string()), tables


def _by_name(columns: Any) -> dict[str, Any]:
    if isinstance(columns, pl.DataFrame):
        columns = columns.to_arrow()
    if isinstance(columns, pa.Table):
        return {name: columns[name] for name in columns.column_names if name not in ("created_at", *LOOKUP_COLUMNS)}
    if isinstance(columns, Mapping):
        return dict(columns)
    raise InvalidInputError(
        f"columns must be a mapping, a pyarrow Table or a polars DataFrame, got {type(columns).__name__}"
    )


def _is_column(value: Any) -> bool:
    return isinstance(value, pa.Array | pa.ChunkedArray | np.ndarray | pl.Series) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    )


def _row_count(by_name: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    lengths = {name: len(value) for name, value in by_name.items() if _is_column(value)}
    lengths.update({name: len(value) for name, value in given.items() if not _is_shared(value)})
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            "columns and arrays differ in length: " + ", ".join(f"{name} {length}" for name, length in lengths.items())
        )
    return next(iter(lengths.values()), 1)


def _column(name: str, value: Any) -> Column:
    wanted = PREDICTIONS.field(name).type
    if not _is_column(value):
        return pa.scalar(_checked_item(name, value), wanted)
    if isinstance(value, pl.Series):
        value = value.to_arrow()
    if name in _JSON or (name == "fold_id" and not _holds_text(value)):
        value = [
            _checked_item(name, item)
            for item in (value.to_pylist() if isinstance(value, pa.Array | pa.ChunkedArray) else value)
        ]
    try:
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return value.cast(wanted)
        return (
            pa.array(value).cast(wanted) if wanted == pa.int32() else pa.array(value, wanted)
        )  # pa.array would cut 2.5 to 2
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, UnicodeError) as error:
        if isinstance(value, pa.Array | pa.ChunkedArray):
            raise InvalidInputError(f"column {name} cannot be stored as {wanted}: {error}") from error
        # the slow way takes what Arrow is too strict for, such as 5.0 for 5, and names what nobody can take
        return pa.array([_checked_item(name, item) for item in value], wanted)


def _holds_text(value: Any) -> bool:
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return bool(
            pa.types.is_string(value.type)
            or pa.types.is_large_string(value.type)
            or pa.types.is_string_view(value.type)
        )
    return all(isinstance(item, str) for item in value)


def _checked_item(name: str, item: Any) -> Any:
    """One value of a column, as the drop-in call stores it."""
    if name in _JSON:
        return _json(item, name)
    check: Callable[[Any, str], Any] = _CHECKS[PREDICTIONS.field(name).type]
    return check(str(item) if name == "fold_id" and item is not None else item, name)


_CHECKS: Mapping[pa.DataType, Callable[[Any, str], Any]] = {
    pa.string(): checks.optional_text,
    pa.float64(): checks.real,
    pa.int32(): checks.optional_integer,
}


def _is_encoded(value: Any) -> bool:
    """Whether no JSON of a column is given as text, which DuckDB is to look at, too."""
    if not _is_column(value):
        return not isinstance(value, str)
    return isinstance(value, Sequence) and not any(isinstance(item, str) for item in value)


def _json(value: Any, name: str) -> str | None:
    """JSON text of a value; text is taken as JSON already, as the store's own frames hold it."""
    if not isinstance(value, str):
        return jsontext.encode(value, name)
    try:
        jsontext.decode(value)
    except ValueError as error:
        raise InvalidInputError(f"column {name} holds text that is not JSON ({error}); give dicts") from error
    return value


def _is_shared(value: Any) -> bool:
    """Whether one 1-D array is given for all rows."""
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype != object


def _rows_of(name: str, value: Any, rows: int) -> Any:
    """An array argument as: one checked array for all rows, a 2-D matrix, or a list of checked arrays."""
    if _is_shared(value):
        return _one(name, value)
    if isinstance(value, np.ndarray) and value.ndim == 2:
        dtype = np.int64 if name == "sample_indices" else np.float64
        if value.dtype.kind not in "fiub":
            raise InvalidInputError(f"{name} must be numeric, got dtype {value.dtype}")
        arrays.refuse_masked(name, value)
        matrix = np.ascontiguousarray(value, dtype)
        if name == "sample_indices" and not np.array_equal(matrix, value):
            raise InvalidInputError("sample_indices must be whole numbers that fit 64 bits")
        return matrix
    if isinstance(value, pa.Array | pa.ChunkedArray):
        value = value.to_numpy(zero_copy_only=False) if isinstance(value, pa.Array) else value.to_numpy()
    return [_one(name, item) for item in value]


def _one(name: str, value: Any) -> Any:
    return getattr(arrays.checked(**{key: value if key == name else None for key in _ARRAYS}), name)


def _check_agreement(by_row: Mapping[str, Any], rows: int) -> None:
    """InvalidInputError unless the arrays of each prediction have one row per sample, and its targets one shape."""
    for names, shape_of in ((_PER_SAMPLE, len), (_TARGETS, np.shape)):
        present = [name for name in names if name in by_row]
        fixed = {name: shape_of(by_row[name]) for name in present if _is_shared(by_row[name])}
        fixed.update(
            {
                name: shape_of(by_row[name][0])
                for name in present
                if isinstance(by_row[name], np.ndarray) and name not in fixed and rows
            }
        )
        varying = [name for name in present if isinstance(by_row[name], list)]
        for row in range(rows if varying else 1):
            shapes = fixed | {name: shape_of(by_row[name][row]) for name in varying if by_row[name][row] is not None}
            if len(set(shapes.values())) > 1:
                told = ", ".join(f"{name} has {shape}" for name, shape in shapes.items())
                raise InvalidInputError(
                    f"arrays of one prediction must have one row per sample and the same targets, but in row {row}"
                    f" {told}"
                )


def array_tables(
    given: Mapping[str, Any], identifiers: pa.StringArray, id_key: pa.Array, classes: str | None = None
) -> dict[str, pa.Table]:
    """The tables of the arrays of these predictions: a matrix, one array for all, or a list of checked arrays by
    name.
    """
    if not given:
        return {}
    count = len(identifiers)
    reals: dict[str, Any] = {}
    indices: dict[str, Any] = {}
    y_true, weights = _addressed(given.get("y_true"), count, reals), _addressed(given.get("weights"), count, reals)
    sample_indices = _addressed(given.get("sample_indices"), count, indices)
    text, number = pa.string(), pa.int32()
    columns = [
        identifiers,
        *_values(given.get("y_pred"), count),
        *_values(given.get("y_proba"), count),
        y_true,
        sample_indices,
        weights,
        id_key,
        pa.repeat(pa.scalar(classes, text), count),
    ]
    values = pa.table(columns, schema=PREDICTION_VALUES)
    if all(isinstance(value, list) for value in given.values()):  # a row without any array keeps those it had
        have_arrays = [any(value is not None for value in row) for row in zip(*given.values(), strict=True)]
        values = values if all(have_arrays) else values.filter(pa.array(have_arrays, pa.bool_()))
    tables = {"prediction_values": values}
    if reals:
        widths = pa.array([width_of(value) for value in reals.values()], number)
        tables["shared_arrays"] = pa.table(
            [pa.array(list(reals), text), _packed(reals.values(), "float64"), widths], schema=SHARED_ARRAYS
        )
    if indices:
        tables["shared_indices"] = pa.table(
            [pa.array(list(indices), text), _packed(indices.values(), "int64")], schema=SHARED_INDICES
        )
    return tables


def _addressed(rows: Any, count: int, contents: dict[str, Any]) -> pa.StringArray:
    """The content hash of each row; what is new goes into `contents`."""
    if rows is None:
        return pa.nulls(count, pa.string())
    if _is_shared(rows):
        shared = content_hash(rows)
        contents[shared] = rows
        return pa.repeat(pa.scalar(shared), count)
    hashes: list[str | None] = []
    for row in rows:
        address = None if row is None else content_hash(row)
        if address is not None:
            contents.setdefault(address, row)
        hashes.append(address)
    return pa.array(hashes, pa.string())


def _values(rows: Any, count: int) -> tuple[Any, pa.Array]:
    """A list column of `count` rows, and their widths."""
    if rows is None:
        return pa.nulls(count, pa.list_(pa.float64())), pa.nulls(count, pa.int32())
    if _is_shared(rows):
        rows = np.broadcast_to(rows, (count, len(rows)))
    if isinstance(rows, np.ndarray):
        flat = np.ascontiguousarray(rows).reshape(-1)
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(rows.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)), pa.nulls(count, pa.int32())
    return _packed(rows, "float64"), pa.array([width_of(row) for row in rows], pa.int32())


def _packed(rows: Any, dtype: Literal["float64", "int64"]) -> pa.ChunkedArray:
    column = ListColumn("values", dtype)
    for row in rows:
        column.append(row)
    return lists(column)
