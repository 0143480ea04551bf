"""SQL of nirs4all 1.x and its studio, which is SQLite's, in DuckDB's words and over our tables.

sqlglot parses and writes; here is what it leaves as it is though the two databases differ: how texts
are compared, what is an integer, what a bare column of a group is, where a row is, how times and JSON
are read. A query that neither can be is refused with sqlglot's or DuckDB's reason.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp

from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.nirs4all import sqlite_times
from n4a_fast.integrations.nirs4all.sqlite_tables import (
    COLUMN_NAMES,
    INTEGER_COLUMNS,
    KEYS,
    NAMES,
    SUMMARIES,
    TEXT_COLUMNS,
    WITH_MORE,
    catalogue,
    source_of,
)

_COMPARED = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_PREDICATES = (
    *(*_COMPARED, exp.Is, exp.In, exp.Like, exp.ILike, exp.Escape, exp.Glob, exp.Between, exp.Exists),
    *(exp.And, exp.Or, exp.Not, exp.Boolean),
)
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod)
_AGGREGATES = (exp.Min, exp.Max, exp.Avg, exp.Sum)
_PREFIX = "nirs4all_"
_TAKEN = ("SELECT", "WITH", "VALUES", "INSERT", "UPDATE")
_COLOUR = re.compile(r"\x1b\[\d*m")  # by which sqlglot shows a place


class Translation(NamedTuple):
    """A query for DuckDB, and the places of the columns whose values are JSON, of which SQLite gives the scalars."""

    sql: str
    json_columns: frozenset[int]


def parsed(sql: str) -> exp.Expr:
    """One statement that reads rows or writes some; InvalidInputError for anything else."""
    try:
        first = next((token.text.upper() for token in sqlglot.tokenize(sql, read="sqlite")), _TAKEN[0])
        if first not in _TAKEN:  # of some, sqlglot would log that it does not know them
            raise not_taken(first)
        statements = [found for found in sqlglot.parse(sql, read="sqlite") if found is not None]
    except sqlglot.errors.SqlglotError as error:
        raise InvalidInputError(f"the query cannot be read: {_COLOUR.sub('', str(error))}") from error
    if len(statements) != 1:
        raise InvalidInputError(f"one statement at a time, these are {len(statements)}")
    return statements[0]


def not_taken(what: str) -> InvalidInputError:
    """What refuses a statement that changes more than the store lets SQL change."""
    return InvalidInputError(
        f"{what} is not taken as SQL, which reads here: rows are written, and references to artifacts counted, by the"
        " store's methods, and tables of your own belong in a file of your own"
    )


@lru_cache(maxsize=512)
def translated(
    sql: str, times_as_text: bool = False, with_more: frozenset[str] = WITH_MORE, summaries: str = SUMMARIES
) -> Translation:
    """A SELECT of SQLite over nirs4all's tables as one of DuckDB over ours; the options are those of `source_of`."""
    query = parsed(sql)
    if not isinstance(query, exp.Query):
        raise not_taken(query.key.upper())
    json_columns = frozenset(
        place for place, column in enumerate(query.selects) if isinstance(column.unalias(), exp.JSONExtractScalar)
    )
    for change in (_texts, _orders, _places, _bare_columns, _json, _comparisons, _numbers, _aggregates):
        change(query)
    sqlite_times.change(query)
    _read_ours(query, times_as_text=times_as_text, with_more=with_more, summaries=summaries)
    return Translation(query.sql("duckdb"), json_columns)


def _texts(query: exp.Expr) -> None:
    """SQLite takes a name in double quotes that is no column for a text, and matches LIKE without case."""
    names = {alias.alias for alias in query.find_all(exp.Alias)} | COLUMN_NAMES
    for column in list(query.find_all(exp.Column)):
        if column.this.args.get("quoted") and not column.table and column.name not in names:
            column.replace(exp.Literal.string(column.name))
    for like in list(query.find_all(exp.Like)):
        like.replace(exp.ILike(**like.args))  # NOT is one of them
    for limit in list(query.find_all(exp.Limit)):
        if isinstance(limit.expression, exp.Neg):  # all rows
            limit.pop()


def _orders(query: exp.Expr) -> None:
    """nirs4all's times have whole seconds, and predictions that are equal in an order come as they were made."""
    for order in list(query.find_all(exp.Order)):
        select = order.find_ancestor(exp.Select)
        table = select.args["from_"].this if select is not None and select.args.get("from_") else None
        if not isinstance(table, exp.Table) or table.name.lower() != "predictions":
            continue
        if select is None or select.args.get("group") or select.args.get("distinct"):
            continue
        made = exp.column("created_at", table=table.alias_or_name)
        for column in [found for found in order.find_all(exp.Column) if found.name == "created_at"]:
            column.replace(exp.Anonymous(this="date_trunc", expressions=[exp.Literal.string("second"), column.copy()]))
        order.append("expressions", exp.Ordered(this=made, nulls_first=False))


