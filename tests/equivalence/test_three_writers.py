"""Drop-in calls, bulk calls and a naive writer of one row at a time leave the same tables.

The naive writer is DuckDB with the documented columns, an INSERT for each row and a DELETE before it;
it knows nothing of batches, look-up keys, journals or shared content.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pytest
from helpers import begin_pipeline, examples, save_chain
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from n4a_fast import WorkspaceStore

Arrays = dict[str, np.ndarray[Any, Any] | None]

REALS = st.floats(width=32) | st.sampled_from([math.nan, math.inf, 0.0, -0.0])
SCORES = st.none() | REALS
TEXTS = st.sampled_from(["PLS", "a model", "Ünïcode·模型", "quo'te\x1f", ""])
JSONS = st.dictionaries(
    st.sampled_from(["rmse", "R²", "note"]), st.floats(allow_nan=False) | st.integers(-5, 5) | TEXTS, max_size=2
)


class Row(NamedTuple):
    """One prediction as a user would save it; `given` asks for an id of the caller's own."""

    pipeline: int
    with_chain: bool
    fold_id: str
    partition: str
    model_name: str
    branch_id: int | None
    given: bool
    val_score: float | None
    task_type: str | None
    n_samples: int | None
    scores: dict[str, Any]
    arrays: Arrays


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    if draw(st.booleans()):
        return dict.fromkeys(NAMES)
    length = draw(st.integers(0, 3))
    targets = st.lists(REALS, min_size=length, max_size=length)
    width = draw(st.sampled_from([None, 2]))

    def target() -> np.ndarray[Any, Any]:
        values = np.array(draw(targets), float)
        return values if width is None else np.stack([values, values], axis=1)

    some = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    made: Arrays = {
        "y_true": target(),
        "y_pred": target(),
        "y_proba": np.full((length, 3), draw(REALS)),
        "sample_indices": np.arange(length) + draw(st.integers(0, 9)),
        "weights": np.array(draw(st.lists(REALS, max_size=2)), float),
    }
    return {name: made[name] if name in some else None for name in NAMES}


NAMES = ("y_true", "y_pred", "y_proba", "sample_indices", "weights")
ROWS = st.lists(
    st.builds(
        Row,
        st.integers(0, 1),
        st.booleans(),
        st.sampled_from(["0", "avg"]),
        st.sampled_from(["val", "test"]),
        TEXTS,
        st.sampled_from([None, 0, 1]),
        st.booleans(),
        SCORES,
        st.none() | TEXTS,
        st.none() | st.integers(0, 9),
        JSONS,
        arrays(),
    ),
    min_size=1,
    max_size=14,
)


class Places(NamedTuple):
    """Pipelines and chains of one store, by number."""

    pipelines: list[str]
    chains: list[str]

    def fields(self, row: Row) -> dict[str, Any]:
        key = (row.pipeline, row.with_chain, row.fold_id, row.partition, row.model_name, row.branch_id)
        return {
            "pipeline_id": self.pipelines[row.pipeline],
            "chain_id": self.chains[row.pipeline] if row.with_chain else None,
            "dataset_name": "corn",
            "model_name": row.model_name,
            "model_class": "sk.PLS",
            "fold_id": row.fold_id,
            "partition": row.partition,
            "val_score": row.val_score,
            "test_score": 0.5,
            "train_score": None,
            "metric": "rmse",
            "task_type": row.task_type,
            "n_samples": row.n_samples,
            "n_features": 7,
            "scores": row.scores,
            "best_params": {},
            "branch_id": row.branch_id,
            "branch_name": None,
            "exclusion_count": 0,
            "exclusion_rate": 0.0,
            "prediction_id": f"mine-{key}" if row.given else None,
        }


def begun(store: WorkspaceStore) -> Places:
    run = store.begin_run("r", {}, [])
    pipelines = [begin_pipeline(store, run) for _ in range(2)]
    return Places(pipelines, [save_chain(store, pipeline) for pipeline in pipelines])


def has_arrays(row: Row) -> bool:
    return any(value is not None for value in row.arrays.values())


def save_one_by_one(store: WorkspaceStore, places: Places, rows: list[Row], flush_every: int) -> None:
    for number, row in enumerate(rows):
        identifier = store.save_prediction(**places.fields(row))
        if has_arrays(row):
            store.save_prediction_arrays(identifier, **row.arrays)
        if number % flush_every == 0:
            store.flush()


def save_in_bulk(store: WorkspaceStore, places: Places, rows: list[Row], together: int) -> None:
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        fields = [places.fields(row) for row in part]
        store.save_predictions(
            {name: [each[name] for each in fields] for name in fields[0]},
            **{name: [row.arrays[name] for row in part] for name in NAMES},
        )


