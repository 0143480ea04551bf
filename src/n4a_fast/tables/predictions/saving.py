"""Saving predictions: arguments checked and buffered here, written by the next flush."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import NotFoundError
from n4a_fast.schema.columns import LOOKUP_COLUMNS
from n4a_fast.tables.predictions import arrays, bulk, fields
from n4a_fast.tables.predictions.first_ids import FirstIds
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.pending import PredictionBatch
from n4a_fast.tables.predictions.prediction_tables import PREDICTION_TABLES, PredictionTable, without_contents
from n4a_fast.values import checks, ids, jsontext
from n4a_fast.values.ahead import prefetched


class Predictions:
    """The predictions of a workspace: the batch in memory and the tables behind it."""

    def __init__(self, database: Database, metadata: SampleMetadata) -> None:
        self._table, self._metadata = PredictionTable(database), metadata
        self._unstored: set[str] = set()  # pipelines of which nothing can be in the tables
        self.batch = PredictionBatch()
        self.first_ids = FirstIds(database, lambda: self.batch)

    def save(self, given: tuple[Any, ...], prediction_id: str | None = None) -> str:
        """Buffer one row of these `fields.FIELDS`; its id is that of the first one with its natural key, else
        `prediction_id`, or follows from the key.
        """
        if prediction_id is not None:
            prediction_id = checks.identifier(prediction_id, "prediction_id")
        key, row = fields.row_of(given)
        if prediction_id is None and self.first_ids.all_follow(row[1]) and self.batch.put_new(row, key):
            return str(row[0])
        first = self.batch.id_of(key) or self.first_ids.settle(key, row, prediction_id)
        if first != row[0]:
            row[0], row[-1] = first, ids.id_key(first)
        if prediction_id == first and self.batch.holds_id_of_another(first, key):
            self._metadata.forget(first)
        self.batch.put(row, key)
        return first

    def begin_pipeline(self, pipeline_id: str) -> None:
        """A new pipeline: nothing is stored of it, until its rows leave memory."""
        self.first_ids.begin(pipeline_id)
        self._unstored.add(pipeline_id)

    def is_unstored(self, pipeline_id: str) -> bool:
        """Whether this process began a pipeline, and nothing of it has left memory since, for the tables or elsewhere:
        nobody else can know of it.
        """
        return pipeline_id in self._unstored

    def find_pending(self, prediction_id: str, load_arrays: bool, labels: bool) -> dict[str, Any] | None:
        """A prediction that is in memory as the tables will give it; None when it is not, or not all that is asked."""
        with_arrays = checks.flag(load_arrays, "load_arrays") | checks.flag(labels, "labels")
        row = self.batch.row(checks.text(prediction_id, "prediction_id"))
        if row is None:
            return None
        found = {name: value for name, value in row.items() if name not in LOOKUP_COLUMNS}
        found["scores"], found["best_params"] = jsontext.decode(row["scores"]), jsontext.decode(row["best_params"])
        found["created_at"] = checks.moment(row["created_at"])
        if not with_arrays:
            return found
        held = self.find_pending_arrays(prediction_id, labels)
        if held is None and row["pipeline_id"] not in self._unstored:
            return None
        found.update(held or dict.fromkeys(arrays.NAMES))
        metadata = self._metadata.pending_of(prediction_id)
        found["sample_metadata"] = self._stored_metadata(row) if metadata is None else metadata
        return found

    def find_pending_arrays(self, prediction_id: str, labels: bool) -> dict[str, Any] | None:
        """The arrays of a prediction that is in memory; None when they are not."""
        name = checks.text(prediction_id, "prediction_id")
        return self.batch.arrays_of(name, labels) if name in self.batch else None

    def _stored_metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the tables know of the samples of a prediction in memory: it may have been saved before."""
        if row["pipeline_id"] in self._unstored:
            return {}
        key = self.batch.key_of(row["prediction_id"])  # before the question, during which it may leave memory
        stored = self._table.key_of(row["prediction_id"])
        if stored is None or ids.natural_key(*stored) != key:
            return {}
        return self._metadata.find(row["prediction_id"], own=False)

    def save_arrays(
        self,
        prediction_id: str,
        y_true: Any,
        y_pred: Any,
        y_proba: Any,
        sample_indices: Any,
        weights: Any,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Buffer copies of the arrays of a known prediction."""
        are_few = y_proba is weights is classes is None
        if are_few and self.batch.put_known(prediction_id, y_true, y_pred, sample_indices):
            return
        checked = arrays.checked(y_true, y_pred, y_proba, sample_indices, weights, classes)
        if prediction_id not in self.batch and not self._is_stored(prediction_id):
            raise NotFoundError("prediction", prediction_id, "save the prediction before its arrays")
        self.batch.put_arrays(prediction_id, checked)

    def _is_stored(self, prediction_id: str) -> bool:
        """Whether the tables hold this prediction and nothing in memory replaces it."""
        key = self._table.key_of(prediction_id)
        return key is not None and not self.batch.holds_key(ids.natural_key(*key))

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def fresh_rows(self) -> int:
        """Rows or arrays saved since the last flush."""
        return self.batch.fresh_rows

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and about those of the rows in memory."""
        return self.batch.nbytes + self.batch.row_nbytes

    @property
    def fresh_nbytes(self) -> int:
        """How many of these came after the last flush."""
        return self.nbytes - self.batch.logged_nbytes

    def fresh(self) -> dict[str, Any]:
        """What was saved since the last flush, for the log."""
        return self.batch.fresh()

    def mark_logged(self) -> None:
        """What is fresh is in the log."""
        self.batch.mark_logged()

    def replay(self, content: dict[str, Any]) -> None:
        """Save again what `fresh` once gave."""
        self.batch.replay(content)

    def pending(self) -> dict[str, pa.Table]:
        return self.batch.pending()

    def write_in_transaction(self, tables: dict[str, pa.Table], beyond: Collection[str] = ()) -> None:
        self._table.write_in_transaction(tables, known_new=PREDICTION_TABLES & tables.keys() <= set(beyond))

    def write_bulk_in_transaction(self, given: bulk.Bulk) -> list[str]:
        """Write the predictions of a bulk call; their ids."""
        known_new = given.ids_follow and given.keys_are_distinct and self._table.is_beyond(given.keys)
        identifiers, there = list[str](), set[str]()
        for ids_of_slice, tables in prefetched(bulk.slices(given)):
            if known_new:  # nothing is deleted, so what one slice has in common with the next stays
                tables = without_contents(tables, there)
            kept = self._table.write_in_transaction(tables, known_new=known_new)
            given_ids = ids_of_slice.to_pylist()
            identifiers += [kept.get(identifier, identifier) for identifier in given_ids] if kept else given_ids
        self.first_ids.forget()
        return identifiers

    def forget_known(self) -> None:
        """Rows may have come or gone: ids must be looked up again."""
        self.first_ids.forget()

    def clear(self) -> None:
        """Forget the batch: it is written, or given up."""
        self.batch = PredictionBatch()
        self._unstored.clear()

    def delete_in_transaction(self, prediction_id: str) -> bool:
        return self._delete_in_transaction(self._table.id_of(prediction_id))[0] > 0

    def delete_of_chain_in_transaction(self, chain_id: str) -> int:
        """Remove the predictions of a chain and their arrays; the number of documented rows."""
        return sum(self._delete_in_transaction(self._table.ids_of_chain(chain_id)))

    def delete_these_in_transaction(self, prediction_ids: pa.Table) -> int:
        """Remove predictions (`prediction_id`, `id_key`, `chain_id`) and their arrays; how many predictions."""
        return self._delete_in_transaction(prediction_ids)[0]

    def delete_named_in_transaction(self, prediction_ids: pa.Array) -> None:
        """Remove those of these predictions that there are, and their arrays."""
        self._delete_in_transaction(self._table.ids_among(prediction_ids))

    def delete_unowned_in_transaction(self, prediction_ids: set[str]) -> bool:
        """Remove what was saved for those of these predictions that are not stored; whether there were any."""
        if not prediction_ids:
            return False
        gone = self._table.delete_unowned_in_transaction(prediction_ids)
        self._metadata.delete_in_transaction(gone)
        return bool(gone.num_rows)

    def owners_among(self, chain_ids: list[str], pipeline_ids: list[str]) -> tuple[set[str], set[str]]:
        """Those of these chains, and of these pipelines, that have predictions in the tables."""
        return self._table.owners_among(chain_ids, pipeline_ids)

    def delete_of_pipelines_in_transaction(self, pipeline_ids: list[str]) -> int:
        """Remove the predictions of these pipelines and their arrays; the number of documented rows."""
        return sum(self._delete_in_transaction(self._table.ids_of_pipelines(pipeline_ids)))

    def _delete_in_transaction(self, gone: pa.Table) -> tuple[int, int]:
        self.first_ids.forget()
        self._metadata.delete_in_transaction(gone)
        return self._table.delete_in_transaction(gone)
