"""SQL as nirs4all 1.x, its studio and its users send it: the answers are those of SQLite on the same rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlglot
from helpers import begin_pipeline, predict, save_chain

from n4a_fast.errors import InvalidInputError
from n4a_fast.integrations.nirs4all.rows_by_name import RowConnection
from n4a_fast.integrations.nirs4all.sqlite_dialect import translated
from n4a_fast.integrations.nirs4all.sqlite_ready import NEWEST_FIRST, RUNS, newest_first, ready
from n4a_fast.integrations.nirs4all.sqlite_tables import CACHED_SUMMARIES, INTEGER_COLUMNS, TEXT_COLUMNS, WITH_MORE
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x
from n4a_fast.integrations.workspaces import convert
from n4a_fast.integrations.workspaces.sqlite_schema import COLUMNS

FOLDS = (("0", 0.5), ("1", 0.25), ("avg", 0.375), ("final", None))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store1x, sqlite3.Connection]]:
    """A store, and the same workspace in nirs4all's form."""
    folder = tmp_path_factory.mktemp("dialect")
    with Store1x(folder / "ours") as store:
        for name, model in (("first", "PLSRegression"), ("second", "Ridge")):
            run = store.begin_run(name, {"cv": 5}, [{"name": "corn", "hash": "h"}, {"name": "rye"}])
            pipeline = begin_pipeline(store, run)
            chain = save_chain(store, pipeline, model_class=model)
            for fold, score in FOLDS:
                scores = {"val": {"rmse": score, "r2": 0.5}}
                refit = None if score is not None else "standalone"
                kwargs: dict[str, Any] = {"val_score": score, "scores": scores, "refit_context": refit}
                predict(store, pipeline, chain, fold_id=fold, model_name=model, **kwargs)
                predict(store, pipeline, chain, fold_id=fold, model_name=model, partition="test", **kwargs)
            if name == "second":  # as many rows of each would hide what is mixed up
                predict(
                    store, pipeline, chain, fold_id="2", model_name=model, val_score=0.75, scores={"val": {"r2": 0.25}}
                )
            store.log_step(pipeline, 1, "SNV", "end", duration_ms=3)
            store.complete_pipeline(pipeline, 0.25, 0.5, "rmse", 7)
            store.complete_run(run, {"best": 0.25})
    convert(folder / "ours", folder / "theirs")
    kinds = sqlite3.PARSE_DECLTYPES
    with (
        Store1x(folder / "ours") as store,
        closing(sqlite3.connect(folder / "theirs" / "store.sqlite", detect_types=kinds)) as connection,
    ):
        yield store, connection


