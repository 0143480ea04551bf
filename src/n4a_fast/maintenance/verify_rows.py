"""The rows of a store: keys, references in both directions, and what can be computed again from other columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from n4a_fast.engine.connection import Database
from n4a_fast.maintenance.findings import RESTORE, Finding
from n4a_fast.maintenance.verify_keys import CURE, KEY, ROWS_AT_ONCE, wrong_keys
from n4a_fast.tables.predictions.contents import content_hash

_CONTENTS_AT_ONCE = 2**12
_PIECE = "rowid >= {first} AND rowid < {last}"
_SHOWN = 100  # findings of one check; the last one counts the rest
_KEYS = {
    "runs": "run_id",
    "projects": "project_id",
    "pipelines": "pipeline_id",
    "chains": "chain_id",
    "predictions": "prediction_id",
    "prediction_values": "prediction_id",
    "prediction_metadata": "prediction_id",
    "stored_artifacts": "artifact_id",
    "logs": "log_id",
    "shared_arrays": "content_hash",
    "shared_indices": "content_hash",
    "shared_metadata": "content_hash",
}
_JSON = {
    "runs": ("config", "datasets", "summary"),
    "pipelines": ("expanded_config", "generator_choices", "original_template"),
    "chains": ("steps", "fold_artifacts", "shared_artifacts", "branch_path"),
    "predictions": ("scores", "best_params"),
    "logs": ("details",),
}


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A query for the ids of rows that are wrong; `repair` deletes them, where that loses nothing."""

    kind: str
    table: str
    sql: str
    message: str
    cure: str = RESTORE
    where: str = ""  # of the rows that a repair deletes
    is_leftover: bool = False


def _reference(table: str, column: str, to: str, key: str, where: str = "true") -> RowCheck:
    sql = f"SELECT {_KEYS[table]} FROM {table} WHERE {where} AND {column} NOT IN (SELECT {key} FROM {to})"
    return RowCheck("dangling reference", table, sql, f"its {column} is not in {to}")


def _leftover(table: str, key: str, where: str, message: str) -> RowCheck:
    cure = "verify(repair=True) removes it"
    return RowCheck("leftover", table, f"SELECT {key} FROM {table} WHERE {where}", message, cure, where, True)


def _duplicate(table: str, key: str) -> RowCheck:
    sql = f"SELECT coalesce({key}, 'NULL') FROM {table} GROUP BY {key} HAVING count(*) > 1 OR {key} IS NULL"
    return RowCheck("duplicate", table, sql, f"more than one row has this {key}, or none")


def _json(table: str, column: str) -> RowCheck:
    sql = f"SELECT {_KEYS[table]} FROM {table} WHERE NOT json_valid({column})"
    return RowCheck("damaged row", table, sql, f"its {column} is no JSON")


_ADDRESSES = ("y_true_hash", "weights_hash")
_UNUSED_ARRAYS = " AND ".join(
    f"content_hash NOT IN (SELECT DISTINCT {name} FROM prediction_values WHERE {name} IS NOT NULL)"
    for name in _ADDRESSES
)
REFERENCES = (
    _reference("pipelines", "run_id", "runs", "run_id"),
    _reference("chains", "pipeline_id", "pipelines", "pipeline_id"),
    _reference("logs", "pipeline_id", "pipelines", "pipeline_id"),
    _reference("predictions", "pipeline_id", "pipelines", "pipeline_id"),
    _reference("predictions", "chain_id", "chains", "chain_id", "chain_id IS NOT NULL"),
    *(
        _reference("prediction_values", name, "shared_arrays", "content_hash", f"{name} IS NOT NULL")
        for name in _ADDRESSES
    ),
    _reference(
        "prediction_values",
        "sample_indices_hash",
        "shared_indices",
        "content_hash",
        "sample_indices_hash IS NOT NULL",
    ),
    _reference("prediction_metadata", "content_hash", "shared_metadata", "content_hash"),
    RowCheck(
        "missing artifact",
        "chain_artifacts",
        """SELECT DISTINCT artifact_id FROM chain_artifacts
        WHERE released IS NOT TRUE AND artifact_id NOT IN (SELECT artifact_id FROM stored_artifacts) AND chain_id IN (
            SELECT chain_id FROM chains JOIN pipelines USING (pipeline_id) WHERE status <> 'running')""",
        "chains use it, and it is not stored",
        "register it, restore a backup, or delete the chains that use it",
    ),
    RowCheck(
        "damaged row",
        "store_info",
        "SELECT 'store_info' FROM (SELECT count(*) AS n FROM store_info) WHERE n <> 1",
        "the store has no single format",
    ),
)
LEFTOVERS = (
    _leftover(
        "prediction_values",
        "prediction_id",
        "prediction_id NOT IN (SELECT prediction_id FROM predictions)",
        "arrays of a prediction that is not there",
    ),
    _leftover(
        "prediction_metadata",
        "prediction_id",
        "prediction_id NOT IN (SELECT prediction_id FROM predictions)",
        "metadata of a prediction that is not there",
    ),
    _leftover(
        "chain_artifacts",
        "chain_id",
        "chain_id NOT IN (SELECT chain_id FROM chains)",
        "keeps an artifact for a chain that is not there",
    ),
    _leftover(
        "compiled_chains",
        "chain_id",
        "chain_id NOT IN (SELECT chain_id FROM chains)",
        "compiled from a chain that is not there",
    ),
    _leftover("shared_arrays", "content_hash", _UNUSED_ARRAYS, "an array that no prediction has"),
    _leftover(
        "shared_indices",
        "content_hash",
        "content_hash NOT IN (SELECT DISTINCT sample_indices_hash FROM prediction_values"
        " WHERE sample_indices_hash IS NOT NULL)",
        "indices that no prediction has",
    ),
    _leftover(
        "shared_metadata",
        "content_hash",
        "content_hash NOT IN (SELECT DISTINCT content_hash FROM prediction_metadata)",
        "metadata that no prediction has",
    ),
)
DUPLICATES = (
    *(_duplicate(table, key) for table, key in _KEYS.items()),
    RowCheck(
        "duplicate",
        "predictions",
        "SELECT min(prediction_id) FROM predictions GROUP BY nk, pipeline_id, chain_id, fold_id, partition, model_name,"
        " branch_id HAVING count(*) > 1",
        "two predictions have the same pipeline, chain, fold, partition, model and branch",
    ),
)
CONTENTS = (
    *(_json(table, column) for table, columns in _JSON.items() for column in columns),
    RowCheck(
        KEY,
        "prediction_values",
        "SELECT v.prediction_id FROM prediction_values v JOIN predictions p USING (prediction_id)"
        " WHERE v.id_key IS DISTINCT FROM p.id_key",
        "its key is not that of its prediction: a read of its arrays misses them",
        CURE,
    ),
)
ARRAYS = (
    RowCheck(
        "damaged row",
        "prediction_values",
        f"""SELECT prediction_id FROM prediction_values WHERE {_PIECE} AND (
        len(y_pred) % nullif(y_pred_width, 0) <> 0 OR len(y_proba) % nullif(y_proba_width, 0) <> 0)""",
        "the length of its arrays is no multiple of their width",
    ),
    RowCheck(
        "damaged row",
        "prediction_values",
        f"""SELECT prediction_id FROM prediction_values WHERE {_PIECE} AND classes IS NOT NULL AND (
        NOT json_valid(classes) OR
        list_max(list_filter(y_pred, lambda code: NOT isnan(code))) >= json_array_length(classes))""",
        "its labels are not among its classes",
    ),
)


