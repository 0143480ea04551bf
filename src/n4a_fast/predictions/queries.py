"""Reading predictions: filters that mean what they say, and rankings with a fixed order.

A filter is an equality, except `model_class`, which is a SQL LIKE pattern (`%` any text, `_`
any character, `\\` before either for the character itself). A ranking puts NaN and NULL last
in both directions and breaks ties by prediction id.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions.read_ahead import VALUES, ReadAhead
from n4a_fast.schema.columns import LOOKUP_COLUMNS, PREDICTIONS, SAME_PREDICTION, THIS_PREDICTION, WITHIN
from n4a_fast.tables.predictions import arrays
from n4a_fast.tables.predictions.metadata import SampleMetadata
from n4a_fast.tables.predictions.shared import SharedContents
from n4a_fast.tables.stale_chains import ranges_of
from n4a_fast.values import checks, ids, jsontext

COLUMNS = ", ".join(name for name in PREDICTIONS.names if name not in LOOKUP_COLUMNS)
_OF_P = ", ".join(f"p.{name}" for name in PREDICTIONS.names if name not in LOOKUP_COLUMNS)
FOLDS = "TRY_CAST(fold_id AS INTEGER) NULLS LAST, fold_id"  # the order of folds: 2 before 10, then their averages
SCORES = ("val_score", "test_score", "train_score")
GROUPS = (
    "pipeline_id",
    "chain_id",
    "dataset_name",
    "model_name",
    "model_class",
    "fold_id",
    "partition",
    "metric",
    "task_type",
    "preprocessings",
    "branch_id",
    "branch_name",
    "refit_context",
)

_GET = f"SELECT {COLUMNS} FROM predictions p WHERE {THIS_PREDICTION.format('p')}"
_VALUES = f"SELECT {VALUES}, rowid AS position FROM prediction_values v WHERE {THIS_PREDICTION.format('v')}"
_FIRST = f"SELECT {COLUMNS} FROM predictions{{where}} ORDER BY {{order}} LIMIT ?"
# found by narrow columns alone, all of them in the order, or DuckDB would look at every row group once more; of so few
# rows it looks the others up by the index, as it does for joins with few rows
_FEW = 50
_FIRST_FEW = f"""WITH first AS MATERIALIZED (
    SELECT prediction_id, id_key, {{score}} FROM predictions{{where}} ORDER BY {{order}}, id_key LIMIT ?)
SELECT {_OF_P} FROM predictions p JOIN first ON {SAME_PREDICTION.format("p", "first")} ORDER BY {{order_of_p}}"""
# most row groups have rows of each partition, so they are left out by their scores: of two columns no zone map is asked
_PARTITION, _PARTITION_LATER = "partition = ?", "(partition = ? OR id_key IS NULL)"
_ROW = 2**19  # bytes of the blocks of its texts, beside the others
_LEAST_ROW = 2**7  # bytes of the file
_TOP_OF_LARGE_GROUPS = """SELECT {columns} FROM predictions{where}
QUALIFY row_number() OVER (PARTITION BY {group} ORDER BY {order}) <= ? ORDER BY {order}"""
# the n-th best score of each group first: then few rows are left to be ranked; a group with fewer scores is ranked
# whole
_TOP_OF_GROUPS = """WITH bounds AS (
    SELECT {group} AS of_group, list_last({best}({score}, {n}) FILTER ({number})) AS bound, count(*) FILTER ({number}) <
    {n} AS is_small
    FROM predictions{where} GROUP BY 1),
candidates AS (
    SELECT {columns} FROM predictions JOIN (FROM bounds WHERE NOT is_small) ON {group} IS NOT DISTINCT FROM of_group AND
    {score} {within} bound
    {where} {also} {number}
    UNION ALL SELECT {columns} FROM predictions JOIN (FROM bounds WHERE is_small) ON {group} IS NOT DISTINCT FROM
    of_group {where})
