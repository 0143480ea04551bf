"""Arrays of many predictions at once: one query, Arrow buffers, views on them (`loaded`).

The values stay in the buffers that DuckDB filled, in the order of the file; each array handed out
is a view of them. An array that many predictions share is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import Database
from n4a_fast.errors import DamagedStoreError, InvalidInputError, MemoryLimitError, NotFoundError
from n4a_fast.predictions.loaded import ListViews, LoadedArrays
from n4a_fast.predictions.queries import where_on_predictions
from n4a_fast.schema.columns import SAME_PREDICTION
from n4a_fast.tables.predictions import keys
from n4a_fast.tables.predictions.positions import Near, Ways, ways
from n4a_fast.values import checks

COLUMNS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")
# bytes that DuckDB keeps while arrays are read piece by piece: it would come to hold all it may
_STREAMED_MEMORY = 128 * 2**20

_VALUES = f"""SELECT wanted.place, {{columns}} FROM {{rows}} v
JOIN wanted ON {SAME_PREDICTION.format("v", "wanted")}"""
_ALL = "prediction_values"
_BETWEEN = "FROM prediction_values WHERE rowid BETWEEN {first} AND {last}"
_VALUES_BETWEEN = "SELECT v.prediction_id, {columns} FROM prediction_values v WHERE v.rowid BETWEEN {first} AND {last}"
_STORED = {
    "y_true": "v.y_true_hash",
    "y_pred": "v.y_pred, v.y_pred_width",
    "y_proba": "v.y_proba, v.y_proba_width",
    "sample_indices": "v.sample_indices_hash",
    "weights": "v.weights_hash",
}
_SHARED = {
    "y_true": "SELECT content_hash, array_values, width FROM shared_arrays",
    "weights": "SELECT content_hash, array_values, NULL::INTEGER AS width FROM shared_arrays",
    "sample_indices": "SELECT content_hash, array_values, NULL::INTEGER AS width FROM shared_indices",
}
_CONTENTS = pa.schema({"content_hash": pa.string(), "array_values": pa.list_(pa.float64()), "width": pa.int32()})
_FEW = 64  # contents that are asked for by value, which spares a table of them
_MATCHING = "SELECT prediction_id, id_key FROM predictions{where} ORDER BY created_at, prediction_id"
_FEW_ROWS = 8  # that are looked up whatever they take
# times as many as are sure to find room: mostly they share blocks. Where they do not, half as many are tried, which a
# transaction would not survive
_HOPED_FOR = 2
_COUNT = "SELECT count(*) FROM prediction_values"
_KNOWN = "SELECT prediction_id FROM predictions SEMI JOIN wanted USING (id_key, prediction_id)"
_UNDER_ANOTHER_KEY = "SELECT 1 FROM predictions WHERE prediction_id = ? LIMIT 1"


class _Places(NamedTuple):
    """Predictions by their places among those wanted, and the row in which each was found."""

    wanted: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]


class ArrayReader:
    """Loads the arrays of many predictions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(
        self,
        prediction_ids: Sequence[str] | None,
        filters: dict[str, Any],
        columns: Sequence[str],
        labels: bool = False,
    ) -> LoadedArrays:
        """Arrays of the predictions asked for, in the order of their ids; NotFoundError for an id that is not
        stored.
        """
        names = _checked(columns)
        with self._database.reading():
            wanted = self._wanted(prediction_ids, filters)
            rows, loaded = self._loaded(wanted, names, labels)
            if prediction_ids is not None:
                self._require_known(wanted.filter(pa.array(rows < 0)))
            return loaded

    def load_existing(self, prediction_ids: Sequence[str], columns: Sequence[str]) -> LoadedArrays:
        """Arrays of those of these predictions that have any, in this order."""
        names = _checked(columns)
        with self._database.reading():
            wanted = self._wanted(prediction_ids, {})
            rows, loaded = self._loaded(wanted, names)
            return loaded if (rows >= 0).all() else self.of(wanted.filter(pa.array(rows >= 0)), names)

    def batches(
        self,
        prediction_ids: Sequence[str] | None,
        filters: dict[str, Any],
        columns: Sequence[str],
        batch_size: int,
        labels: bool = False,
    ) -> Iterator[LoadedArrays]:
        """The same in pieces of `batch_size` predictions, each as it is stored when its turn comes."""
        names, size = _checked(columns), checks.count(batch_size, "batch_size")
        if not size:
            raise InvalidInputError("batch_size must be 1 or more")
        with self._database.reading():
            wanted = self._wanted(prediction_ids, filters)
            if prediction_ids is not None:
                self._require_known(wanted)
        return (self._piece(wanted.slice(start, size), names, labels) for start in range(0, wanted.num_rows, size))

    def _piece(self, wanted: pa.Table, columns: Sequence[str], labels: bool) -> LoadedArrays:
        return self._database.in_little_memory(_STREAMED_MEMORY, lambda: self.of(wanted, columns, labels))

    def of(self, wanted: pa.Table, columns: Sequence[str] = COLUMNS, labels: bool = False) -> LoadedArrays:
        """Arrays of the predictions in the rows of a table with `prediction_id` and `id_key`, in its order."""
        with self._database.reading():
            return self._loaded(wanted, columns, labels)[1]

    def _wanted(self, prediction_ids: Sequence[str] | None, filters: dict[str, Any]) -> pa.Table:
        """The predictions asked for, as columns `prediction_id` and `id_key`."""
        if prediction_ids is None:
            where, params = where_on_predictions(self._database, filters)
            return self._database.arrow(_MATCHING.format(where=where), params)
        if any(value is not None for value in filters.values()):
            raise InvalidInputError("give prediction_ids or filters, not both")
        return _with_keys(_ids_column(prediction_ids))

    def _require_known(self, wanted: pa.Table) -> None:
        if not wanted.num_rows:
            return
        known = self._database.select(_KNOWN, wanted=wanted)["prediction_id"]
        unknown = wanted["prediction_id"].filter(pc.invert(pc.is_in(wanted["prediction_id"], known)))
        if not len(unknown):
            return
        first = unknown[0].as_py()
        if self._database.rows(_UNDER_ANOTHER_KEY, (first,)):
            raise DamagedStoreError(self._database.path, f"prediction {first} does not have the key of its id")
        raise NotFoundError("prediction", first)

    def _loaded(
        self, wanted: pa.Table, columns: Sequence[str], labels: bool = False
    ) -> tuple[np.ndarray[Any, Any], LoadedArrays]:
        """The places of predictions among those that have arrays, -1 for one that has none; and the arrays."""
        stored = [_STORED[name] for name in columns] + ["v.classes"] * bool(labels)
        rows, found = self._found(wanted, ", ".join(stored))
        views = {name: self._views(name, found, rows) for name in columns}
        classes = _at(found["classes"].to_pylist(), rows) if labels else None
        return rows, LoadedArrays(wanted["prediction_id"], views, classes)

    def _found(self, wanted: pa.Table, columns: str) -> tuple[np.ndarray[Any, Any], pa.Table]:
        """The stored columns of predictions that have arrays, and for each one wanted its row there, -1 for none."""
        rows, parts, before = np.full(wanted.num_rows, -1), [], 0
        for places, part in self._read(wanted.append_column("place", pa.array(np.arange(wanted.num_rows))), columns):
            rows[places.wanted] = places.rows + before
            parts.append(part)
            before += part.num_rows
        return rows, pa.concat_tables(parts).combine_chunks()

    def _read(self, placed: pa.Table, columns: str) -> Iterator[tuple[_Places, pa.Table]]:
        """The stored columns of predictions that have arrays, part by part, and which of these are where."""
        found = ways(self._database, "prediction_values", placed)
        if found is None:
            yield _joined(self._database.select(_VALUES.format(columns=columns, rows=_ALL), wanted=placed))
            return
        match found.near:
            case [near] if near.hardly_any_others:
                sql = _VALUES_BETWEEN.format(columns=columns, first=near.first, last=near.last)
                yield _told_apart(self._database.arrow(sql), near.wanted)
            case [_, *_]:
                yield _joined(self._between(found.near, columns))
        if found.looked_up.num_rows or not found.near:  # one part at least, which has the types
            yield from self._looked_up(found, columns)

    def _between(self, places: list[Near], columns: str) -> pa.Table:
        """The stored columns of predictions that lie there, in one statement."""
        rows = " UNION ALL ".join(_BETWEEN.format(first=near.first, last=near.last) for near in places)
        wanted = pa.concat_tables([near.wanted for near in places])
        return self._database.select(_VALUES.format(columns=columns, rows=f"({rows})"), wanted=wanted)

    def _looked_up(self, found: Ways, columns: str) -> Iterator[tuple[_Places, pa.Table]]:
        """The same of predictions that are looked up by the index."""
        placed, sql = found.looked_up, _VALUES.format(columns=columns, rows=_ALL)
        size = _FEW_ROWS if placed.num_rows <= _FEW_ROWS else self._rows_at_once(found)
        with self._database.looking_up(size, int(size * found.same_key) + 1):
            start = 0
            while start < max(placed.num_rows, 1):
                self._database.begin_anew_if_due()
                try:
                    part = self._database.select(sql, wanted=placed.slice(start, size))
                except MemoryLimitError:
                    if size <= _FEW_ROWS or self._database.in_transaction:
                        raise
                    size //= 2
                    continue
                yield _joined(part)
                start += size

    def _rows_at_once(self, found: Ways) -> int:
        """How many predictions one statement looks up."""
        rows = int(self._database.rows(_COUNT)[0][0]) if found.rows is None else found.rows
        bytes_of_row = int(self._database.path.stat().st_size // max(rows, 1))  # about so many, of the file
        sure = max(1, int(self._database.rows_to_look_up(bytes_of_row, rows) / found.same_key))
        return sure if self._database.in_transaction else sure * _HOPED_FOR

    def _views(self, name: str, found: pa.Table, rows: np.ndarray[Any, Any]) -> ListViews:
        """One column of `found`; `rows` are the places in it, -1 for a prediction without arrays."""
        if name not in _SHARED:
            return ListViews(_one_chunk(found[name]), _one_chunk(found[f"{name}_width"]), rows)
        hashes = _one_chunk(found[f"{name}_hash"]).dictionary_encode()
        shared = self._contents(_SHARED[name], hashes.dictionary).combine_chunks()
        contents = pc.index_in(hashes.dictionary, shared["content_hash"]).fill_null(-1).to_numpy()
        of_found = np.append(contents, -1)[hashes.indices.fill_null(len(contents)).to_numpy()].astype(np.int64)
        return ListViews(_one_chunk(shared["array_values"]), _one_chunk(shared["width"]), np.append(of_found, -1)[rows])

    def _contents(self, sql: str, hashes: pa.Array) -> pa.Table:
        """Shared contents by their hashes, unordered."""
        if not len(hashes):
            return _CONTENTS.empty_table()
        if len(hashes) > _FEW:
            used = pa.table({"content_hash": hashes})
            return self._database.select(f"{sql} SEMI JOIN used USING (content_hash)", used=used)
        marks = ", ".join("?" * len(hashes))
        return self._database.arrow(f"{sql} WHERE content_hash IN ({marks})", hashes.to_pylist())


def _joined(found: pa.Table) -> tuple[_Places, pa.Table]:
    """What a join of `wanted` has found."""
    return _Places(found["place"].to_numpy(), np.arange(found.num_rows)), found.drop_columns("place")


def _told_apart(found: pa.Table, wanted: pa.Table) -> tuple[_Places, pa.Table]:
    """Rows that were read without a join: those that are wanted, by their ids."""
    names = found["prediction_id"].combine_chunks()
    rows = pc.index_in(wanted["prediction_id"].combine_chunks(), names).fill_null(-1).to_numpy().astype(np.int64)
    there = rows >= 0
    return _Places(wanted["place"].to_numpy()[there], rows[there]), found.drop_columns("prediction_id")


def _checked(columns: Sequence[str]) -> tuple[str, ...]:
    names = checks.texts(columns, "columns")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or not names:
        raise InvalidInputError(f"columns must name some of {', '.join(COLUMNS)}; got {', '.join(unknown) or 'none'}")
    return tuple(names)


def _ids_column(prediction_ids: Sequence[str]) -> pa.Array:
    if isinstance(prediction_ids, str):
        raise InvalidInputError("prediction_ids must be a list of ids, got text")
    try:
        column = pa.array(list(prediction_ids), pa.string())
    except (TypeError, pa.ArrowInvalid, UnicodeError) as error:
        raise InvalidInputError(f"prediction_ids must hold texts ({error})") from error
    if column.null_count:
        raise InvalidInputError("prediction_ids holds None; leave it out")
    return column


def _with_keys(identifiers: pa.Array) -> pa.Table:
    return pa.table({"prediction_id": identifiers, "id_key": keys.id_keys(identifiers)})


def _at(values: list[Any], rows: np.ndarray[Any, Any]) -> list[Any]:
    """The values of these rows, None for -1."""
    padded = [*values, None]
    return [padded[row] for row in rows.tolist()]


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
