"""One row per chain, model, metric and dataset: fold counts and the least, largest and mean of each score.

Groups are made of the chains that a question is about and of no others; what is asked of all of them page by page holds
one page in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import SCORES, one_of, ranked, where_clause
from n4a_fast.schema.ddl import AGGREGATED
from n4a_fast.tables.stale_chains import ranges_of
from n4a_fast.values import checks

FILTERS = ("run_id", "pipeline_id", "chain_id", "dataset_name", "model_class", "metric")
AGGREGATED_SCORES = tuple(f"{kind}_{score}" for kind in ("min", "max", "avg") for score in SCORES)
_OF_CHAINS = ("run_id", "pipeline_id", "chain_id", "model_class")  # the rest are of predictions

_CHAINS_AT_ONCE = 1000  # of which DuckDB makes groups: it cannot put the lists in them aside
_AHEAD = 50_000  # chains whose ids are read at once after the first page, which does not wait for all of them
_CHAINS = "SELECT chain_id, pipeline_id FROM chains"
_NEXT = "FROM ({chains}) WHERE ? IS NULL OR chain_id > ? ORDER BY chain_id LIMIT ?"
# the bounds rule out row groups of chains and pipelines, which the joins alone would read to the end
_FOUND = f"""SELECT * FROM ({AGGREGATED} WHERE c.chain_id BETWEEN ? AND ? AND l.pipeline_id BETWEEN ? AND ?){{where}}
ORDER BY {{order}}"""
# the lists of groups are not made for this
_BEST = f"""SELECT DISTINCT chain_id, pipeline_id FROM (
    SELECT chain_id, pipeline_id FROM ({AGGREGATED}){{where}} ORDER BY {{order}} LIMIT ?)"""
# an array of a list would import pandas
_NO_CHAINS = pa.table({name: pa.nulls(0, pa.string()) for name in ("chain_id", "pipeline_id")})
_IN_ORDER = "chain_id, model_name, metric, dataset_name"


class Aggregates:
    """Questions about groups of predictions; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)

    def query(self, **filters: Any) -> pl.DataFrame:
        """All groups, by chain, model, metric and dataset."""
        with self._database.reading():
            pages = list(self.pages(_CHAINS_AT_ONCE, filters))
            return pl.concat(pages) if pages else self._page(_NO_CHAINS, filters, _IN_ORDER)

    def top(
        self, metric: str, n: int, score_column: str, ascending: bool | None, filters: dict[str, Any]
    ) -> pl.DataFrame:
        """The best groups of a metric."""
        upward = not self._metrics.require_direction(metric) if ascending is None else ascending
        score, wanted = one_of(score_column, AGGREGATED_SCORES, "score_column"), checks.count(n, "n")
        order = f"{ranked(score, upward)}, chain_id, model_name, dataset_name"
        filters = {**filters, "metric": metric}
        where, params = where_clause(filters, FILTERS)
        of_chains, chosen = _of_chains(filters)
        within = f" AND chain_id IN (SELECT chain_id FROM ({of_chains}))" if chosen else ""
        with self._database.reading():
            sql = _BEST.format(within=within, where=where, order=order)
            best = self._database.arrow(sql, [*chosen, *params, wanted])
            return self._page(best, filters, order).head(wanted)

    def pages(self, batch_size: int, filters: dict[str, Any]) -> Iterator[pl.DataFrame]:
        """The groups of `batch_size` chains at a time, in the order of `query`; each page as stored at its turn."""
        size = checks.count(batch_size, "batch_size")
        if not size:
            raise InvalidInputError("batch_size must be 1 or more")
        where_clause(filters, FILTERS)  # refused now, not with the first page
        return (self._page(chains, filters, _IN_ORDER) for chains in self._chains(size, filters))

    def _chains(self, size: int, filters: dict[str, Any]) -> Iterator[pa.Table]:
        """The chains that match in the order of their ids, `size` at a time."""
        sql, params = _of_chains(filters)
        last, wanted = None, size
        while True:
            chains = self._database.arrow(_NEXT.format(chains=sql), [*params, last, last, wanted])
            yield from (chains.slice(at, size) for at in range(0, chains.num_rows, size))
            if chains.num_rows < wanted:
                return
            last, wanted = chains["chain_id"][-1].as_py(), -(-_AHEAD // size) * size

    def _page(self, chains: pa.Table, filters: dict[str, Any], order: str) -> pl.DataFrame:
        """The groups of some chains (`chain_id`, `pipeline_id`) that match."""
        where, params = where_clause(filters, FILTERS)
        ends = [end.as_py() for name in _NO_CHAINS.column_names for end in pc.min_max(chains[name]).values()]
        with self._database.reading(), self._database.registered({"page": chains}):
            ranges = ranges_of(self._database, chains["chain_id"].to_pylist())
            within = f" AND ({ranges}) AND chain_id IN (SELECT chain_id FROM page)"
            return self._database.frame(_FOUND.format(within=within, where=where, order=order), [*ends, *params])


def _of_chains(filters: dict[str, Any]) -> tuple[str, list[Any]]:
    """SQL and parameters of the chains that match: they are chosen before they are grouped."""
    where, params = where_clause({name: filters[name] for name in _OF_CHAINS if name in filters})
    return f"{_CHAINS}{where}", params