def run(database: Database, check: RowCheck) -> list[Finding]:
    """What a check finds."""
    ids = [str(found) for (found,) in database.rows(f"{check.sql} LIMIT {_SHOWN + 1}")]
    return [_of(check, database, identifier) for identifier in ids[:_SHOWN]] + (
        [_of(check, database, "and more")] if len(ids) > _SHOWN else []
    )


def _of(check: RowCheck, database: Database, identifier: str) -> Finding:
    return Finding(
        check.kind,
        f"{check.table} {identifier}",
        database.path,
        check.message,
        check.cure,
        is_leftover=check.is_leftover,
    )


def _wrong_arrays(check: RowCheck, database: Database, first: int, last: int) -> list[Finding]:
    return run(database, replace(check, sql=check.sql.format(first=first, last=last)))


def extent(database: Database, table: str) -> tuple[int, int]:
    """How many rows a table has, and the number behind the last one, as `rowid` counts."""
    ((count, last),) = database.rows(f"SELECT count(*), coalesce(max(rowid) + 1, 0) FROM {table}")
    return int(count), int(last)


def _wrong_contents(table: str, database: Database, first: int, last: int) -> Iterator[Finding]:
    """Shared contents whose address is not the hash of what they hold."""
    rows = database.arrow(f"FROM {table} WHERE {_PIECE.format(first=first, last=last)}")
    for row in range(rows.num_rows):
        address = rows["content_hash"][row].as_py()
        if _HASHES[table](rows, row) != address:
            yield Finding("damaged row", f"{table} {address}", database.path, "its content has another hash", RESTORE)


def _hash_of_array(rows: pa.Table, row: int) -> str:
    values = rows["array_values"][row].values
    flat = np.ascontiguousarray(values.to_numpy(zero_copy_only=False)) if values is not None else np.empty(0)
    width = rows["width"][row].as_py() if "width" in rows.column_names else None
    if width and width > 0 and len(flat) % width == 0:
        flat = flat.reshape(-1, width)
    return content_hash(flat)


def _hash_of_text(rows: pa.Table, row: int) -> str:
    return xxhash.xxh3_128_hexdigest((rows["content"][row].as_py() or "").encode())


_HASHES: dict[str, Callable[[pa.Table, int], str]] = {
    "shared_arrays": _hash_of_array,
    "shared_indices": _hash_of_array,
    "shared_metadata": _hash_of_text,
}


class PieceCheck(NamedTuple):
    """A check that looks at some rows of a table at a time: those with numbers from one up to another one. Others have
    the file in between.
    """

    part: str
    table: str
    rows: int
    look: Callable[[Database, int, int], Iterable[Finding]]


BY_PIECES = (
    PieceCheck("predictions", "predictions", ROWS_AT_ONCE, wrong_keys),
    *(PieceCheck("arrays", check.table, ROWS_AT_ONCE, partial(_wrong_arrays, check)) for check in ARRAYS),
    *(PieceCheck("shared contents", table, _CONTENTS_AT_ONCE, partial(_wrong_contents, table)) for table in _HASHES),
)
