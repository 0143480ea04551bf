"""One row per chain, model, metric and dataset: fold counts and the least, largest and mean of each score.

Groups are made of the chains that a question is about and of no others; what is asked of all of them page by page holds
one page in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import SCORES, one_of, ranked, where_clause
from n4a_fast.schema.ddl import AGGREGATED
from n4a_fast.values import checks

FILTERS = ("run_id", "pipeline_id", "chain_id", "dataset_name", "model_class", "metric")
AGGREGATED_SCORES = tuple(f"{kind}_{score}" for kind in ("min", "max", "avg") for score in SCORES)
_OF_CHAINS = ("run_id", "pipeline_id", "chain_id", "model_class")  # the rest are of predictions

_CHAINS = """SELECT chain_id FROM (
    SELECT c.chain_id, c.pipeline_id, c.model_class, l.run_id FROM chains c
    JOIN pipelines l ON l.pipeline_id = c.pipeline_id)"""
_FOUND = f"SELECT * FROM ({AGGREGATED}){{where}} ORDER BY {{order}}"
_IN_ORDER = "chain_id, model_name, metric, dataset_name"


class Aggregates:
    """Questions about groups of predictions; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)

    def query(self, **filters: Any) -> pl.DataFrame:
        """All groups, by chain, model, metric and dataset."""
        sql, params = _matching(filters, _IN_ORDER)
        return self._database.frame(sql, params)

    def top(
        self, metric: str, n: int, score_column: str, ascending: bool | None, filters: dict[str, Any]
    ) -> pl.DataFrame:
        """The best groups of a metric."""
        upward = not self._metrics.require_direction(metric) if ascending is None else ascending
        score = one_of(score_column, AGGREGATED_SCORES, "score_column")
        order = f"{ranked(score, upward)}, chain_id, model_name, dataset_name"
        sql, params = _matching({**filters, "metric": metric}, order)
        return self._database.frame(f"{sql} LIMIT ?", [*params, checks.count(n, "n")])

    def pages(self, batch_size: int, filters: dict[str, Any]) -> Iterator[pl.DataFrame]:
        """The groups of `batch_size` chains at a time, in the order of `query`; each page as stored at its turn."""
        size = checks.count(batch_size, "batch_size")
        if not size:
            raise InvalidInputError("batch_size must be 1 or more")
        of_chains, params = where_clause({name: filters[name] for name in _OF_CHAINS if name in filters}, FILTERS)
        chains = self._database.arrow(f"{_CHAINS}{of_chains} ORDER BY chain_id", params)
        where, params = where_clause(filters, FILTERS)
        return (self._page(chains.slice(start, size), where, params) for start in range(0, chains.num_rows, size))

    def _page(self, chains: pa.Table, where: str, params: list[Any]) -> pl.DataFrame:
        with self._database.registered({"page": chains}):
            within = " AND chain_id IN (SELECT chain_id FROM page)"
            return self._database.frame(_FOUND.format(within=within, where=where, order=_IN_ORDER), params)


def _matching(filters: dict[str, Any], order: str) -> tuple[str, list[Any]]:
    """SQL and parameters of the groups that match; chains are chosen before they are grouped."""
    where, params = where_clause(filters, FILTERS)
    of_chains, chosen = where_clause({name: filters[name] for name in _OF_CHAINS if name in filters}, FILTERS)
    within = f" AND chain_id IN ({_CHAINS}{of_chains})" if of_chains else ""
    return _FOUND.format(within=within, where=where, order=order), [*chosen, *params]