QUERIES = {
    "like": "SELECT count(*) FROM predictions WHERE model_name LIKE 'pls%'",
    "not like": "SELECT count(*) FROM predictions WHERE model_name NOT LIKE '%RIDGE%'",
    "not like, with signs of its own": (
        "SELECT count(*) FROM predictions WHERE fold_id NOT LIKE 'w!_%' ESCAPE '!' AND NOT model_name LIKE 'r_dge'"
    ),
    "not among": "SELECT count(*) FROM predictions WHERE model_name NOT IN ('Ridge') OR fold_id NOT IN (0, 'avg')",
    "not between": "SELECT count(*) FROM predictions WHERE val_score NOT BETWEEN 0.3 AND 0.6",
    "is not": "SELECT count(*) FROM predictions WHERE val_score IS NOT 0.5 AND refit_context IS NOT NULL",
    "glob": "SELECT count(*) FROM predictions WHERE model_name GLOB 'Rid*' OR model_name NOT GLOB 'pls*'",
    "not in a join": (
        "SELECT count(*) FROM chains c LEFT JOIN runs r ON r.name NOT LIKE 'FIRST' AND NOT (r.status <> 'completed')"
    ),
    "not exists": (
        "SELECT count(*) FROM runs r WHERE NOT EXISTS (SELECT 1 FROM pipelines p WHERE p.run_id = r.run_id"
        " AND p.name NOT LIKE '%')"
    ),
    "tables but those of SQLite": (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%_results'"
        " ORDER BY name"
    ),
    "a text in double quotes": 'SELECT count(*) FROM predictions WHERE partition = "val"',
    "a text and a number": "SELECT count(*) FROM predictions WHERE fold_id = 0",
    "a text in numbers": "SELECT count(*) FROM predictions WHERE fold_id IN (0, 1)",
    "whole numbers": "SELECT 7 / 2, 7 / 2.0, count(*) / 3 FROM predictions",
    "truth as a number": "SELECT count(*) FROM predictions WHERE (val_score IS NULL) + (test_score IS NULL) > 0",
    "a sum of truths": "SELECT sum(status = 'completed'), sum(CASE WHEN error IS NULL THEN 1 ELSE 0 END) FROM runs",
    "json": "SELECT json_extract(scores, '$.val.rmse') FROM predictions WHERE fold_id = '0' ORDER BY prediction_id",
    "json in a condition": "SELECT count(*) FROM predictions WHERE json_extract(scores, '$.val.rmse') < 0.3",
    "json in an aggregate": "SELECT avg(json_extract(scores, '$.val.r2')) FROM predictions",
    "json of a text": "SELECT count(*) FROM runs WHERE json_extract(datasets, '$[0].name') = 'corn'",
    "each of a list": (
        "SELECT name FROM runs WHERE EXISTS (SELECT 1 FROM json_each(runs.datasets)"
        " WHERE json_extract(value, '$.name') = 'rye') ORDER BY name"
    ),
    "a list of values": "SELECT json_group_array(fold_id) FROM (SELECT DISTINCT fold_id FROM predictions ORDER BY 1)",
    "texts together": "SELECT group_concat(DISTINCT model_name) FROM (SELECT * FROM predictions ORDER BY model_name)",
    "a bare column of the least": (
        "SELECT model_name, fold_id, min(val_score) FROM predictions GROUP BY model_name ORDER BY model_name"
    ),
    "a bare column of the greatest": "SELECT fold_id, max(val_score) FROM predictions WHERE model_name = 'Ridge'",
    "rows in the order they were made": "SELECT rowid AS _rowid, name FROM pipelines ORDER BY rowid ASC",
    "times from now": "SELECT count(*) FROM runs WHERE created_at >= datetime('now', '-1 day')",
    "times in the future": "SELECT count(*) FROM runs WHERE created_at > datetime('now', '+1 hour')",
    "times as texts": "SELECT count(*) FROM runs WHERE created_at >= '2020-01-01 00:00:00'",
    "days": "SELECT count(*) FROM runs WHERE date(created_at) = date('now')",
    "missing values first": "SELECT val_score FROM predictions WHERE partition = 'val' ORDER BY val_score, fold_id",
    "the table of tables": "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'runs'",
    "no such table": "SELECT count(*) FROM sqlite_master WHERE name = 'prediction_arrays'",
    "summaries": (
        "SELECT model_class, cv_val_score, cv_fold_count FROM v_chain_summary WHERE cv_val_score IS NOT NULL"
        " ORDER BY model_class"
    ),
    "columns of chains": "SELECT model_name, metric, dataset_name FROM chains ORDER BY model_name",
    "joined": (
        "SELECT r.name, count(*) n FROM predictions p JOIN pipelines l ON l.pipeline_id = p.pipeline_id"
        " JOIN runs r ON r.run_id = l.run_id GROUP BY r.name ORDER BY r.name"
    ),
    "a table of the query's own": "WITH best AS (SELECT * FROM predictions LIMIT 1) SELECT count(*) FROM best",
    "nothing": "SELECT run_id FROM runs WHERE 1 = 0",
    "no limit": "SELECT count(*) FROM (SELECT * FROM predictions LIMIT -1)",
    "ifnull": "SELECT ifnull(val_score, -1) FROM predictions WHERE fold_id = 'final' AND partition = 'val'",
    "the end of a text": "SELECT count(*) FROM predictions WHERE substr(fold_id, -3) = 'avg'",
    "logs of a studio": (
        "SELECT p.status AS s, COUNT(l.log_id) AS n, COALESCE(SUM(CASE WHEN l.event = 'end' THEN l.duration_ms ELSE 0"
        " END), 0) AS t FROM pipelines AS p LEFT JOIN logs AS l ON p.pipeline_id = l.pipeline_id"
        " GROUP BY p.pipeline_id, p.status ORDER BY p.pipeline_id"
    ),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.long
def test_a_query_has_the_answer_that_sqlite_gives(both: tuple[Store1x, sqlite3.Connection], query: str) -> None:
    store, theirs = both
    wanted = theirs.execute(query).fetchall()
    found = store._fetch_pl(query).rows()
    assert [tuple(map(plain, row)) for row in found] == [tuple(map(plain, row)) for row in wanted]


def plain(value: Any) -> Any:
    return round(value, 12) if isinstance(value, float) else value


def test_parameters_are_bound_by_place_and_by_number(both: tuple[Store1x, sqlite3.Connection]) -> None:
    store, _ = both
    names = "SELECT count(*) n FROM runs WHERE name IN ({})"
    assert store._fetch_pl(names.format("?, ?"), ["first", "x"])["n"].to_list() == [1]
    assert store._fetch_pl(names.format("$1, $2"), ["first", "second"])["n"].to_list() == [2]
    assert store._fetch_pl("SELECT count(*) n FROM predictions WHERE fold_id = ?", [0])["n"].to_list() == [4]


def test_what_a_studio_still_sends_in_duckdb_s_words_is_answered(both: tuple[Store1x, sqlite3.Connection]) -> None:
    store, _ = both
    assert store._fetch_pl("SELECT first(metric) AS m FROM predictions")["m"].to_list() == ["rmse"]
    asked = "SELECT count(*) n FROM information_schema.tables WHERE table_name = 'prediction_arrays'"
    assert store._fetch_pl(asked)["n"].to_list() == [0]


def test_times_are_texts_of_whole_seconds_for_those_who_open_the_file(both: tuple[Store1x, sqlite3.Connection]) -> None:
    store, _ = both
    connection = RowConnection(store, times_as_text=True)
    row = connection.execute("SELECT * FROM runs WHERE created_at <= ? LIMIT 1", ["2999-01-01 00:00:00"]).fetchone()
    assert row is not None
    assert datetime.fromisoformat(row["created_at"]).microsecond == 0
    assert connection.execute("BEGIN").fetchall() == []


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("DELETE FROM runs", "DELETE is not taken as SQL"),
        ("WITH a AS (SELECT 1) DELETE FROM runs", "DELETE is not taken as SQL"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT 1 2", r"^the query cannot be read: [ -~\n]+$"),
        ("SELECT datetime('now', 'weekday 0')", "weekday 0"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_its_reason(query: str, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        translated(query)


DOORS = {
    "frame": lambda store: store._fetch_pl,
    "row": lambda store: store._fetch_one,
    "connection": lambda store: store._ensure_open().execute,
    "retried": lambda store: store._execute_with_retry,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "statement",
    [
        *("CREATE TABLE late (a INTEGER)", "DROP TABLE runs", "ALTER TABLE runs ADD COLUMN tag TEXT", "VACUUM"),
        *(
            "UPDATE artifacts SET ref_count = 0",
            "INSERT INTO runs (run_id) VALUES ('a')",
            "REPLACE INTO runs VALUES (1)",
        ),
        *("/* all */ DELETE FROM predictions", "EXPLAIN QUERY PLAN SELECT * FROM runs", "ATTACH 'other.db' AS other"),
    ],
)
def test_whatever_way_a_statement_comes_it_is_refused_alike(
    both: tuple[Store1x, sqlite3.Connection], caplog: pytest.LogCaptureFixture, door: str, statement: str
) -> None:
    store, _ = both
    word = next(word for word in statement.split() if word.isupper())
    with pytest.raises(InvalidInputError, match=rf"^{word}\b.* is not taken as SQL.*file of your own$"):
        DOORS[door](store)(statement)
    assert caplog.records == []  # the translator logs what it does not know


@pytest.mark.parametrize("before", ["", "-- how many\n", " /* of\nall */ "])
def test_a_comment_may_come_first_and_settings_are_rows_like_others(
    both: tuple[Store1x, sqlite3.Connection], before: str
) -> None:
    store, _ = both
    for query in ("SELECT count(*) AS n FROM runs", "PRAGMA foreign_keys", "PRAGMA table_info(runs)"):
        found = store._ensure_open().execute(before + query).fetchall()
        assert store._fetch_pl(before + query).rows() == found
        assert store._fetch_one(before + query) == dict(found[0])
    assert found[0]["name"] == "run_id"
    assert store._fetch_pl(f"{before}UPDATE runs SET name = 'a' WHERE run_id = 'none'").is_empty()


def test_a_file_is_out_of_reach(both: tuple[Store1x, sqlite3.Connection], tmp_path: Path) -> None:
    store, _ = both
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(InvalidInputError):
        store._fetch_pl(f"SELECT * FROM read_csv('{tmp_path}/secret.csv')")


TOP_CHAINS = "SELECT * FROM v_chain_summary{} ORDER BY (cv_val_score IS NULL), cv_val_score {}, chain_id ASC LIMIT ?"
ASKED_OFTEN = (
    *RUNS,
    "SELECT * FROM predictions WHERE partition = ? AND pipeline_id = ? ORDER BY created_at DESC",
    "SELECT * FROM predictions ORDER BY created_at DESC",
    "SELECT * FROM predictions WHERE partition = ? ORDER BY (val_score IS NULL), val_score ASC LIMIT ?",
    "SELECT * FROM predictions WHERE chain_id = ? ORDER BY partition, fold_id",
    "SELECT * FROM v_chain_summary ORDER BY chain_id ASC",
    "SELECT * FROM v_chain_summary WHERE run_id IN (?, ?) AND metric = ? ORDER BY chain_id ASC",
    TOP_CHAINS.format("", "ASC"),
    TOP_CHAINS.format(" WHERE metric = ?", "DESC"),
    TOP_CHAINS.format(" WHERE run_id = ? AND metric = ?", "ASC") + " OFFSET ?",
)


@pytest.mark.parametrize("with_more", [frozenset(), WITH_MORE], ids=["plain", "with more"])
@pytest.mark.parametrize("query", ASKED_OFTEN)
def test_what_is_translated_beforehand_is_what_the_translator_makes(query: str, with_more: frozenset[str]) -> None:
    _require_same_translation(query, with_more)


def test_queries_of_the_known_form_are_what_the_translator_makes_of_them() -> None:
    random = np.random.default_rng(0)
    columns = {"predictions": COLUMNS["predictions"], "v_chain_summary": [*COLUMNS["chains"][:9], "cv_val_score"]}
    for number in range(24):
        table = ("predictions", "v_chain_summary")[number % 2]
        texts = [name for name in columns[table] if name in TEXT_COLUMNS]
        filters = [f"{random.choice(texts)} {random.choice(['= ?', 'IN (?)', 'IN (?, ?, ?)'])}" for _ in range(3)]
        where = f" WHERE {' AND '.join(filters[: number % 4])}" if number % 4 else ""
        names = random.choice(columns[table], size=3)
        forms = random.choice(["{}", "{} ASC", "{} DESC", "({} IS NULL)"], size=3)
        order = ", ".join(form.format(name) for form, name in zip(forms, names, strict=True))
        limit = ("", " LIMIT ?", " LIMIT ? OFFSET ?")[number % 3]
        _require_same_translation(f"SELECT * FROM {table}{where} ORDER BY {order}{limit}", frozenset())


def _require_same_translation(query: str, with_more: frozenset[str]) -> None:
    translation = translated(query, False, with_more, CACHED_SUMMARIES)
    beforehand = ready(query, with_more, CACHED_SUMMARIES)
    assert beforehand is not None, query
    assert sqlglot.parse_one(beforehand, read="duckdb") == sqlglot.parse_one(translation.sql, read="duckdb"), query
    assert not translation.json_columns


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT * FROM predictions WHERE {min(INTEGER_COLUMNS)} = ? ORDER BY fold_id",
        "SELECT * FROM predictions WHERE made_up = ? ORDER BY fold_id",
        "SELECT * FROM predictions WHERE fold_id = ? ORDER BY rowid",
        "SELECT * FROM predictions WHERE fold_id = ? OR fold_id = ? ORDER BY fold_id",
        "SELECT fold_id FROM predictions ORDER BY fold_id",
        "SELECT * FROM predictions ORDER BY fold_id; DELETE FROM predictions",
        "SELECT * FROM predictions",
    ],
)
def test_what_has_another_form_is_left_to_the_translator(query: str) -> None:
    assert ready(query, frozenset()) is None


@pytest.mark.parametrize("seed", range(3))
def test_all_predictions_come_in_the_order_of_the_translation(tmp_path: Path, seed: int) -> None:
    random, start = np.random.default_rng(seed), datetime(2026, 1, 1)
    moments = [start + timedelta(microseconds=int(each)) for each in random.integers(0, 5_000_000, 300)]
    with Store1x(tmp_path / "w") as store, store.read_together() as workspace:
        given = f"(SELECT unnest(?) AS created_at, unnest(range({len(moments)})) AS place) predictions"
        query = f"SELECT created_at, place FROM {given}"
        ordered = workspace.database.frame(f"{query}{NEWEST_FIRST}", [moments])
        found = newest_first(workspace.database.frame(query, [moments]))
    assert found["created_at"].to_list() == ordered["created_at"].to_list()
    assert len(set(found["place"].to_list())) == len(moments)
    seconds = [each.replace(microsecond=0) for each in found["created_at"].to_list()]
    assert seconds == sorted(seconds, reverse=True)
