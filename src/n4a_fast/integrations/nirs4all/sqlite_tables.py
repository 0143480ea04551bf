"""Tables as nirs4all 1.x has them, made from ours: what a query names is read through one of these.

Only what a query asks for is joined: columns that follow from predictions, and those that are carried
beside our rows, cost something.
"""

from __future__ import annotations

from collections.abc import Collection

from n4a_fast.integrations.workspaces.batches import CARRIED_TABLES
from n4a_fast.integrations.workspaces.sqlite_schema import COLUMNS, RELATION, REPLAY, SUMMARY, type_of

WITH_MORE = frozenset({"predictions", "chains"})  # tables of ours with columns that are carried beside their rows
SAVED, SAVES = "artifacts", "saves_of_this_handle"  # a table with more where this handle has saved what no chain uses
SUMMARIES, CACHED_SUMMARIES = "v_chain_summary", "cached_chain_summaries"
TIMES = ("created_at", "completed_at", "updated_at")
NAMES = frozenset({*COLUMNS, "v_chain_summary"})
COLUMN_NAMES = frozenset({name for names in COLUMNS.values() for name in names} | {"pipeline_status"})
TEXT_COLUMNS = frozenset(name for name in COLUMN_NAMES if type_of(name) == "TEXT" and name not in TIMES)
INTEGER_COLUMNS = frozenset(name for name in COLUMN_NAMES if type_of(name) == "INTEGER")
KEYS = {name: columns[0] for name, columns in COLUMNS.items()}

_AS_TEXT = "strftime({0}, '%Y-%m-%d %H:%M:%S') AS {0}"
# nirs4all counts the calls that saved an artifact; ids and counts are the first parameters of the query
_SAVED = f"""SELECT t.* REPLACE (greatest(t.ref_count, coalesce({SAVES}.count, 0)) AS ref_count)
FROM artifacts t LEFT JOIN (SELECT unnest(CAST(? AS VARCHAR[])) AS id, unnest(CAST(? AS INTEGER[])) AS count) {SAVES}
ON {SAVES}.id = t.artifact_id"""
_HIDDEN = ("steps", "fold_strategy", "fold_artifacts", "shared_artifacts", "created_at")  # of chains, in their summary
# grouped, though rows are unique: DuckDB 2.0.1 forgets the LIMIT of a query over a join with a filtered table
_BESIDE = (
    "LEFT JOIN (SELECT row_id, any_value(content) AS content FROM carried WHERE table_name = '{0}' GROUP BY row_id) k"
    " ON k.row_id = t.{1}"
)


def source_of(
    name: str,
    asked: Collection[str] | None,
    *,
    times_as_text: bool = False,
    with_more: frozenset[str] = WITH_MORE,
    summaries: str = SUMMARIES,
) -> str | None:
    """A SELECT that gives the table; None where ours of this name will do.

    `asked` names the columns that the query mentions, None all of them. Times are given as texts of
    whole seconds, as plain SQLite has them, if `times_as_text`. `with_more` names the tables of `WITH_MORE` beside
    whose rows anything is carried, and `SAVED`; `summaries` is the table or view of summaries.
    """
    source = _source(name, None if asked is None else frozenset(asked), with_more, summaries)
    if not times_as_text or not set(COLUMNS.get(name, ())) & set(TIMES):
        return source
    times = [time for time in TIMES if time in COLUMNS[name]]
    return f"SELECT * REPLACE ({', '.join(map(_AS_TEXT.format, times))}) FROM ({source or f'FROM {name}'})"


def _source(name: str, asked: frozenset[str] | None, with_more: frozenset[str], summaries: str) -> str | None:
    if name in CARRIED_TABLES:
        return _carried_table(name)
    if name == "predictions" and (asked is None or asked & set(RELATION)):
        return _predictions(with_more)
    if name == "chains" and (asked is None or asked & {*SUMMARY, *REPLAY}):
        return _chains(with_more, summaries)
    if name == SAVED and SAVED in with_more and (asked is None or "ref_count" in asked):
        return _SAVED
    if name == "v_chain_summary":
        return _summary(with_more, summaries)
    return None


def _predictions(with_more: frozenset[str]) -> str:
    own = [f"t.{name}" for name in COLUMNS["predictions"] if name not in RELATION]
    own.remove("t.created_at")
    more, joined = _carried_beside("predictions", "prediction_id", RELATION, with_more)
    return f"SELECT {', '.join([*own, *more, 't.created_at'])} FROM predictions t {joined}"


def _chains(with_more: frozenset[str], summaries: str) -> str:
    summary = [f"s.{name}" for name in SUMMARY if name != "dataset_name"]
    kept = {*SUMMARY, *REPLAY}
    own = [f"t.{name}" for name in COLUMNS["chains"] if name not in kept and name != "created_at"]
    more, joined = _carried_beside("chains", "chain_id", REPLAY, with_more)
    return (
        f"SELECT {', '.join([*own, *summary, 'l.dataset_name', *more, 't.created_at'])} FROM chains t"
        f" LEFT JOIN {summaries} s ON s.chain_id = t.chain_id"
        f" JOIN pipelines l ON l.pipeline_id = t.pipeline_id {joined}"
    )


def _summary(with_more: frozenset[str], summaries: str) -> str:
    names = [name for name in COLUMNS["chains"] if name not in (*_HIDDEN, *REPLAY)]
    shown = [f"t.{name}" for name in names]
    more, joined = _carried_beside("chains", "chain_id", REPLAY, with_more)
    return f"SELECT {', '.join([*shown, *more, 't.run_id', 't.pipeline_status'])} FROM {summaries} t {joined}"


def _carried_beside(table: str, key: str, names: Collection[str], with_more: frozenset[str]) -> tuple[list[str], str]:
    """Columns that are carried beside the rows `t` of a table, and the join that brings them; the join costs more than
    the rest of a query of few rows.
    """
    if table in with_more:
        return [*map(_beside, names)], _BESIDE.format(table, key)
    return [f"CAST(NULL AS {type_in_duckdb(name)}) AS {name}" for name in names], ""


def _carried_table(name: str) -> str:
    columns = ", ".join(map(_beside, COLUMNS[name]))
    return f"SELECT {columns} FROM carried k WHERE k.table_name = '{name}'"


def _beside(name: str) -> str:
    kind, value = type_in_duckdb(name), f"k.content->>'{name}'"
    return f"{value} AS {name}" if kind == "VARCHAR" else f"CAST({value} AS {kind}) AS {name}"


def type_in_duckdb(name: str) -> str:
    return "TIMESTAMP" if name in TIMES else {"REAL": "DOUBLE", "INTEGER": "BIGINT"}.get(type_of(name), "VARCHAR")


def columns_of(name: str) -> list[tuple[str, str]]:
    """Name and type of each column of a table."""
    return [(column, type_of(column)) for column in COLUMNS.get(name, ())]


def catalogue() -> str:
    """A SELECT in the form of `sqlite_master`: every table and view that nirs4all knows."""
    rows = ", ".join(
        f"('{'view' if name == 'v_chain_summary' else 'table'}', '{name}', '{name}', 0, NULL)" for name in sorted(NAMES)
    )
    return f"SELECT * FROM (VALUES {rows}) c(type, name, tbl_name, rootpage, sql)"
