"""The prediction tables: what a flush writes, what a re-save replaces, what a delete takes along.

A prediction's natural key is (pipeline, chain, fold, partition, model name, branch), a missing
chain or branch included. Saving a key again replaces its row, which keeps its id; the arrays stay unless new ones
come. An id that comes with another key leaves what it was, arrays included. Arrays shared by content go when the last
prediction that refers to them goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import ROW_GROUP, Database
from n4a_fast.memtable.key_ranges import Range, tables_between
from n4a_fast.schema.columns import LOOKUP_COLUMNS, THIS_PREDICTION, WITHIN, table_of
from n4a_fast.tables.predictions.digits import are_long
from n4a_fast.tables.predictions.keys import Keys, id_keys
from n4a_fast.tables.rows import ONE_OF
from n4a_fast.tables.stale_chains import note_in_transaction, note_predictions_in_transaction, ranges_of
from n4a_fast.values import ids

PREDICTION_TABLES = {"predictions", "prediction_values"}
KEY = ("pipeline_id", "chain_id", "fold_id", "partition", "model_name", "branch_id")
_SAME_KEY = "p.nk = b.nk AND " + " AND ".join(f"p.{name} IS NOT DISTINCT FROM b.{name}" for name in KEY)

_SAME_ID = "{0}.id_key = {1}.id_key AND {0}.prediction_id = {1}.prediction_id"

_FIRST_IDS = f"""SELECT b.prediction_id AS given, p.prediction_id AS first
FROM predictions p JOIN batch b ON {_SAME_KEY}
WHERE p.prediction_id <> b.prediction_id AND p.prediction_id NOT IN (SELECT prediction_id FROM batch)"""
_MOVED = f"""SELECT p.prediction_id, p.id_key FROM predictions p JOIN batch b ON {_SAME_ID.format("p", "b")}
WHERE NOT ({_SAME_KEY})"""
_DELETE_METADATA = "DELETE FROM prediction_metadata WHERE prediction_id IN (SELECT prediction_id FROM moved)"
_REPLACED_BY_KEY = f"DELETE FROM predictions p USING batch b WHERE {_SAME_KEY}"
_REPLACED_BY_ID = f"DELETE FROM predictions p USING batch b WHERE {_SAME_ID.format('p', 'b')}"
_NAMING_IDS = {"predictions", "prediction_values", "prediction_metadata"}  # tables of a batch
_LARGEST = 2**64 - 1
_HAS_KEY = f"(SELECT 1 FROM predictions p SEMI JOIN batch b ON {_SAME_KEY} LIMIT 1)"
_HAS_ROW = f"(SELECT 1 FROM predictions p SEMI JOIN batch b ON {_SAME_ID.format('p', 'b')} LIMIT 1)"
_HAS_VALUES = f"(SELECT 1 FROM prediction_values v SEMI JOIN new_values b ON {_SAME_ID.format('v', 'b')} LIMIT 1)"
_INSERT = "INSERT INTO {table} BY NAME SELECT * FROM batch"
_INSERT_SHARED = (
    "INSERT INTO {table} BY NAME SELECT * FROM batch b WHERE NOT EXISTS (FROM {table} s WHERE s.content_hash ="
    " b.content_hash)"
)

# predictions that go: many are in a table of Arrow's, for one its values take half the time
_THIS = THIS_PREDICTION.format("r")
_THESE = f"EXISTS (FROM gone WHERE {_SAME_ID.format('gone', 'r')})"
_GONE_CONTENTS = """SELECT min(rowid) AS first_row, max(rowid) AS last_row,
    count(DISTINCT rowid // {row_group}) AS row_groups, y_true_hash, weights_hash, sample_indices_hash
FROM prediction_values r WHERE {gone} GROUP BY ALL"""
_REFERENCES = {"shared_arrays": ("y_true_hash", "weights_hash"), "shared_indices": ("sample_indices_hash",)}
_ROW_GROUPS = f"""SELECT count(DISTINCT p.rowid // {ROW_GROUP}) AS row_groups
FROM {{table}} p SEMI JOIN batch b ON p.{{key}} = b.{{key}}"""
_DELETE = "DELETE FROM {table} r WHERE {gone}"
# hashes as literals: DuckDB rules row groups out by them, which it does for no join
_USED = "(SELECT {kept} '{table}', v.{column} FROM prediction_values v WHERE v.{column} IN ({hashes}) {near} {limit})"
_NEAR = "AND v.rowid BETWEEN {first} AND {last}"
# rows before and behind those deleted: a dataset's predictions share their contents, and are saved one after the other
_NEIGHBOURS = 50_000
_DELETE_CONTENTS = "DELETE FROM {table} WHERE content_hash IN (SELECT h FROM contents)"
_IDS_OF_PIPELINES = f"""SELECT prediction_id, id_key, chain_id FROM predictions
WHERE pipeline_id IN (SELECT unnest(?)) AND nk {WITHIN}"""
_IDS_OF_CHAIN = "SELECT prediction_id, id_key, chain_id FROM predictions WHERE chain_id = ? AND ({ranges})"
_ID_AND_CHAIN = f"SELECT prediction_id, id_key, chain_id FROM predictions p WHERE {THIS_PREDICTION.format('p')}"
_IDS_AMONG = f"""SELECT p.prediction_id, p.id_key, p.chain_id FROM predictions p
SEMI JOIN wanted w ON {_SAME_ID.format("p", "w")} WHERE p.id_key BETWEEN {{first}} AND {{last}}"""
_OF_CHAINS = f"SELECT DISTINCT chain_id FROM predictions WHERE {ONE_OF.format('chain_id', 1)} AND ({{ranges}})"
_OF_PIPELINES = f"""SELECT DISTINCT pipeline_id FROM predictions
WHERE pipeline_id IN (SELECT unnest(?)) AND nk {WITHIN}"""
_CHAINS_LEFT = f"SELECT DISTINCT p.chain_id FROM predictions p SEMI JOIN batch b ON {_SAME_ID.format('p', 'b')}"
_GONE = pa.schema([("prediction_id", pa.string()), ("id_key", pa.uint64()), ("chain_id", pa.string())])
_KEY_OF = f"SELECT {', '.join(KEY)} FROM predictions p WHERE {THIS_PREDICTION.format('p')}"


class PredictionTable:
    """Writes to the prediction tables, inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def key_of(self, prediction_id: str) -> tuple[Any, ...] | None:
        """The natural key of a prediction in the tables, or None; the caller knows what is in memory."""
        found = self._database.rows(_KEY_OF, (ids.id_key(prediction_id), prediction_id), own=False)
        return found[0] if found else None

    def is_beyond(self, keys: Keys) -> bool:
        """Whether nothing is stored between the smallest and the largest of these keys, and of the ids that follow from
        them.
        """
        columns = (
            ("predictions", "nk", keys.nk),
            ("predictions", "id_key", keys.id_key),
            ("prediction_values", "id_key", keys.id_key),
        )
        ranges = [
            Range(table, name, int(column.min(initial=_LARGEST)), int(column.max(initial=0)))
            for table, name, column in columns
        ]
        return not tables_between(self._database, ranges)

    def write_in_transaction(self, tables: dict[str, pa.Table], *, known_new: bool = False) -> dict[str, str]:
        """Insert the batch's tables, replacing rows with the same natural key or id, and arrays with the same id;
        `known_new` when there are none. Given ids of natural keys that have another one: that one, which is in `tables`
        then.
        """
        rows, values = tables.get("predictions"), tables.get("prediction_values")
        if not known_new and self._database.indexes_may_take_much:
            self._make_room(rows, values)
        if known_new or self._are_all_new(rows, values):
            self._insert_values_in_transaction(tables)
            if rows is not None:
                self._insert_rows_in_transaction(rows)
            return {}
        kept: dict[str, str] = {}
        if rows is not None:
            found = self._database.select(_FIRST_IDS, batch=rows)
            kept = dict(zip(found["given"].to_pylist(), found["first"].to_pylist(), strict=True))
            tables.update({name: _renamed(tables[name], kept) for name in _NAMING_IDS & tables.keys() if kept})
            self._take_from_moved_in_transaction(tables["predictions"])
        if "prediction_values" in tables:
            self._replace_values_in_transaction(tables)
        if "predictions" in tables:
            self._replace_rows_in_transaction(tables["predictions"])
        return kept

    def _take_from_moved_in_transaction(self, rows: pa.Table) -> None:
        """What an id had as another prediction's is not for the new one."""
        moved = self._database.select(_MOVED, batch=rows)
        if moved.num_rows:
            self._delete_values_in_transaction(moved)
            self._database.insert(_DELETE_METADATA, moved=moved)

    def _make_room(self, rows: pa.Table | None, values: pa.Table | None) -> None:
        """The batch may replace rows all over the tables: it is told how many row groups have some, by numbers alone,
        since what is found of a text keeps the block that it is in.
        """
        for table, key, batch in (("predictions", "nk", rows), ("prediction_values", "id_key", values)):
            if batch is not None:
                found = self._database.select(_ROW_GROUPS.format(table=table, key=key), batch=batch.select([key]))
                self._database.make_room(found["row_groups"][0].as_py())

    def _are_all_new(self, rows: pa.Table | None, values: pa.Table | None) -> bool:
        """Whether nothing in the tables has the natural key, or the id, of anything in the batch."""
        questions, tables = [], {}
        if rows is not None:
            tables["batch"] = rows.select([*KEY, "prediction_id", *LOOKUP_COLUMNS])
            questions = [_HAS_KEY, _HAS_ROW]
        if values is not None:
            tables["new_values"] = values.select(["prediction_id", "id_key"])
            questions.append(_HAS_VALUES)
        with self._database.registered(tables):
            return not questions or not self._database.rows(" UNION ALL ".join(questions))

    def delete_in_transaction(self, prediction_ids: pa.Table) -> tuple[int, int]:
        """Remove predictions and their arrays; how many rows of each. `prediction_ids` has the columns `prediction_id`,
        `id_key` and `chain_id`.
        """
        if not prediction_ids.num_rows:
            return 0, 0
        note_in_transaction(self._database, prediction_ids["chain_id"].unique().to_pylist())
        arrays = self._delete_values_in_transaction(prediction_ids)
        with self._among(prediction_ids) as (gone, params):
            return self._database.execute(_DELETE.format(table="predictions", gone=gone), params), arrays

    def owners_among(self, chain_ids: list[str], pipeline_ids: list[str]) -> tuple[set[str], set[str]]:
        """Those of these chains, and of these pipelines, that have predictions."""
        ranges = ranges_of(self._database, chain_ids)
        chains = self._database.rows(_OF_CHAINS.format(ranges=ranges), (chain_ids,)) if chain_ids else ()
        of_pipelines = (pipeline_ids, *ids.nk_bounds(pipeline_ids)) if pipeline_ids else None
        pipelines = self._database.rows(_OF_PIPELINES, of_pipelines) if of_pipelines else ()
        return {name for (name,) in chains}, {name for (name,) in pipelines}

    def ids_of_pipelines(self, pipeline_ids: list[str]) -> pa.Table:
        bounds = ids.nk_bounds(pipeline_ids) if pipeline_ids else (0, 0)
        return self._database.arrow(_IDS_OF_PIPELINES, (pipeline_ids, *bounds))

    def id_of(self, prediction_id: str) -> pa.Table:
        """The table that `delete_in_transaction` takes, for one prediction; no row when it is not stored."""
        return table_of(self._database.rows(_ID_AND_CHAIN, (ids.id_key(prediction_id), prediction_id)), _GONE)

    def ids_among(self, prediction_ids: pa.Array) -> pa.Table:
        """Of many predictions, those that are stored."""
        keys = id_keys(prediction_ids)
        wanted = pa.table({"prediction_id": prediction_ids, "id_key": pa.array(keys)})
        return self._database.select(_IDS_AMONG.format(first=keys.min(), last=keys.max()), wanted=wanted)

    def delete_unowned_in_transaction(self, prediction_ids: set[str]) -> pa.Table:
        """Remove the arrays of those of these ids that no prediction has; which ones."""
        named = pa.array(sorted(prediction_ids), pa.string())
        stored = set(self.ids_among(named)["prediction_id"].to_pylist())
        unowned = pa.array(sorted(prediction_ids - stored), pa.string())
        gone = pa.table({"prediction_id": unowned, "id_key": pa.array(id_keys(unowned))})
        if gone.num_rows:
            self._delete_values_in_transaction(gone)
        return gone

    def ids_of_chain(self, chain_id: str) -> pa.Table:
        ranges = ranges_of(self._database, [chain_id])
        return self._database.arrow(_IDS_OF_CHAIN.format(ranges=ranges), (chain_id,))

    def _replace_values_in_transaction(self, tables: dict[str, pa.Table]) -> None:
        self._delete_values_in_transaction(tables["prediction_values"].select(["prediction_id", "id_key"]))
        self._insert_values_in_transaction(tables)

    def _insert_values_in_transaction(self, tables: dict[str, pa.Table]) -> None:
        if "prediction_values" not in tables:
            return
        tables = with_used_contents(tables)
        for name in [name for name in _REFERENCES if len(tables.get(name, ()))]:
            self._database.insert(_INSERT_SHARED.format(table=name), batch=tables[name])
        values = tables["prediction_values"]
        self._database.add_keys(values.num_rows)
        self._database.insert(_INSERT.format(table="prediction_values"), mantissas=are_long(values), batch=values)

    def _replace_rows_in_transaction(self, rows: pa.Table) -> None:
        self._database.insert(_REPLACED_BY_KEY, batch=rows)  # of the same chain
        left = self._database.select(_CHAINS_LEFT, batch=rows)["chain_id"].to_pylist()
        if left:
            note_in_transaction(self._database, left)
            self._database.insert(_REPLACED_BY_ID, batch=rows)
        self._insert_rows_in_transaction(rows)

    def _insert_rows_in_transaction(self, rows: pa.Table) -> None:
        note_predictions_in_transaction(self._database, rows)
        self._database.add_keys(rows.num_rows)
        self._database.insert(_INSERT.format(table="predictions"), batch=rows)

    def _delete_values_in_transaction(self, gone: pa.Table) -> int:
        with self._among(gone) as (where, params):
            found = self._database.arrow(_GONE_CONTENTS.format(gone=where, row_group=ROW_GROUP), params)
            self._database.make_room(pc.sum(found["row_groups"]).as_py() or 0)
            deleted = self._database.execute(_DELETE.format(table="prediction_values", gone=where), params)
        if deleted:
            first, last = pc.min(found["first_row"]).as_py(), pc.max(found["last_row"]).as_py()
            contents = {
                table: {content for column in columns for content in found[column].to_pylist()} - {None}
                for table, columns in _REFERENCES.items()
            }
            near = _NEAR.format(first=first - _NEIGHBOURS, last=last + _NEIGHBOURS)
            self._delete_unused_in_transaction(contents, near)
        return deleted

    def _delete_unused_in_transaction(self, left: dict[str, set[str]], near: str) -> None:
        """Remove those of the contents, by table, that nothing refers to; all predictions are looked through only for
        what has no user in the neighbourhood.
        """
        for where in (near, ""):
            questions = [
                _question(table, column, contents, where)
                for table, contents in left.items()
                for column in _REFERENCES[table]
                if contents
            ]
            for table, used in self._database.rows(" UNION ALL ".join(questions)) if questions else ():
                left[table].discard(used)
        for table, contents in left.items():
            if contents:
                self._database.insert(_DELETE_CONTENTS.format(table=table), contents=pa.table({"h": sorted(contents)}))

    @contextmanager
    def _among(self, gone: pa.Table) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What is true of a row `r` of these predictions (`prediction_id`, `id_key`) in SQL of the block, and its
        parameters.
        """
        if gone.num_rows == 1:
            yield _THIS, (gone["id_key"][0].as_py(), gone["prediction_id"][0].as_py())
            return
        with self._database.registered({"gone": gone}):
            yield _THESE, ()


def _question(table: str, column: str, contents: set[str], near: str) -> str:
    """Which of some contents a column refers to; of one, its first user will do."""
    hashes = ", ".join(f"'{content}'" for content in sorted(contents))  # hex digits
    kept, limit = ("", "LIMIT 1") if len(contents) == 1 else ("DISTINCT", "")
    return _USED.format(kept=kept, table=table, column=column, hashes=hashes, near=near, limit=limit)


def _renamed(rows: pa.Table, kept: dict[str, str]) -> pa.Table:
    """The same rows with other ids where these say so."""
    names = pa.array([kept.get(name, name) for name in rows["prediction_id"].to_pylist()], pa.string())
    rows = rows.set_column(rows.column_names.index("prediction_id"), "prediction_id", names)
    if "id_key" not in rows.column_names:
        return rows
    keys = pa.array([ids.id_key(name.as_py()) for name in names], pa.uint64())
    return rows.set_column(rows.column_names.index("id_key"), "id_key", keys)


def with_used_contents(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables of a batch without shared arrays that none of its predictions has, and each of these once."""
    values = tables.get("prediction_values")
    kept = {name: table for name, table in tables.items() if name not in _REFERENCES}
    for name, columns in _REFERENCES.items():
        if name in tables and values is not None:
            used = {content for column in columns for content in values[column].unique().to_pylist()}
            kept[name] = _once_per_content(tables[name], used)
    return kept


def without_contents(tables: dict[str, pa.Table], there: set[str]) -> dict[str, pa.Table]:
    """The tables of a batch without shared arrays that are `there` already; those that it brings are from now on."""
    kept = dict(tables)
    for name in _REFERENCES.keys() & tables.keys():
        contents = tables[name]["content_hash"].to_pylist()
        kept[name] = tables[name].filter(pa.array([content not in there for content in contents], pa.bool_()))
        there.update(contents)
    return kept


def _once_per_content(batch: pa.Table, used: set[str | None]) -> pa.Table:
    """The first row of each content that is used: joined flushes share some, and replaced arrays leave some behind."""
    hashes = batch["content_hash"].to_pylist()
    first: dict[str, int] = {}
    for place, content in enumerate(hashes):
        if content in used:
            first.setdefault(content, place)
    return batch if len(first) == len(hashes) else batch.take(pa.array(list(first.values()), pa.int64()))