def _places(query: exp.Expr) -> None:
    """`rowid`: rows in the order in which they were made."""
    for select in query.find_all(exp.Select):
        table = select.find(exp.Table)
        key = KEYS.get(table.name) if table is not None else None
        for column in [found for found in select.find_all(exp.Column) if found.name.lower() == "rowid" and key]:
            order = [exp.Ordered(this=exp.column(name)) for name in ("created_at", str(key))]
            if isinstance(column.parent, exp.Ordered):
                column.parent.replace(exp.Ordered(this=exp.column(str(key)), desc=column.parent.args.get("desc")))
            else:
                column.replace(exp.Window(this=exp.RowNumber(), order=exp.Order(expressions=order)))


def _bare_columns(query: exp.Expr) -> None:
    """A column that is neither grouped nor aggregated: of the row with the least or the greatest value where one is
    asked for, else of any.
    """
    for select in query.find_all(exp.Select):
        if not any(map(_is_aggregated, select.selects)):
            continue
        group = select.args.get("group")
        grouped = {_meant(found, select).sql() for found in group.expressions} if group is not None else set()
        ends = [found for found in select.find_all(exp.Min, exp.Max) if found.find_ancestor(exp.Select) is select]
        for shown in select.selects:
            column = shown.unalias()
            if isinstance(column, exp.Column) and column.sql() not in grouped and shown.alias_or_name not in grouped:
                named = shown is not column
                column.replace(
                    _of_a_row(column, ends) if named else exp.alias_(_of_a_row(column, ends), column.name, quoted=False)
                )


def _meant(found: exp.Expr, select: exp.Select) -> exp.Expr:
    """What is grouped by: a column of the answer, if it is named by its place."""
    by_place = isinstance(found, exp.Literal) and found.is_int and 0 < int(found.this) <= len(select.selects)
    return select.selects[int(found.this) - 1].unalias() if by_place else found


def _is_aggregated(column: exp.Expr) -> bool:
    found = column.find(exp.AggFunc)
    return found is not None and found.find_ancestor(exp.Window, exp.Subquery) is None


def _of_a_row(column: exp.Column, ends: list[Any]) -> exp.Expr:
    if len(ends) == 1:
        kind = exp.ArgMin if isinstance(ends[0], exp.Min) else exp.ArgMax
        return kind(this=column.copy(), expression=ends[0].this.copy())
    return exp.AnyValue(this=column.copy())


def _json(query: exp.Expr) -> None:
    """What `json_extract` gives is a number where one is needed, JSON where it is shown, and text elsewhere."""
    for found in list(query.find_all(exp.JSONExtractScalar)):
        parent = found.parent
        if isinstance(parent, exp.Select) or (isinstance(parent, exp.Alias) and isinstance(parent.parent, exp.Select)):
            found.replace(exp.JSONExtract(this=found.this, expression=found.expression))
        elif _is_a_number_needed(found):
            found.replace(exp.TryCast(this=exp.paren(found.copy()), to=exp.DataType.build("double")))
    for each in list(query.find_all(exp.JSONArrayAgg)):
        listed = exp.Anonymous(this="list", expressions=[each.this])
        each.replace(exp.cast(exp.Anonymous(this="to_json", expressions=[listed]), "varchar"))
    for name in list(query.find_all(exp.Anonymous)):
        if str(name.this).lower() == "json_group_array":
            listed = exp.Anonymous(this="list", expressions=name.expressions)
            name.replace(exp.cast(exp.Anonymous(this="to_json", expressions=[listed]), "varchar"))


def _is_a_number_needed(found: exp.Expr) -> bool:
    parent = found.parent
    if isinstance(parent, (*_ARITHMETIC, *_AGGREGATES, exp.Ordered)):
        return True
    others = [item for item in parent.iter_expressions() if item is not found] if parent is not None else []
    return isinstance(parent, (*_COMPARED, exp.Between, exp.In)) and any(
        isinstance(item, exp.Literal | exp.Neg) and item.is_number for item in others
    )


def _comparisons(query: exp.Expr) -> None:
    """A text is compared with a number as with its digits."""
    for found in list(query.find_all(*_COMPARED, exp.In)):
        sides = [found.this, *found.expressions] if isinstance(found, exp.In) else [found.this, found.expression]
        if any(isinstance(side, exp.Column) and side.name in TEXT_COLUMNS for side in sides):
            for side in sides:
                if isinstance(side, exp.Literal) and side.is_number:
                    side.replace(exp.Literal.string(side.this))
                elif _is_parameter(side):
                    side.replace(exp.cast(side.copy(), "varchar"))


