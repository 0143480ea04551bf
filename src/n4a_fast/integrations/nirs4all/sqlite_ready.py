"""What nirs4all 1.x asks most often, translated without the translator.

The translator takes a fifth of a second to be imported and to begin, more than the store takes for the sweep of
twenty variants, or for a hundred rankings. Here is one form of query: all columns of predictions or of summaries of
chains, filtered by texts, in an order, so many of them. A test compares each text with what the translator makes of it.
"""

from __future__ import annotations

import re

import polars as pl

from n4a_fast.integrations.nirs4all.sqlite_tables import COLUMN_NAMES, SUMMARIES, TEXT_COLUMNS, source_of

_OF_RUN = "SELECT rowid AS _rowid, * FROM pipelines WHERE run_id = ?"
_NUMBERED = (
    "SELECT ROW_NUMBER() OVER (ORDER BY created_at, pipeline_id) AS _rowid, * FROM pipelines"
    " WHERE run_id = CAST(? AS TEXT){} ORDER BY pipeline_id ASC"
)
RUNS = {
    f"{_OF_RUN} ORDER BY rowid ASC": _NUMBERED.format(""),
    f"{_OF_RUN} AND dataset_name = ? ORDER BY rowid ASC": _NUMBERED.format(" AND dataset_name = CAST(? AS TEXT)"),
}
NEWEST_FIRST = " ORDER BY DATE_TRUNC('second', created_at) DESC, predictions.created_at"

_FILTER = r"\w+ (?:= \?|IN \(\?(?:, \?)*\))"
_ORDER = r"(?:\(\w+ IS NULL\)|\w+(?: ASC| DESC)?)"
_QUERY = re.compile(
    rf"SELECT \* FROM (?P<table>predictions|v_chain_summary)(?: WHERE (?P<filters>{_FILTER}(?: AND {_FILTER})*))?"
    rf" ORDER BY (?P<order>{_ORDER}(?:, {_ORDER})*)(?P<limit> LIMIT \?(?: OFFSET \?)?)?"
)


def ready(query: str, with_more: frozenset[str], summaries: str = SUMMARIES) -> str | None:
    """The translation of a query of the known form; the options are those of `source_of`."""
    if (found := _QUERY.fullmatch(query)) is None:
        return RUNS.get(query)
    table, filters, order = found["table"], found["filters"] or "", found["order"]
    filtered = set(re.findall(r"(\w+) (?:=|IN) ", filters))
    if not filtered <= TEXT_COLUMNS or not set(re.findall(r"[a-z_]+", order)) <= COLUMN_NAMES:
        return None
    where = f" WHERE {filters.replace('?', 'CAST(? AS TEXT)')}" if filters else ""
    ordered = [_ordered(each, table) for each in order.split(", ")]
    ordered += ["predictions.created_at"] if table == "predictions" else []
    source = source_of(table, None, with_more=with_more, summaries=summaries)
    return (
        f"WITH nirs4all_{table} AS ({source}) SELECT * FROM nirs4all_{table} AS {table}{where}"
        f" ORDER BY {', '.join(ordered)}{found['limit'] or ''}"
    )


def _ordered(item: str, table: str) -> str:
    """One of the columns of an order: nothing comes first unless it is reversed, times are compared by the second."""
    name, _, direction = item.rpartition(" ") if item.endswith(("ASC", "DESC")) else (item, "", "")
    if table == "predictions":
        name = name.replace("created_at", "DATE_TRUNC('second', created_at)")
    return " ".join(each for each in (name, direction, "" if direction == "DESC" else "NULLS FIRST") if each)


def newest_first(frame: pl.DataFrame) -> pl.DataFrame:
    """All predictions in the order of `NEWEST_FIRST`; DuckDB would move each row with its texts, for twice the time."""
    made = pl.col("created_at")
    order = (made.dt.truncate("1s"), made)
    return frame.sort(*order, descending=[True, False], nulls_last=True, maintain_order=True)
