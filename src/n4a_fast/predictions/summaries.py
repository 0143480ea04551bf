"""One row per chain: cross-validation means, scores of the refit, and where the chain belongs.

The rows are those of `v_chain_summary`; they are cached, and brought up to date before they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

from n4a_fast.engine.connection import Database
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import is_number, one_of, ranked, where_clause
from n4a_fast.schema.chain_scores import ALL_SUMMARIES, BOOKKEEPING
from n4a_fast.tables.stale_chains import refresh
from n4a_fast.values import checks

FILTERS = ("run_id", "pipeline_id", "chain_id", "dataset_name", "model_class", "metric", "task_type")
SCORES = ("cv_val_score", "cv_test_score", "cv_train_score", "final_test_score", "final_train_score")
_EARLIER_NAMES = {
    f"{kind}_{score}": f"cv_{score}"
    for kind in ("min", "max", "avg")
    for score in ("val_score", "test_score", "train_score")
}

_COUNT = "SELECT count(*) FROM {source}{where}"
_MATCHING = "SELECT {columns} FROM {source}{where} ORDER BY chain_id"
_TOP = "SELECT {columns} FROM {source}{where} ORDER BY {order}, chain_id LIMIT ? OFFSET ?"
# the scores to the end of the page, for which DuckDB reads few row groups: what is behind them need not be read in full
_BEST = "SELECT {score} FROM {source}{where} {also} {number} ORDER BY {score} {way} LIMIT {rows}"
_BOUNDED_AT_MOST = 1000
_CACHED = ("cached_chain_summaries", f"* EXCLUDE ({BOOKKEEPING})")
_COMPUTED = (f"({ALL_SUMMARIES})", "*")


class ChainSummaries:
    """Questions about chains and how well they did."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)

    def query(self, filters: dict[str, Any]) -> pl.DataFrame:
        where, params = where_clause(filters, FILTERS)
        with self._source() as (source, columns):
            return self._database.frame(_MATCHING.format(source=source, columns=columns, where=where), params)

    def count(self, filters: dict[str, Any]) -> int:
        where, params = where_clause(filters, FILTERS)
        with self._source() as (source, _):
            return int(self._database.rows(_COUNT.format(source=source, where=where), params)[0][0])

    def top(
        self,
        metric: str | None,
        n: int,
        offset: int,
        score_column: str,
        ascending: bool | None,
        filters: dict[str, Any],
    ) -> pl.DataFrame:
        upward = self._is_lower_better(metric) if ascending is None else ascending
        column = one_of(_EARLIER_NAMES.get(score_column, score_column), SCORES, "score_column")
        where, params = where_clause({**filters, "metric": metric}, FILTERS)
        page = (checks.count(n, "n"), checks.count(offset, "offset"))
        with self._source() as (source, columns):
            near, bound = self._near(source, where, params, column, upward, sum(page))
            order = ranked(column, upward)
            sql = _TOP.format(source=source, columns=columns, where=f"{where}{near}", order=order)
            return self._database.frame(sql, [*params, *bound, *page])

    def _near(
        self, source: str, where: str, params: list[Any], score: str, upward: bool, rows: int
    ) -> tuple[str, list[float]]:
        """SQL that leaves out what is behind so many rows, and its parameter; none where there are not so many."""
        if not 0 < rows <= _BOUNDED_AT_MOST or source == _COMPUTED[0]:
            return "", []
        also, number, way = "AND" if where else "WHERE", is_number(score), "ASC" if upward else "DESC"
        sql = _BEST.format(score=score, source=source, where=where, also=also, number=number, way=way, rows=rows)
        best = self._database.rows(sql, params)
        if len(best) < rows:
            return "", []
        return f" {also} {score} {'<=' if upward else '>='} ? AND {number}", [best[-1][0]]

    @contextmanager
    def _source(self) -> Iterator[tuple[str, str]]:
        """Where all questions of the block find the rows of all chains, and SQL for the columns of a row."""
        with self._database.reading():
            yield _CACHED if refresh(self._database) else _COMPUTED

    def _is_lower_better(self, metric: str | None) -> bool:
        return metric is None or not self._metrics.require_direction(metric)