def _is_parameter(found: exp.Expr) -> bool:
    return isinstance(found, exp.Placeholder | exp.Parameter) or (
        isinstance(found, exp.Column) and found.name.startswith("$")
    )


def _numbers(query: exp.Expr) -> None:
    """Whole numbers are divided as such, and by none to none; what is true counts as 1, and 0.1 is no decimal."""
    for found in reversed(list(query.find_all(*_ARITHMETIC, exp.Avg, exp.Sum))):  # inner ones first: they are copied
        for operand in (found.this, found.args.get("expression")):
            if isinstance(operand, exp.Expr) and isinstance(operand.unnest(), _PREDICATES):
                operand.replace(exp.cast(operand.copy(), "bigint"))
    for division in reversed(list(query.find_all(exp.Div, exp.Mod))):
        sides = (division.this, division.expression)
        are_whole = all(map(_is_integer, sides))
        if isinstance(division, exp.Mod) or are_whole:
            kind = exp.Mod if isinstance(division, exp.Mod) else exp.IntDiv
            left, right = (side.copy() if are_whole else _truncated(side) for side in sides)
            none_for_zero = exp.Nullif(this=right, expression=exp.Literal.number(0))
            division.replace(exp.paren(kind(this=exp.paren(left), expression=none_for_zero)))
    for number in list(query.find_all(exp.Literal)):
        if number.is_number and "." in number.this and "e" not in number.this.lower():
            number.replace(exp.Literal.number(f"{number.this}e0"))


def _truncated(number: exp.Expr) -> exp.Expr:
    """The whole part of a number, as SQLite takes it for a remainder."""
    return exp.cast(exp.Anonymous(this="trunc", expressions=[number.copy()]), "bigint")


def _aggregates(query: exp.Expr) -> None:
    """A sum of whole numbers is one of 64 bits; a total is a sum, and of nothing 0."""
    for total in list(query.find_all(exp.Anonymous)):
        if str(total.this).lower() == "total":
            whole = exp.Sum(this=exp.cast(total.expressions[0].copy(), "double"))
            total.replace(exp.Coalesce(this=whole, expressions=[exp.Literal.number("0e0")]))
    for found in list(query.find_all(exp.Sum)):
        if _is_integer(found.this):
            found.replace(exp.cast(found.copy(), "bigint"))


def _is_integer(found: Any) -> bool:
    found = found.unnest()
    if isinstance(found, exp.Literal):
        return bool(found.is_int)
    if isinstance(found, exp.Column):
        return found.name in INTEGER_COLUMNS
    if isinstance(found, exp.Cast):
        return found.to.this in (exp.DataType.Type.BIGINT, exp.DataType.Type.INT)
    if isinstance(found, exp.Case):
        results = [branch.args["true"] for branch in found.args["ifs"]] + [found.args.get("default")]
        return all(_is_integer(result) for result in results if result is not None)
    if isinstance(found, exp.Count | exp.Length):
        return True
    if isinstance(found, exp.Sum | exp.Min | exp.Max | exp.Abs | exp.Neg):
        return _is_integer(found.this)
    if isinstance(found, exp.Add | exp.Sub | exp.Mul | exp.IntDiv):
        return _is_integer(found.this) and _is_integer(found.expression)
    return False


def _read_ours(query: exp.Query, **options: Any) -> None:
    """Let every table of nirs4all be read through what it is made of here."""
    own = {cte.alias for cte in query.find_all(exp.CTE)}
    stars = [star for star in query.find_all(exp.Star) if not isinstance(star.parent, exp.Count)]
    asked = None if stars else {column.name for column in query.find_all(exp.Column)}
    sources: dict[str, str] = {}
    for table in list(query.find_all(exp.Table)):
        name = table.name.lower()
        is_catalogue = name == "sqlite_master" or (name == "tables" and table.db.lower() == "information_schema")
        source = catalogue() if is_catalogue else None
        if source is None and name in NAMES and name not in own and not table.db:
            source = source_of(name, asked, **options)
        if source is not None:
            if table.db:
                source = source.replace("c(type, name,", "c(table_type, table_name,")
            sources[f"{_PREFIX}{name}"] = source
            table.replace(exp.to_table(f"{_PREFIX}{name}", alias=table.alias or name))
    written = query.ctes
    for name, source in sources.items():
        query.with_(name, as_=sqlglot.parse_one(source, read="duckdb"), copy=False)
    if written:  # those of the query read from ours
        query.args["with_"].set("expressions", [*query.ctes[len(written) :], *written])
