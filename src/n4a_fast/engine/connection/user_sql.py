"""SQL from outside: one SELECT that reads the store's tables and nothing else.

Promises that no file but the store's is opened and no row, setting, log or sequence changes, within a
transaction too. DuckDB's settings belong to a whole instance and the file can be attached to one instance
only, so they cannot be locked for one query. Instead the parsed text is read before DuckDB binds it, since
binding alone opens files: every node must be one that selects, every function built in and without
effects, every table one of the store's. What is unknown is refused. Ctrl-C ends a query that takes long.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import duckdb
import orjson

from n4a_fast.errors import InvalidInputError
from n4a_fast.platform.interrupts import start

if TYPE_CHECKING:
    import pyarrow as pa

# what the query did wrong; functions that take bytes apart tell of an IO error, too
ERRORS = (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError, duckdb.IOException)

_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES = frozenset(
    {"BASE_TABLE", "COLUMN_DATA", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_TABLE_FUNCTIONS = frozenset(
    {
        *("duckdb_columns", "duckdb_constraints", "duckdb_databases", "duckdb_functions", "duckdb_indexes"),
        *("duckdb_keywords", "duckdb_memory", "duckdb_schemas", "duckdb_settings", "duckdb_tables", "duckdb_types"),
        *("duckdb_views", "generate_series", "json_each", "json_tree", "pragma_database_size", "pragma_storage_info"),
        *("pragma_table_info", "pragma_version", "range", "regexp_split_to_table", "repeat", "unnest"),
    }
)
# DuckDB says of these that they have side effects; they only differ from call to call
_ONLY_VOLATILE = frozenset(
    {
        *("current_connection_id", "current_query", "current_query_id", "current_transaction_id", "error"),
        *("gen_random_uuid", "random", "stats", "uuid", "uuidv4", "uuidv7", "vector_type"),
    }
)
_SLEEPING = frozenset({"pg_sleep"})  # a macro, of whose effects DuckDB says nothing
# each function once: whether it was added to DuckDB's own, and whether it is one of these that has no side effects
_FUNCTIONS = """SELECT function_name, bool_or(NOT internal), coalesce(bool_and(NOT coalesce(has_side_effects, false))
    FILTER (internal AND function_type IN ('scalar', 'aggregate', 'macro', 'window')), false)
