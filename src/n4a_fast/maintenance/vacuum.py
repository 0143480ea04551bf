"""Giving the space of deleted rows back: a fresh copy of the file, swapped in by one rename.

DuckDB reuses freed blocks but never shrinks a file from the middle. The copy is written beside
the file while its lock is held, and takes its name only when it is whole, so a kill at any
moment leaves one whole store; what a killed vacuum left is removed by the next one.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from n4a_fast import platform
from n4a_fast.durable.plain_files import require_no_link
from n4a_fast.durable.sync import disk_errors_told, sync
from n4a_fast.engine.connection import Database
from n4a_fast.errors import StoreUnavailableError
from n4a_fast.values.notebook import report_cell, report_text

_COUNT = "UPDATE store_info SET rewrites = rewrites + 1"
_READ = "SELECT rewrites FROM store_info"


class VacuumReport(NamedTuple):
    """Size of the store file in bytes."""

    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.before / 1e6:,.1f} MB before, {self.after / 1e6:,.1f} MB after"

    def __repr__(self) -> str:
        return report_text(str(self))

    def _repr_html_(self) -> str | None:
        return report_cell(str(self), ())


def vacuum(database: Database) -> VacuumReport:
    """Rewrite the store file without free space; StoreUnavailableError, before anything is written, when the disk is
    too full.
    """
    path = database.path
    require_no_link(path)
    draft = path.with_name(f"{path.name}.vacuum")
    with database.lock, disk_errors_told(path):
        with database.reading():  # what waits in logs would be in the copy alone
            rewrites = _counted(database)
            database.checkpoint()
        before = path.stat().st_size
        free = shutil.disk_usage(path.parent).free
        if free < before:
            raise StoreUnavailableError(path, f"a vacuum needs up to {before} bytes beside it, the disk has {free}")
        draft.unlink(missing_ok=True)
        try:
            with database.undrained():  # what others have logged since stays there
                database.copy_into(draft)
            sync(draft)
            database.require_no_log()
            # where a file in use can be replaced it stays attached, and so locked, until its name means the new one
            database.require_same_file()
            with database.open_to_readers():
                platform.replace(draft, path)
                database.identity.follow(platform.identity(path), database.identity.store_id, rewrites)
        finally:
            database.detach()  # the name may mean the new file, whatever was refused after that: it is attached next
            draft.unlink(missing_ok=True)
        sync(path.parent)
        return VacuumReport(before, path.stat().st_size)


def _counted(database: Database) -> int:
    """One more rewrite, noted in the file: other processes know the copy by it."""
    with database.transaction():
        database.execute(_COUNT)
    return int(database.rows_undrained(_READ)[0][0])