class NaiveWriter:
    """The documented tables in plain DuckDB, one row at a time."""

    KEY = ("pipeline_id", "chain_id", "fold_id", "partition", "model_name", "branch_id")

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute(
            "CREATE TABLE predictions (prediction_id VARCHAR, pipeline_id VARCHAR, chain_id VARCHAR, dataset_name"
            " VARCHAR, model_name VARCHAR, model_class VARCHAR, fold_id VARCHAR, partition VARCHAR, val_score DOUBLE,"
            " test_score DOUBLE, train_score DOUBLE, metric VARCHAR, task_type VARCHAR, n_samples INTEGER, n_features"
            " INTEGER, scores JSON, best_params JSON, branch_id INTEGER, branch_name VARCHAR, exclusion_count INTEGER,"
            " exclusion_rate DOUBLE)"
        )
        self.connection.execute(
            "CREATE TABLE prediction_arrays (prediction_id VARCHAR, y_true DOUBLE[], y_pred DOUBLE[], y_proba DOUBLE[],"
            " sample_indices BIGINT[], weights DOUBLE[])"
        )

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, list(values)).fetchall()

    def save(self, row: Row, fields: dict[str, Any]) -> None:
        key = [fields[name] for name in self.KEY]
        same_key = " AND ".join(f"{name} IS NOT DISTINCT FROM ?" for name in self.KEY)
        earlier = self.run(f"SELECT prediction_id FROM predictions WHERE {same_key}", *key)
        identifier = earlier[0][0] if earlier else fields["prediction_id"] or f"from-{key}"  # the first id stays
        self.run("DELETE FROM predictions WHERE prediction_id = ?", identifier)
        stored = {**fields, "prediction_id": identifier, "scores": json.dumps(fields["scores"]), "best_params": "{}"}
        self.run(
            f"INSERT INTO predictions ({', '.join(stored)}) VALUES ({', '.join('?' * len(stored))})", *stored.values()
        )
        if has_arrays(row):
            # type: ignore[union-attr]
            lists = [None if row.arrays[name] is None else row.arrays[name].ravel().tolist() for name in NAMES]
            self.run("DELETE FROM prediction_arrays WHERE prediction_id = ?", identifier)
            self.run("INSERT INTO prediction_arrays VALUES (?, ?, ?, ?, ?, ?)", identifier, *lists)


COMPARED = (
    "prediction_id",
    "pipeline_id",
    "chain_id",
    "model_name",
    "fold_id",
    "partition",
    "val_score",
    "test_score",
    "train_score",
    "task_type",
    "n_samples",
    "n_features",
    "scores",
    "branch_id",
)


def tables(
    rows: list[tuple[Any, ...]], array_rows: list[tuple[Any, ...]], places: Places
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Rows by natural key, and arrays by the natural key of their prediction; ids as whether they are the caller's."""
    by_key, keys = {}, {}
    for identifier, pipeline, chain, *values in rows:
        fields = dict(zip(COMPARED[3:], values, strict=True))
        key = (
            places.pipelines.index(pipeline),
            chain is not None,
            fields["fold_id"],
            fields["partition"],
            fields["model_name"],
            fields["branch_id"],
        )
        fields["scores"] = json.loads(fields["scores"])
        by_key[key] = (identifier if identifier.startswith("mine") else None, repr(sorted(fields.items())))
        keys[identifier] = key
    assert len(by_key) == len(rows)
    arrays_of = {keys[identifier]: repr(lists) for identifier, *lists in array_rows}
    assert len(arrays_of) == len(array_rows)
    return by_key, arrays_of


def tables_of(store: WorkspaceStore, places: Places) -> tuple[dict[Any, Any], dict[Any, Any]]:
    rows = store.sql(f"SELECT {', '.join(COMPARED)} FROM predictions").rows()
    return tables(rows, store.sql(f"SELECT prediction_id, {', '.join(NAMES)} FROM prediction_arrays").rows(), places)


# no shrinking: each example is work on disk, and a failing one of a few rows can be read as it is
@settings(max_examples=examples(40), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(rows=ROWS, together=st.sampled_from([1, 3, 100]), flush_every=st.sampled_from([1, 3, 100]))
@pytest.mark.long
def test_three_writers_leave_the_same_tables(rows: list[Row], together: int, flush_every: int) -> None:
    naive, naive_places = NaiveWriter(), Places(["p0", "p1"], ["c0", "c1"])
    for row in rows:
        naive.save(row, naive_places.fields(row))
    expected = tables(
        naive.run(f"SELECT {', '.join(COMPARED)} FROM predictions"),
        naive.run(f"SELECT prediction_id, {', '.join(NAMES)} FROM prediction_arrays"),
        naive_places,
    )
    for save, step in ((save_one_by_one, flush_every), (save_in_bulk, together)):
        with tempfile.TemporaryDirectory(prefix="n4a_fast-") as folder, WorkspaceStore(Path(folder)) as store:
            places = begun(store)
            save(store, places, rows, step)
            assert tables_of(store, places) == expected, save.__name__
