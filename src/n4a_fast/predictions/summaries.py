"""One row per chain: cross-validation means, scores of the refit, and where the chain belongs.

Computed from the predictions by the view `v_chain_summary`, so a summary is never stale. The
ranking picks its chains before the means of all metrics are computed for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from n4a_fast.engine.connection import Database
from n4a_fast.engine.frames import as_frame
from n4a_fast.predictions.metrics import Metrics
from n4a_fast.predictions.queries import one_of, ranked, where_clause
from n4a_fast.schema.ddl import CHAIN_SUMMARY
from n4a_fast.values import checks

FILTERS = ("run_id", "pipeline_id", "chain_id", "dataset_name", "model_class", "metric", "task_type")
SCORES = ("cv_val_score", "cv_test_score", "cv_train_score", "final_test_score", "final_train_score")
_EARLIER_NAMES = {
    f"{kind}_{score}": f"cv_{score}"
    for kind in ("min", "max", "avg")
    for score in ("val_score", "test_score", "train_score")
}

_COUNT = "SELECT count(*) FROM v_chain_scores{where}"
_MATCHING = "SELECT chain_id FROM v_chain_scores{where} ORDER BY chain_id"
_TOP = "SELECT chain_id FROM v_chain_scores{where} ORDER BY {order}, chain_id LIMIT ? OFFSET ?"
_THESE = f"""SELECT found.* FROM ({CHAIN_SUMMARY.format(which="chain_id IN (SELECT chain_id FROM wanted)")}) found
JOIN wanted USING (chain_id) ORDER BY wanted.place"""


class ChainSummaries:
    """Questions about chains and how well they did; reads only."""

    def __init__(self, database: Database) -> None:
        self._database, self._metrics = database, Metrics(database)

    def query(self, filters: dict[str, Any]) -> pl.DataFrame:
        where, params = where_clause(filters, FILTERS)
        return self._of(self._database.rows(_MATCHING.format(where=where), params))

    def count(self, filters: dict[str, Any]) -> int:
        where, params = where_clause(filters, FILTERS)
        return int(self._database.rows(_COUNT.format(where=where), params)[0][0])

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
        return self._of(self._database.rows(_TOP.format(where=where, order=ranked(column, upward)), [*params, *page]))

    def _is_lower_better(self, metric: str | None) -> bool:
        return metric is None or not self._metrics.require_direction(metric)

    def _of(self, found: list[tuple[Any, ...]]) -> pl.DataFrame:
        """Summaries of these chains, in this order."""
        chain_ids = pa.array([chain_id for (chain_id,) in found], pa.string())
        wanted = pa.table({"chain_id": chain_ids, "place": np.arange(len(found))})
        return as_frame(self._database.select(_THESE, wanted=wanted))
