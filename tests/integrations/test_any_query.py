"""SQL at random as SQLite takes it: the same rows and kinds of values from a store and from SQLite on the same rows."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest
from test_sqlite_dialect import both

from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

__all__ = ["both"]  # the fixture

TEXTS = ("model_name", "fold_id", "partition", "metric", "refit_context", "preprocessings")
NUMBERS = ("val_score", "test_score", "n_samples", "exclusion_rate", "branch_id")
WORDS = ("'Ridge'", "'ridge'", "'PLS%'", "'val'", "'0'", "'%a%'", "'_v_'", "''", "'avg'")
VALUES = ("0.5", "0.25", "1", "0", "-1", "2.0", "0.375", "5")


class Maker:
    """Queries of one seed; what is inside what ends at `depth`."""

    def __init__(self, seed: int) -> None:
        self.some = random.Random(seed)

    def one(self, *choices: str) -> str:
        return self.some.choice(choices)

    def number(self, depth: int = 0) -> str:
        forms = (
            lambda: self.one(*NUMBERS),
            lambda: self.one(*VALUES),
            lambda: f"({self.number(depth + 1)} {self.one(*'+-*/%')} {self.number(depth + 1)})",
            lambda: f"coalesce({self.number(depth + 1)}, {self.one(*VALUES)})",
            lambda: f"CASE WHEN {self.condition(depth + 1)} THEN {self.number(depth + 1)} ELSE {self.one(*VALUES)} END",
            lambda: f"abs({self.number(depth + 1)})",
        )
        return self.some.choice(forms[: 2 if depth > 2 else None])()

    def text(self) -> str:
        column = self.one(*TEXTS)
        return self.one(column, column, f"lower({column})", f"coalesce({column}, 'none')", f"({column} || 'x')")

    def condition(self, depth: int = 0) -> str:
        maybe = self.one("", "NOT ")
        forms = (
            lambda: f"{self.text()} {self.one('=', '<>', '<', '>=', 'IS', 'IS NOT')} {self.one(*WORDS)}",
            lambda: f"{self.number(depth + 1)} {self.one('=', '<>', '<', '>=')} {self.one(*VALUES)}",
            lambda: f"{self.text()} {maybe}LIKE {self.one(*WORDS)}",
            lambda: f"{self.one(*TEXTS, *NUMBERS)} IS {maybe}NULL",
            lambda: f"{self.text()} {maybe}IN ({self.one(*WORDS)}, {self.one(*WORDS)})",
            lambda: f"{self.number(depth + 1)} {maybe}BETWEEN {self.one(*VALUES)} AND {self.one(*VALUES)}",
            lambda: f"json_extract(scores, '$.val.r2') {self.one('<', '=', 'IS NOT')} {self.one(*VALUES)}",
            lambda: f"NOT ({self.condition(depth + 1)})",
            lambda: f"({self.condition(depth + 1)} {self.one('AND', 'OR')} {self.condition(depth + 1)})",
            lambda: f"(({self.condition(depth + 1)}) + ({self.condition(depth + 1)})) {self.one('>', '=')} 1",
            lambda: f"pipeline_id {maybe}IN (SELECT pipeline_id FROM pipelines WHERE name {maybe}LIKE '%x%')",
        )
        return self.some.choice(forms[: 7 if depth > 2 else None])()

    def query(self) -> str:
        total, asked = f"{self.one('sum', 'max', 'avg', 'total')}({self.number()})", self.condition()
        return self.one(
            f"SELECT count(*), {total} FROM predictions WHERE {asked}",
            f"SELECT {self.text()} a, count(*) n, {total} FROM predictions WHERE {asked} GROUP BY 1 HAVING n > 1",
            f"SELECT sum(CASE WHEN {asked} THEN 1 ELSE 0 END), sum({self.condition()}) FROM predictions",
            f"SELECT {self.text()} a, {self.number()} b FROM predictions WHERE {asked} ORDER BY 1, 2",
        )


def plain(rows: list[Any]) -> list[Any]:
    """Rows in an order of their own; whole numbers and others count as equal, as a column has one kind of them."""
    rounded = [[round(float(value), 9) if isinstance(value, int | float) else value for value in row] for row in rows]
    return sorted(rounded, key=str)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.long
def test_any_query_has_the_answer_that_sqlite_gives(both: tuple[Store1x, sqlite3.Connection], seed: int) -> None:
    store, connection = both
    for each in range(50):
        query = Maker(1000 * seed + each).query()
        assert plain(store._fetch_pl(query).rows()) == plain(connection.execute(query).fetchall()), query
