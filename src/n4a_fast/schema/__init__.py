"""The database file's format: its definition, its version, and how older versions are brought up.

Nothing in an existing file changes before its version has been read through a read-only
attachment: a newer format, a file of nirs4all's own store and any other file are refused.
"""

from n4a_fast.schema.ddl import DOCUMENTED_NAMES
from n4a_fast.schema.versions import FORMAT_VERSION, create, prepare

__all__ = ["DOCUMENTED_NAMES", "FORMAT_VERSION", "create", "prepare"]
