"""The plain way, frozen: the documented tables with keys, one insert per row, one query per prediction.

It does what a row-by-row store does and nothing more, so that a ratio against it, taken in the
same run, means the same on every machine. Do not make it faster.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

_TABLES = (
    "CREATE TABLE pipelines (pipeline_id VARCHAR PRIMARY KEY, name VARCHAR, status VARCHAR)",
    """CREATE TABLE predictions (prediction_id VARCHAR PRIMARY KEY, pipeline_id VARCHAR REFERENCES pipelines(pipeline_id),
        model_name VARCHAR, fold_id VARCHAR, partition VARCHAR, val_score DOUBLE, scores JSON)""",
    """CREATE TABLE prediction_arrays (prediction_id VARCHAR PRIMARY KEY REFERENCES predictions(prediction_id),
        y_true DOUBLE[], y_pred DOUBLE[], sample_indices INTEGER[])""",
)


class RowByRowStore:
    """Autocommitted single-row inserts into keyed tables."""

    def __init__(self, folder: Path) -> None:
        self._connection = duckdb.connect(str(folder / "reference.duckdb"))
        for table in _TABLES:
            self._connection.execute(table)

    def fill(self, rows: int, samples: int) -> None:
        """Rows that are there already, put in at once: the keys are what later inserts pay for."""
        pipeline_id = self.begin_pipeline()
        self._connection.execute(
            "INSERT INTO predictions SELECT uuid()::VARCHAR, ?, 'PLS', i::VARCHAR, 'val', 0.1, '{}' FROM range(?) t(i)", [pipeline_id, rows]
        )
        self._connection.execute(
            "INSERT INTO prediction_arrays SELECT prediction_id, [random() FOR x IN range(?)], [random() FOR x IN range(?)], [0] FROM predictions",
            [samples, samples],
        )

    def begin_pipeline(self) -> str:
        pipeline_id = str(uuid.uuid4())
        self._connection.execute("INSERT INTO pipelines VALUES (?, 'p', 'running')", [pipeline_id])
        return pipeline_id

    def save(self, pipeline_id: str, fold: str, partition: str, score: float, scores: dict[str, Any], arrays: tuple[np.ndarray[Any, Any], ...]) -> str:
        prediction_id = str(uuid.uuid4())
        self._connection.execute(
            "SELECT prediction_id FROM predictions WHERE pipeline_id = ? AND fold_id = ? AND partition = ?", [pipeline_id, fold, partition]
        ).fetchall()
        row = [prediction_id, pipeline_id, "PLS", fold, partition, score, json.dumps(scores)]
        self._connection.execute("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._connection.execute("INSERT INTO prediction_arrays VALUES (?, ?, ?, ?)", [prediction_id, *(array.tolist() for array in arrays)])
        return prediction_id

    def arrays(self, prediction_id: str) -> np.ndarray[Any, Any]:
        found = self._connection.execute("SELECT y_pred FROM prediction_arrays WHERE prediction_id = ?", [prediction_id]).fetchall()
        return np.array(found[0][0])

    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM predictions").fetchall()[0][0])

    def close(self) -> None:
        self._connection.close()
