"""A few rows of a store file for a program that cannot wait for anything: no frame, no log, few imports.

DuckDB's extension is loaded without its Python package, which costs three times as much, and of which nothing is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _duckdb

from n4a_fast.durable.torn_pages import mend_before_attaching
from n4a_fast.engine.lease import Turnstile

_ATTACH = """SET autoinstall_known_extensions = false; SET autoload_known_extensions = false;
ATTACH '{}' AS store (TYPE duckdb, READ_ONLY); USE store"""


def rows_at_once(store: Path, sql: str, timeout: float) -> list[tuple[Any, ...]]:
    """What is in the tables; nothing after `timeout` seconds in which others had the file. Errors are DuckDB's own."""
    turnstile = Turnstile(turn=store.parent, queue=store.parent / "artifacts")
    try:
        return _rows(store, sql) if turnstile.enter(timeout, shared=True) else []
    finally:
        turnstile.close()


def _rows(store: Path, sql: str) -> list[tuple[Any, ...]]:
    mend_before_attaching(store, _duckdb.__version__)
    with _duckdb.connect(":memory:") as connection:
        connection.execute(_ATTACH.format(str(store).replace("'", "''")))
        return connection.execute(sql).fetchall()
