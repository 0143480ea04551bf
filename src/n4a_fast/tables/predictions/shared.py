"""Arrays that predictions share, one prediction at a time.

They are stored under a hash of their content, so what was read once is never stale: the last ones
are kept, up to some megabytes. The predictions of a dataset have most of theirs in common.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from n4a_fast.engine.connection import Database

_SHARED = "SELECT array_values, width FROM shared_arrays WHERE content_hash = ? AND array_values IS NOT NULL"
_INDICES = "SELECT array_values, NULL FROM shared_indices WHERE content_hash = ? AND array_values IS NOT NULL"
_MOST, _LONGEST = 128, 8192  # arrays kept, values in each: 8 MB at most

Content = tuple[np.ndarray[Any, Any], int | None]


class SharedContents:
    """Contents by their hash."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, Content] = {}

    def reals(self, address: str | None) -> Content | None:
        """Values and number of columns of a target or of weights; the values are the caller's not to change."""
        return self._find(_SHARED, address, np.float64)

    def indices(self, address: str | None) -> Content | None:
        """Sample indices."""
        return self._find(_INDICES, address, np.int64)

    def _find(self, sql: str, address: str | None, dtype: type) -> Content | None:
        if address is None:
            return None
        found = self._kept.pop(address, None)
        if found is None:
            rows = self._database.rows(sql, (address,))
            if not rows:
                return None
            found = np.asarray(rows[0][0], dtype), rows[0][1]
        if len(found[0]) <= _LONGEST:
            self._kept[address] = found  # the newest is last
            if len(self._kept) > _MOST:
                del self._kept[next(iter(self._kept))]
        return found
