"""Whether what a store file calls by our names is what we made: a stranger's view or column runs when it is read.

Owns the look at the catalogue when a file is opened, a millisecond. A view is ours when it says nothing that our own do
not say; one that says more is read by the parser, as `sql()` reads its queries. Other tables and views beside
ours are left alone, and never read. Macros stand behind DuckDB's functions wherever this package asks (see
`client.name_store`), so they are looked for in `sql()` and in a migration alone: that takes 10 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from n4a_fast.engine.connection import Database
from n4a_fast.errors import InvalidInputError, NotAStoreError
from n4a_fast.schema.ddl import STATEMENTS

TABLE, _VIEW = "table", "view"
_KEPT = 64  # texts that were looked at: those of our own are the same in all files of a format
# triggers, and indexes over more than columns, run when a table is written
_MADE = f"""SELECT table_name, '{TABLE}', sql FROM duckdb_tables()
WHERE database_name = 'store' AND schema_name = 'main'
UNION ALL SELECT view_name, '{_VIEW}', sql FROM duckdb_views() WHERE database_name = 'store' AND schema_name = 'main'
UNION ALL SELECT table_name, 'a trigger', '' FROM duckdb_triggers() WHERE database_name = 'store'
UNION ALL SELECT table_name, 'an index', '' FROM duckdb_indexes()
WHERE database_name = 'store' AND expressions LIKE '%(%'"""
_MACROS = "SELECT function_name FROM duckdb_functions() WHERE database_name = 'store' LIMIT 1"
_NAME = re.compile(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (\w+)")
_WORD = re.compile(r"\b[^\W\d]\w*")
_TEXT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_RUNS = frozenset({"generated", "check", "default"})  # in the words of a table: an expression comes next
_OURS = frozenset({"journals", *(name for statement in STATEMENTS for name in _NAME.findall(statement))})
_PRINTED = ("count_star", "inner", "struct_pack")  # DuckDB's words for count(*), JOIN and {'a': 1}
_WORDS = frozenset((*_PRINTED, *(word.lower() for statement in STATEMENTS for word in _WORD.findall(statement))))


class Made(NamedTuple):
    """Something in a store file: `name`, in small letters, is the table's where `kind` is a trigger or an index."""

    name: str
    kind: str
    text: str


def made_in(database: Database) -> list[Made]:
    """What there is in a file that may run when it is read or written."""
    return [Made(str(name).lower(), kind, str(text)) for name, kind, text in database.peek(_MADE) or ()]


def require_ours(database: Database, made: Iterable[Made]) -> None:
    """NotAStoreError when something by one of our names would run what somebody else wrote."""
    for name, kind, text in made:
        if name not in _OURS:
            continue
        if kind not in (TABLE, _VIEW):
            raise NotAStoreError(database.path, f"{kind} on {name} would run what somebody else wrote")
        if kind == TABLE and _computes(text):
            raise NotAStoreError(database.path, f"the table {name} computes what it holds")
        if kind == _VIEW and not _says_no_more(text) and not _only_reads(database, name):
            raise NotAStoreError(database.path, f"the view {name} reads more than the store's tables")


def require_no_macros(database: Database) -> None:
    """NotAStoreError when the file holds macros: what is asked of views, or with `USE`, finds them first."""
    for (name,) in database.peek(_MACROS) or ():
        raise NotAStoreError(database.path, f"it holds the macro {name}, which could stand for a function of DuckDB's")


@lru_cache(_KEPT)
def _computes(table: str) -> bool:
    return not _RUNS.isdisjoint(_words(_TEXT.sub("", table)))


@lru_cache(_KEPT)
def _says_no_more(view: str) -> bool:
    return _WORDS.issuperset(_words(view))


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _only_reads(database: Database, name: str) -> bool:
    try:
        with database.undrained():
            database.frame_of_user_sql(f'FROM "{name}" LIMIT 0')
        return True
    except InvalidInputError:
        return False
