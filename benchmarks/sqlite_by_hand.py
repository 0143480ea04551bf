"""SQLite as one would use it by hand for a sweep: one file, one insert a row, a durable commit for each pipeline."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from workloads import SAMPLES, SCORES

_TABLES = """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE runs (run_id TEXT PRIMARY KEY, name TEXT);
CREATE TABLE pipelines (pipeline_id TEXT PRIMARY KEY, run_id TEXT REFERENCES runs, name TEXT, config TEXT,
    dataset TEXT, status TEXT, best_val REAL, best_test REAL, metric TEXT, duration INTEGER);
CREATE TABLE chains (chain_id TEXT PRIMARY KEY, pipeline_id TEXT REFERENCES pipelines, steps TEXT, model TEXT);
CREATE TABLE logs (log_id TEXT PRIMARY KEY, pipeline_id TEXT REFERENCES pipelines, step INTEGER, event TEXT);
CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY, pipeline_id TEXT REFERENCES pipelines,
    chain_id TEXT REFERENCES chains, dataset TEXT, model TEXT, model_class TEXT, fold TEXT, part TEXT, val REAL,
    test REAL, train REAL, metric TEXT, task TEXT, n_samples INTEGER, n_features INTEGER, scores TEXT, params TEXT,
    y_true BLOB, y_pred BLOB, indices BLOB);
CREATE UNIQUE INDEX of_key ON predictions (pipeline_id, chain_id, fold, part, model);
CREATE INDEX of_chain ON predictions (chain_id)"""
_SAVE = f"INSERT INTO predictions VALUES ({', '.join('?' * 20)})"


class SqliteByHand:
    """The rows of `workloads.Sweep` in SQLite."""

    def __init__(self, file: Path) -> None:
        self._sqlite = sqlite3.connect(file, isolation_level=None)
        self._sqlite.executescript(_TABLES)
        self._run = str(uuid.uuid4())
        self._sqlite.execute("INSERT INTO runs VALUES (?, 'sweep')", (self._run,))
        self._y_pred = np.random.default_rng(0).random(SAMPLES)
        self._y_true, self._indices = np.arange(float(SAMPLES)), np.arange(SAMPLES)

    def fill(self, rows: int) -> None:
        """Rows that are there already."""
        for _ in self._many(rows // 21):
            self._rows_of_pipeline()
        self._sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def pipeline(self) -> None:
        """A pipeline of 21 predictions with their arrays, its chain and its log, in one durable commit."""
        self._sqlite.execute("BEGIN")
        self._rows_of_pipeline()
        self._sqlite.execute("COMMIT")

    def __len__(self) -> int:
        ((rows,),) = self._sqlite.execute("SELECT count(*) FROM predictions WHERE length(y_pred) = ?", (8 * SAMPLES,))
        return int(rows)

    def close(self) -> None:
        self._sqlite.close()

    def _many(self, pipelines: int) -> Iterator[None]:
        for first in range(0, pipelines, 500):
            self._sqlite.execute("BEGIN")
            for _ in range(min(500, pipelines - first)):
                yield
            self._sqlite.execute("COMMIT")

    def _rows_of_pipeline(self) -> None:
        pipeline, chain = str(uuid.uuid4()), str(uuid.uuid4())
        execute, config = self._sqlite.execute, json.dumps({"model": "PLS"})
        execute("INSERT INTO pipelines VALUES (?, ?, 'p', ?, 'corn', 'running', NULL, NULL, NULL, NULL)",
                (pipeline, self._run, config))  # fmt: skip
        steps = json.dumps([{"step_idx": 1, "operator_class": "PLS", "params": {}}])
        execute("INSERT INTO chains VALUES (?, ?, ?, 'PLS')", (chain, pipeline, steps))
        execute("INSERT INTO logs VALUES (?, ?, 1, 'end')", (str(uuid.uuid4()), pipeline))
        for fold in range(7):
            for part in ("train", "val", "test"):
                self._save(pipeline, chain, str(fold), part)
        execute("UPDATE pipelines SET status = 'completed', best_val = 0.1, best_test = 0.2, metric = 'rmse',"
                " duration = 10 WHERE pipeline_id = ?", (pipeline,))  # fmt: skip

    def _save(self, pipeline: str, chain: str, fold: str, part: str) -> None:
        given: tuple[Any, ...] = (str(uuid.uuid4()), pipeline, chain, "corn", "PLS", "PLS", fold, part)
        scores = (0.1, 0.2, 0.05, "rmse", "regression", SAMPLES, 700, json.dumps(SCORES), "{}")
        arrays = (self._y_true.tobytes(), self._y_pred.tobytes(), self._indices.tobytes())
        self._sqlite.execute(_SAVE, given + scores + arrays)
