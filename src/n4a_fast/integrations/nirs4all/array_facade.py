"""`store.array_store` of nirs4all 1.x: its calls, answered by the store, in which arrays lie beside their rows.

There are no Parquet files. Whoever asks for the path of one gets it written, as it would be there.
Class labels are kept as numbers with what they stand for beside them (see `target_labels`); what else
comes with a prediction (its spectra, metadata of its result) as JSON beside its arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from n4a_fast.errors import InvalidInputError, NotFoundError
from n4a_fast.integrations.nirs4all.host_store import plain
from n4a_fast.integrations.nirs4all.target_labels import decoded, encoded, is_real
from n4a_fast.integrations.workspaces.array_files import ArrayFiles, file_name
from n4a_fast.predictions.loaded import LoadedArrays
from n4a_fast.values import jsontext

if TYPE_CHECKING:
    from n4a_fast.engine.workspace import Workspace
    from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

Array = np.ndarray[Any, Any]
Record = Mapping[str, Any]

_INDEX = np.int32  # of samples, as nirs4all gives them
_METADATA_TABLE = "prediction_metadata"
_BESIDE = "prediction_arrays"  # what is kept beside arrays is kept under this name
ARRAYS = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")
_SPECTRA = ("X", "spectra")
_BATCH = 16_384
_METADATA = """SELECT m.prediction_id, s.content FROM prediction_metadata m JOIN shared_metadata s USING (content_hash)
SEMI JOIN asked USING (prediction_id)"""
_KEPT = f"""SELECT row_id, content FROM carried SEMI JOIN asked ON row_id = asked.prediction_id
WHERE table_name = '{_BESIDE}'"""
_SIZES = """SELECT p.dataset_name AS name, count(*) AS rows, CAST(sum(8 * (2 * coalesce(len(v.y_pred), 0)
+ coalesce(len(v.y_proba), 0))) AS BIGINT) AS bytes FROM predictions p
JOIN prediction_values v ON v.id_key = p.id_key AND v.prediction_id = p.prediction_id GROUP BY 1 ORDER BY 1"""
_ALL = "SELECT prediction_id FROM prediction_values"


class ArrayFacade:
    """The arrays of one store."""

    def __init__(self, store: Store1x) -> None:
        self._store = store

    @property
    def arrays_dir(self) -> Path:
        """Where Parquet files are written when one is asked for."""
        return self._store.workspace_path / "arrays"

    # -- writing -----------------------------------------------------------------------------

    def save_batch(self, records: Sequence[Record]) -> int:
        """Store the arrays of predictions that are saved; how many."""
        with self._store.saving() as workspace:
            for record in records:
                self._save(workspace, record)
                workspace.buffer.flush_when_full()
        return len(records)

    def _save(self, workspace: Workspace, record: Record) -> None:
        given = record.get
        y_true, y_pred = given("y_true"), given("y_pred")
        beside: dict[str, Any] = {}
        if not (is_real(y_true) and is_real(y_pred)):
            is_class = "class" in str(given("task_type") or "").lower()
            targets, beside = encoded({"y_true": y_true, "y_pred": y_pred}, classes=is_class)
            y_true, y_pred = targets["y_true"], targets["y_pred"]
        if given("X") is not None or given("spectra") is not None:
            beside |= _spectra(record)
        if given("result_metadata"):
            beside["result_metadata"] = jsontext.encode(given("result_metadata"), "result_metadata")
        arrays = (y_true, y_pred, given("y_proba"), given("sample_indices"), given("weights"), None)
        metadata = given("sample_metadata") or None
        try:
            workspace.save_arrays(record["prediction_id"], arrays, metadata)
        except InvalidInputError:
            if metadata is None:
                raise
            workspace.save_arrays(record["prediction_id"], arrays, plain(metadata))
        if beside:
            workspace.carried.save(_BESIDE, record["prediction_id"], beside)

    def delete_batch(self, prediction_ids: Collection[str], dataset_name: str | None = None) -> int:
        """None: arrays go with the row of their prediction."""
        return 0

    def delete_dataset(self, dataset_name: str) -> bool:
        """No file: arrays go with the rows of their predictions."""
        return False

    # -- reading -----------------------------------------------------------------------------

    def load_single(self, prediction_id: str, dataset_name: str | None = None) -> dict[str, Any] | None:
        """What `load_batch` gives for one prediction; None for one without arrays."""
        with self._store.read_together() as workspace:
            found = workspace.queries.described_arrays_of(prediction_id)
            return None if found is None else self._completed(prediction_id, found)

    def taken_from(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """What `load_single` gives, of a row that was read with its arrays, which it loses; empty without any."""
        name = prediction["prediction_id"]
        found = {each: prediction.pop(each) for each in (*ARRAYS, "sample_metadata")}
        if all(found[each] is None for each in ARRAYS):  # it has none, or only what is kept beside them
            return self.load_single(name) or {}
        return self._completed(name, found)

    def _completed(self, prediction_id: str, found: dict[str, Any]) -> dict[str, Any]:
        """Arrays and metadata of one prediction with what is kept beside them."""
        arrays = {name: found[name] for name in ARRAYS}
        if arrays["sample_indices"] is not None:
            arrays["sample_indices"] = arrays["sample_indices"].astype(_INDEX)
        return _row(arrays, found["sample_metadata"], self._store.beside_row(_BESIDE, prediction_id))

    def load_batch(self, prediction_ids: Sequence[str], dataset_name: str | None = None) -> dict[str, dict[str, Any]]:
        """By prediction, of those that have arrays: `y_true`, `y_pred`, `y_proba`, `X`, `spectra`, `sample_indices`,
        `weights`, `sample_metadata`, `result_metadata`.
        """
        asked = list(dict.fromkeys(prediction_ids))
        with self._store.read_together() as workspace:
            pieces = [asked[start : start + _BATCH] for start in range(0, len(asked), _BATCH)]
            return {name: row for piece in pieces for name, row in _loaded(workspace, piece)}

    def described_among(self, prediction_ids: Sequence[str]) -> list[str]:
        """Those of some predictions that have metadata of their samples, labels, or anything else beside arrays."""
        with self._store.read_together() as workspace:
            kept = workspace.tables.kept()
            asked = {"asked": pa.table({"prediction_id": pa.array(prediction_ids, pa.string())})}
            queries = [query for table, query in ((_METADATA_TABLE, _METADATA), (_BESIDE, _KEPT)) if table in kept]
            found = {name for query in queries for name in _texts(workspace.database.select(query, **asked))}
        return [each for each in prediction_ids if each in found]

    def load_dataset(self, dataset_name: str) -> pl.DataFrame:
        """All arrays of a dataset as a frame of lists; FileNotFoundError without any."""
        return pl.read_parquet(self._written(dataset_name))

    # -- what is said of the files that nirs4all would have ------------------------------------

    def _parquet_path(self, dataset_name: str) -> Path:
        try:
            return self._written(dataset_name)
        except FileNotFoundError:
            return self.arrays_dir / f"{file_name(dataset_name)}.parquet"

    def _written(self, dataset_name: str) -> Path:
        """The dataset's arrays as a Parquet file, written now."""
        with self._store.read_together() as workspace:
            target = self.arrays_dir / f"{file_name(dataset_name)}.parquet"
            if not ArrayFiles(workspace.database).write(dataset_name, target):
                target.unlink(missing_ok=True)
                raise NoArraysError(dataset_name)
        return target

    def list_datasets(self) -> list[str]:
        """Names of the datasets that have arrays."""
        return [str(name) for name in self._store.sql(_SIZES)["name"].to_list()]

    def stats(self) -> dict[str, Any]:
        """Predictions with arrays and bytes of these, in all and by dataset, each counted as one file."""
        rows = self._store.sql(_SIZES).to_dicts()
        return {
            "total_files": len(rows),
            "total_rows": sum(row["rows"] for row in rows),
            "total_bytes": sum(row["bytes"] or 0 for row in rows),
            "datasets": {row["name"]: {"rows": row["rows"], "bytes": row["bytes"] or 0} for row in rows},
        }

    def integrity_check(self, expected_ids: Collection[str] | None = None) -> dict[str, Any]:
        """Arrays whose prediction is not expected, expected predictions without arrays; no file can be corrupt."""
        if expected_ids is None:
            return {"orphan_ids": [], "missing_ids": [], "corrupt_files": []}
        have, expected = set(self._store.sql(_ALL)["prediction_id"].to_list()), set(expected_ids)
        return {"orphan_ids": sorted(have - expected), "missing_ids": sorted(expected - have), "corrupt_files": []}

    def compact(self, dataset_name: str | None = None, live_ids: set[str] | None = None) -> dict[str, dict[str, Any]]:
        """Nothing to do: what is deleted leaves no trace. Rows and bytes of each dataset, before and after."""
        found = self.stats()["datasets"]
        names = [name for name in found if dataset_name in (None, name)]
        return {
            name: {
                "rows_before": found[name]["rows"],
                "rows_after": found[name]["rows"],
                "rows_removed": 0,
                "bytes_before": found[name]["bytes"],
                "bytes_after": found[name]["bytes"],
            }
            for name in names
        }

    def pending_tombstone_count(self) -> int:
        """None."""
        return 0

    def has_pending_tombstones(self) -> bool:
        """No."""
        return False

    def _read_tombstones(self) -> dict[str, str]:
        return {}


