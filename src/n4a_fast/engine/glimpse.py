"""A few rows of a store file for a program that cannot wait for anything: no frame, no log, few imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n4a_fast.engine.connection import Database
from n4a_fast.engine.lease import Turnstile


def rows_at_once(store: Path, sql: str, timeout: float) -> list[tuple[Any, ...]]:
    """What is in the tables; an error of the store after `timeout` seconds in which others had the file."""
    turnstile = Turnstile(turn=store.parent, queue=store.parent / "artifacts")
    database = Database(store, read_only=True, lock_timeout=timeout, turnstile=turnstile)
    try:
        return database.rows(sql)
    finally:
        database.close()