SELECT {columns} FROM candidates QUALIFY row_number() OVER (PARTITION BY {group} ORDER BY {order}) <= ? ORDER BY
{order}"""
_BOUNDED_AT_MOST = 1000
_OF_RUN = "pipeline_id IN (SELECT pipeline_id FROM pipelines WHERE run_id = ?)"
# as text, UUIDs in the usual form are in the order of their numbers
_ENDS_OF_RUNS = """SELECT min(pipeline_id), max(pipeline_id) FROM pipelines WHERE list_contains(?, run_id)
HAVING bool_and(regexp_full_match(pipeline_id, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'))"""
_OF_RUNS = "pipeline_id IN (SELECT pipeline_id FROM pipelines WHERE list_contains(?, run_id))"
_LIKE = "model_class LIKE ? ESCAPE '\\'"


class PredictionQueries:
    """Every question about predictions; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metadata, self._contents = database, SampleMetadata(database), SharedContents(database)
        self._ahead = ReadAhead(database, COLUMNS)

    def find(self, prediction_id: str, load_arrays: bool, labels: bool = False) -> dict[str, Any] | None:
        with self._database.reading():
            return self._find(prediction_id, load_arrays or labels, labels)

    def _find(self, prediction_id: str, load_arrays: bool, labels: bool) -> dict[str, Any] | None:
        read = self._ahead.find(prediction_id) if load_arrays else None
        row = read[0] if read else self._database.row(_GET, (ids.id_key(prediction_id), prediction_id))
        if row is None:
            return None
        row["scores"], row["best_params"] = jsontext.decode(row["scores"]), jsontext.decode(row["best_params"])
        if load_arrays:
            values = read[1] if read else self._values_of(prediction_id)
            row.update(self._restored(values, labels) or dict.fromkeys(arrays.NAMES))
            row["sample_metadata"] = self._metadata_of(prediction_id, read is not None)
        return row

    def arrays_of(self, prediction_id: str, labels: bool = False) -> dict[str, Any] | None:
        with self._database.reading():
            read = self._ahead.find(prediction_id)
            return self._restored(read[1] if read else self._values_of(prediction_id), labels)

    def described_arrays_of(self, prediction_id: str) -> dict[str, Any] | None:
        """The arrays of a prediction and its `sample_metadata`; None when it has no arrays."""
        with self._database.reading():
            read = self._ahead.find(prediction_id)
            found = self._restored(read[1] if read else self._values_of(prediction_id), labels=False)
            if found is not None:
                found["sample_metadata"] = self._metadata_of(prediction_id, read is not None)
            return found

    def _metadata_of(self, prediction_id: str, is_read_ahead: bool) -> dict[str, Any]:
        if is_read_ahead and not self._ahead.is_described(prediction_id):
            return {}
        return self._metadata.find(prediction_id)

    def _values_of(self, prediction_id: str) -> dict[str, Any] | None:
        """The stored arrays of a prediction."""
        row = self._database.row(_VALUES, (ids.id_key(prediction_id), prediction_id))
        if row is not None:
            values = len(row["y_pred"] or ()) + len(row["y_proba"] or ())
            self._ahead.note(row.pop("position"), values * np.dtype(np.float64).itemsize)
        return row

    def _restored(self, row: dict[str, Any] | None, labels: bool) -> dict[str, Any] | None:
        if row is None:
            return None
        row["y_true"], row["y_true_width"] = self._contents.reals(row["y_true_hash"]) or (None, None)
        row["weights"], _ = self._contents.reals(row["weights_hash"]) or (None, None)
        row["sample_indices"], _ = self._contents.indices(row["sample_indices_hash"]) or (None, None)
        return arrays.restored(row, labels)

    def places(self, filters: dict[str, Any]) -> pa.Table:
        """Id, `id_key`, chain and pipeline of the predictions that match; `prediction_id` is one of these filters."""
        match filters.get("prediction_id"):
            case [str(one)]:
                filters = {**filters, "prediction_id": one, "id_key": ids.id_key(one)}  # found without reading all
        where, params = where_on_predictions(self._database, filters, (*FILTERS, "prediction_id", "id_key"))
        return self._database.arrow(
            f"SELECT prediction_id, id_key, chain_id, pipeline_id FROM predictions{where}", params
        )

    def query(self, limit: int | None, offset: int, **filters: Any) -> pl.DataFrame:
        with self._database.reading():
            return self._query(limit, offset, filters)

    def _query(self, limit: int | None, offset: int, filters: dict[str, Any]) -> pl.DataFrame:
        where, params = where_on_predictions(self._database, filters)
        sql = f"SELECT {COLUMNS} FROM predictions{where} ORDER BY created_at DESC, prediction_id DESC"
        if limit is not None:
            sql, params = f"{sql} LIMIT ?", [*params, checks.count(limit, "limit")]
        if skipped := checks.count(offset, "offset"):  # with it DuckDB puts all row groups in order, for whatever rows
            sql, params = f"{sql} OFFSET ?", [*params, skipped]
        return self._database.frame(sql, params)

    def top(
        self,
        n: int,
        metric: str,
        ascending: bool,
        partition: str | None,
        dataset_name: str | None,
        group_by: str | None,
    ) -> pl.DataFrame:
        score, wanted = one_of(metric, SCORES, "metric"), checks.count(n, "n")
        where, params = where_clause({"partition": partition, "dataset_name": dataset_name})
        if group_by is not None:
            return self._top_of_groups(wanted, score, ascending, one_of(group_by, GROUPS, "group_by"), where, params)
        with self._database.reading():
            if ascending:  # DuckDB's own order ends with NaN, then NULL, and spares a column
                return self._first(wanted, score, "{score} NULLS LAST", where, params)
            finite = f"{where} {'AND' if where else 'WHERE'} {is_number(score)}"
            found = self._first(wanted, score, "{score} DESC", finite, params)
            if found.height == wanted:
                return found
            return self._first(wanted, score, ranked("{score}", ascending), where, params)

    def _first(self, n: int, score: str, order: str, where: str, params: list[Any]) -> pl.DataFrame:
        """The first `n` predictions by their score, then by id."""
        by = {"order": f"{order.format(score=score)}, prediction_id"}
        sql = _FIRST
        self._database.begin_anew_if_due()
        rows = self._database.path.stat().st_size // _LEAST_ROW  # at most
        if n <= min(_FEW, self._database.rows_to_look_up(_ROW, rows)):
            sql, where = _FIRST_FEW, where.replace(_PARTITION, _PARTITION_LATER)
            by |= {"score": score, "order_of_p": f"{order.format(score=f'p.{score}')}, p.prediction_id"}
        return self._database.frame(sql.format(where=where, **by), [*params, n])

    def _top_of_groups(
        self, n: int, score: str, ascending: bool, group: str, where: str, params: list[Any]
    ) -> pl.DataFrame:
        sql = _TOP_OF_GROUPS if n <= _BOUNDED_AT_MOST else _TOP_OF_LARGE_GROUPS
        text = sql.format(
            columns=COLUMNS,
            group=group,
            score=score,
            where=where,
            order=f"{ranked(score, ascending)}, prediction_id",
            number=is_number(score),
            best="min" if ascending else "max",
            within="<=" if ascending else ">=",
            also="AND" if where else "WHERE",
            n=max(n, 1),
        )
        return self._database.frame(text, [*params * (3 if sql is _TOP_OF_GROUPS else 1), n])

    def of_chain(self, chain_id: str, partition: str | None, fold_id: str | None) -> pl.DataFrame:
        filters = {"chain_id": chain_id, "partition": partition, "fold_id": fold_id}
        with self._database.reading():
            where, params = where_on_predictions(self._database, filters)
            return self._database.frame(
                f"SELECT {COLUMNS} FROM predictions{where} ORDER BY partition, {FOLDS}, prediction_id", params
            )


FILTERS = ("dataset_name", "model_class", "partition", "fold_id", "branch_id", "pipeline_id", "run_id", "chain_id")


def where_clause(filters: dict[str, Any], allowed: tuple[str, ...] = FILTERS) -> tuple[str, list[Any]]:
    """SQL and parameters for filters by column name, one value or a list of them.

    None and an empty list mean no filter, an unknown name is refused.
    """
    terms: list[str] = []
    params: list[Any] = []
    unknown = sorted(set(filters) - set(allowed))
    if unknown:
        raise InvalidInputError(f"unknown filter {', '.join(unknown)}; use {', '.join(allowed)}")
    for name, given in filters.items():
        value = _checked_filter(name, given)
        if value is None or (isinstance(value, list) and not value):
            continue
        if isinstance(value, list | tuple):
            listed = [str(item) for item in value] if name == "fold_id" else list(value)
            term, given = (_OF_RUNS, [listed]) if name == "run_id" and allowed is FILTERS else _one_of(name, listed)
            terms.append(term)
            params += given
            continue
        plain, value = f"{name} = ?", checks.integer(value, name) if name == "branch_id" else value
        terms.append(_LIKE if name == "model_class" else _OF_RUN if name == "run_id" and allowed is FILTERS else plain)
        params.append(str(value) if name == "fold_id" else value)  # saved as text, whatever it was
    return (" WHERE " + " AND ".join(terms) if terms else ""), params


def _one_of(column: str, values: list[Any]) -> tuple[str, list[Any]]:
    """SQL for a column that is one of some values, and its parameters. Bounds of texts rule row groups out."""
    if _are_texts(values):
        return f"{column} IN (SELECT unnest(?)) AND {column} BETWEEN ? AND ?", [values, min(values), max(values)]
    return f"list_contains(?, {column})", [values]


def where_on_predictions(
    database: Database, filters: dict[str, Any], allowed: tuple[str, ...] = FILTERS
) -> tuple[str, list[Any]]:
    """`where_clause` for the table of predictions, with bounds of `nk`: then the rows of a chain, a pipeline or a run
    are found without reading all others.
    """
    where, params = where_clause(filters, allowed)
    ends, chains = _listed(filters.get("pipeline_id")), _listed(filters.get("chain_id"))
    if not ends and _are_texts(chains):
        return f"{where} AND ({ranges_of(database, chains)})", params
    if not ends and (runs := _listed(filters.get("run_id"))):
        ends = [end for found in database.rows(_ENDS_OF_RUNS, (runs,)) for end in found]
    return (f"{where} AND nk {WITHIN}", [*params, *ids.nk_bounds(ends)]) if ends else (where, params)


def _checked_filter(name: str, given: Any) -> Any:
    """A filter as Python's own text or number, or a list of them."""
    value = checks.plain(given)
    items = [checks.plain(item) for item in value] if isinstance(value, list | tuple) else [value]
    for item in items:
        if item is not None and not isinstance(item, str | int | float):
            raise InvalidInputError(
                f"{name} must be a text or a number, or a list of these, got {type(given).__name__}"
            )
    return items if isinstance(value, list | tuple) else value


def _listed(value: Any) -> list[Any]:
    value = checks.plain(value)
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _are_texts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def is_number(column: str) -> str:
    """SQL for neither NaN nor NULL: DuckDB puts NaN above every number."""
    return f"{column} < 'nan'::DOUBLE"


def ranked(column: str, ascending: bool) -> str:
    return f"({column} IS NULL OR isnan({column})), {column} {'ASC' if ascending else 'DESC'}"


def one_of(value: str, allowed: tuple[str, ...], name: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError(f"{name} {value!r} is not one of {', '.join(allowed)}")
    return value