class NoArraysError(NotFoundError, FileNotFoundError):
    """A dataset of which no prediction has arrays."""

    def __init__(self, dataset_name: str) -> None:
        super().__init__("arrays of dataset", dataset_name, "array_store.list_datasets() names those there are")


def _loaded(workspace: Workspace, asked: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    arrays = workspace.arrays.load_existing(asked, ARRAYS)
    found = arrays.prediction_ids
    named = pa.table({"prediction_id": pa.array(found, pa.string())})
    metadata, kept = (
        _texts(workspace.database.select(query, asked=named)) if table in workspace.tables.kept() else {}
        for table, query in ((_METADATA_TABLE, _METADATA), (_BESIDE, _KEPT))
    )
    for name, row in zip(found, plain_rows(arrays), strict=True):
        if name in metadata or name in kept:
            yield name, _row(row, jsontext.decode(metadata.get(name)), jsontext.decode(kept.get(name)) or {})
        else:
            yield name, row


def plain_rows(arrays: LoadedArrays, places: slice = slice(None)) -> Iterator[dict[str, Any]]:
    """What `load_batch` gives for predictions that have nothing but these arrays, at some places."""
    columns = [_own(getattr(arrays, name)[places], _INDEX if name == "sample_indices" else None) for name in ARRAYS]
    for values in zip(*columns, strict=True):
        row = dict(zip(ARRAYS, values, strict=True))
        yield {**row, "X": None, "spectra": None, "sample_metadata": {}, "result_metadata": {}}


def _texts(table: pa.Table) -> dict[str, str]:
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _own(views: list[Array | None], kind: type | None) -> list[Array | None]:
    """Each array as one of its own, which may be written to."""
    return [None if view is None else view.astype(kind or view.dtype) for view in views]


def _row(row: dict[str, Any], metadata: dict[str, Any] | None, beside: dict[str, Any]) -> dict[str, Any]:
    result = beside.get("result_metadata")
    return {
        **row,
        **decoded(row, beside),
        **{name: _reshaped(beside, name) for name in _SPECTRA},
        "sample_metadata": metadata or {},
        "result_metadata": (jsontext.decode(result) if isinstance(result, str) else result) or {},
    }


def _spectra(record: Record) -> dict[str, Any]:
    given = {name: np.asarray(record[name], np.float64) for name in _SPECTRA if record.get(name) is not None}
    shapes = {f"{name}_shape": list(value.shape) for name, value in given.items()}
    return {**{name: value.ravel().tolist() for name, value in given.items()}, **shapes}


def _reshaped(beside: Mapping[str, Any], name: str) -> Array | None:
    if beside.get(name) is None:
        return None
    flat, shape = np.asarray(beside[name], np.float64), beside.get(f"{name}_shape")
    return flat.reshape(shape) if shape and int(np.prod(shape)) == flat.size else flat
