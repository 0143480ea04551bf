"""Which way each metric goes: what the workspace stores, then what is known of its name."""

from __future__ import annotations

from n4a_fast.engine.connection import Database
from n4a_fast.errors import UnknownDirectionError
from n4a_fast.values import checks
from n4a_fast.values.directions import known_direction, same_name

_STORED = "SELECT name, higher_is_better FROM metrics"
_FORGET = "DELETE FROM metrics WHERE name = ?"
_STORE = "INSERT INTO metrics VALUES (?, ?, ?)"


class Metrics:
    """The `metrics` table, and the directions of all metrics."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def direction(self, metric: str) -> bool | None:
        """Whether higher values are better; None when nobody has said so."""
        return self.directions().get(same_name(metric), known_direction(metric))

    def require_direction(self, metric: str) -> bool:
        """Whether higher values are better; UnknownDirectionError when nobody has said so."""
        found = self.direction(metric)
        if found is None:
            raise UnknownDirectionError(metric)
        return found

    def directions(self) -> dict[str, bool]:
        """What is stored, by name."""
        return dict(self._database.rows(_STORED))

    def store_in_transaction(self, metric: str, higher_is_better: bool, source: str) -> None:
        name = same_name(checks.identifier(metric, "metric"))
        self._database.execute(_FORGET, (name,))
        self._database.execute(_STORE, (name, checks.flag(higher_is_better, "higher_is_better"), source))
