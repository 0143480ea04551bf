"""DuckDB on a store file: the only folder that imports duckdb."""

from n4a_fast.engine.connection.client import ROW_GROUP, Connection, checked_limit
from n4a_fast.engine.connection.database import Database, Params
from n4a_fast.engine.connection.lent import Lent

__all__ = ["ROW_GROUP", "Connection", "Database", "Lent", "Params", "checked_limit"]