FROM duckdb_functions() GROUP BY ALL"""
# the tables that there are, and the text of views that were made in the file
_TABLES = """SELECT table_name, NULL FROM duckdb_tables() WHERE database_name = 'store' UNION ALL
SELECT view_name, CASE WHEN internal THEN NULL ELSE sql END FROM duckdb_views()
WHERE internal OR database_name = 'store'"""
_VIEW = re.compile(r'CREATE VIEW [\w."]+(?: ?\([^()]*\))? AS (.*)', re.DOTALL)
_PARSED = "SELECT json_serialize_sql(?)"

_Listed = tuple[tuple[str, str | None], ...]
# asked once in a process: which tables and views of a list only read, which is the same list in each store of a format
_READING: dict[_Listed, set[str]] = {}
_KEPT = 16


class Readable:
    """What queries of one store file may name: made once, since asking DuckDB takes 15 ms."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        found = connection.execute(_FUNCTIONS).fetchall()
        if added := [name for name, is_added, _ in found if is_added]:
            raise InvalidInputError(
                f"the store holds macros ({', '.join(sorted(added)[:3])}), which could stand for anything; drop them"
                " with DuckDB before you query it"
            )
        reading = {name for name, _, only_reads in found if only_reads}
        self.functions = reading - _SLEEPING | _ONLY_VOLATILE | {"unnest"}  # the parser's own, which is no function
        self._tables: set[str] = set()

    def look(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Which tables and views there are now, and only read."""
        listed = tuple((str(name).lower(), text) for name, text in connection.execute(_TABLES).fetchall())
        if (tables := _READING.get(listed)) is None:
            if len(_READING) == _KEPT:
                _READING.clear()
            tables = _READING[listed] = self._reading(connection, listed)
        self._tables = tables

    def require(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """InvalidInputError unless the SELECT names what the last `look` found, and functions without effects."""
        self._require(connection, sql, self._tables)

    def _require(self, connection: duckdb.DuckDBPyConnection, sql: str, tables: set[str]) -> None:
        parsed = orjson.loads(connection.execute(_PARSED, [sql]).fetchall()[0][0])
        if parsed.get("error"):
            raise InvalidInputError(f"the query cannot run: {parsed.get('error_message')}")
        nodes = list(_dicts(parsed["statements"]))
        tables = tables | _named_subqueries(nodes)
        for node in nodes:
            if (refused := _refused(node, self.functions, tables)) is not None:
                raise InvalidInputError(f"sql() only reads the store's tables, and {refused}")

    def _reading(self, connection: duckdb.DuckDBPyConnection, listed: _Listed) -> set[str]:
        """The tables, and the views that select from nothing but these and each other."""
        waiting = {name: text for name, text in listed if text is not None}
        tables = {name for name, _ in listed} - set(waiting)
        while found := {name for name, text in waiting.items() if self._only_reads(connection, text, tables)}:
            tables |= found
            waiting = {name: text for name, text in waiting.items() if name not in found}
        return tables

    def _only_reads(self, connection: duckdb.DuckDBPyConnection, text: str, tables: set[str]) -> bool:
        body = _VIEW.fullmatch(text.rstrip("; \n"))
        try:
            if body is not None:
                self._require(connection, body[1], tables)
            return body is not None
        except InvalidInputError:
            return False


def require_select(connection: duckdb.DuckDBPyConnection, sql: str, readable: Readable) -> None:
    """InvalidInputError unless `sql` is one SELECT that only reads."""
    try:
        sql.encode()  # half a surrogate is no text
        kinds = [statement.type for statement in connection.extract_statements(sql)]
    except ValueError as error:  # DuckDB's Python client does not know all of its statements
        raise InvalidInputError(f"sql() takes one SELECT ({error})") from error
    if kinds != [duckdb.StatementType.SELECT]:
        raise InvalidInputError(
            f"sql() takes one SELECT, this is {_names(kinds)}; send SELECTs one by one, and use the store's methods to"
            " write"
        )
    readable.require(connection, sql)


def selected(connection: duckdb.DuckDBPyConnection, sql: str, params: list[Any]) -> pa.Table:
    """The result of a SELECT that was looked at; Ctrl-C ends it."""

    def run() -> pa.Table:
        return connection.sql(sql, params=params).to_arrow_table()

    return _until_interrupted(connection, run) if threading.current_thread() is threading.main_thread() else run()


def _refused(node: dict[str, Any], functions: frozenset[str] | set[str], tables: set[str]) -> str | None:
    """What in one node of the parsed query goes beyond reading, None when nothing does."""
    kind = node.get("type")
    if "cte_map" in node:
        return None if kind in _NODES else f"{kind} does something else"
    if "sample" in node and "class" not in node:
        return _refused_source(node, str(kind), tables)
    if "function_name" in node and not node.get("is_table_function"):
        name = str(node["function_name"]).lower()
        return None if name in functions else f"the function {name} is not one that only reads"
    return None


def _refused_source(node: dict[str, Any], kind: str, tables: set[str]) -> str | None:
    if kind not in _SOURCES:
        return f"{kind} is no table"
    if kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        node["function"]["is_table_function"] = name in _TABLE_FUNCTIONS
        return None if name in _TABLE_FUNCTIONS else f"the table function {name} is not one that only reads them"
    if kind == "BASE_TABLE" and str(node["table_name"]).lower() not in tables:
        return f"there is no table {node['table_name']} in it"
    return None


def _named_subqueries(nodes: Iterable[dict[str, Any]]) -> set[str]:
    """Names of WITH, as far as no file can have them."""
    maps = (node["cte_map"].get("map", ()) for node in nodes if isinstance(node.get("cte_map"), dict))
    recursive = (str(node["cte_name"]) for node in nodes if isinstance(node.get("cte_name"), str))
    names = [*(str(entry["key"]) for entries in maps for entry in entries), *recursive]
    return {name.lower() for name in names if name.isidentifier()}


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a JSON value, outer ones first."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _until_interrupted(connection: duckdb.DuckDBPyConnection, work: Callable[[], pa.Table]) -> pa.Table:
    """What `work` gives, in a thread of its own: DuckDB makes results without looking whether Ctrl-C was pressed."""
    found: list[pa.Table] = []
    failed: list[BaseException] = []
    done = threading.Event()  # Python takes a thread for ended once its join was interrupted

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # told by the thread that waits
            failed.append(error)
        finally:
            done.set()

    if not start(threading.Thread(target=run, name="n4a_fast sql", daemon=True)):
        run()
    try:
        done.wait()
    except BaseException:
        while not done.wait(0.02):  # an interrupt that comes before the query begins is lost
            connection.interrupt()
        raise
    if failed:
        raise failed[0]
    return found[0]


def _names(kinds: Iterable[duckdb.StatementType]) -> str:
    return " and ".join(str(kind).rpartition(".")[2] for kind in kinds) or "empty"
