"""What nirs4all 1.x sends in every sweep, translated beforehand.

The translator takes a fifth of a second to be imported and to begin, more than the store takes for the sweep of
twenty variants. A test compares each text with what the translator makes of it.
"""

from __future__ import annotations

import polars as pl

from n4a_fast.integrations.nirs4all.sqlite_tables import source_of

_OF_RUN = "SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ?"
_NUMBERED = (
    "SELECT ROW_NUMBER() OVER (ORDER BY created_at, pipeline_id) AS _rowid, * FROM pipelines"
    " WHERE run_id = CAST(? AS TEXT){} ORDER BY pipeline_id ASC"
)
_PREDICTIONS = "WITH nirs4all_predictions AS ({}) SELECT * FROM nirs4all_predictions AS predictions"
NEWEST_FIRST = " ORDER BY DATE_TRUNC('second', created_at) DESC, predictions.created_at"

_RUNS = {
    f"{_OF_RUN} ORDER BY rowid ASC": _NUMBERED.format(""),
    f"{_OF_RUN} AND dataset_name = ? ORDER BY rowid ASC": _NUMBERED.format(" AND dataset_name = CAST(? AS TEXT)"),
}
_OF_PREDICTIONS = {
    "SELECT * FROM predictions WHERE partition = ? AND pipeline_id = ? ORDER BY created_at DESC": (
        f"{_PREDICTIONS} WHERE partition = CAST(? AS TEXT) AND pipeline_id = CAST(? AS TEXT){NEWEST_FIRST}"
    ),
    "SELECT * FROM predictions ORDER BY created_at DESC": f"{_PREDICTIONS}{NEWEST_FIRST}",
}
KNOWN = (*_RUNS, *_OF_PREDICTIONS)


def ready(query: str, with_more: frozenset[str]) -> str | None:
    """The translation of a query that is known; `with_more` as in `source_of`."""
    if query in _OF_PREDICTIONS:
        return _OF_PREDICTIONS[query].format(source_of("predictions", None, with_more=with_more))
    return _RUNS.get(query)


def newest_first(frame: pl.DataFrame) -> pl.DataFrame:
    """All predictions in the order of `NEWEST_FIRST`; DuckDB would move each row with its texts, for twice the time."""
    made = pl.col("created_at")
    order = (made.dt.truncate("1s"), made)
    return frame.sort(*order, descending=[True, False], nulls_last=True, maintain_order=True)
